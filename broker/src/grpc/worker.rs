//! The worker's side: takes dial-ins to their sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use toolpool_proto::v1;
use toolpool_proto::v1::worker_frame::Frame;
use toolpool_proto::v1::worker_pool_service_server::WorkerPoolService;

use super::{FIRST_FRAME, convert, status};
use crate::lane::seat::SeatKey;
use crate::registry::{Admission, Workers};
use crate::session::{Inbound, Joining, LINK_PACKETS, Link, Session, SessionContext};

/// What sessions are started with.
#[derive(Clone, Debug)]
pub(crate) struct WorkerPool {
    pub(crate) workers: Arc<Workers>,
    pub(crate) keys: Arc<AtomicU64>,
    pub(crate) tasks: TaskTracker,
    pub(crate) context: SessionContext,
}

#[tonic::async_trait]
impl WorkerPoolService for WorkerPool {
    type JoinStream = ReceiverStream<Result<v1::JoinResponse, Status>>;

    async fn join(
        &self,
        request: Request<Streaming<v1::JoinRequest>>,
    ) -> Result<Response<Self::JoinStream>, Status> {
        let config = &self.context.config;
        let mut stream = request.into_inner();
        let first = tokio::time::timeout(FIRST_FRAME, stream.message())
            .await
            .map_err(|_| {
                Status::deadline_exceeded(format!("no register frame came within {FIRST_FRAME:?}"))
            })?
            .map_err(|error| status::unreadable(&error).unwrap_or(error))?
            .ok_or_else(|| {
                Status::invalid_argument("the stream ended before its register frame")
            })?;
        let mut frames = first.frames.into_iter();
        let Some(v1::WorkerFrame {
            frame: Some(Frame::Register(register)),
        }) = frames.next()
        else {
            return Err(Status::invalid_argument("the first frame must be register"));
        };
        let register = convert::register(
            register,
            config.max_tools_per_worker,
            config.max_slots_per_worker,
        )
        .map_err(|malformed| status::malformed(&malformed))?;
        if self.context.shutdown.is_cancelled() {
            return Err(Status::unavailable("the broker is going down"));
        }
        let (outbound, response) = mpsc::channel(LINK_PACKETS);
        let inbound = Inbound {
            stream,
            early: frames.collect(),
        };
        self.admit(Box::new(Joining {
            register,
            link: Link { inbound, outbound },
        }))?;
        Ok(Response::new(ReceiverStream::new(response)))
    }
}

impl WorkerPool {
    fn admit(&self, joining: Box<Joining>) -> Result<(), Status> {
        let key = SeatKey(self.keys.fetch_add(1, Ordering::Relaxed));
        let worker = joining.register.worker.clone();
        match self.workers.admit(&worker, key, joining) {
            Admission::Passed => Ok(()),
            Admission::Full => Err(Status::resource_exhausted(
                "as many workers as max_workers are connected; try again later",
            )),
            Admission::Busy => Err(Status::unavailable(
                "the worker's session is busy; dial again",
            )),
            Admission::New(joining, visits) => {
                let taken_out = self.workers.taken_out();
                let Some(session) =
                    Session::new(key, *joining, visits, taken_out, self.context.clone())
                else {
                    self.workers.remove(&worker, key);
                    return Ok(());
                };
                let workers = Arc::clone(&self.workers);
                self.tasks.spawn(async move {
                    session.run().await;
                    workers.remove(&worker, key);
                });
                Ok(())
            }
        }
    }
}
