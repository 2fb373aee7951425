//! What a batch looks like where traces are kept.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use opentelemetry::trace::{SpanId, SpanKind};
use support::agent::{FakeAgent, call, delta, seal, start, whole};
use support::spans::{Spans, attribute, failure, times};
use support::worker::{attempts, error, once, read_only, side_effecting, tool};
use support::{Broker, millis, seconds, settle, wire};
use tokio::time::sleep;
use toolpool_broker::{Sampling, Telemetry};
use toolpool_proto::v1::agent_frame::Frame;
use toolpool_proto::v1::{self, ErrorCode, Policy, TurnEnd};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const AGENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const NEVER: Sampling = Sampling {
    parent_based: true,
    ratio: 0.0,
};

fn traced() -> (Broker, Spans) {
    Broker::start_traced(Sampling::ALWAYS, |_| ())
}

fn below(parent: &str) -> v1::Open {
    v1::Open {
        traceparent: Some(parent.to_owned()),
        ..Default::default()
    }
}

/// An agent whose RPC carries these.
async fn with_metadata(
    broker: &Broker,
    open: v1::Open,
    metadata: &[(&'static str, &'static str)],
) -> FakeAgent {
    let opened = broker.open_with(vec![Frame::Open(open)], |request| {
        for (key, value) in metadata {
            request.metadata_mut().append(*key, value.parse().unwrap());
        }
    });
    opened.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_trace_from_the_agents_span_to_every_attempt() {
    let (broker, spans) = traced();
    let retried = tool("look_up", attempts(2));
    let mut lost = broker
        .worker("lost", 1, [retried.clone(), side_effecting("send")])
        .await;
    let agent = with_metadata(
        &broker,
        below("passed over, since metadata wins"),
        &[("traceparent", AGENT), ("tracestate", "vendor=1")],
    )
    .await;
    agent.call("a", "look_up", "{}").await;
    let first = lost.assignment().await;
    agent.call("b", "send", "{}").await;
    sleep(millis(100)).await;
    lost.half_close();
    settle().await;
    let mut worker = broker
        .worker("w", 2, [retried, side_effecting("send")])
        .await;
    let second = worker.assignment().await;
    sleep(millis(50)).await;
    agent.seal().await;
    let third = worker.assignment().await;
    sleep(millis(30)).await;
    worker.answer(&second, "found").await;
    worker.answer(&third, "sent").await;
    let finished = agent.finished().await.unwrap();
    assert_eq!(finished.summary.trace_id.as_deref(), Some(TRACE));
    spans.check();

    let batch = spans.one("toolpool.batch");
    assert_eq!(batch.span_context.trace_id().to_string(), TRACE);
    assert_eq!(batch.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(batch.parent_span_is_remote);
    assert_eq!(batch.span_kind, SpanKind::Server);
    assert_eq!(batch.span_context.trace_state().header(), "vendor=1");
    for (key, value) in [
        ("toolpool.batch.id", &*finished.summary.batch_id),
        ("toolpool.batch.calls", "2"),
        ("toolpool.batch.succeeded", "2"),
        ("toolpool.turn.end", "complete"),
    ] {
        assert_eq!(attribute(&batch, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(
        spans.below(&batch),
        ["execute_tool look_up", "execute_tool send"]
    );

    let call = spans.call("a");
    assert_eq!(call.span_kind, SpanKind::Internal);
    for (key, value) in [
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "look_up"),
        ("gen_ai.tool.type", "function"),
        ("toolpool.call.position", "0"),
        ("toolpool.call.attempts", "2"),
        ("toolpool.worker.id", "w"),
    ] {
        assert_eq!(attribute(&call, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(failure(&call), None);
    let children = spans.below(&call);
    assert_eq!(children, ["attempt 1", "wait for slot", "attempt 2"]);
    let attempt = spans.child(&call, "attempt 1");
    assert_eq!(attempt.span_kind, SpanKind::Client);
    assert_eq!(times(&attempt, &call), (0, 100));
    assert!(failure(&attempt).is_some());
    for (key, value) in [
        ("toolpool.attempt.ending", "worker_lost"),
        ("error.type", "worker_lost"),
        ("toolpool.worker.id", "lost"),
        ("toolpool.lease.id", &*format!("{:016x}", first.lease_id)),
    ] {
        assert_eq!(attribute(&attempt, key).as_deref(), Some(value), "{key}");
    }
    let again = spans.child(&call, "attempt 2");
    assert_eq!(times(&again, &call).1, 80);
    assert_eq!(
        attribute(&again, "toolpool.attempt.ending").as_deref(),
        Some("output")
    );
    // What the workers hang their spans under.
    for (assignment, attempt) in [(&first, &attempt), (&second, &again)] {
        let parent = format!("00-{TRACE}-{}-01", attempt.span_context.span_id());
        assert_eq!(assignment.traceparent(), parent);
        assert_eq!(assignment.tracestate(), "vendor=1");
    }

    let sent = spans.call("b");
    assert_eq!(spans.below(&sent), ["hold", "attempt 1"]);
    let hold = spans.child(&sent, "hold");
    assert_eq!(times(&hold, &sent), (0, 151));
    assert!(sent.start_time < call.end_time, "the calls overlap");
}

#[tokio::test(start_paused = true)]
async fn waits_are_told_apart_by_what_was_waited_for() {
    let (broker, spans) = traced();
    let limited = |rate, max_in_flight| Policy {
        rate,
        burst: rate.map(|_| 1),
        max_in_flight,
        ..once()
    };
    let tools = [
        tool("rated", limited(Some(10.0), None)),
        tool("single", limited(None, Some(1))),
    ];
    let worker = broker.worker("w", 9, tools).await;
    let slow = broker.worker("slow", 1, [read_only("slotted")]).await;
    let (_worker, _slow) = (worker.serve(millis(40)), slow.serve(millis(70)));
    let open = v1::Open {
        max_parallel: Some(6),
        ..below(AGENT)
    };
    let agent = broker.agent_with(open).await;
    for tool in ["rated", "single", "slotted"] {
        agent.call(&format!("{tool} 1"), tool, "{}").await;
        agent.call(&format!("{tool} 2"), tool, "{}").await;
    }
    agent.call("late", "single", "{}").await;
    agent.seal().await;
    agent.finished().await.unwrap();
    spans.check();
    for (id, wait, limit, time) in [
        ("rated 2", "wait for limit", Some("rate"), 100),
        ("single 2", "wait for limit", Some("in_flight"), 40),
        ("slotted 2", "wait for slot", None, 70),
        // It came while the fan-out was full.
        ("late", "wait for limit", Some("max_parallel"), 40),
    ] {
        let call = spans.call(id);
        let wait = spans.child(&call, wait);
        assert_eq!(attribute(&wait, "toolpool.limit").as_deref(), limit, "{id}");
        assert_eq!(times(&wait, &call), (0, time), "{id}");
        let attempt = spans.child(&call, "attempt 1");
        assert!(attempt.start_time >= wait.end_time, "{id}");
    }
    for id in ["rated 1", "single 1", "slotted 1"] {
        assert_eq!(spans.below(&spans.call(id)), ["attempt 1"], "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_cut_early_and_duplicate_calls_have_spans_that_say_so() {
    let (broker, spans) = traced();
    let tools = [
        tool("fails", once()),
        tool("hangs", once()),
        side_effecting("send"),
    ];
    let mut worker = broker.worker("w", 9, tools).await;
    let agent = broker.agent_with(below(AGENT)).await;
    for (id, tool) in [("a", "fails"), ("b", "hangs"), ("c", "send"), ("d", "none")] {
        agent.call(id, tool, "{}").await;
    }
    agent.call("a", "fails", "{}").await;
    agent.start(9, "e", "hangs").await;
    let no = error(ErrorCode::ToolFailed, "no such thing\nand more");
    let failing = worker.assignment().await;
    worker.fail(&failing, no).await;
    sleep(millis(10)).await;
    agent.seal_as(TurnEnd::Aborted).await;
    agent.finished().await.unwrap();
    spans.check();
    let batch = spans.one("toolpool.batch");
    assert_eq!(
        attribute(&batch, "toolpool.turn.end").as_deref(),
        Some("aborted")
    );
    assert_eq!(
        attribute(&batch, "toolpool.batch.duplicates").as_deref(),
        Some("1")
    );
    assert_eq!(spans.below(&batch).len(), 6);
    for (id, code, effect, children) in [
        ("a", "tool_failed", "maybe", &["attempt 1"][..]),
        ("b", "aborted", "maybe", &["attempt 1"]),
        ("c", "aborted", "not_started", &["hold"]),
        ("d", "no_worker", "not_started", &[]),
        ("e", "incomplete", "not_started", &[]),
    ] {
        let call = spans.call(id);
        assert_eq!(attribute(&call, "error.type").as_deref(), Some(code));
        assert_eq!(
            attribute(&call, "toolpool.call.effect").as_deref(),
            Some(effect),
            "{id}"
        );
        assert!(failure(&call).is_some(), "{id}");
        assert_eq!(spans.below(&call), children, "{id}");
    }
    assert_eq!(
        failure(&spans.call("a")).as_deref(),
        Some("tool_failed"),
        "its message may quote the arguments"
    );
    let off = spans.child(&spans.call("b"), "attempt 1");
    assert_eq!(
        attribute(&off, "toolpool.attempt.ending").as_deref(),
        Some("called_off")
    );
    let duplicate = spans
        .all()
        .into_iter()
        .find(|span| attribute(span, "error.type").as_deref() == Some("duplicate_id"));
    assert_eq!(
        attribute(&duplicate.unwrap(), "gen_ai.tool.call.id").as_deref(),
        Some("a")
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_starts_early_is_told_from_its_start() {
    let (broker, spans) = traced();
    let worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let _worker = worker.serve(millis(20));
    let open = v1::Open {
        dialect: Some(v1::Dialect::OpenaiChat.into()),
        ..below(AGENT)
    };
    let agent = broker.agent_with(open).await;
    let piece = serde_json::json!({"choices": [{"index": 0, "delta": {"tool_calls": [{
        "index": 0, "id": "x", "type": "function", "function": {"name": "look_up", "arguments": "{\"q\":1}"}
    }]}}]});
    agent.events(&[piece]).await;
    sleep(millis(50)).await;
    let end =
        serde_json::json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]});
    agent.events(&[end]).await;
    agent.seal().await;
    agent.finished().await.unwrap();
    spans.check();
    let call = spans.one("execute_tool look_up");
    assert_eq!(
        attribute(&call, "toolpool.call.started_early").as_deref(),
        Some("true")
    );
    assert_eq!(times(&spans.child(&call, "attempt 1"), &call), (0, 20));
    let batch = spans.one("toolpool.batch");
    assert_eq!(times(&call, &batch), (0, 50));
    assert_eq!(
        attribute(&batch, "toolpool.dialect").as_deref(),
        Some("openai_chat")
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_shows_its_pause_as_a_gap() {
    let (broker, spans) = traced();
    let mut worker = broker.worker("w", 9, [tool("flaky", attempts(2))]).await;
    let agent = broker.agent_with(below(AGENT)).await;
    agent.call("a", "flaky", "{}").await;
    agent.seal().await;
    let first = worker.assignment().await;
    let again = v1::CallError {
        retryable: true,
        retry_after: Some(wire(millis(300))),
        ..error(ErrorCode::ToolFailed, "not now")
    };
    worker.fail(&first, again).await;
    worker.answer_next("done").await;
    agent.finished().await.unwrap();
    spans.check();
    let call = spans.call("a");
    assert_eq!(spans.below(&call), ["attempt 1", "attempt 2"]);
    let first = spans.child(&call, "attempt 1");
    assert_eq!(failure(&first).as_deref(), Some("tool_failed"));
    let (at, _) = times(&spans.child(&call, "attempt 2"), &first);
    assert!((300..310).contains(&at), "{at} ms");
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_refused_or_left_have_spans_too() {
    let (broker, spans) = traced();
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let agent = broker.agent_with(below(AGENT)).await;
    agent.call("a", "look_up", "{}").await;
    worker.assignment().await;
    agent.delta(7, "of a block that never began").await;
    agent.refused().await;
    worker.cancel().await;
    let batch = spans.one("toolpool.batch");
    assert_eq!(attribute(&batch, "error.type").as_deref(), Some("refused"));
    assert_eq!(
        attribute(&batch, "rpc.grpc.status_code").as_deref(),
        Some("3")
    );
    let agent = broker.agent_with(below(AGENT)).await;
    agent.call("gone", "look_up", "{}").await;
    worker.assignment().await;
    agent.cut();
    sleep(seconds(1)).await;
    spans.check();
    assert_eq!(
        attribute(&spans.call("gone"), "error.type").as_deref(),
        Some("cancelled")
    );
    let gone = spans.all().into_iter().filter(|span| {
        failure(span).as_deref() == Some("the agent went away") && span.name == "toolpool.batch"
    });
    assert_eq!(gone.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_context_or_with_a_malformed_one_the_batch_is_the_root() {
    let (broker, spans) = traced();
    let worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let _worker = worker.serve(millis(1));
    for open in [v1::Open::default(), below("00-nonsense-01")] {
        let agent = with_metadata(&broker, open, &[("traceparent", "00-worse")]).await;
        agent.call("a", "look_up", "{}").await;
        agent.seal().await;
        let trace = agent.finished().await.unwrap().summary.trace_id.unwrap();
        let all = spans.all();
        let batch = all.last().unwrap();
        assert_eq!(batch.name, "toolpool.batch");
        assert_eq!(batch.parent_span_id, SpanId::INVALID);
        assert_eq!(batch.span_context.trace_id().to_string(), trace);
    }
    spans.check();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_sampled_leaves_no_span_and_the_worker_is_told_so() {
    let (broker, spans) = Broker::start_traced(NEVER, |_| ());
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    for (open, trace) in [(v1::Open::default(), None), (below(UNSAMPLED), Some(TRACE))] {
        let agent = broker.agent_with(open).await;
        agent.call("a", "look_up", "{}").await;
        agent.seal().await;
        let assignment = worker.assignment().await;
        assert!(assignment.traceparent().ends_with("-00"));
        worker.answer(&assignment, "found").await;
        let finished = agent.finished().await.unwrap();
        assert_eq!(finished.summary.trace_id.as_deref(), trace);
    }
    assert!(spans.all().is_empty());
    // Its agent's word holds.
    let agent = broker.agent_with(below(AGENT)).await;
    agent.seal().await;
    agent.finished().await.unwrap();
    assert_eq!(spans.names(), ["toolpool.batch"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_trace_tears_no_trace() {
    let broker = Broker::start_telling(Telemetry::default(), |_| ());
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let request = v1::ExecuteBatchRequest {
        open: Some(v1::Open {
            tracestate: Some("vendor=1".to_owned()),
            ..below(AGENT)
        }),
        calls: vec![whole("a", "look_up", "{}")],
        ..Default::default()
    };
    let served = worker.answer_next("found");
    let (finished, assignment) = tokio::join!(broker.execute_batch(request), served);
    assert_eq!(assignment.traceparent(), AGENT);
    assert_eq!(assignment.tracestate(), "vendor=1");
    let trace = finished.unwrap().summary.trace_id;
    assert_eq!(trace.as_deref(), Some(TRACE));

    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    assert_eq!(
        (&assignment.traceparent, &assignment.tracestate),
        (&None, &None)
    );
    worker.answer(&assignment, "found").await;
    assert_eq!(agent.finished().await.unwrap().summary.trace_id, None);
}

#[tokio::test(start_paused = true)]
async fn what_calls_are_given_and_give_back_is_told_only_if_it_is_wanted() {
    for wanted in [false, true] {
        let (broker, spans) =
            Broker::start_traced(Sampling::ALWAYS, |config| config.trace_content = wanted);
        let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
        let agent = broker.agent().await;
        let long = format!("{{\"q\":\"{}\"}}", "é".repeat(10_000));
        agent
            .send_all([start(0, "a", "look_up"), delta(0, &long)])
            .await;
        agent.stop(0).await;
        agent.send_all([call("b", "look_up", "{}")]).await;
        agent.send(seal(TurnEnd::Complete)).await;
        worker.answer_next("found").await;
        let failing = worker.assignment().await;
        let no = error(ErrorCode::ToolFailed, "no such thing\nand more");
        worker.fail(&failing, no).await;
        agent.finished().await.unwrap();
        let failed = spans.call("b");
        let attempt = spans.child(&failed, "attempt 1");
        let told = if wanted {
            "no such thing"
        } else {
            "tool_failed"
        };
        for span in [failed, attempt] {
            assert_eq!(failure(&span).as_deref(), Some(told), "its first line");
        }
        let span = spans.call("a");
        let arguments = attribute(&span, "gen_ai.tool.call.arguments");
        let result = attribute(&span, "gen_ai.tool.call.result");
        if wanted {
            let arguments = arguments.unwrap();
            assert!(long.starts_with(&arguments) && arguments.len() <= 8_192);
            assert_eq!(result.as_deref(), Some("found"));
        } else {
            assert_eq!((arguments, result), (None, None));
        }
    }
}
