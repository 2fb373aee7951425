//! A broker whose every step is the test's.

#![expect(dead_code, reason = "each test crate uses a part of it")]

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use tokio::{
    io::{DuplexStream, duplex},
    net::TcpListener,
    sync::{Mutex, mpsc, oneshot},
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};
use toolpool_proto::v1::{
    self as proto, pool_frame, worker_frame,
    worker_pool_service_server::{WorkerPoolService, WorkerPoolServiceServer},
};
use toolpool_worker::{Builder, Error, Shutdown};

/// On a paused clock this is no time at all; on a real one it only ever passes when a test fails.
const PATIENCE: Duration = Duration::from_mins(2);

type Packets = ReceiverStream<Result<proto::JoinResponse, Status>>;

/// Where workers dial in.
pub(crate) struct Broker {
    pub(crate) joining: mpsc::Receiver<Joining>,
    connections: mpsc::Sender<io::Result<DuplexStream>>,
    server: AbortHandle,
}

/// A worker that dialled in and waits for an answer.
pub(crate) struct Joining {
    inbound: Streaming<proto::JoinRequest>,
    answer: oneshot::Sender<Result<Packets, Status>>,
}

/// A worker that runs against a broker in memory.
pub(crate) struct Running {
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<Result<(), Error>>,
}

/// A stream with a worker that sent its `register`.
pub(crate) struct Connection {
    pub(crate) register: proto::Register,
    inbound: Streaming<proto::JoinRequest>,
    outbound: mpsc::Sender<Result<proto::JoinResponse, Status>>,
    frames: VecDeque<worker_frame::Frame>,
}

struct Service {
    joining: mpsc::Sender<Joining>,
}

#[tonic::async_trait]
impl WorkerPoolService for Service {
    type JoinStream = Packets;

    async fn join(
        &self,
        request: Request<Streaming<proto::JoinRequest>>,
    ) -> Result<Response<Packets>, Status> {
        let (answer, answered) = oneshot::channel();
        let joining = Joining {
            inbound: request.into_inner(),
            answer,
        };
        let gone = || Status::unavailable("the test is over");
        self.joining.send(joining).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map(Response::new)
    }
}

impl Broker {
    /// In memory.
    pub(crate) fn start() -> Self {
        let (connections, incoming) = mpsc::channel(8);
        let (sender, joining) = mpsc::channel(8);
        let service = WorkerPoolServiceServer::new(Service { joining: sender })
            .max_decoding_message_size(usize::MAX);
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming(ReceiverStream::new(incoming));
        let server = tokio::spawn(server).abort_handle();
        Self {
            joining,
            connections,
            server,
        }
    }

    /// On a port of this machine, which it says.
    pub(crate) async fn listen() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (connections, _) = mpsc::channel(1);
        let (sender, joining) = mpsc::channel(8);
        let service = WorkerPoolServiceServer::new(Service { joining: sender });
        let server = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(server).abort_handle();
        (
            Self {
                joining,
                connections,
                server,
            },
            endpoint,
        )
    }

    /// What makes connections to it.
    pub(crate) fn connector(&self) -> impl Fn() -> Connecting + Send + Sync + 'static {
        let connections = Arc::new(Mutex::new(self.connections.clone()));
        move || {
            let connections = Arc::clone(&connections);
            Box::pin(async move {
                let (near, far) = duplex(64 * 1024);
                let sent = connections.lock().await.send(Ok(far)).await;
                sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                Ok(near)
            })
        }
    }

    /// The next worker that dials in.
    pub(crate) async fn joining(&mut self) -> Joining {
        soon(self.joining.recv()).await.unwrap()
    }

    /// The next worker that dials in, taken on with a limit of 1 MiB a result and a beat each 5 s.
    pub(crate) async fn accept(&mut self) -> Connection {
        self.joining().await.accept(1024 * 1024).await
    }
}

impl Running {
    pub(crate) fn start(broker: &Broker, builder: Builder) -> Self {
        let shutdown = Shutdown::new();
        let worker = builder.build().unwrap();
        let task = tokio::spawn(worker.run_over(broker.connector(), shutdown.clone()));
        Self { shutdown, task }
    }

    pub(crate) async fn ended(self) -> Result<(), Error> {
        soon(self.task).await.unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) type Connecting =
    std::pin::Pin<Box<dyn Future<Output = io::Result<DuplexStream>> + Send>>;

impl Joining {
    pub(crate) async fn accept(self, max_result_bytes: u64) -> Connection {
        self.accept_as(proto::Registered {
            max_result_bytes,
            ..registered()
        })
        .await
    }

    /// With beats so far apart, and nobody taken for lost.
    pub(crate) async fn accept_with_beats(self, interval: Duration) -> Connection {
        let beat_interval = Some(interval.try_into().unwrap());
        self.accept_as(proto::Registered {
            beat_interval,
            missed_beats: u32::MAX,
            ..registered()
        })
        .await
    }

    async fn accept_as(mut self, registered: proto::Registered) -> Connection {
        let first = soon(self.inbound.message()).await.unwrap().unwrap();
        let mut frames: VecDeque<_> = first
            .frames
            .into_iter()
            .map(|frame| frame.frame.unwrap())
            .collect();
        let Some(worker_frame::Frame::Register(register)) = frames.pop_front() else {
            panic!("the first frame is not `register`");
        };
        let (outbound, packets) = mpsc::channel(64);
        assert!(self.answer.send(Ok(ReceiverStream::new(packets))).is_ok());
        let connection = Connection {
            register,
            inbound: self.inbound,
            outbound,
            frames,
        };
        connection
            .send(pool_frame::Frame::Registered(registered))
            .await;
        connection
    }

    pub(crate) fn refuse(self, status: Status) {
        assert!(self.answer.send(Err(status)).is_ok());
    }
}

impl Connection {
    pub(crate) async fn send(&self, frame: pool_frame::Frame) {
        self.send_all([frame]).await;
    }

    pub(crate) async fn send_all(&self, frames: impl IntoIterator<Item = pool_frame::Frame>) {
        let frames = frames
            .into_iter()
            .map(|frame| proto::PoolFrame { frame: Some(frame) })
            .collect();
        self.outbound
            .send(Ok(proto::JoinResponse { frames }))
            .await
            .unwrap();
    }

    /// Ends the stream with a status that is not OK.
    pub(crate) async fn break_off(self) {
        self.outbound
            .send(Err(Status::unavailable("going down")))
            .await
            .unwrap();
    }

    pub(crate) async fn assign(&self, lease: u64, tool: &str, arguments: &str) {
        self.send(assignment(lease, tool, arguments)).await;
    }

    pub(crate) async fn cancel(&self, lease: u64) {
        self.send(pool_frame::Frame::Cancel(proto::Cancel { lease_id: lease }))
            .await;
    }

    pub(crate) async fn revoke(&self, lease: u64) {
        self.send(pool_frame::Frame::Revoked(proto::Revoked {
            lease_id: lease,
        }))
        .await;
    }

    pub(crate) async fn acknowledge_drain(&mut self) {
        self.send(pool_frame::Frame::DrainAck(proto::DrainAck {}))
            .await;
    }

    pub(crate) async fn acknowledge(&self, lease: u64) {
        self.send(pool_frame::Frame::OutcomeAck(proto::OutcomeAck {
            lease_id: lease,
        }))
        .await;
    }

    /// The next frame; none after the worker's half-close; an error after a break.
    pub(crate) async fn frame(&mut self) -> Result<Option<worker_frame::Frame>, Status> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            match soon(self.inbound.message()).await? {
                Some(packet) => self
                    .frames
                    .extend(packet.frames.into_iter().map(|frame| frame.frame.unwrap())),
                None => return Ok(None),
            }
        }
    }

    /// The next outcome, past whatever else comes.
    pub(crate) async fn outcome(&mut self) -> proto::Outcome {
        loop {
            let frame = self.frame().await.unwrap().expect("the worker half-closed");
            if let worker_frame::Frame::Outcome(outcome) = frame {
                return outcome;
            }
        }
    }

    /// The next frame that is not a beat or the word that a lease started.
    pub(crate) async fn news(&mut self) -> Result<Option<worker_frame::Frame>, Status> {
        loop {
            match self.frame().await {
                Ok(Some(worker_frame::Frame::Beat(_) | worker_frame::Frame::Started(_))) => {}
                other => return other,
            }
        }
    }
}

pub(crate) fn assignment(lease: u64, tool: &str, arguments: &str) -> pool_frame::Frame {
    pool_frame::Frame::Assignment(proto::Assignment {
        lease_id: lease,
        batch_id: "batch".to_owned(),
        call_id: format!("call-{lease}"),
        tool: tool.to_owned(),
        arguments: arguments.to_owned().into(),
        timeout: Some(proto_duration(60)),
        attempt: 1,
        idempotency_key: format!("batch/call-{lease}"),
        ..Default::default()
    })
}

fn registered() -> proto::Registered {
    proto::Registered {
        beat_interval: Some(proto_duration(5)),
        missed_beats: 3,
        reconnect_grace: Some(proto_duration(30)),
        max_result_bytes: 1024 * 1024,
    }
}

fn proto_duration(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// The JSON of an outcome's one piece of content.
#[track_caller]
pub(crate) fn json(outcome: &proto::Outcome) -> serde_json::Value {
    match &outcome.ending {
        Some(proto::outcome::Ending::Output(output)) => match &output.content[0].kind {
            Some(proto::content::Kind::Json(json)) => serde_json::from_slice(json).unwrap(),
            other => panic!("no JSON: {other:?}"),
        },
        other => panic!("no output: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn error(outcome: &proto::Outcome) -> &proto::CallError {
    match &outcome.ending {
        Some(proto::outcome::Ending::Error(error)) => error,
        other => panic!("no error: {other:?}"),
    }
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("nothing happened")
}
