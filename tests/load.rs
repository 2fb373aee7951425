//! A pool at its limits: many calls, large ones, fast ones, agents that do not read, and the calls of real tasks.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;
use std::time::SystemTime;

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::{AbortHandle, JoinSet};
use toolpool_client::{BatchOptions, Call, Client, Effect, ErrorCode, FinishedBatch};
use toolpool_worker::{Effects, Output, Shutdown, Tool, Worker};

use support::workshop::Workshop;
use support::{Broker, Process, stderr};

/// A worker within the test's own process, which ends with it.
struct OwnWorker(AbortHandle);

impl OwnWorker {
    fn start(broker: &Broker, id: &str, tools: impl IntoIterator<Item = Tool>) -> Self {
        let worker = Worker::builder(&broker.url).id(id).tools(tools).build();
        let worker = worker.unwrap();
        Self(tokio::spawn(worker.run(Shutdown::new())).abort_handle())
    }
}

impl Drop for OwnWorker {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn calculate(id: String, sum: impl std::fmt::Display) -> Call {
    Call::new(
        id,
        "calculate",
        json!({ "expression": sum.to_string() }).to_string(),
    )
}

/// What `calculate` says.
fn value(number: u32) -> String {
    json!({ "value": f64::from(number) }).to_string()
}

fn output(batch: &FinishedBatch, id: &str) -> String {
    let outcome = &batch.get(id).unwrap().outcome;
    outcome.as_ref().unwrap().to_string()
}

#[track_caller]
fn assert_failed(batch: &FinishedBatch, id: &str, code: ErrorCode, effect: Effect) {
    let error = batch.get(id).unwrap().outcome.as_ref().unwrap_err();
    assert_eq!((error.code, error.effect), (code, effect), "{error:?}");
}

#[tokio::test]
async fn a_batch_has_room_for_256_calls_and_the_next_one_is_turned_away() {
    let broker = Broker::start(&[]);
    let _worker = broker.demo_worker("w-1", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let calls = (0..257).map(|n| calculate(format!("call-{n}"), format_args!("{n} + 1")));
    let batch = broker.client().execute(calls).await.unwrap();
    assert_eq!((batch.summary.calls, batch.summary.succeeded), (257, 256));
    for (n, result) in (0..256).zip(batch.results()) {
        let id = format!("call-{n}");
        assert_eq!((&result.id, result.position), (&id, n));
        assert_eq!(output(&batch, &id), value(n + 1));
    }
    assert_failed(
        &batch,
        "call-256",
        ErrorCode::Overloaded,
        Effect::NotStarted,
    );
}

#[tokio::test]
async fn two_hundred_batches_at_once_each_get_their_own_results() {
    const BATCHES: u32 = 200;
    const CALLS: u32 = 5;
    let broker = Broker::start(&[]);
    let _workers = ["w-1", "w-2"].map(|id| broker.demo_worker(id, &[]));
    broker.wait_for_workers("calculate", 2).await;
    let client = broker.client();
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        // All are open before the first has a call.
        batches.push(client.batch(BatchOptions::default()).await.unwrap());
    }
    let mut turns = JoinSet::new();
    for (number, mut batch) in (0..).zip(batches) {
        turns.spawn(async move {
            for n in 0..CALLS {
                // The same ids in every batch, for another sum each.
                let call = calculate(format!("call-{n}"), format_args!("{number} * 1000 + {n}"));
                batch.push(call).await.unwrap();
            }
            (number, batch.finish().await.unwrap())
        });
    }
    let mut finished = 0;
    while let Some(turn) = turns.join_next().await {
        let (number, batch) = turn.unwrap();
        assert_eq!(batch.summary.calls, CALLS);
        for n in 0..CALLS {
            let expected = value(number * 1000 + n);
            assert_eq!(output(&batch, &format!("call-{n}")), expected);
        }
        finished += 1;
    }
    assert_eq!(finished, BATCHES);
}

/// Arguments of so many bytes.
fn arguments(bytes: usize) -> String {
    let empty = json!({ "pad": "" }).to_string();
    let pad = "x".repeat(bytes - empty.len());
    json!({ "pad": pad }).to_string()
}

#[tokio::test]
async fn arguments_and_results_may_be_as_large_as_the_limit_and_no_larger() {
    const ARGUMENTS: usize = 1 << 20;
    const RESULT: usize = 16 << 20;
    /// What is around one text of that size in an encoded output: twice a tag and a length of four bytes.
    const AROUND: usize = 2 * (1 + 4);
    let broker = Broker::start(&[]);
    let any = json!({ "type": "object" });
    let measure = Tool::raw("measure", "", any.clone(), |arguments, _| async move {
        Ok(Output::text(arguments.len().to_string()))
    });
    let make = Tool::raw("make", "", any, |arguments, _| async move {
        let arguments: Value = serde_json::from_slice(&arguments).unwrap();
        let bytes = usize::try_from(arguments["bytes"].as_u64().unwrap()).unwrap();
        Ok(Output::text("x".repeat(bytes)))
    });
    let tools = [measure, make].map(|tool| tool.effects(Effects::ReadOnly));
    let _worker = OwnWorker::start(&broker, "w-1", tools);
    broker.wait_for_workers("make", 1).await;
    let bytes = |bytes: usize| json!({ "bytes": bytes }).to_string();
    let client = broker.client();
    let batch = client.execute([
        Call::new("arguments", "measure", arguments(ARGUMENTS)),
        Call::new("arguments+1", "measure", arguments(ARGUMENTS + 1)),
        Call::new("result", "make", bytes(RESULT - AROUND)),
        Call::new("result+1", "make", bytes(RESULT - AROUND + 1)),
        Call::new("result*3", "make", bytes(3 * RESULT)),
        Call::new("sibling", "measure", "{}"),
    ]);
    let batch = batch.await.unwrap();
    assert_eq!(output(&batch, "arguments"), ARGUMENTS.to_string());
    assert_eq!(output(&batch, "result").len(), RESULT - AROUND);
    assert_eq!(output(&batch, "sibling"), "2");
    let (invalid, too_large) = (ErrorCode::InvalidArguments, ErrorCode::ResultTooLarge);
    assert_failed(&batch, "arguments+1", invalid, Effect::NotStarted);
    assert_failed(&batch, "result+1", too_large, Effect::Done);
    assert_failed(&batch, "result*3", too_large, Effect::Done);
    for result in batch.results() {
        assert!(result.ledger.attempts <= 1, "it would only fail again");
    }
}

/// A batch as `toolpool call --json` prints it.
#[derive(Deserialize)]
struct Printed {
    accepted_at: String,
    results: Vec<PrintedResult>,
}

#[derive(Deserialize)]
struct PrintedResult {
    ledger: PrintedLedger,
}

#[derive(Deserialize)]
struct PrintedLedger {
    ended_ms: f64,
    ran_ms: f64,
}

/// Checks that no window has more starts than the rate permits, and one.
///
/// The one is for what the moments lack in precision, which is some milliseconds.
fn assert_rate_holds(mut starts: Vec<f64>, rate: f64, burst: f64) {
    starts.sort_by(f64::total_cmp);
    for (first, from) in starts.iter().enumerate() {
        let mut count = 0.0;
        for to in &starts[first..] {
            count += 1.0;
            let seconds = to - from;
            let permitted = burst + rate * seconds + 1.0;
            assert!(count <= permitted, "{count} starts in {seconds} s");
        }
    }
}

/// Seconds since the machine was started, to a hundredth.
fn uptime() -> f64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    uptime.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_rate_holds_across_agents_that_know_nothing_of_each_other() {
    const AGENTS: usize = 4;
    const CALLS: usize = 25;
    const RATE: f64 = 50.0;
    const BURST: f64 = 5.0;
    let workshop = Workshop::with(
        r#"
        [[tool]]
        name = "tick"
        command = ["sh", "-c", "read -r now idle < /proc/uptime && echo $now >> starts"]
        effects = "read_only"
        "#,
    );
    // The operator's word; the worker knows of no rate.
    workshop.write("broker.toml", "[tools.tick]\nrate = 50.0\nburst = 5\n");
    let config = workshop.path("broker.toml");
    let broker = Broker::start(&["--config", config.to_str().unwrap()]);
    let _workers = ["w-1", "w-2"].map(|id| broker.exec_worker(id, &workshop.tools(), &[]));
    broker.wait_for_workers("tick", 2).await;

    let began = uptime();
    let arguments = [["tick", "{}"]; CALLS].concat();
    let agent = || {
        let mut command = broker.command(&["call", "--json"]);
        command.args(&arguments).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let agents: Vec<_> = (0..AGENTS).map(|_| agent()).collect();
    let mut granted = Vec::new();
    for agent in agents {
        let run = agent.wait_with_output().unwrap();
        assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
        let batch: Printed = serde_json::from_slice(&run.stdout).unwrap();
        let accepted = humantime::parse_rfc3339(&batch.accepted_at).unwrap();
        let accepted = accepted.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        granted.extend(batch.results.iter().map(|result| {
            let ledger = &result.ledger;
            accepted.as_secs_f64() + (ledger.ended_ms - ledger.ran_ms) / 1e3
        }));
    }
    assert_eq!(granted.len(), AGENTS * CALLS);
    assert_rate_holds(granted, RATE, BURST);

    // The same as the tool sees it. It may be late by itself on a busy machine, and so come in bunches, but it cannot
    // be early: only windows from the beginning are sure to hold.
    let starts = std::fs::read_to_string(workshop.path("starts")).unwrap();
    let mut starts: Vec<f64> = starts.lines().map(|at| at.parse().unwrap()).collect();
    starts.sort_by(f64::total_cmp);
    assert_eq!(starts.len(), AGENTS * CALLS);
    let mut count = 0.0;
    for at in starts {
        count += 1.0;
        let permitted = BURST + RATE * (at - began) + 1.0;
        assert!(count <= permitted, "{count} starts in {} s", at - began);
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_holds_up_nobody_but_itself() {
    const CALLS: usize = 8;
    let workshop = Workshop::with(
        r#"
        slots = 8
        [[tool]]
        name = "big"
        command = ["sh", "-c", ". ./work && head -c 4000000 /dev/zero | tr '\\0' x"]
        effects = "read_only"
        "#,
    );
    let broker = Broker::start(&["--delivery-timeout", "10min"]);
    let _worker = broker.exec_worker("w-1", &workshop.tools(), &[]);
    broker.wait_for_workers("big", 1).await;
    let ids: Vec<String> = (1..=CALLS).map(|n| format!("call_{n}")).collect();
    for id in &ids {
        workshop.hold(id, 1);
    }
    let mut command = broker.command(&["call", "--json"]);
    let printed = std::fs::File::create(workshop.path("printed")).unwrap();
    command
        .args([["big", "{}"]; CALLS].concat())
        .stdout(printed);
    let mut stopped = Process::start(&mut command);
    for id in &ids {
        workshop.until_running(id, 1).await;
    }
    stopped.signal(Signal::STOP);
    for id in &ids {
        workshop.release(id, 1);
        workshop.until_running(id, 1).await.until_gone().await;
    }

    let client = broker.client();
    for turn in 0..3 {
        let calls = (0..CALLS).map(|n| Call::new(format!("{turn}-{n}"), "big", "{}"));
        let batch = client.execute(calls).await.unwrap();
        assert!(batch.all_succeeded());
    }
    assert!(stopped.ended().is_none());
    stopped.signal(Signal::CONT);
    assert_eq!(stopped.exit_code().await, Some(0));
    let printed = std::fs::read(workshop.path("printed")).unwrap();
    let batch: Value = serde_json::from_slice(&printed).unwrap();
    assert_eq!(batch["succeeded"], CALLS);
}

/// A task of the corpus: what its README says.
#[derive(Deserialize)]
struct Task {
    id: String,
    tools: Vec<TaskTool>,
    calls: Vec<TaskCall>,
    /// Only where the expected arguments break their own schema.
    #[serde(default)]
    schema_violations: Vec<String>,
}

#[derive(Deserialize)]
struct TaskTool {
    name: String,
    description: String,
    input_schema: Value,
}

#[derive(Deserialize)]
struct TaskCall {
    name: String,
    arguments: Value,
}

/// Tools of different tasks have the same names.
fn tool_name(task: usize, name: &str) -> String {
    format!("{task}:{name}")
}

impl Task {
    /// Its tools, each of which gives back its arguments.
    fn tools(&self, number: usize) -> impl Iterator<Item = Tool> {
        self.tools.iter().map(move |tool| {
            let (name, schema) = (tool_name(number, &tool.name), tool.input_schema.clone());
            Tool::raw(name, &tool.description, schema, |arguments, _| async move {
                Ok(Output::text(String::from_utf8_lossy(&arguments)))
            })
        })
    }

    /// Runs the expected calls as one turn, as a model would write it: block by block, in small pieces.
    async fn run(&self, number: usize, client: &Client) -> FinishedBatch {
        let mut batch = client.batch(BatchOptions::default()).await.unwrap();
        for (index, call) in (0..).zip(&self.calls) {
            let tool = tool_name(number, &call.name);
            batch.start(index, index.to_string(), tool).await.unwrap();
            let arguments = call.arguments.to_string();
            // Any bytes, and so parts of characters too.
            for piece in arguments.as_bytes().chunks(7) {
                batch.delta(index, piece.to_vec()).await.unwrap();
            }
            batch.stop(index).await.unwrap();
        }
        batch.finish().await.unwrap()
    }

    /// Every call gives back its arguments, but for those that break their schema.
    fn assert_results(&self, batch: &FinishedBatch) {
        assert_eq!(batch.results().len(), self.calls.len(), "{}", self.id);
        let mut violations = HashSet::new();
        for (call, result) in self.calls.iter().zip(batch.results()) {
            match &result.outcome {
                Ok(output) => assert_eq!(output.to_string(), call.arguments.to_string()),
                Err(error) => {
                    let id = &self.id;
                    assert_eq!(error.code, ErrorCode::InvalidArguments, "{id}: {error:?}");
                    let found = error.violations.iter();
                    violations.extend(found.map(|violation| &violation.message));
                }
            }
        }
        let expected = self.schema_violations.len();
        assert_eq!(violations.len(), expected, "{}: {violations:?}", self.id);
    }
}

#[tokio::test]
async fn the_calls_of_real_tasks_reach_their_tools_as_they_are() {
    const TASKS_PER_WORKER: usize = 64;
    let Some(corpus) = std::env::var_os("TOOLPOOL_CORPUS") else {
        println!("skipped: TOOLPOOL_CORPUS does not say where the corpus is");
        return;
    };
    let path = Path::new(&corpus).join("bfcl/parallel.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let tasks: Vec<Task> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(!tasks.is_empty());

    let broker = Broker::start(&[]);
    let mut workers = Vec::new();
    for (number, chunk) in tasks.chunks(TASKS_PER_WORKER).enumerate() {
        let tasks = (number * TASKS_PER_WORKER..).zip(chunk);
        let tools = tasks.flat_map(|(number, task)| task.tools(number));
        let id = format!("w-{number}");
        workers.push(OwnWorker::start(&broker, &id, tools));
    }
    for (number, task) in tasks.iter().enumerate().step_by(TASKS_PER_WORKER) {
        let tool = tool_name(number, &task.tools[0].name);
        broker.wait_for_workers(&tool, 1).await;
    }

    let client = broker.client();
    let mut turns = JoinSet::new();
    for (number, task) in tasks.into_iter().enumerate() {
        let client = client.clone();
        turns.spawn(async move {
            let batch = task.run(number, &client).await;
            task.assert_results(&batch);
        });
    }
    while let Some(turn) = turns.join_next().await {
        turn.unwrap();
    }
}
