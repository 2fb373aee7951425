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
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{self as tls, Server};
use tonic::{Request, Response, Status};

use super::http;

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

    /// Over TLS only; if `client` is given, to nobody else.
    pub(crate) async fn behind_tls(own: &Identity, client: Option<&Identity>) -> Self {
        let read = |path| std::fs::read(path).expect("it was written");
        let identity = tls::Identity::from_pem(read(own.certificate()), read(own.key()));
        let mut tls = tls::ServerTlsConfig::new().identity(identity);
        if let Some(client) = client {
            tls = tls.client_ca_root(tls::Certificate::from_pem(read(client.certificate())));
        }
        let server = Server::builder().tls_config(tls).expect("it is good");
        Self::serve("https", server).await
    }

    async fn serve(scheme: &str, mut server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let spans = Spans::default();
        // What is asked in gzip is answered in it, as grpc-go does.
        let service = TraceServiceServer::new(spans.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
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

/// A certificate that nobody else has signed, and its key, as files.
pub(crate) struct Identity {
    _folder: TempDir,
    paths: [String; 2],
}

impl Identity {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let names = ["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate is made");
        let pems = [made.cert.pem(), made.signing_key.serialize_pem()];
        let paths = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        for (path, pem) in paths.iter().zip(pems) {
            std::fs::write(path, pem).expect("there is room");
        }
        let paths = paths.map(|path| path.display().to_string());
        Self {
            _folder: folder,
            paths,
        }
    }

    pub(crate) fn certificate(&self) -> &str {
        &self.paths[0]
    }

    pub(crate) fn key(&self) -> &str {
        &self.paths[1]
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

/// What the broker dropped, from its metrics.
pub(crate) fn spans_dropped(admin: &str) -> f64 {
    let (_, metrics) = http::get(admin, "/metrics").expect("metrics can be had");
    let series = metrics
        .lines()
        .filter(|line| line.starts_with("toolpool_spans_dropped_total{"));
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
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
