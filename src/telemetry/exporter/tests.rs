//! Against a collector on a real socket that answers as it is told.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

use opentelemetry::trace::SpanKind;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::{TcpListener, TcpSocket};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding;
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
        // What is asked in gzip is answered in it, as grpc-go does.
        let service = TraceServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
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
        url: format!("http://{address}"),
        endpoint: Endpoint::from_shared(format!("http://{address}")).unwrap(),
        headers,
        gzip: false,
        tls: None,
        timeout,
    };
    let spans = SpanRoom::new(room);
    assert!(spans.take(room));
    let mut exporter = Exporter::new(
        target,
        Vec::new(),
        &Handle::current(),
        Arc::default(),
        Arc::new(spans),
    );
    Arc::get_mut(&mut exporter.sender).unwrap().retry = Duration::from_millis(1);
    exporter
}

impl Exporter {
    fn is_outage(&self) -> bool {
        self.sender.outage.load(Ordering::Relaxed)
    }

    fn unsent(&self) -> u64 {
        let dropped = self.sender.room.dropped();
        dropped.iter().find(|(why, _)| *why == "unsent").unwrap().1
    }
}

/// Each a trace by itself.
fn spans(count: u64) -> Vec<SpanData> {
    let mut spans = parts(count);
    for span in &mut spans {
        span.span_kind = SpanKind::Server;
    }
    spans
}

/// Of a trace that goes on.
fn parts(count: u64) -> Vec<SpanData> {
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
    assert!(!exporter.is_outage() && exporter.unsent() == 0);
    assert_eq!(exporter.sender.room.waiting(), 0);
}

#[tokio::test]
async fn what_will_not_is_dropped_and_of_a_backlog_only_the_end_is_tried_then() {
    let refused = || Err(Status::unauthenticated("who are you?"));
    let collector = Collector::with([refused(), refused()]);
    let exporter = collector.exporter(10).await;
    assert!(exporter.export(spans(2)).await.is_err());
    assert!(exporter.is_outage());
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
    assert!(!exporter.is_outage() && exporter.unsent() == 10);
}

#[tokio::test]
async fn in_an_outage_that_is_known_of_there_is_one_try() {
    let starting = || Err(Status::unavailable("starting"));
    let collector = Collector::with(std::iter::repeat_with(starting).take(6));
    let exporter = collector.exporter(6).await;
    for asked in [4, 5, 6] {
        // Room, so that it is the end of the backlog.
        exporter.sender.room.give_back(6);
        assert!(exporter.sender.room.take(2));
        assert!(exporter.export(spans(2)).await.is_err());
        assert!(exporter.is_outage());
        assert_eq!(collector.asked(), asked);
    }
    assert!(exporter.sender.room.take(2));
    exporter.export(spans(2)).await.unwrap();
    assert!(!exporter.is_outage() && exporter.unsent() == 6);
}

#[tokio::test]
async fn nobody_there_is_said_with_its_cause_and_whoever_comes_is_found() {
    // Bound, so that nobody else gets the port, and not listening yet.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let exporter = exporter(address, 2, Duration::from_mins(1));
    let failed = exporter.export(spans(1)).await.unwrap_err().to_string();
    assert!(failed.contains("refused"), "{failed}");
    assert!(exporter.is_outage() && exporter.unsent() == 1);
    let collector = Collector::default();
    collector.serve(socket.listen(16).unwrap());
    exporter.export(spans(1)).await.unwrap();
    assert!(!exporter.is_outage() && collector.asked() == 1);
}

#[tokio::test]
async fn what_is_wrong_with_one_message_is_no_outage() {
    let refused = [
        Status::invalid_argument("what is that?"),
        Status::resource_exhausted("the message is too large"),
    ];
    let collector = Collector::with(refused.map(Err));
    let exporter = collector.exporter(10).await;
    for (asked, unsent) in [(1, 2), (2, 4)] {
        assert!(exporter.export(spans(2)).await.is_err());
        assert!(!exporter.is_outage());
        assert_eq!((collector.asked(), exporter.unsent()), (asked, unsent));
    }
    exporter.export(spans(2)).await.unwrap();
    assert_eq!((collector.asked(), exporter.unsent()), (3, 4));
}

#[tokio::test]
async fn who_wants_to_be_left_alone_is() {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_mins(2)));
    let busy = Status::with_error_details(Code::ResourceExhausted, "busy", details);
    let collector = Collector::with([Err(busy)]);
    let exporter = collector.exporter(3).await;
    let failed = exporter.export(spans(1)).await.unwrap_err().to_string();
    assert!(
        failed.contains("busy"),
        "not that it took too long: {failed}"
    );
    for unsent in [2, 3] {
        exporter.export(spans(1)).await.unwrap();
        assert_eq!((collector.asked(), exporter.unsent()), (1, unsent));
    }
}

#[tokio::test]
async fn of_a_trace_that_lost_spans_the_rest_is_not_sent() {
    let collector = Collector::with([Err(Status::unauthenticated("who are you?"))]);
    let exporter = collector.exporter(6).await;
    assert!(exporter.export(parts(2)).await.is_err());
    exporter.sender.room.give_back(4);
    assert!(exporter.sender.room.take(3));
    let mut rest = parts(3);
    // The root of the first batch; then another batch of the same trace.
    rest[1].span_kind = SpanKind::Server;
    exporter.export(rest).await.unwrap();
    assert_eq!(collector.0.lock().asked.pop().unwrap().1, 1);
    assert_eq!(exporter.unsent(), 4);
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
        assert!(exporter.is_outage() && exporter.unsent() == unsent);
        connections.push(accepted.unwrap());
    }
}

#[tokio::test]
async fn what_the_collector_rejects_is_counted_and_a_warning_is_no_loss() {
    for gzip in [false, true] {
        let partly = |rejected_spans| {
            Ok(ExportTraceServiceResponse {
                partial_success: Some(ExportTracePartialSuccess {
                    rejected_spans,
                    error_message: "too old".repeat(100),
                }),
            })
        };
        let collector = Collector::with([partly(2), partly(0)]);
        let mut exporter = collector.exporter(10).await;
        Arc::get_mut(&mut exporter.sender).unwrap().target.gzip = gzip;
        for _ in 0..2 {
            exporter.export(spans(5)).await.unwrap();
            assert!(!exporter.is_outage());
            assert_eq!(exporter.unsent(), 2);
        }
        let encodings = &collector.0.lock().asked;
        let gzipped = |(metadata, _): &(MetadataMap, _)| metadata.get("grpc-encoding").is_some();
        assert!(encodings.iter().all(|asked| gzipped(asked) == gzip));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_goes_on_is_said_seldom_and_a_new_one_at_once() {
    let mut said = Said::default();
    assert!(said.is_loss_due() && !said.is_loss_due());
    assert!(said.is_over() && !said.is_over());
    assert!(said.is_loss_due() && !said.is_loss_due());
    tokio::time::advance(SAY_AGAIN).await;
    assert!(said.is_loss_due());
}

#[test]
fn what_a_collector_says_is_clipped() {
    let status = Status::internal("ü".repeat(MOST_TEXT));
    assert_eq!(reason(&status).len(), MOST_TEXT);
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
