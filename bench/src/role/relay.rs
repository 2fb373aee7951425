//! The floor: the broker's two services with nothing behind them but a map from lease to reply.
//!
//! No validation, no limits, no leases beyond a number, no time: whoever may lose does. What it does do, it does as
//! well as we know how, since a slow floor flatters the broker: no task and no channel beside the streams that tonic
//! polls anyway, and each stream hands out all that is ready in one packet before it pends.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use toolpool_proto::v1::broker_service_server::{BrokerService, BrokerServiceServer};
use toolpool_proto::v1::worker_pool_service_server::{WorkerPoolService, WorkerPoolServiceServer};
use toolpool_proto::v1::{
    Accepted, AgentFrame, Assignment, BatchFrame, CallResult, ExecuteBatchRequest,
    ExecuteBatchResponse, ExecuteRequest, ExecuteResponse, Finished, JoinRequest, JoinResponse,
    ListToolsRequest, ListToolsResponse, Outcome, PoolFrame, Registered, WorkerFrame, agent_frame,
    batch_frame, call_result, outcome, pool_frame, worker_frame,
};

use super::mailbox::Mailbox;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Threads of the runtime; 1 is the current-thread flavour.
    #[arg(long, default_value_t = 1)]
    pub(super) threads: usize,
}

pub(super) async fn run() -> anyhow::Result<()> {
    let listener = super::listen().await?;
    Ok(serve(listener).await?)
}

/// Serves until the task is dropped.
pub(super) async fn serve(listener: TcpListener) -> Result<(), tonic::transport::Error> {
    let relay = Arc::new(Relay::default());
    Server::builder()
        .add_service(BrokerServiceServer::new(Agents(Arc::clone(&relay))))
        .add_service(WorkerPoolServiceServer::new(Workers(relay)))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
}

#[derive(Default)]
struct Relay {
    pool: Mutex<Pool>,
    replies: Mutex<HashMap<u64, Reply>>,
}

#[derive(Default)]
struct Pool {
    workers: Vec<Arc<Mailbox<PoolFrame>>>,
    /// Leases given so far, which is also whose turn it is.
    leases: u64,
}

impl Pool {
    /// The next worker in turn, and a fresh lease.
    fn next(&mut self) -> Option<(Arc<Mailbox<PoolFrame>>, u64)> {
        self.leases += 1;
        let turn = usize::try_from(self.leases)
            .unwrap_or_default()
            .checked_rem(self.workers.len())?;
        Some((Arc::clone(&self.workers[turn]), self.leases))
    }
}

/// Where an outcome belongs.
struct Reply {
    batch: Arc<Mailbox<Ending>>,
    position: usize,
}

struct Ending {
    position: usize,
    outcome: Outcome,
}

struct Agents(Arc<Relay>);

#[tonic::async_trait]
impl BrokerService for Agents {
    type ExecuteStream = Turn;

    async fn execute(
        &self,
        request: Request<Streaming<ExecuteRequest>>,
    ) -> Result<Response<Turn>, Status> {
        Ok(Response::new(Turn {
            relay: Arc::clone(&self.0),
            inbound: Some(request.into_inner()),
            endings: Arc::default(),
            blocks: Vec::new(),
            results: Vec::new(),
            missing: 0,
            phase: Phase::Open,
        }))
    }

    async fn execute_batch(
        &self,
        _: Request<ExecuteBatchRequest>,
    ) -> Result<Response<ExecuteBatchResponse>, Status> {
        Err(Status::unimplemented("the relay only streams"))
    }

    async fn list_tools(
        &self,
        _: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        Err(Status::unimplemented("the relay knows no tools"))
    }
}

/// One batch: reads its blocks, and gathers its results with a counter and a vector.
struct Turn {
    relay: Arc<Relay>,
    /// None once the agent has half-closed.
    inbound: Option<Streaming<ExecuteRequest>>,
    endings: Arc<Mailbox<Ending>>,
    /// Blocks under way, by index. There are few at a time.
    blocks: Vec<(u32, Assignment)>,
    results: Vec<CallResult>,
    missing: usize,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Sealed,
    Finished,
}

impl Turn {
    fn apply(
        &mut self,
        frame: agent_frame::Frame,
        out: &mut Vec<BatchFrame>,
    ) -> Result<(), Status> {
        use agent_frame::Frame;
        match frame {
            Frame::Open(open) => out.push(batch(batch_frame::Frame::Accepted(Accepted {
                batch_id: open.batch_id.unwrap_or_default(),
                ..Accepted::default()
            }))),
            Frame::BlockStart(start) => self.blocks.push((
                start.index,
                Assignment {
                    call_id: start.id,
                    tool: start.tool,
                    attempt: 1,
                    ..Assignment::default()
                },
            )),
            Frame::BlockDelta(delta) => {
                let at = self.block(delta.index)?;
                let arguments = &mut self.blocks[at].1.arguments;
                if arguments.is_empty() {
                    *arguments = delta.fragment;
                } else {
                    *arguments = [arguments.as_ref(), delta.fragment.as_ref()]
                        .concat()
                        .into();
                }
            }
            Frame::BlockStop(stop) => {
                let at = self.block(stop.index)?;
                let (_, assignment) = self.blocks.swap_remove(at);
                self.pass_on(assignment)?;
            }
            Frame::Call(call) => self.pass_on(Assignment {
                call_id: call.id,
                tool: call.tool,
                arguments: call.arguments,
                attempt: 1,
                ..Assignment::default()
            })?,
            Frame::Seal(_) => self.phase = Phase::Sealed,
            // It does not know any provider.
            Frame::ProviderData(_) | Frame::ProviderEvent(_) => {}
        }
        Ok(())
    }

    fn block(&self, index: u32) -> Result<usize, Status> {
        self.blocks
            .iter()
            .position(|(open, _)| *open == index)
            .ok_or_else(|| Status::invalid_argument("no such block"))
    }

    fn pass_on(&mut self, mut assignment: Assignment) -> Result<(), Status> {
        let (worker, lease_id) = self
            .relay
            .pool
            .lock()
            .next()
            .ok_or_else(|| Status::unavailable("no worker has joined"))?;
        let position = self.results.len();
        self.results.push(CallResult {
            id: assignment.call_id.clone(),
            tool: assignment.tool.clone(),
            position: u32::try_from(position).unwrap_or(u32::MAX),
            ..CallResult::default()
        });
        self.missing += 1;
        let reply = Reply {
            batch: Arc::clone(&self.endings),
            position,
        };
        self.relay.replies.lock().insert(lease_id, reply);
        assignment.lease_id = lease_id;
        worker.push(pool(pool_frame::Frame::Assignment(assignment)));
        Ok(())
    }

    /// Takes all that has come from the agent.
    fn read(&mut self, context: &mut Context<'_>, out: &mut Vec<BatchFrame>) -> Result<(), Status> {
        while let Some(inbound) = &mut self.inbound {
            match Pin::new(inbound).poll_next(context) {
                Poll::Ready(Some(packet)) => {
                    for AgentFrame { frame } in packet?.frames {
                        if let Some(frame) = frame {
                            self.apply(frame, out)?;
                        }
                    }
                }
                Poll::Ready(None) => {
                    self.phase = Phase::Sealed;
                    self.inbound = None;
                }
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Takes all that has come from the workers.
    fn gather(&mut self, context: &Context<'_>) {
        while self.missing > 0 {
            let Poll::Ready(endings) = self.endings.poll_take(context) else {
                break;
            };
            for Ending { position, outcome } in endings {
                self.results[position].ending = outcome.ending.map(|ending| match ending {
                    outcome::Ending::Output(output) => call_result::Ending::Output(output),
                    outcome::Ending::Error(error) => call_result::Ending::Error(error),
                });
                self.missing -= 1;
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<BatchFrame>) {
        let calls = u32::try_from(self.results.len()).unwrap_or(u32::MAX);
        let results = self.results.drain(..).map(batch_frame::Frame::Result);
        out.reserve_exact(results.len() + 1);
        out.extend(results.map(batch));
        out.push(batch(batch_frame::Frame::Finished(Finished {
            calls,
            ..Finished::default()
        })));
        self.phase = Phase::Finished;
    }
}

impl Stream for Turn {
    type Item = Result<ExecuteResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let turn = &mut *self;
        if turn.phase == Phase::Finished {
            return Poll::Ready(None);
        }
        let mut frames = Vec::new();
        if let Err(status) = turn.read(context, &mut frames) {
            turn.phase = Phase::Finished;
            return Poll::Ready(Some(Err(status)));
        }
        turn.gather(context);
        if turn.phase == Phase::Sealed && turn.missing == 0 {
            turn.finish(&mut frames);
        }
        if frames.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(Some(Ok(ExecuteResponse { frames })))
        }
    }
}

struct Workers(Arc<Relay>);

#[tonic::async_trait]
impl WorkerPoolService for Workers {
    type JoinStream = Session;

    async fn join(
        &self,
        request: Request<Streaming<JoinRequest>>,
    ) -> Result<Response<Session>, Status> {
        Ok(Response::new(Session {
            relay: Arc::clone(&self.0),
            inbound: request.into_inner(),
            orders: Arc::default(),
        }))
    }
}

/// One worker: its orders go out in packets, its outcomes go to their batches.
struct Session {
    relay: Arc<Relay>,
    inbound: Streaming<JoinRequest>,
    orders: Arc<Mailbox<PoolFrame>>,
}

impl Session {
    fn apply(&mut self, frame: worker_frame::Frame) {
        use worker_frame::Frame;
        match frame {
            Frame::Register(_) => {
                self.relay
                    .pool
                    .lock()
                    .workers
                    .push(Arc::clone(&self.orders));
                self.orders
                    .push(pool(pool_frame::Frame::Registered(Registered {
                        beat_interval: Some(prost_types::Duration {
                            seconds: 5,
                            nanos: 0,
                        }),
                        missed_beats: 3,
                        ..Registered::default()
                    })));
            }
            Frame::Outcome(outcome) => {
                let reply = self.relay.replies.lock().remove(&outcome.lease_id);
                if let Some(Reply { batch, position }) = reply {
                    batch.push(Ending { position, outcome });
                }
            }
            Frame::Started(_) | Frame::Progress(_) | Frame::Beat(_) | Frame::Drain(_) => {}
        }
    }
}

impl Stream for Session {
    type Item = Result<JoinResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let session = &mut *self;
        while let Poll::Ready(packet) = Pin::new(&mut session.inbound).poll_next(context) {
            let Some(Ok(packet)) = packet else {
                return Poll::Ready(None);
            };
            for WorkerFrame { frame } in packet.frames {
                if let Some(frame) = frame {
                    session.apply(frame);
                }
            }
        }
        let frames = ready!(session.orders.poll_take(context));
        Poll::Ready(Some(Ok(JoinResponse { frames })))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.relay
            .pool
            .lock()
            .workers
            .retain(|worker| !Arc::ptr_eq(worker, &self.orders));
    }
}

fn batch(frame: batch_frame::Frame) -> BatchFrame {
    BatchFrame { frame: Some(frame) }
}

fn pool(frame: pool_frame::Frame) -> PoolFrame {
    PoolFrame { frame: Some(frame) }
}
