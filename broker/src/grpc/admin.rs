//! The operator's side: asks batches, lanes and sessions how they are, and a session to take its worker out.
//!
//! Each owner of state answers for itself, in its own time; whoever does not answer within [`PATIENCE`] is busy with
//! something else, and is said to be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, Response, Status};
use toolpool_proto::v1;
use toolpool_proto::v1::admin_service_server::AdminService;

use super::convert;
use crate::batch::view::{BatchView, CallView, Look, PhaseName, Wanted};
use crate::catalogue::{Catalogue, Tool};
use crate::id::{BatchId, CallId};
use crate::lane::lease::Notice;
use crate::registry::{Batches, OpenBatch, Workers};
use crate::session::{Visit, WorkerView};

/// How long a batch or a session may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Batches or workers that are asked before the first answer is read.
const AT_ONCE: usize = 256;
const PAGE: usize = 100;
const MOST_PAGE: usize = 1_000;
const MOST_PAGE_WITH_CALLS: usize = 20;
const MOST_EXPLANATIONS: usize = 20;

/// Where a request came from; the port says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// What is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Operators {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) batches: Arc<Batches>,
    pub(crate) workers: Arc<Workers>,
}

/// A batch, and what it said of itself: nothing, if it is being delivered.
type Seen = (BatchId, Option<BatchView>);

impl Operators {
    /// Asks the batches; those that have ended meanwhile are left out.
    async fn look_at(&self, batches: &[(BatchId, OpenBatch)], wanted: &Wanted) -> Vec<Seen> {
        let mut seen = Vec::with_capacity(batches.len().min(MOST_PAGE));
        for batches in batches.chunks(AT_ONCE) {
            let asked: Vec<_> = (batches.iter())
                .map(|(id, batch)| {
                    let (reply, answer) = oneshot::channel();
                    let wanted = wanted.clone();
                    let look = Box::new(Look { wanted, reply });
                    // The other half of the mailbox is kept for what must arrive.
                    let asked =
                        batch.notices.is_quiet() && batch.notices.post(Notice::Look(look)).is_ok();
                    (id, asked.then_some(answer))
                })
                .collect();
            let until = Instant::now() + PATIENCE;
            for (id, asked) in asked {
                let view = match asked {
                    Some(answer) => timeout_at(until, answer).await.ok().and_then(Result::ok),
                    None => None,
                };
                if view.is_some() || self.batches.has(id) {
                    seen.push((id.clone(), view));
                }
            }
        }
        seen
    }

    fn lane_status(tool: &Tool, now: Instant) -> v1::LaneStatus {
        convert::lane_status(tool, tool.lane.view(now))
    }

    fn explain(&self, batch: &BatchId, call: CallView) -> v1::Explanation {
        let queued = call.phase == PhaseName::Queued;
        let tool = queued.then(|| self.catalogue.find_as_called(&call.tool));
        let lane = tool.flatten();
        let lane = lane.map(|tool| Self::lane_status(&tool, Instant::now()));
        convert::explanation(batch, call, lane)
    }
}

#[tonic::async_trait]
impl AdminService for Operators {
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let only = request.into_inner().worker_id;
        let sessions: Vec<_> = if only.is_empty() {
            let all = self.workers.sessions();
            all.into_iter().map(|(_, session)| session).collect()
        } else {
            self.workers.session(&only).into_iter().collect()
        };
        let mut workers = Vec::with_capacity(sessions.len());
        for sessions in sessions.chunks(AT_ONCE) {
            let asked: Vec<_> = (sessions.iter())
                .filter_map(|session| ask(session, Visit::Look).ok())
                .collect();
            let until = Instant::now() + PATIENCE;
            for answer in asked {
                if let Ok(Ok(view)) = timeout_at(until, answer).await {
                    workers.push(convert::worker_status(view));
                }
            }
        }
        Ok(Response::new(v1::ListWorkersResponse { workers }))
    }

    async fn list_lanes(
        &self,
        request: Request<v1::ListLanesRequest>,
    ) -> Result<Response<v1::ListLanesResponse>, Status> {
        let only = request.into_inner().tool;
        let now = Instant::now();
        let tools = if only.is_empty() {
            self.catalogue.list()
        } else {
            self.catalogue.find(&only).into_iter().collect()
        };
        let lanes = tools.iter().map(|tool| Self::lane_status(tool, now));
        Ok(Response::new(v1::ListLanesResponse {
            lanes: lanes.collect(),
        }))
    }

    async fn list_batches(
        &self,
        request: Request<v1::ListBatchesRequest>,
    ) -> Result<Response<v1::ListBatchesResponse>, Status> {
        let v1::ListBatchesRequest {
            batch_id,
            page_size,
            page_token,
            with_calls,
        } = request.into_inner();
        let after = match &*page_token {
            "" => None,
            token => Some(token.parse::<u64>().map_err(|_| {
                Status::invalid_argument("page_token is none that a next_page_token had")
            })?),
        };
        let (most, wanted) = if with_calls {
            (MOST_PAGE_WITH_CALLS, Wanted::Calls)
        } else {
            (MOST_PAGE, Wanted::Nothing)
        };
        let page_size = match page_size {
            0 => PAGE,
            size => size as usize,
        };
        let mut batches = if batch_id.is_empty() {
            self.batches.by_age()
        } else {
            self.batches.find(&batch_id).into_iter().collect()
        };
        batches.retain(|(_, batch)| after.is_none_or(|after| batch.key.0 > after));
        let more = batches.len() > page_size.min(most);
        batches.truncate(page_size.min(most));
        let last = batches.last().filter(|_| more);
        let next_page_token = last.map_or_else(String::new, |(_, batch)| batch.key.0.to_string());
        let status = |(id, view): Seen| match view {
            Some(view) => convert::batch_status(view),
            None => convert::batch_delivering(&id),
        };
        let seen = self.look_at(&batches, &wanted).await;
        Ok(Response::new(v1::ListBatchesResponse {
            batches: seen.into_iter().map(status).collect(),
            next_page_token,
            open: u32::try_from(self.batches.open()).unwrap_or(u32::MAX),
        }))
    }

    async fn explain_call(
        &self,
        request: Request<v1::ExplainCallRequest>,
    ) -> Result<Response<v1::ExplainCallResponse>, Status> {
        let v1::ExplainCallRequest { call_id, batch_id } = request.into_inner();
        if call_id.is_empty() {
            return Err(Status::invalid_argument("call_id is empty"));
        }
        let wanted = Wanted::Call(CallId::from(&*call_id));
        let batches = if batch_id.is_empty() {
            self.batches.by_age()
        } else {
            self.batches.find(&batch_id).into_iter().collect()
        };
        let mut explanations = Vec::new();
        for batches in batches.chunks(AT_ONCE) {
            for (id, view) in self.look_at(batches, &wanted).await {
                let calls = view.into_iter().flat_map(|view| view.calls);
                explanations.extend(calls.map(|call| self.explain(&id, call)));
            }
            if explanations.len() >= MOST_EXPLANATIONS {
                explanations.truncate(MOST_EXPLANATIONS);
                break;
            }
        }
        if explanations.is_empty() {
            return Err(Status::not_found(format!(
                "no open batch has a call {call_id:?}; what has ended is in the traces"
            )));
        }
        Ok(Response::new(v1::ExplainCallResponse { explanations }))
    }

    async fn drain_worker(
        &self,
        request: Request<v1::DrainWorkerRequest>,
    ) -> Result<Response<v1::DrainWorkerResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        if !peer.is_some_and(|Peer(address)| address.to_canonical().is_loopback()) {
            return Err(Status::permission_denied(
                "a worker can only be taken out from the broker's own machine",
            ));
        }
        let id = request.into_inner().worker_id;
        let gone = || Status::not_found(format!("no worker {id:?} is here"));
        let session = self.workers.session(&id).ok_or_else(gone)?;
        let busy = || Status::unavailable("the worker's session is busy; ask again");
        let answer = ask(&session, Visit::Drain).map_err(|()| busy())?;
        let answer = timeout(PATIENCE, answer).await.map_err(|_| busy())?;
        let view = answer.map_err(|_| gone())?;
        Ok(Response::new(v1::DrainWorkerResponse {
            worker: Some(convert::worker_status(view)),
        }))
    }
}

fn ask(
    session: &mpsc::Sender<Visit>,
    visit: impl FnOnce(oneshot::Sender<WorkerView>) -> Visit,
) -> Result<oneshot::Receiver<WorkerView>, ()> {
    let (reply, answer) = oneshot::channel();
    session.try_send(visit(reply)).map_err(drop)?;
    Ok(answer)
}
