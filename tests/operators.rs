//! What an operator sees of a real broker with two workers, and does to them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests may fail loudly"
)]

mod support;

use std::process::Output;

use serde_json::Value;
use toolpool_client::{Batch, BatchOptions};

use support::workshop::Workshop;
use support::{Broker, Process, eventually, json, stderr, stdout, toolpool};

/// A broker with two workers of one slot each. Of a batch whose turn is not over, two calls run, a third waits for a slot, and
/// one with side effects is held.
struct Pool {
    _broker: Broker,
    admin: String,
    workshop: Workshop,
    workers: [Process; 2],
    batch: Batch,
}

impl Pool {
    async fn start() -> Self {
        let mut broker = Broker::start(&[]);
        let admin = format!("http://{}", broker.admin_address());
        let workshop = Workshop::new();
        for call in ["call_1", "call_2", "call_3"] {
            workshop.hold(call, 1);
        }
        let worker = |id| broker.exec_worker(id, &workshop.tools(), &["--slots", "1"]);
        let workers = [worker("w-1"), worker("w-2")];
        broker.wait_for_workers("look", 2).await;
        let options = BatchOptions::default().batch_id("turn-1");
        let mut batch = broker.client().batch(options).await.unwrap();
        for (call, tool) in [("call_1", "look"), ("call_2", "look")] {
            batch.call(call, tool, "{}").await.unwrap();
            workshop.until_running(call, 1).await;
        }
        batch.call("call_3", "look", "{}").await.unwrap();
        batch.call("call_4", "pay", "{}").await.unwrap();
        let pool = Self {
            _broker: broker,
            admin,
            workshop,
            workers,
            batch,
        };
        eventually("the last call is held", async || {
            pool.run(&["why", "call_4"]).status.success()
        })
        .await;
        pool
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = toolpool();
        command.args(arguments).env("TOOLPOOL_ADMIN", &self.admin);
        command.output().expect("the command runs")
    }

    /// What the command says to a machine.
    fn asked(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        json(&output)
    }
}

#[tokio::test]
async fn a_batch_is_seen_with_what_each_of_its_calls_waits_for() {
    let pool = Pool::start().await;
    let workers = stdout(&pool.run(&["workers"]));
    let rows: Vec<_> = workers.lines().skip(1).collect();
    for (row, id) in rows.iter().zip(["w-1", "w-2"]) {
        let row: Vec<_> = row.split_whitespace().collect();
        assert_eq!(row[..4], [id, "connected", "1/1", "1"], "{workers}");
        assert_eq!(row[row.len() - 3..], ["look,", "pay,", "put"], "{workers}");
    }
    let calls = ["w-1", "w-2"].map(|id| {
        let worker = pool.asked(&["workers", id]);
        worker[0]["leases"][0]["call_id"].clone()
    });
    assert!(
        calls.contains(&"call_1".into()) && calls.contains(&"call_2".into()),
        "{calls:?}"
    );

    let batches = stdout(&pool.run(&["batches"]));
    assert!(batches.contains("turn-1 "), "{batches}");
    assert!(batches.contains(" streaming "), "{batches}");
    assert!(
        batches.ends_with("  1 held, 1 queued, 2 running\n"),
        "{batches}"
    );
    let one = pool.asked(&["batches", "turn-1"]);
    let calls = one["batches"][0]["calls"].as_array().unwrap();
    let phases: Vec<_> = calls
        .iter()
        .map(|call| call["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["RUNNING", "RUNNING", "QUEUED", "HELD"]);
    let calls = stdout(&pool.run(&["batches", "--calls"]));
    let held = calls
        .lines()
        .find(|line| line.starts_with("call_4 "))
        .unwrap();
    assert!(held.starts_with("call_4  pay   held "), "{calls}");

    let queued = stdout(&pool.run(&["why", "call_3"]));
    let lines: Vec<_> = queued.lines().collect();
    assert_eq!(lines[0], "call_3 look in batch turn-1: queued");
    assert!(
        lines[2].starts_with("  look: 1 queued, 2 in flight, 2 workers, "),
        "{queued}"
    );
    assert!(lines[2].contains("waits for a free slot"), "{queued}");
    let held = pool.asked(&["why", "--batch", "turn-1", "call_4"]);
    assert_eq!(held[0]["call"]["phase"], "HELD");
    assert!(
        held[0]["why"].as_str().is_some_and(|why| !why.is_empty()),
        "{held}"
    );
    assert_eq!(pool.run(&["why", "call_5"]).status.code(), Some(1));
    assert_eq!(
        pool.run(&["why", "--batch", "turn-2", "call_4"])
            .status
            .code(),
        Some(1)
    );

    let top = stdout(&pool.run(&["top"]));
    for name in ["look ", "pay ", "w-1 ", "w-2 ", "turn-1 "] {
        assert!(
            top.lines().any(|line| line.starts_with(name)),
            "{name}: {top}"
        );
    }

    for call in ["call_1", "call_2", "call_3"] {
        pool.workshop.release(call, 1);
    }
    let finished = pool.batch.finish().await.unwrap();
    assert!(finished.all_succeeded());
}

#[tokio::test]
async fn a_worker_is_drained_and_loses_nothing() {
    let mut pool = Pool::start().await;
    let running = |worker: &str| {
        let worker = pool.asked(&["workers", worker]);
        worker[0]["leases"][0]["call_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (its, other) = (running("w-1"), running("w-2"));

    let too_early = pool.run(&["drain", "--wait=50ms", "w-1"]);
    assert_eq!(too_early.status.code(), Some(1), "{}", stderr(&too_early));
    let text = stdout(&too_early);
    assert!(
        text.starts_with("after 50 ms w-1 is draining; 1 call is still with it\n"),
        "{text}"
    );
    assert!(text.contains(&its), "{text}");
    assert_eq!(pool.asked(&["workers", "w-1"])[0]["state"], "DRAINING");

    pool.workshop.release(&its, 1);
    let gone = pool.run(&["drain", "--wait", "w-1"]);
    // It may have left before it was asked again.
    let text = stdout(&gone);
    let left = text.starts_with("w-1 is gone, after ") || text == "no worker `w-1` is here\n";
    assert!(left, "{text}{}", stderr(&gone));
    assert_eq!(pool.workers[0].exit_code().await, Some(0));
    assert_eq!(pool.run(&["workers", "w-1"]).status.code(), Some(1));

    // The other one has what is left.
    pool.workshop.release(&other, 1);
    pool.workshop.until_running("call_3", 1).await;
    pool.workshop.release("call_3", 1);
    let finished = pool.batch.finish().await.unwrap();
    assert!(finished.all_succeeded());
    assert_eq!(pool.workshop.runs().len(), 4, "each ran once");
}
