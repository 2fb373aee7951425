//! The worker's span, as a process that has set OpenTelemetry up sees it.

// Helpers of tests are tests to clippy only if it is said so.
#[cfg(test)]
mod support;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context as Current, KeyValue, global};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanProcessor};
use serde_json::json;
use support::{Broker, Running, assignment, json};
use toolpool_proto::v1::{self as proto, pool_frame::Frame};
use toolpool_worker::{Output, Tool, ToolError, Worker};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut Span, _: &Current) {}

    fn on_end(&self, span: SpanData) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn traced(lease: u64, tool: &str, flags: &str) -> Frame {
    let Frame::Assignment(plain) = assignment(lease, tool, "{}") else {
        unreachable!("it is an assignment");
    };
    Frame::Assignment(proto::Assignment {
        traceparent: Some(format!("00-{TRACE}-b7ad6b7169203331-{flags}")),
        tracestate: Some("vendor=1".to_owned()),
        ..plain
    })
}

// One test: the provider belongs to the whole process.
#[tokio::test]
async fn a_tool_runs_below_the_workers_span_which_is_below_the_brokers() {
    let spans = Spans::default();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(spans.clone())
        .build();
    global::set_tracer_provider(provider);
    let schema = || json!({"type": "object"});
    let says = Tool::raw("says", "", schema(), |_, context| async move {
        let before = Current::current().span().span_context().span_id();
        tokio::task::yield_now().await;
        // As a library would do it that knows nothing of workers.
        global::tracer("library").in_span("inside", |_| ());
        let after = Current::current().span().span_context().span_id();
        assert_eq!(before, after);
        Ok(Output::json(json!([
            context.traceparent(),
            context.tracestate(),
            before.to_string()
        ])))
    });
    let fails = Tool::raw("fails", "", schema(), |_, _| async {
        Err(ToolError::failed("no\nsuch thing"))
    });
    let hangs = Tool::raw("hangs", "", schema(), |_, _| std::future::pending());
    let panics = Tool::raw("panics", "", schema(), |_, _| async { panic!("oh") });
    let builder = Worker::builder("http://broker")
        .id("w")
        .slots(4)
        .cancel_grace(Duration::ZERO);
    let mut broker = Broker::start();
    let _worker = Running::start(&broker, builder.tools([says, fails, hangs, panics]));
    let mut connection = broker.accept().await;

    connection.send(traced(1, "says", "01")).await;
    let said = json(&connection.outcome().await);
    let taken = |name: &str| {
        let mut all = spans.0.lock().unwrap();
        let at = all.iter().position(|span| span.name == *name).unwrap();
        all.remove(at)
    };
    let run = taken("run says");
    assert_eq!(run.span_context.trace_id().to_string(), TRACE);
    assert_eq!(run.parent_span_id.to_string(), "b7ad6b7169203331");
    assert_eq!(
        (&run.span_kind, &run.status),
        (&SpanKind::Server, &Status::Unset)
    );
    let id = run.span_context.span_id();
    let parent = format!("00-{TRACE}-{id}-01");
    assert_eq!(said, json!([parent, "vendor=1", id.to_string()]));
    assert_eq!(taken("inside").parent_span_id, id);

    // Messages are not told: they may quote the arguments.
    for (lease, tool, status) in [(2, "fails", "tool_failed"), (3, "panics", "panic")] {
        connection.send(traced(lease, tool, "01")).await;
        connection.outcome().await;
        let run = taken(&format!("run {tool}"));
        assert_eq!(run.status, Status::error(status));
        assert!(
            run.attributes
                .contains(&KeyValue::new("error.type", status))
        );
    }

    // One that is dropped after its cancel has a span that says so.
    connection.send(traced(6, "hangs", "01")).await;
    connection.cancel(6).await;
    connection.outcome().await;
    let run = taken("run hangs");
    assert_eq!(run.status, Status::error("cancelled"));

    // The broker's decision not to record holds, and no context is no trace.
    connection.send(traced(4, "says", "00")).await;
    let said = json(&connection.outcome().await);
    assert!(said[0].as_str().unwrap().ends_with("-00"));
    connection.assign(5, "says", "{}").await;
    assert_eq!(json(&connection.outcome().await)[0], json!(null));
    let mut left = spans.0.lock().unwrap().clone();
    // The library's own: no parent, so a trace of its own.
    left.retain(|span| span.name != "inside");
    assert!(left.is_empty(), "{left:?}");
}
