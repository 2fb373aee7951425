//! An admin service of the test's own, which answers what it was told to.

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use toolpool_proto::v1;
use v1::admin_service_server::{AdminService, AdminServiceServer};
use v1::{
    BatchStatus, DrainWorkerRequest, DrainWorkerResponse, ExplainCallRequest, ExplainCallResponse,
    Explanation, LaneStatus, ListBatchesRequest, ListBatchesResponse, ListLanesRequest,
    ListLanesResponse, ListWorkersRequest, ListWorkersResponse, WorkerState, WorkerStatus,
};

/// What it answers, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The workers that are here.
    pub(crate) workers: Vec<WorkerStatus>,
    /// The tools' lanes.
    pub(crate) lanes: Vec<LaneStatus>,
    /// The open batches, the oldest first.
    pub(crate) batches: Vec<BatchStatus>,
    /// Why calls have not ended.
    pub(crate) explanations: Vec<Explanation>,
    /// Drains that are answered with UNAVAILABLE first.
    pub(crate) busy: u32,
    /// Looks at the workers after which a draining one is gone. `None`: it stays.
    pub(crate) leaves_after: Option<u32>,
    /// Looks at a worker that find its session busy.
    pub(crate) silent: u32,
    /// The requests for batches.
    pub(crate) asked: Vec<ListBatchesRequest>,
}

/// The service, on a runtime of its own: tasks that serve connections end with that, and with nothing less.
pub(crate) struct FakeAdmin {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl FakeAdmin {
    /// Serves on a port that the system chooses.
    pub(crate) fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let mut admin = Self {
            state: Arc::new(Mutex::new(state)),
            address: listener.local_addr().expect("it has an address"),
            runtime: None,
        };
        admin.serve(listener);
        admin
    }

    /// Takes it down; all connections break.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Serves again where it was.
    pub(crate) async fn start_again(&mut self) {
        let mut listener = None;
        super::eventually("its port is free again", async || {
            listener = TcpListener::bind(self.address).ok();
            listener.is_some()
        })
        .await;
        if let Some(listener) = listener {
            self.serve(listener);
        }
    }

    fn serve(&mut self, listener: TcpListener) {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime can be had");
        let service = AdminServiceServer::new(Service(Arc::clone(&self.state)));
        runtime.spawn(async move {
            let nonblocking = listener.set_nonblocking(true);
            nonblocking.expect("it can be waited for");
            let listener = tokio::net::TcpListener::from_std(listener);
            let incoming = TcpListenerStream::new(listener.expect("it can be served"));
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        });
        self.runtime = Some(runtime);
    }

    /// What it answers and was asked.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked with it")
    }

    /// An operator's command with its address.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = super::toolpool();
        command.args(arguments);
        command
            .arg("--admin")
            .arg(format!("http://{}", self.address));
        command
    }

    /// Runs such a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command runs")
    }
}

impl Drop for FakeAdmin {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Service(Arc<Mutex<State>>);

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panicked with it")
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let mut state = self.state();
        let draining = |worker: &WorkerStatus| worker.state() == WorkerState::Draining;
        if state.workers.iter().any(draining) {
            match &mut state.leaves_after {
                Some(0) => state.workers.retain(|worker| !draining(worker)),
                Some(looks) => *looks -= 1,
                None => {}
            }
        }
        if state.silent > 0 {
            state.silent -= 1;
            return Err(Status::unavailable("the worker's session is busy"));
        }
        let wanted = request.into_inner().worker_id;
        let workers = state.workers.iter();
        let workers = workers.filter(|worker| wanted.is_empty() || worker.worker_id == wanted);
        let workers = workers.cloned().collect();
        Ok(Response::new(ListWorkersResponse {
            workers,
            next_page_token: String::new(),
        }))
    }

    async fn list_lanes(
        &self,
        _: Request<ListLanesRequest>,
    ) -> Result<Response<ListLanesResponse>, Status> {
        let lanes = self.state().lanes.clone();
        Ok(Response::new(ListLanesResponse {
            lanes,
            next_page_token: String::new(),
        }))
    }

    async fn list_batches(
        &self,
        request: Request<ListBatchesRequest>,
    ) -> Result<Response<ListBatchesResponse>, Status> {
        let mut state = self.state();
        let request = request.into_inner();
        state.asked.push(request.clone());
        // With calls they are large, and fewer have room on a page.
        let most = if request.with_calls { 7 } else { 1_000 };
        let size = match request.page_size {
            0 => 100,
            size => size.min(most),
        };
        let first: usize = request.page_token.parse().unwrap_or(0);
        let after = first + usize::try_from(size).unwrap_or(usize::MAX);
        let wanted = |batch: &&BatchStatus| {
            request.batch_id.is_empty() || batch.batch_id == request.batch_id
        };
        let mut batches = state.batches.clone();
        if request.newest_first {
            batches.reverse();
        }
        if !request.with_calls {
            for batch in &mut batches {
                batch.calls.clear();
            }
        }
        let page = batches.iter().filter(wanted).skip(first);
        let page: Vec<_> = page.take(after - first).cloned().collect();
        let more = after < batches.len() && request.batch_id.is_empty();
        Ok(Response::new(ListBatchesResponse {
            batches: page,
            next_page_token: if more {
                after.to_string()
            } else {
                String::new()
            },
            open: u32::try_from(batches.len()).unwrap_or(u32::MAX),
        }))
    }

    async fn explain_call(
        &self,
        request: Request<ExplainCallRequest>,
    ) -> Result<Response<ExplainCallResponse>, Status> {
        let request = request.into_inner();
        let state = self.state();
        let wanted = |of: &&Explanation| {
            let call = of.call.as_ref().map(|call| &call.call_id);
            let in_batch = request.batch_id.is_empty() || of.batch_id == request.batch_id;
            call == Some(&request.call_id) && in_batch
        };
        let explanations: Vec<_> = state.explanations.iter().filter(wanted).cloned().collect();
        if explanations.is_empty() {
            return Err(Status::not_found("no open batch has such a call"));
        }
        Ok(Response::new(ExplainCallResponse { explanations }))
    }

    async fn drain_worker(
        &self,
        request: Request<DrainWorkerRequest>,
    ) -> Result<Response<DrainWorkerResponse>, Status> {
        let mut state = self.state();
        if state.busy > 0 {
            state.busy -= 1;
            return Err(Status::unavailable("its session is busy"));
        }
        let id = request.into_inner().worker_id;
        let mut workers = state.workers.iter_mut();
        let Some(worker) = workers.find(|worker| worker.worker_id == id) else {
            return Err(Status::not_found("no such worker is here"));
        };
        worker.set_state(WorkerState::Draining);
        let worker = Some(worker.clone());
        Ok(Response::new(DrainWorkerResponse { worker }))
    }
}
