//! Against a collector on a real socket that answers as it is told.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::{TcpListener, TcpSocket};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Endpoint, Server};
use tonic_types::ErrorDetails;

use super::*;
use crate::telemetry::wire::tests::plain;

type Answer = Result<ExportTraceServiceResponse, Status>;

/// Answers what was laid ready, and after that takes everything; keeps what it was asked.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    answers: VecDeque<Answer>,
    asked: Vec<(MetadataMap, usize)>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let scopes = request.resource_spans.iter().flat_map(|of| &of.scope_spans);
        let spans = scopes.map(|scope| scope.spans.len()).sum();
        let mut told = self.0.lock();
        told.asked.push((metadata, spans));
        let answer = told.answers.pop_front().unwrap_or_else(taken);
        answer.map(tonic::Response::new)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "an answer like others")]
fn taken() -> Answer {
    Ok(ExportTraceServiceResponse::default())
}

impl Collector {
    fn with(answers: impl IntoIterator<Item = Answer>) -> Self {
        let collector = Self::default();
        collector.0.lock().answers.extend(answers);
        collector
    }

    fn serve(&self, listener: TcpListener) {
        let service = TraceServiceServer::new(self.clone());
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    }

    /// An exporter to it, and the room of the queue before that, all of it taken.
    async fn exporter(&self, room: usize) -> Exporter {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let exporter = exporter(address, room, Duration::from_mins(1));
        self.serve(listener);
        exporter
    }

    fn asked(&self) -> usize {
        self.0.lock().asked.len()
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn exporter(address: SocketAddr, room: usize, timeout: Duration) -> Exporter {
    let mut headers = MetadataMap::new();
    headers.insert("x-key", "a value".parse().unwrap());
    let target = Target {
        endpoint: Endpoint::from_shared(format!("http://{address}")).unwrap(),
        headers,
        compression: None,
        timeout,
    };
    let spans = SpanRoom::new(room);
    assert!(spans.take(room));
    Exporter::new(
        target,
        Vec::new(),
        &Handle::current(),
        Arc::default(),
        Arc::new(spans),
    )
}

impl Exporter {
    fn fails(&self) -> bool {
        self.sender.fails.load(Ordering::Relaxed)
    }

    fn unsent(&self) -> u64 {
        let dropped = self.sender.room.dropped();
        dropped.iter().find(|(why, _)| *why == "unsent").unwrap().1
    }
}

fn spans(count: u64) -> Vec<SpanData> {
    (1..=count).map(plain).collect()
}

#[tokio::test]
async fn what_may_get_better_is_tried_again() {
    let collector = Collector::with([
        Err(Status::unavailable("starting")),
        Err(Status::aborted("again")),
    ]);
    let exporter = collector.exporter(2).await;
    exporter.export(spans(2)).await.unwrap();
    let asked = std::mem::take(&mut collector.0.lock().asked);
    assert_eq!(asked.len(), 3);
    for (metadata, spans) in asked {
        assert_eq!(spans, 2);
        assert_eq!(metadata.get("x-key").unwrap(), "a value");
    }
    assert!(!exporter.fails() && exporter.unsent() == 0);
    assert_eq!(exporter.sender.room.waiting(), 0);
}

#[tokio::test]
async fn what_will_not_is_dropped_and_of_a_backlog_only_the_end_is_tried_then() {
    let refused = || Err(Status::unauthenticated("who are you?"));
    let collector = Collector::with([refused(), refused()]);
    let exporter = collector.exporter(10).await;
    assert!(exporter.export(spans(2)).await.is_err());
    assert!(exporter.fails());
    assert_eq!((exporter.unsent(), collector.asked()), (2, 1));
    for unsent in [4, 6, 8] {
        exporter.export(spans(2)).await.unwrap();
        assert_eq!((exporter.unsent(), collector.asked()), (unsent, 1));
    }
    assert!(exporter.export(spans(2)).await.is_err());
    assert_eq!((exporter.unsent(), collector.asked()), (10, 2));
    // It is over.
    assert!(exporter.sender.room.take(2));
    exporter.export(spans(2)).await.unwrap();
    assert!(!exporter.fails() && exporter.unsent() == 10);
}

#[tokio::test]
async fn nobody_there_is_known_at_once_and_tried_once_in_an_outage() {
    // Bound, so that nobody else gets the port, and not listening yet.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let exporter = exporter(address, 4, Duration::from_mins(1));
    let failed = {
        let mut sending = std::pin::pin!(exporter.export(spans(2)));
        // While it is tried again.
        while !exporter.fails() {
            tokio::select! {
                ended = &mut sending => panic!("{ended:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        sending.await
    };
    let failed = failed.unwrap_err().to_string();
    assert!(failed.contains("refused"), "{failed}");
    assert!(exporter.export(spans(2)).await.is_err());
    assert_eq!(exporter.unsent(), 4);
    // Somebody is there now.
    let collector = Collector::default();
    collector.serve(socket.listen(16).unwrap());
    assert!(exporter.sender.room.take(1));
    exporter.export(spans(1)).await.unwrap();
    assert!(!exporter.fails() && collector.asked() == 1);
}

#[tokio::test]
async fn a_connection_that_does_not_answer_is_given_up_with_its_spans() {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let exporter = exporter(address, 2, Duration::from_millis(50));
    let mut connections = Vec::new();
    for unsent in [1, 2] {
        // Each is dialled anew, or nobody would be accepted the second time.
        let (given_up, accepted) = tokio::join!(exporter.export(spans(1)), listener.accept());
        let given_up = given_up.unwrap_err().to_string();
        assert!(given_up.contains("in time"), "{given_up}");
        assert!(exporter.fails() && exporter.unsent() == unsent);
        connections.push(accepted.unwrap());
    }
}

#[tokio::test]
async fn what_the_collector_rejects_is_counted() {
    let collector = Collector::with([Ok(ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: "too old".to_owned(),
        }),
    })]);
    let exporter = collector.exporter(5).await;
    exporter.export(spans(5)).await.unwrap();
    assert!(!exporter.fails());
    assert_eq!(exporter.unsent(), 2);
}

#[test]
fn who_is_overloaded_says_when_to_come_back_or_is_left_alone() {
    let backoff = Duration::from_millis(200);
    let told = |code| {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(3)));
        Status::with_error_details(code, "later", details)
    };
    for code in [Code::ResourceExhausted, Code::Unavailable] {
        assert_eq!(pause(&told(code), backoff), Some(Duration::from_secs(3)));
    }
    assert_eq!(pause(&told(Code::InvalidArgument), backoff), None);
    assert_eq!(pause(&Status::resource_exhausted(""), backoff), None);
    let paused = pause(&Status::unavailable(""), backoff).unwrap();
    assert!(
        (backoff / 2..=backoff * 3 / 2).contains(&paused),
        "{paused:?}"
    );
}
