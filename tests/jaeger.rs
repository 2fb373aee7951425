//! One batch in a real Jaeger: what an operator sees of a worker that was killed and of a call that waited for its limit.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::io::{self, Write};

use rustix::process::Signal;
use toolpool_client::BatchOptions;

use support::collector::{spans_dropped, variables};
use support::jaeger::{Jaeger, Span};
use support::workshop::Workshop;
use support::{Broker, Process, children_of, eventually, json};

/// What the first worker serves, and the second too.
const LOOK: &str = r#"
[[tool]]
name = "look"
command = ["sh", "work"]
effects = "read_only"
max_attempts = 3
retry_backoff = "1ms"
"#;

/// What only the second serves. The second start of `paced` waits for two seconds.
const OTHERS: &str = r#"
[[tool]]
name = "paced"
command = ["sh", "work"]
effects = "idempotent"
rate = 0.5
burst = 1

[[tool]]
name = "put"
command = ["sh", "work"]
effects = "idempotent"

[[tool]]
name = "pay"
command = ["sh", "work"]
effects = "side_effecting"

[[tool]]
name = "fail"
command = ["sh", "-c", "echo no such luck >&2; exit 3"]
effects = "idempotent"
max_attempts = 1
"#;

const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// By how much two processes may see one clock differently.
const CLOCKS_NS: u64 = 1_000_000;

fn worker(broker: &Broker, id: &str, tools: &str, workshop: &Workshop, url: &str) -> Process {
    let file = format!("{id}.toml");
    workshop.write(&file, tools);
    let tools = workshop.path(&file);
    broker.exec_worker_in(&variables(url), id, &tools, &["--slots", "16"])
}

/// The spans right below one, by their beginning.
fn below<'a>(spans: &'a [Span], parent: &Span) -> Vec<&'a Span> {
    let mut children: Vec<_> = spans.iter().filter(|of| of.parent == parent.id).collect();
    children.sort_by_key(|span| (span.from, span.to));
    children
}

fn names<'a>(spans: &[&'a Span]) -> Vec<&'a str> {
    spans.iter().map(|span| &*span.name).collect()
}

fn attributes(spans: &[&Span], key: &str) -> Vec<String> {
    let values = spans.iter().map(|span| span.attribute(key));
    values.map(Option::unwrap_or_default).collect()
}

/// The span of a call.
#[track_caller]
fn call<'a>(spans: &'a [Span], id: &str) -> &'a Span {
    let of = |span: &&Span| {
        span.name.starts_with("execute_tool ")
            && span.attribute("gen_ai.tool.call.id").as_deref() == Some(id)
    };
    let found: Vec<_> = spans.iter().filter(of).collect();
    assert_eq!(found.len(), 1, "{id}: {found:?}");
    found[0]
}

#[tokio::test]
async fn jaeger_shows_a_killed_worker_a_retry_and_a_limit_in_one_trace() {
    let jaeger = match Jaeger::start().await {
        Ok(jaeger) => jaeger,
        // Past what catches a test's output, so that it is seen.
        Err(why) => return writeln!(io::stderr(), "skipped: no Jaeger: {why}").unwrap(),
    };
    let [endpoint, soon] = variables(&jaeger.url);
    // Jaeger answers in what it is asked in.
    let gzip = [endpoint, soon, ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")];
    let mut broker = Broker::start_in(&gzip, &["--reconnect-grace", "100ms"]);
    let admin = broker.admin_address();
    let workshop = Workshop::new();
    let first = worker(&broker, "first", LOOK, &workshop, &jaeger.url);
    broker.wait_for_workers("look", 1).await;
    let client = broker.client();
    let mut batch = client.batch(BatchOptions::default()).await.unwrap();
    workshop.hold("slow", 1);
    batch.call("slow", "look", "{}").await.unwrap();
    let lost = workshop.until_running("slow", 1).await;
    assert!(children_of(first.pid()).contains(&lost.group));
    let all = [LOOK, OTHERS].concat();
    let second = worker(&broker, "second", &all, &workshop, &jaeger.url);
    broker.wait_for_workers("look", 2).await;
    workshop.hold("paced-1", 1);
    // All but `pay`, which waits for the turn's end, start now.
    for (id, tool) in [
        ("paced-1", "paced"),
        ("paced-2", "paced"),
        ("put-1", "put"),
        ("put-2", "put"),
        ("put-3", "put"),
        ("fail", "fail"),
        ("pay", "pay"),
    ] {
        batch.call(id, tool, "{}").await.unwrap();
    }
    // The broker takes them in their order, so the one before has come too.
    workshop.until_running("put-3", 1).await;
    workshop.release("paced-1", 1);
    first.signal(Signal::KILL);
    // What the killed worker ran is orphaned, and may end.
    workshop.release("slow", 1);
    let batch = batch.finish().await.unwrap();
    let failed: Vec<_> = batch
        .results()
        .iter()
        .filter(|of| of.outcome.is_err())
        .collect();
    let [failed] = failed[..] else {
        panic!("not one failure: {batch:?}")
    };
    assert_eq!(failed.id, "fail");
    let id = batch.summary.trace_id.clone().unwrap();

    let mut spans = Vec::new();
    // The batch, its 8 calls and their 9 attempts, 8 runs (what the killed worker had to tell is lost), a wait, a hold.
    eventually("all spans are in Jaeger", async || {
        spans = jaeger.trace(&id);
        spans.len() >= 28
    })
    .await;
    assert_eq!(spans.len(), 28, "{spans:#?}");
    one_tree(&spans, &id);
    the_retried_call(&spans);
    the_limited_call(&spans);

    let pay = below(&spans, call(&spans, "pay"));
    assert_eq!(names(&pay), ["hold", "attempt 1"]);
    let fail = call(&spans, "fail");
    assert_eq!(fail.attribute("error.type").unwrap(), "tool_failed");
    assert!(!fail.error.is_empty());

    // One export after the other: with the next there, what became of the first is known.
    let next = json(&broker.run(&["call", "--json", "put", "{}"]));
    let next = next["trace_id"].as_str().unwrap();
    let arrives = async || !jaeger.trace(next).is_empty();
    eventually("the next trace is there", arrives).await;
    assert!(spans_dropped(&admin) < 1.0);
    drop(second);
}

/// One trace and one root; what is below a span is within its time.
#[track_caller]
fn one_tree(spans: &[Span], trace: &str) {
    let roots: Vec<_> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    assert_eq!(names(&roots), ["toolpool.batch"]);
    assert_eq!(roots[0].attribute("toolpool.batch.calls").unwrap(), "8");
    assert_eq!(below(spans, roots[0]).len(), 8);
    for span in spans {
        assert_eq!(span.trace, trace);
        let (service, kind, above) = match span.name.split(' ').next().unwrap() {
            "toolpool.batch" => ("toolpool-broker", SERVER, ""),
            "execute_tool" => ("toolpool-broker", INTERNAL, "toolpool.batch"),
            "hold" | "wait" => ("toolpool-broker", INTERNAL, "execute_tool "),
            "attempt" => ("toolpool-broker", CLIENT, "execute_tool "),
            "run" => ("toolpool-worker", SERVER, "attempt "),
            other => panic!("there is no span {other}"),
        };
        assert_eq!((&*span.service, span.kind), (service, kind), "{span:?}");
        assert!(span.from <= span.to, "{span:?}");
        if span.parent.is_empty() {
            continue;
        }
        let parent = spans.iter().find(|of| of.id == span.parent);
        let parent = parent.unwrap_or_else(|| panic!("its parent is not in the trace: {span:?}"));
        assert!(parent.name.starts_with(above), "{span:?} in {parent:?}");
        let slack = if parent.service == span.service {
            0
        } else {
            CLOCKS_NS
        };
        assert!(
            span.from + slack >= parent.from && span.to <= parent.to + slack,
            "{span:?} is not within {parent:?}"
        );
    }
}

/// Two attempts, of which the second has a worker's span.
#[track_caller]
fn the_retried_call(spans: &[Span]) {
    let slow = call(spans, "slow");
    assert_eq!(slow.name, "execute_tool look");
    assert_eq!(slow.attribute("toolpool.call.attempts").unwrap(), "2");
    let attempts = below(spans, slow);
    assert_eq!(names(&attempts), ["attempt 1", "attempt 2"]);
    let workers = attributes(&attempts, "toolpool.worker.id");
    assert_eq!(workers, ["first", "second"]);
    let endings = attributes(&attempts, "toolpool.attempt.ending");
    assert_eq!(endings, ["worker_lost", "output"]);
    assert!(!attempts[0].error.is_empty(), "{:?}", attempts[0]);
    assert!(attempts[0].to <= attempts[1].from, "one after the other");
    assert!(below(spans, attempts[0]).is_empty(), "it was killed");
    let runs = below(spans, attempts[1]);
    assert_eq!(names(&runs), ["run look"]);
    assert_eq!(runs[0].attribute("toolpool.attempt.number").unwrap(), "2");
    assert_eq!(
        runs[0].attribute("toolpool.lease.id"),
        attempts[1].attribute("toolpool.lease.id")
    );
    // The others did not wait for it.
    for other in ["put-1", "put-2", "put-3"] {
        let other = call(spans, other);
        assert!(other.from < slow.to && slow.from < other.to, "{other:?}");
    }
}

/// The other call of its tool took the only token.
#[track_caller]
fn the_limited_call(spans: &[Span]) {
    let calls = ["paced-1", "paced-2"].map(|id| call(spans, id));
    let parts = calls.map(|paced| below(spans, paced));
    let [at_once, waited] = &parts;
    assert_eq!(names(at_once), ["attempt 1"]);
    assert_eq!(names(waited), ["wait for limit", "attempt 1"]);
    assert_eq!(waited[0].attribute("toolpool.limit").unwrap(), "rate");
    assert!(waited[0].to <= waited[1].from, "first it waits");
    assert!(
        waited[1].from >= at_once[0].from + 1_990_000_000,
        "{parts:?}"
    );
    assert!(calls[0].to > calls[1].from, "the calls overlap");
}
