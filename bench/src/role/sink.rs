//! A collector of traces that counts the spans it is sent and throws them away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Spans so far.
#[derive(Clone, Default)]
struct Sink(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let scopes = resources.iter().flat_map(|of| &of.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Says two addresses: where spans are sent, and where whoever connects is told how many there were.
pub(super) async fn run() -> anyhow::Result<()> {
    let spans = super::listen().await?;
    let counts = super::listen().await?;
    let sink = Sink::default();
    let serve = Server::builder()
        .add_service(TraceServiceServer::new(sink.clone()))
        .serve_with_incoming(TcpIncoming::from(spans).with_nodelay(Some(true)));
    tokio::select! {
        served = serve => Ok(served?),
        told = tell(counts, &sink) => told,
    }
}

async fn tell(counts: TcpListener, sink: &Sink) -> anyhow::Result<()> {
    loop {
        let (mut stream, _) = counts.accept().await?;
        let count = sink.0.load(Ordering::Relaxed).to_string();
        stream.write_all(count.as_bytes()).await?;
    }
}
