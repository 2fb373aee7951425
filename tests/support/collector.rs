//! A collector of traces on loopback, which keeps what it is sent.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// A span, and the service that sent it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// How its message came.
    pub(crate) encoding: Option<String>,
    pub(crate) service: String,
    pub(crate) span: Span,
}

/// Every span so far.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Kept>>>);

pub(crate) struct Collector {
    pub(crate) url: String,
    spans: Spans,
    server: JoinHandle<()>,
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("nobody panicked");
        let encoding = request.metadata().get("grpc-encoding");
        let encoding = encoding.and_then(|name| Some(name.to_str().ok()?.to_owned()));
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|of| of.attributes);
            let service = text(&attributes.unwrap_or_default(), "service.name");
            let spans = resource.scope_spans.into_iter().flat_map(|of| of.spans);
            kept.extend(spans.map(|span| Kept {
                encoding: encoding.clone(),
                service: service.clone().unwrap_or_default(),
                span,
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::serve("http", Server::builder()).await
    }

    /// Over TLS only; and the certificate, as PEM, which nobody has signed.
    pub(crate) async fn behind_tls() -> (Self, String) {
        let names = ["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate is made");
        let certificate = made.cert.pem();
        let identity = Identity::from_pem(&certificate, made.signing_key.serialize_pem());
        let tls = ServerTlsConfig::new().identity(identity);
        let server = Server::builder().tls_config(tls).expect("it is good");
        (Self::serve("https", server).await, certificate)
    }

    async fn serve(scheme: &str, mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let spans = Spans::default();
        let service =
            TraceServiceServer::new(spans.clone()).accept_compressed(CompressionEncoding::Gzip);
        let serve = server
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener));
        Self {
            url: format!("{scheme}://{address}"),
            spans,
            server: tokio::spawn(async move { serve.await.expect("the collector serves") }),
        }
    }

    /// The variables of a process that sends its spans here.
    pub(crate) fn variables(&self) -> [(&str, &str); 2] {
        variables(&self.url)
    }

    /// Every span of a trace so far.
    pub(crate) fn trace(&self, id: &str) -> Vec<Kept> {
        let mut spans = self.spans.0.lock().expect("nobody panicked").clone();
        spans.retain(|kept| hex(&kept.span.trace_id) == id);
        spans
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.0.lock().expect("nobody panicked").is_empty()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Of a process that sends its spans to this address, and soon.
pub(crate) fn variables(url: &str) -> [(&str, &str); 2] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ]
}

impl Kept {
    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        text(&self.span.attributes, key)
    }

    /// From its beginning to its end.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_nanos(self.span.end_time_unix_nano - self.span.start_time_unix_nano)
    }
}

pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|of| of.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        Value::BoolValue(is) => Some(is.to_string()),
        _ => None,
    }
}
