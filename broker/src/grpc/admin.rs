//! The operator's side: asks batches, lanes and sessions how they are, and a session to take its worker out.
//!
//! Lists come in pages, in an order that stays, after whose last key the next page goes on. Each owner of state answers for itself, in its own time; whoever does not answer within [`PATIENCE`] is busy with
//! something else, and is said to be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Request, Response, Status};
use toolpool_proto::v1;
use toolpool_proto::v1::admin_service_server::AdminService;

use super::{PACKET_BYTES, convert};
use crate::batch::view::{BatchView, CallView, Look, PhaseName, Wanted};
use crate::catalogue::{Catalogue, Tool};
use crate::id::{BatchId, CallId, WorkerId};
use crate::lane::lease::Notice;
use crate::metrics::WorkerState;
use crate::registry::{Batches, OpenBatch, Workers};
use crate::session::{Visit, WorkerView};

/// How long a batch or a session may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a request may wait for the ones before it.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Batches or workers that are asked before the first answer is read.
const AT_ONCE: usize = 256;
const PAGE: usize = 100;
const MOST_PAGE: usize = 1_000;
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
    /// One look at a time: operators together cost no more than one of them.
    pub(crate) turn: Arc<Semaphore>,
}

/// A batch, and what it said of itself: nothing, if it is being delivered.
type Seen = (BatchId, Option<BatchView>);

/// Part of a list, as much as goes into one message.
struct Page<T> {
    items: Vec<T>,
    bytes: usize,
    most: usize,
    /// The key of the last item.
    last: String,
}

impl<T: Message> Page<T> {
    fn of_at_most(most: usize) -> Self {
        Self {
            items: Vec::new(),
            bytes: 0,
            most,
            last: String::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= PACKET_BYTES || self.items.len() >= self.most
    }

    fn add(&mut self, key: String, item: T) {
        self.bytes += item.encoded_len();
        self.items.push(item);
        self.last = key;
    }

    /// The items, and where the next page begins if there are more.
    fn end(self, more: bool) -> (Vec<T>, String) {
        (self.items, if more { self.last } else { String::new() })
    }
}

impl Operators {
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Status> {
        let turn = timeout(LONGEST_WAIT, self.turn.acquire()).await;
        let turn =
            turn.map_err(|_| Status::unavailable("too many others look at the broker; try again"))?;
        turn.map_err(|_| Status::unavailable("the broker is going down"))
    }

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

    async fn explain(&self, batch: &BatchId, mut call: CallView) -> v1::Explanation {
        let queued = call.phase == PhaseName::Queued;
        let tool = queued.then(|| self.catalogue.find_as_called(&call.tool));
        let lane = tool.flatten();
        let lane = lane.map(|tool| Self::lane_status(&tool, Instant::now()));
        if call.phase == PhaseName::Running
            && let (Some(worker), Some(why)) = (&call.ledger.worker, &mut call.why)
        {
            why.push_str(&self.how_is(worker).await);
        }
        convert::explanation(batch, call, lane)
    }

    /// What is to be said of a worker that runs a call.
    async fn how_is(&self, worker: &WorkerId) -> String {
        let session = self.workers.session(&worker.to_string());
        let asked = session.and_then(|session| ask(&session, Visit::Look).ok());
        let Some(answer) = asked else {
            return String::new();
        };
        match timeout(PATIENCE, answer).await {
            Ok(Ok(WorkerView {
                state, silent_for, ..
            })) => match state {
                WorkerState::Away => {
                    format!(" {worker} is away: its stream broke {silent_for:.1?} ago.")
                }
                WorkerState::Connected | WorkerState::Draining => {
                    format!(" {worker} was last heard of {silent_for:.1?} ago.")
                }
            },
            _ => format!(" The session of {worker} does not answer."),
        }
    }
}

#[tonic::async_trait]
impl AdminService for Operators {
    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let _turn = self.turn().await?;
        let request = request.into_inner();
        let only = request.worker_id;
        if !only.is_empty() {
            let view = match self.workers.session(&only) {
                Some(session) => answer_of(&session, Visit::Look).await?,
                None => None,
            };
            let workers = view.map(convert::worker_status).into_iter();
            return Ok(Response::new(v1::ListWorkersResponse {
                workers: workers.collect(),
                next_page_token: String::new(),
            }));
        }
        let mut sessions = self.workers.sessions();
        let after = WorkerId::from(request.page_token);
        sessions.retain(|(worker, _)| *worker > after);
        let mut page = Page::of_at_most(MOST_PAGE);
        let mut rest = sessions.len();
        'page: for sessions in sessions.chunks(AT_ONCE) {
            let asked: Vec<_> = (sessions.iter())
                .map(|(worker, session)| (worker, ask(session, Visit::Look).ok()))
                .collect();
            let until = Instant::now() + PATIENCE;
            for (worker, asked) in asked {
                if page.is_full() {
                    break 'page;
                }
                rest -= 1;
                if let Some(answer) = asked
                    && let Ok(Ok(mut view)) = timeout_at(until, answer).await
                {
                    view.leases.clear();
                    page.add(worker.to_string(), convert::worker_status(view));
                }
            }
        }
        let (workers, next_page_token) = page.end(rest > 0);
        Ok(Response::new(v1::ListWorkersResponse {
            workers,
            next_page_token,
        }))
    }

    async fn list_lanes(
        &self,
        request: Request<v1::ListLanesRequest>,
    ) -> Result<Response<v1::ListLanesResponse>, Status> {
        let _turn = self.turn().await?;
        let request = request.into_inner();
        let now = Instant::now();
        let tools = if request.tool.is_empty() {
            self.catalogue.list()
        } else {
            self.catalogue.find(&request.tool).into_iter().collect()
        };
        let rest = tools.iter();
        let mut rest = rest.skip_while(|tool| **tool.lane.tool() <= *request.page_token);
        let mut page = Page::of_at_most(MOST_PAGE);
        let mut next = rest.next();
        while let Some(tool) = next
            && !page.is_full()
        {
            page.add(tool.lane.tool().to_string(), Self::lane_status(tool, now));
            next = rest.next();
        }
        let (lanes, next_page_token) = page.end(next.is_some());
        Ok(Response::new(v1::ListLanesResponse {
            lanes,
            next_page_token,
        }))
    }

    async fn list_batches(
        &self,
        request: Request<v1::ListBatchesRequest>,
    ) -> Result<Response<v1::ListBatchesResponse>, Status> {
        let _turn = self.turn().await?;
        let v1::ListBatchesRequest {
            batch_id,
            page_size,
            page_token,
            with_calls,
            newest_first,
        } = request.into_inner();
        let after = match &*page_token {
            "" => None,
            token => Some(token.parse::<u64>().map_err(|_| {
                Status::invalid_argument("page_token is none that a next_page_token had")
            })?),
        };
        let wanted = if with_calls {
            Wanted::Calls
        } else {
            Wanted::Nothing
        };
        let most = match page_size {
            0 => PAGE,
            size => MOST_PAGE.min(size as usize),
        };
        let mut batches = if batch_id.is_empty() {
            self.batches.by_age()
        } else {
            self.batches.find(&batch_id).into_iter().collect()
        };
        if newest_first {
            batches.reverse();
        }
        let follows = |key: u64, after: u64| (key > after) != newest_first && key != after;
        batches.retain(|(_, batch)| after.is_none_or(|after| follows(batch.key.0, after)));
        let mut page = Page::of_at_most(most);
        let mut rest = batches.len();
        // A few at a time: with their calls they may fill the page soon.
        let at_once = if with_calls { 8 } else { AT_ONCE };
        'page: for batches in batches.chunks(at_once) {
            let seen = self.look_at(batches, &wanted).await;
            let mut seen = seen.into_iter().peekable();
            for (id, batch) in batches {
                if page.is_full() {
                    break 'page;
                }
                rest -= 1;
                // It may have ended meanwhile.
                let Some((id, view)) = seen.next_if(|(seen, _)| seen == id) else {
                    continue;
                };
                let status = match view {
                    Some(view) => convert::batch_status(view),
                    None => convert::batch_delivering(&id),
                };
                page.add(batch.key.0.to_string(), status);
            }
        }
        let (batches, next_page_token) = page.end(rest > 0);
        Ok(Response::new(v1::ListBatchesResponse {
            batches,
            next_page_token,
            open: u32::try_from(self.batches.open()).unwrap_or(u32::MAX),
        }))
    }

    async fn explain_call(
        &self,
        request: Request<v1::ExplainCallRequest>,
    ) -> Result<Response<v1::ExplainCallResponse>, Status> {
        let _turn = self.turn().await?;
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
                for call in view.into_iter().flat_map(|view| view.calls) {
                    explanations.push(self.explain(&id, call).await);
                }
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
        let view = answer_of(&session, Visit::Drain).await?.ok_or_else(gone)?;
        Ok(Response::new(v1::DrainWorkerResponse {
            worker: Some(convert::worker_status(view)),
        }))
    }
}

/// What one session says. `None`: it has ended meanwhile. An error: it is there, and has no time.
async fn answer_of(
    session: &mpsc::Sender<Visit>,
    visit: impl FnOnce(oneshot::Sender<WorkerView>) -> Visit,
) -> Result<Option<WorkerView>, Status> {
    if session.is_closed() {
        return Ok(None);
    }
    let busy = || Status::unavailable("the worker's session is busy; ask again");
    let answer = ask(session, visit).map_err(|()| busy())?;
    let answer = timeout(PATIENCE, answer).await.map_err(|_| busy())?;
    Ok(answer.ok())
}

fn ask(
    session: &mpsc::Sender<Visit>,
    visit: impl FnOnce(oneshot::Sender<WorkerView>) -> Visit,
) -> Result<oneshot::Receiver<WorkerView>, ()> {
    let (reply, answer) = oneshot::channel();
    session.try_send(visit(reply)).map_err(drop)?;
    Ok(answer)
}
