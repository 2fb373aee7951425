//! What the admin port shows of a broker at work. The port is a real one, so the clock runs.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_parse::{Sample, Scrape, Value};
use serde_json::json;
use support::admin::{ask, get};
use support::agent::whole;
use support::spans::Spans;
use support::worker::{attempts, error, read_only, register, side_effecting, tool};
use support::{Broker, settle, wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use toolpool_broker::metrics::{Kind, METRICS};
use toolpool_broker::policy::PolicyPatch;
use toolpool_broker::{Config, Sampling, SpanRoom, Telemetry};
use toolpool_proto::v1::{self, ErrorCode};

/// What Prometheus would see.
struct Seen(Vec<Sample>);

async fn scrape(admin: SocketAddr) -> Seen {
    let (status, text) = get(admin, "/metrics").await;
    assert_eq!(status, 200, "{text}");
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    Seen(Scrape::parse(lines).unwrap().samples)
}

impl Seen {
    /// The value of the series with these labels; a histogram's is its count. 0 if there is none.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            let same = |(label, value): &(&str, &str)| sample.labels.get(label) == Some(*value);
            sample.metric == name && labels.iter().all(same)
        };
        let found: Vec<_> = self.0.iter().filter(has).collect();
        found.iter().map(|sample| number(sample)).sum()
    }

    #[track_caller]
    fn expect(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let seen = self.value(name, labels);
        assert!(
            (seen - value).abs() < 1e-9,
            "{name}{labels:?} is {seen}, not {value}"
        );
    }

    fn values_of(&self, label: &str) -> BTreeSet<&str> {
        self.0
            .iter()
            .filter_map(|sample| sample.labels.get(label))
            .collect()
    }
}

fn number(sample: &Sample) -> f64 {
    match &sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
        Value::Histogram(buckets) => buckets.last().map_or(0.0, |bucket| bucket.count),
        Value::Summary(_) => 0.0,
    }
}

#[tokio::test]
async fn calls_are_counted_by_tool_and_outcome_and_their_times_are_there() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker
        .worker("w", 3, [read_only("read"), side_effecting("write")])
        .await;
    let agent = broker.agent().await;
    agent.call("a", "read", "{}").await;
    agent.call("b", "read", "{}").await;
    agent.call("c", "write", "{}").await;
    agent.call("d", "never heard of\"} 1\n", "{}").await;
    let reads = worker.assignments(2).await;
    let open = scrape(admin).await;
    open.expect("toolpool_batches_open", &[], 1.0);
    open.expect("toolpool_calls_in_flight", &[("tool", "read")], 2.0);
    open.expect("toolpool_slots_needed", &[("tool", "read")], 2.0);
    open.expect("toolpool_slots", &[("state", "used")], 2.0);
    open.expect("toolpool_slots", &[("state", "free")], 1.0);
    open.expect("toolpool_workers", &[("state", "connected")], 1.0);
    open.expect("toolpool_tool_workers", &[("tool", "write")], 1.0);

    let outcome = |tool, outcome| [("tool", tool), ("outcome", outcome)];
    worker.answer(&reads[0], "fine").await;
    // Its batch goes on, and may for long.
    let counted = async {
        while scrape(admin)
            .await
            .value("toolpool_calls_total", &outcome("read", "ok"))
            < 1.0
        {}
    };
    let counted = tokio::time::timeout(Duration::from_secs(20), counted);
    counted.await.expect("a call is counted when it ends");
    let seen = scrape(admin).await;
    seen.expect("toolpool_batches_open", &[], 1.0);
    seen.expect("toolpool_calls_total", &[("tool", "(none)")], 1.0);

    let failed = error(ErrorCode::ToolFailed, "broken");
    worker.fail(&reads[1], failed).await;
    agent.seal().await;
    let write = worker.assignment().await;
    worker.answer(&write, "done").await;
    agent.finished().await.unwrap();

    let seen = scrape(admin).await;
    seen.expect("toolpool_calls_total", &outcome("read", "ok"), 1.0);
    seen.expect("toolpool_calls_total", &outcome("read", "tool_failed"), 1.0);
    seen.expect("toolpool_calls_total", &outcome("write", "ok"), 1.0);
    seen.expect("toolpool_calls_total", &[("tool", "(none)")], 1.0);
    seen.expect("toolpool_calls_total", &[], 4.0);
    seen.expect("toolpool_batches_started_total", &[], 1.0);
    seen.expect("toolpool_batches_total", &[("ending", "finished")], 1.0);
    seen.expect("toolpool_call_run_seconds", &[("tool", "read")], 2.0);
    seen.expect("toolpool_call_hold_seconds", &[("tool", "write")], 1.0);
    seen.expect("toolpool_call_hold_seconds", &[], 1.0);
    seen.expect("toolpool_batch_duration_seconds", &[], 1.0);
    seen.expect("toolpool_attempts_total", &[("tool", "read")], 2.0);
    seen.expect("toolpool_calls_in_flight", &[], 0.0);
    seen.expect("toolpool_batches_open", &[], 0.0);
    assert_eq!(seen.values_of("tool"), ["(none)", "read", "write"].into());
}

#[tokio::test]
async fn waits_retries_and_fenced_leases_are_counted_where_they_happen() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let limited = v1::Policy {
        max_in_flight: Some(1),
        ..attempts(2)
    };
    let mut worker = broker
        .worker("w", 1, [tool("limited", limited), read_only("free")])
        .await;
    let agent = broker.agent().await;
    agent.call("a", "limited", "{}").await;
    agent.call("b", "limited", "{}").await;
    agent.call("c", "free", "{}").await;
    agent.seal().await;
    let first = worker.assignment().await;
    settle().await;
    let seen = scrape(admin).await;
    seen.expect("toolpool_calls_queued", &[("tool", "limited")], 1.0);
    seen.expect("toolpool_calls_queued", &[("tool", "free")], 1.0);
    seen.expect("toolpool_in_flight_limit", &[("tool", "limited")], 1.0);
    seen.expect("toolpool_in_flight_limit", &[], 1.0);
    // More slots would not help a tool that is at its limit.
    seen.expect("toolpool_slots_needed", &[("tool", "limited")], 1.0);
    seen.expect("toolpool_slots_needed", &[("tool", "free")], 1.0);

    let again = v1::CallError {
        retryable: true,
        ..error(ErrorCode::ToolFailed, "once more")
    };
    worker.fail(&first, again).await;
    for _ in 0..3 {
        let assignment = worker.assignment().await;
        worker.answer(&assignment, "fine").await;
    }
    agent.finished().await.unwrap();
    let seen = scrape(admin).await;
    seen.expect("toolpool_retries_total", &[("tool", "limited")], 1.0);
    seen.expect("toolpool_attempts_total", &[("tool", "limited")], 3.0);
    seen.expect("toolpool_call_slot_wait_seconds", &[("tool", "free")], 1.0);
    let by_limit = [("tool", "limited"), ("limit", "in_flight")];
    assert!(seen.value("toolpool_call_limit_wait_seconds", &by_limit) > 0.0);

    let agent = broker.agent().await;
    agent.call("a", "free", "{}").await;
    let late = worker.assignment().await;
    agent.reset();
    assert_eq!(worker.cancel().await, late.lease_id);
    worker.answer(&late, "too late").await;
    worker.acknowledged().await;
    let seen = scrape(admin).await;
    seen.expect("toolpool_batches_total", &[("ending", "unread")], 1.0);
    seen.expect("toolpool_leases_fenced_total", &[("tool", "free")], 1.0);
    seen.expect("toolpool_outcomes_fenced_total", &[], 1.0);
}

/// More workers would be scaled up for nothing.
#[tokio::test]
async fn slots_that_a_rate_lets_nobody_use_are_not_needed() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let rated = v1::Policy {
        rate: Some(0.01),
        burst: Some(1),
        // Long enough to be let wait.
        queue_timeout: Some(wire(Duration::from_mins(10))),
        call_timeout: Some(wire(Duration::from_mins(10))),
        ..attempts(1)
    };
    let mut worker = broker
        .worker("w", 1, [read_only("busy"), tool("rated", rated)])
        .await;
    let agent = broker.agent().await;
    agent.call("busy", "busy", "{}").await;
    let _busy = worker.assignment().await;
    for id in ["a", "b", "c"] {
        agent.call(id, "rated", "{}").await;
    }
    settle().await;
    let seen = scrape(admin).await;
    seen.expect("toolpool_calls_queued", &[("tool", "rated")], 3.0);
    seen.expect("toolpool_slots_needed", &[("tool", "rated")], 1.0);
}

#[tokio::test]
async fn a_piped_turn_that_is_cut_counts_with_its_early_starts_and_its_drops() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 2, [read_only("read")]).await;
    let agent = broker.agent_with(v1::Open {
        dialect: Some(v1::Dialect::OpenaiChat.into()),
        ..Default::default()
    });
    let agent = agent.await;
    let function = json!({"name": "read", "arguments": "{\"q\": 1}"});
    let call = json!({"index": 0, "id": "a", "type": "function", "function": function});
    agent
        .events(&[json!({
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}],
        })])
        .await;
    worker.assignment().await;
    // More follows, so what was taken for the call was none.
    let more = json!({"index": 0, "function": {"arguments": "3"}});
    agent
        .events(&[json!({
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"tool_calls": [more]}, "finish_reason": null}],
        })])
        .await;
    agent.seal_as(v1::TurnEnd::Truncated).await;
    agent.finished().await.unwrap();
    let seen = scrape(admin).await;
    let turn = [("dialect", "openai_chat"), ("end", "truncated")];
    seen.expect("toolpool_provider_turns_total", &turn, 1.0);
    seen.expect("toolpool_provider_calls_dropped_total", &[], 1.0);
    seen.expect("toolpool_early_starts_total", &[("tool", "read")], 1.0);
    seen.expect(
        "toolpool_early_starts_discarded_total",
        &[("tool", "read")],
        1.0,
    );
    let incomplete = [("tool", "read"), ("outcome", "incomplete")];
    seen.expect("toolpool_calls_total", &incomplete, 1.0);
}

#[tokio::test]
async fn a_rate_shows_how_much_of_it_is_used() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let slow = v1::Policy {
        rate: Some(0.001),
        burst: Some(4),
        ..attempts(1)
    };
    let mut worker = broker.worker("w", 2, [tool("slow", slow)]).await;
    let agent = broker.agent().await;
    agent.call("a", "slow", "{}").await;
    worker.assignment().await;
    let seen = scrape(admin).await;
    seen.expect("toolpool_rate_limit", &[("tool", "slow")], 0.001);
    let used = seen.value("toolpool_rate_burst_used_ratio", &[("tool", "slow")]);
    assert!((used - 0.25).abs() < 0.05, "{used}");
}

#[tokio::test]
async fn batches_that_are_not_opened_are_counted_with_the_reason() {
    let (broker, admin) = Broker::start_with_admin(|config| config.max_open_batches = 2).await;
    let first = broker.agent().await;
    let second = broker.agent().await;
    assert!(broker.open(v1::Open::default()).await.is_err());
    second.seal().await;
    second.finished().await.unwrap();
    broker.shutdown.drain.cancel();
    settle().await;
    assert!(broker.open(v1::Open::default()).await.is_err());
    let seen = scrape(admin).await;
    let turned_away = "toolpool_batches_turned_away_total";
    seen.expect(turned_away, &[("reason", "full")], 1.0);
    seen.expect(turned_away, &[("reason", "draining")], 1.0);
    seen.expect("toolpool_batches_started_total", &[], 2.0);
    first.seal().await;
    first.finished().await.unwrap();
}

#[tokio::test]
async fn workers_that_fall_silent_are_counted_and_leave_no_slots_behind() {
    let quick = |config: &mut toolpool_broker::Config| {
        config.beat_interval = Duration::from_millis(20);
        config.reconnect_grace = Duration::from_millis(200);
    };
    let (broker, admin) = Broker::start_with_admin(quick).await;
    let worker = broker.worker("w", 5, [read_only("read")]).await;
    worker.go_silent();
    until(admin, "toolpool_workers", &[("state", "away")], 1.0).await;
    until(
        admin,
        "toolpool_workers_left_total",
        &[("reason", "lost")],
        1.0,
    )
    .await;
    let seen = scrape(admin).await;
    seen.expect("toolpool_worker_streams_broken_total", &[], 1.0);
    assert!(seen.value("toolpool_beats_missed_total", &[]) >= 1.0);
    seen.expect("toolpool_workers", &[], 0.0);
    seen.expect("toolpool_slots", &[], 0.0);
    seen.expect("toolpool_tool_workers", &[("tool", "read")], 0.0);
}

async fn until(admin: SocketAddr, name: &str, labels: &[(&str, &str)], value: f64) {
    for _ in 0..2_000 {
        let seen = scrape(admin).await.value(name, labels);
        if (seen - value).abs() < 1e-9 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{name}{labels:?} never came to {value}");
}

#[tokio::test]
async fn a_thousand_tools_have_no_more_series_than_there_may_be() {
    let (broker, admin) = Broker::start_with_admin(|config| config.max_metric_tools = 30).await;
    let tools = (0..1_000).map(|number| read_only(&format!("tool-{number}")));
    let wide = v1::Register {
        tools: tools.collect(),
        ..register::<0>("w", 1, [])
    };
    let mut worker = broker.join(wide).await.unwrap();
    for number in [1, 500, 999] {
        let agent = broker.agent().await;
        agent.call("a", &format!("tool-{number}"), "{}").await;
        agent.call("b", &format!("made up {number}"), "{}").await;
        agent.seal().await;
        let assignment = worker.assignment().await;
        worker.answer(&assignment, "fine").await;
        agent.finished().await.unwrap();
    }
    let seen = scrape(admin).await;
    let values = seen.values_of("tool");
    assert_eq!(values.len(), 32, "{values:?}");
    assert!(values.contains("(other)") && values.contains("(none)"));
    seen.expect("toolpool_tools", &[], 1_000.0);
    seen.expect("toolpool_tool_workers", &[("tool", "(other)")], 970.0);
    seen.expect("toolpool_calls_total", &[], 6.0);
    seen.expect("toolpool_calls_total", &[("tool", "(none)")], 3.0);
}

#[tokio::test]
async fn what_is_shown_is_in_the_table_and_has_the_labels_that_stand_there() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 1, [read_only("read")]).await;
    let agent = broker.agent().await;
    agent.call("a", "read", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    worker.answer(&assignment, "fine").await;
    agent.finished().await.unwrap();
    let seen = scrape(admin).await;
    for sample in &seen.0 {
        let name = sample.metric.as_str();
        let part_of_a_histogram = ["_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|_| matches!(sample.value, Value::Untyped(_)));
        let name = part_of_a_histogram.unwrap_or(name);
        let metric = METRICS.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not in the table"));
        let kind = match sample.value {
            Value::Counter(_) => Kind::Counter,
            Value::Gauge(_) => Kind::Gauge,
            _ => Kind::Histogram,
        };
        assert_eq!(kind, metric.kind, "{}", metric.name);
        let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
        let expected: BTreeSet<&str> = metric.labels.iter().copied().collect();
        assert_eq!(labels, expected, "{}", metric.name);
    }
}

#[tokio::test]
async fn probes_follow_the_drain_and_strangers_are_turned_away() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let agent = broker.agent().await;
    assert_eq!(get(admin, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(admin, "/readyz").await, (200, "serving\n".to_owned()));
    assert_eq!(get(admin, "/").await.0, 404);
    assert_eq!(get(admin, "/log-filter").await.0, 404, "there is no log");
    let posted = "POST /metrics HTTP/1.1\r\nhost: broker\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(ask(admin, posted).await.0, 405);
    let large = "x".repeat(100_000);
    let large = format!("GET /healthz HTTP/1.1\r\nhost: {large}\r\n\r\n");
    assert_ne!(large_status(admin, &large).await, 200);

    broker.shutdown.drain.cancel();
    settle().await;
    assert_eq!(get(admin, "/healthz").await.0, 200);
    assert_eq!(get(admin, "/readyz").await, (503, "draining\n".to_owned()));
    scrape(admin).await.expect("toolpool_draining", &[], 1.0);
    agent.seal().await;
    agent.finished().await.unwrap();
}

/// The status of the answer to a request that need not be read to its end; 0 if there is none.
async fn large_status(admin: SocketAddr, request: &str) -> u16 {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1);
    status.map_or(0, |code| code.parse().unwrap())
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_a_probe_out_for_long() {
    let (_broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(admin).await.unwrap());
    }
    // And some whose filter never comes to its end.
    for _ in 0..80 {
        let mut stalled = TcpStream::connect(admin).await.unwrap();
        let head = b"PUT /log-filter HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nde";
        stalled.write_all(head).await.unwrap();
        idle.push(stalled);
    }
    // 120 in turns of 64 that are given a few seconds each.
    let answered = tokio::time::timeout(Duration::from_secs(20), get(admin, "/healthz")).await;
    assert_eq!(answered.unwrap().0, 200);
}

#[tokio::test]
async fn a_configured_tool_that_nobody_serves_counts_under_its_name() {
    let named = |config: &mut Config| {
        let tools = &mut config.tools;
        tools.insert("search".to_owned(), PolicyPatch::default());
    };
    let (broker, admin) = Broker::start_with_admin(named).await;
    let _other = broker.worker("w", 1, [read_only("read")]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.call("b", "made up", "{}").await;
    agent.seal().await;
    agent.finished().await.unwrap();
    let seen = scrape(admin).await;
    let calls = "toolpool_calls_total";
    let ended = [("tool", "search"), ("outcome", "no_worker")];
    seen.expect(calls, &ended, 1.0);
    seen.expect(calls, &[("tool", "(none)")], 1.0);
    let workers = "toolpool_tool_workers";
    assert_eq!(seen.values_of("tool"), ["(none)", "read", "search"].into());
    seen.expect(workers, &[], 1.0);
    seen.expect(workers, &[("tool", "search")], 0.0);
}

/// A trace without its root, or without some of its calls, would say what is not so.
#[tokio::test]
async fn a_batch_that_finds_no_room_for_all_of_its_spans_is_dropped_as_a_whole_and_counted() {
    let spans = Spans::default();
    let room = Arc::new(SpanRoom::new(8));
    let telemetry = Telemetry::default()
        .with_traces(spans.clone(), Sampling::ALWAYS)
        .with_room(Arc::clone(&room));
    let (broker, admin) = Broker::start_all(telemetry).await;
    let name = "toolpool_spans_dropped_total";
    // Each call has one span, and its batch another.
    let batch = async |calls: usize| {
        let calls = (0..calls).map(|id| whole(&id.to_string(), "none", "{}"));
        let request = v1::ExecuteBatchRequest {
            calls: calls.collect(),
            ..Default::default()
        };
        broker.execute_batch(request).await.unwrap();
    };
    let seen = scrape(admin).await;
    assert_eq!(
        seen.values_of("reason")
            .intersection(&["full", "unsent"].into())
            .count(),
        2
    );
    batch(4).await;
    assert_eq!(spans.names().len(), 5);
    batch(3).await;
    assert_eq!(spans.names().len(), 5, "{:?}", spans.names());
    batch(2).await;
    assert_eq!(spans.names().len(), 8);
    // The exporter takes some out, and the collector does not take them.
    room.give_back(5);
    room.unsent(5);
    batch(4).await;
    assert_eq!(spans.names().len(), 13);
    let seen = scrape(admin).await;
    seen.expect(name, &[("reason", "full")], 4.0);
    seen.expect(name, &[("reason", "unsent")], 5.0);
}
