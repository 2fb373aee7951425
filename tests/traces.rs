//! Traces of whole processes, as a collector gets them.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Output, Stdio};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;
use toolpool_client::{BatchOptions, Client};

use support::collector::{Collector, Identity, Kept, hex, spans_dropped, variables};
use support::workshop::Workshop;
use support::{Broker, Process, eventually, json, stderr, stdout, toolpool};

const AGENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A tool that can be held back, and one that says what trace it belongs to.
const TOOLS: &str = r#"
[[tool]]
name = "look"
command = ["sh", "work"]
effects = "read_only"

[[tool]]
name = "trace"
command = ["sh", "-c", "echo $TRACEPARENT $TRACESTATE"]
effects = "read_only"
"#;

fn worker(broker: &Broker, id: &str, tools: &Workshop, variables: [(&str, &str); 2]) -> Process {
    broker.exec_worker_in(&variables, id, &tools.tools(), &[])
}

#[track_caller]
fn one<'a>(spans: &'a [Kept], name: &str) -> &'a Kept {
    let mut named = spans.iter().filter(|kept| kept.span.name == name);
    match (named.next(), named.next()) {
        (Some(kept), None) => kept,
        _ => panic!(
            "not one {name}: {:?}",
            spans.iter().map(|kept| &kept.span.name).collect::<Vec<_>>()
        ),
    }
}

#[tokio::test]
async fn one_trace_leads_from_the_agent_through_a_lost_worker_to_what_the_tool_does() {
    let collector = Collector::start().await;
    let broker = Broker::start_in(&collector.variables(), &["--reconnect-grace", "100ms"]);
    let workshop = Workshop::with(TOOLS);
    let first = worker(&broker, "first", &workshop, collector.variables());
    broker.wait_for_workers("look", 1).await;
    workshop.hold("slow", 1);
    let options = BatchOptions::default()
        .traceparent(AGENT)
        .tracestate("vendor=1");
    let mut batch = broker.client().batch(options).await.unwrap();
    batch.call("slow", "look", "{}").await.unwrap();
    batch.call("says", "trace", "{}").await.unwrap();
    eventually("the first worker runs it", async || {
        workshop.runs().len() == 1
    })
    .await;
    // Its other call has ended, and it has told of that.
    eventually("a worker's span has come", async || {
        let spans = collector.trace(TRACE);
        spans.iter().any(|kept| kept.span.name == "run trace")
    })
    .await;
    first.signal(Signal::KILL);
    let _second = worker(&broker, "second", &workshop, collector.variables());
    let batch = batch.finish().await.unwrap();
    assert!(batch.all_succeeded(), "{batch:?}");
    assert_eq!(batch.summary.trace_id.as_deref(), Some(TRACE));

    let mut spans = Vec::new();
    // The killed worker's own span is lost with it.
    eventually("every span has come", async || {
        spans = collector.trace(TRACE);
        spans.len() >= 9
    })
    .await;
    let root = one(&spans, "toolpool.batch");
    assert_eq!(hex(&root.span.parent_span_id), "b7ad6b7169203331");
    assert_eq!(root.service, "toolpool-broker");
    assert_eq!(root.span.trace_state, "vendor=1");
    let call = one(&spans, "execute_tool look");
    assert_eq!(call.attribute("gen_ai.tool.call.id").unwrap(), "slow");
    let mut below: Vec<_> = spans
        .iter()
        .filter(|kept| kept.span.parent_span_id == call.span.span_id)
        .collect();
    below.sort_by_key(|kept| kept.span.start_time_unix_nano);
    let attempts: Vec<_> = below
        .iter()
        .filter(|kept| kept.span.name.starts_with("attempt"))
        .map(|kept| kept.attribute("toolpool.worker.id").unwrap())
        .collect();
    assert_eq!(attempts, ["first", "second"]);
    // It ends with its worker's attempt, below which the tool's own spans hang.
    let run = one(&spans, "run look");
    let attempt = below.last().unwrap();
    assert_eq!(run.span.parent_span_id, attempt.span.span_id);
    assert_eq!(run.service, "toolpool-worker");
    assert_eq!(run.span.kind(), SpanKind::Server);
    assert_eq!(attempt.span.kind(), SpanKind::Client);
    assert!(run.time() <= attempt.time() + Duration::from_millis(5));
    let ran = one(&spans, "run trace");
    let said = batch.get("says").unwrap().outcome.as_ref().unwrap();
    let text = format!("00-{TRACE}-{}-01 vendor=1", hex(&ran.span.span_id));
    assert!(format!("{said:?}").contains(&text), "{said:?}");
    let other = one(&spans, "execute_tool trace");
    assert!(
        other.span.start_time_unix_nano < call.span.end_time_unix_nano,
        "the calls overlap"
    );
}

#[tokio::test]
async fn the_command_line_says_where_to_look_and_the_last_spans_are_sent_before_the_end() {
    let collector = Collector::start().await;
    let mut variables = collector.variables();
    // So late that only the end of the process sends them.
    variables[1].1 = "60000";
    let mut broker = Broker::start_in(&variables, &[]);
    let _worker = broker.demo_worker("w", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let call = ["call", "calculate", r#"{"expression": "6 * 7"}"#];
    let run = broker.run(&call);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let told = stdout(&run);
    let told = told.lines().find_map(|line| line.strip_prefix("trace "));
    let told = told.unwrap().to_owned();
    let run = broker.run(&[&call[..1], &["--json"], &call[1..]].concat());
    let id = json(&run)["trace_id"].as_str().unwrap().to_owned();
    assert!(collector.is_empty());
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.exit_code().await, Some(0));
    for id in [told, id] {
        let spans = collector.trace(&id);
        let names: Vec<_> = spans.iter().map(|kept| &*kept.span.name).collect();
        assert_eq!(
            names,
            ["attempt 1", "execute_tool calculate", "toolpool.batch"]
        );
    }
}

#[tokio::test]
async fn without_a_collector_there_is_no_trace() {
    let collector = Collector::start().await;
    let [endpoint, soon] = collector.variables();
    let off = [endpoint, soon, ("OTEL_SDK_DISABLED", "true")];
    for variables in [&[][..], &off] {
        let mut broker = Broker::start_in(variables, &[]);
        let _worker = broker.demo_worker("w", &[]);
        broker.wait_for_workers("calculate", 1).await;
        let run = broker.run(&["call", "--json", "calculate", r#"{"expression": "6 * 7"}"#]);
        assert_eq!(json(&run).get("trace_id"), None);
        // What there was to send is sent then.
        broker.process.signal(Signal::TERM);
        assert_eq!(broker.process.exit_code().await, Some(0));
    }
    assert!(collector.is_empty());
}

/// Starts a broker that has no reason to go on: its stdin is at its end, and it ends with that.
fn start_with(variables: &[(&str, &str)]) -> Output {
    let mut command = toolpool();
    command.args(["broker", "--listen", "127.0.0.1:0", "--admin-listen", "off"]);
    command.arg("--exit-with-parent").stdin(Stdio::null());
    command.envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn what_cannot_be_exported_to_is_refused_at_the_start() {
    for (variable, value, expected) in [
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is http/protobuf",
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "OTEL_EXPORTER_OTLP_PROTOCOL is http/json",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "unix:///run/collector",
            "OTEL_EXPORTER_OTLP_ENDPOINT is unix:///run/collector: unix is neither http nor https",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://me:secret@127.0.0.1:4317",
            "OTEL_EXPORTER_OTLP_ENDPOINT is …@127.0.0.1:4317: a user in it is not heeded",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://127.0.0.1:99999",
            "it has no such port",
        ),
        (
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "zstd",
            "OTEL_EXPORTER_OTLP_COMPRESSION is zstd",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "no equals sign",
            "OTEL_EXPORTER_OTLP_HEADERS: a header is written",
        ),
    ] {
        let run = start_with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
            (variable, value),
        ]);
        assert_eq!(run.status.code(), Some(2), "{variable}");
        assert!(stderr(&run).contains(expected), "{}", stderr(&run));
    }
}

#[tokio::test]
async fn batches_that_end_at_once_have_their_traces_whole_or_not_at_all() {
    // The first has room for all; the second for two batches at the most.
    for queue in ["", "1000"] {
        let collector = Collector::start().await;
        let [endpoint, soon] = collector.variables();
        let queue = [endpoint, soon, ("OTEL_BSP_MAX_QUEUE_SIZE", queue)];
        let mut broker = Broker::start_in(&queue, &[]);
        let admin = broker.admin_address();
        let _worker = broker.demo_worker("w", &[]);
        broker.wait_for_workers("calculate", 1).await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let mut open = JoinSet::new();
            for _ in 0..8 {
                let client = broker.client();
                open.spawn(async move {
                    let mut batch = client.batch(BatchOptions::default()).await.unwrap();
                    for id in 0..200 {
                        let arguments = r#"{"expression": "6 * 7"}"#;
                        let id = id.to_string();
                        batch.call(&id, "calculate", arguments).await.unwrap();
                    }
                    batch.finish().await.unwrap().summary.trace_id.unwrap()
                });
            }
            ids.extend(open.join_all().await);
        }
        let dropped = spans_dropped(&admin);
        // What waits is sent then.
        broker.process.signal(Signal::TERM);
        assert_eq!(broker.process.exit_code().await, Some(0));
        let mut there = 0;
        for id in &ids {
            let spans = collector.trace(id);
            if spans.is_empty() {
                continue;
            }
            one(&spans, "toolpool.batch");
            let calls = spans
                .iter()
                .filter(|kept| kept.span.name == "execute_tool calculate");
            assert_eq!(calls.count(), 200, "{id}");
            there += 1;
        }
        assert_eq!(there == ids.len(), dropped < 1.0, "{there} are there");
        if queue[2].1.is_empty() {
            assert_eq!(there, ids.len());
        }
    }
}

#[tokio::test]
async fn what_is_not_heeded_is_said_at_the_start() {
    for (variable, value, said) in [
        ("OTEL_TRACES_EXPORTER", "jaeger", Some("not heeded")),
        ("OTEL_TRACES_EXPORTER", "OTLP", None),
        ("OTEL_PROPAGATORS", "b3", Some("not heeded")),
        ("OTEL_PROPAGATORS", "baggage,tracecontext", None),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5", Some("not heeded")),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", Some("no whole number")),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", None),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", Some("no whole number")),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "18446744073709551615",
            Some("as long as it may be"),
        ),
    ] {
        let run = start_with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
            (variable, value),
        ]);
        assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
        let log = stderr(&run);
        let found = said.is_some_and(|said| log.contains(said) && log.contains(value));
        assert_eq!(found, log.contains("WARN"), "{variable}={value}: {log}");
        assert_eq!(found, said.is_some(), "{variable}={value}: {log}");
    }
}

/// Runs a call and ends the broker; what the collector then has of it.
async fn traced(collector: &Collector, variables: &[(&str, &str)]) -> Vec<Kept> {
    let variables = [&collector.variables(), variables].concat();
    let mut broker = Broker::start_in(&variables, &[]);
    let _worker = broker.demo_worker("w", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let run = broker.run(&["call", "--json", "calculate", r#"{"expression": "1"}"#]);
    let id = json(&run)["trace_id"].as_str().unwrap().to_owned();
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.exit_code().await, Some(0));
    collector.trace(&id)
}

#[tokio::test]
async fn a_collector_behind_tls_is_reached_by_who_trusts_it_and_nobody_else() {
    let (its, others) = (Identity::new(), Identity::new());
    let collector = Collector::behind_tls(&its, None).await;
    for (trusted, arrives) in [(&its, true), (&others, false)] {
        let spans = traced(
            &collector,
            &[
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted.certificate()),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP"),
            ],
        )
        .await;
        assert_eq!(!spans.is_empty(), arrives, "{spans:?}");
        let encodings = spans.iter().map(|kept| kept.encoding.as_deref());
        assert!(encodings.into_iter().all(|of| of == Some("gzip")));
    }
}

#[tokio::test]
async fn a_collector_that_wants_to_know_who_calls_is_told() {
    let (its, ours) = (Identity::new(), Identity::new());
    let collector = Collector::behind_tls(&its, Some(&ours)).await;
    let trusts = ("OTEL_EXPORTER_OTLP_CERTIFICATE", its.certificate());
    assert!(traced(&collector, &[trusts]).await.is_empty());
    let who = [
        trusts,
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", ours.certificate()),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", ours.key()),
    ];
    assert!(!traced(&collector, &who).await.is_empty());
}

#[test]
fn what_is_no_certificate_is_refused_with_its_variable() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    let text = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    std::fs::write(&key, text).unwrap();
    for (variable, path, expected) in [
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/no/such.pem",
            "OTEL_EXPORTER_OTLP_CERTIFICATE: /no/such.pem cannot be read",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
            key.to_str().unwrap(),
            "key.pem has no CERTIFICATE in it",
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            key.to_str().unwrap(),
            "one is set without the other",
        ),
    ] {
        let run = start_with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4317"),
            (variable, path),
        ]);
        assert_eq!(run.status.code(), Some(2), "{}", stderr(&run));
        assert!(stderr(&run).contains(expected), "{}", stderr(&run));
    }
}

/// Else the worker's spans would be orphans, of which each were a trace.
#[tokio::test]
async fn what_the_broker_decided_holds_for_the_worker_whatever_its_own_sampler() {
    let collector = Collector::start().await;
    let mut off = collector.variables().to_vec();
    off.push(("OTEL_TRACES_SAMPLER", "Always_Off"));
    let broker = Broker::start_in(&off, &[]);
    let mut command = broker.command(&["worker", "demo", "--id", "w"]);
    command.envs(collector.variables());
    let mut worker = Process::start(command.env("OTEL_TRACES_SAMPLER", "always_on"));
    broker.wait_for_workers("calculate", 1).await;
    let run = broker.run(&["call", "calculate", r#"{"expression": "1"}"#]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    worker.signal(Signal::TERM);
    assert_eq!(worker.exit_code().await, Some(0));
    assert!(collector.is_empty());
}

#[tokio::test]
async fn a_dead_collector_holds_nobody_up() {
    // Bound, so that nobody else gets the port, and never listening.
    let dead = TcpSocket::new_v4().unwrap();
    dead.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", dead.local_addr().unwrap());
    let mut with = variables(&url).to_vec();
    with.push(("OTEL_BSP_MAX_QUEUE_SIZE", "256"));
    let mut broker = Broker::start_in(&with, &[]);
    let _worker = broker.demo_worker("w", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let client = broker.client();
    let began = Instant::now();
    // More spans than the queue holds.
    for _ in 0..20 {
        let mut batch = client.batch(BatchOptions::default()).await.unwrap();
        for id in 0..60 {
            let id = id.to_string();
            let arguments = r#"{"expression": "6 * 7"}"#;
            batch.call(&id, "calculate", arguments).await.unwrap();
        }
        assert!(batch.finish().await.unwrap().all_succeeded());
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    broker.process.signal(Signal::TERM);
    let began = Instant::now();
    assert_eq!(broker.process.exit_code().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// A call that failed is found in the log by the ids that its agent and its trace have.
#[tokio::test]
async fn the_brokers_log_has_the_ids_of_what_it_is_about() {
    let mut command = toolpool();
    command.args(["broker", "--listen", "127.0.0.1:0", "--admin-listen", "off"]);
    command.args(["--log", "toolpool_broker=debug"]);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut broker = Process::start(command);
    let mut stdout = BufReader::new(broker.take_stdout());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    let client = Client::connect(&format!("http://{address}")).await.unwrap();
    let options = BatchOptions::default()
        .traceparent(AGENT)
        .batch_id("batch-1");
    let mut batch = client.batch(options).await.unwrap();
    batch.call("lost", "no_such_tool", "{}").await.unwrap();
    assert!(!batch.finish().await.unwrap().all_succeeded());
    let mut log = broker.take_stderr();
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code().await, Some(0));
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    let lines = text.lines().map(serde_json::from_str::<Value>);
    let mut failed = lines
        .map(Result::unwrap)
        .filter(|line| line["fields"]["message"] == "call failed");
    let (line, None) = (failed.next().unwrap(), failed.next()) else {
        panic!("it is said twice: {text}");
    };
    for (field, value) in [
        ("batch.id", "batch-1"),
        ("call.id", "lost"),
        ("trace.id", TRACE),
    ] {
        assert_eq!(line["fields"][field], value, "{line}");
    }
}
