//! Somebody who asks the admin port.

use std::net::SocketAddr;

use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use toolpool_proto::v1;
use v1::CallPhase;
use v1::admin_service_client::AdminServiceClient;

use super::soon;

pub(crate) async fn channel(admin: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{admin}")).unwrap();
    soon(endpoint.connect()).await.unwrap()
}

pub(crate) struct Operator(pub(crate) AdminServiceClient<Channel>);

impl Operator {
    pub(crate) async fn at(admin: SocketAddr) -> Self {
        Self(AdminServiceClient::new(channel(admin).await))
    }

    pub(crate) async fn workers(&mut self) -> Vec<v1::WorkerStatus> {
        let request = v1::ListWorkersRequest::default();
        let workers = soon(self.0.list_workers(request)).await;
        workers.unwrap().into_inner().workers
    }

    pub(crate) async fn lane(&mut self, tool: &str) -> v1::LaneStatus {
        let request = v1::ListLanesRequest {
            tool: tool.to_owned(),
            ..Default::default()
        };
        let lanes = soon(self.0.list_lanes(request)).await;
        let [lane] = <[_; 1]>::try_from(lanes.unwrap().into_inner().lanes).unwrap();
        lane
    }

    pub(crate) async fn batches(
        &mut self,
        request: v1::ListBatchesRequest,
    ) -> v1::ListBatchesResponse {
        let batches = soon(self.0.list_batches(request)).await;
        batches.unwrap().into_inner()
    }

    pub(crate) async fn why(&mut self, call: &str) -> v1::Explanation {
        let request = v1::ExplainCallRequest {
            call_id: call.to_owned(),
            batch_id: String::new(),
        };
        let explained = soon(self.0.explain_call(request)).await;
        let explanations = explained.unwrap().into_inner().explanations;
        let [one] = <[_; 1]>::try_from(explanations).unwrap();
        one
    }

    pub(crate) async fn drain(&mut self, worker: &str) -> Result<v1::WorkerStatus, Code> {
        let worker_id = worker.to_owned();
        let drained = soon(self.0.drain_worker(v1::DrainWorkerRequest { worker_id })).await;
        let drained = drained.map_err(|status| status.code())?.into_inner();
        Ok(drained.worker.unwrap())
    }

    /// What it says of a call, which must have all the words.
    pub(crate) async fn expect_why(
        &mut self,
        call: &str,
        phase: CallPhase,
        words: &[&str],
    ) -> v1::Explanation {
        let explained = self.why(call).await;
        let status = explained.call.as_ref().unwrap();
        assert_eq!((status.phase(), &*status.call_id), (phase, call));
        for word in words {
            assert!(explained.why.contains(word), "{word}: {}", explained.why);
        }
        explained
    }
}
