//! What a pool owes its agents when processes are killed, stopped and told to go.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use toolpool_client::{
    Batch, BatchOptions, Call, CallError, CallResult, Client, ConnectOptions, Effect, Error,
    ErrorCode, FinishedBatch, ProgressEvent, TimeoutScope, TurnEnd,
};

use support::workshop::Workshop;
use support::{Broker, Process, eventually, stderr};

/// A worker is lost after a second and a half of silence, and given up soon after. No quicker: a worker that only waits
/// for a processor on a busy machine must not be taken for one that stands still.
const QUICK_TO_MISS: [&str; 4] = ["--beat-interval", "100ms", "--missed-beats", "15"];
const NO_GRACE: [&str; 2] = ["--reconnect-grace", "300ms"];
const LONG_GRACE: [&str; 2] = ["--reconnect-grace", "10min"];

/// A call whose id is its idempotency key too.
fn call(id: &str, tool: &str) -> Call {
    Call::new(id, tool, "{}").idempotency_key(id)
}

/// Runs calls in the background, each on the tool of its name.
fn run(client: &Client, calls: &[&str]) -> tokio::task::JoinHandle<Result<FinishedBatch, Error>> {
    let client = client.clone();
    let calls: Vec<Call> = calls.iter().map(|name| call(name, name)).collect();
    tokio::spawn(async move { client.execute(calls).await })
}

#[track_caller]
fn result<'a>(batch: &'a FinishedBatch, id: &str) -> &'a CallResult {
    batch.get(id).unwrap()
}

/// What the call said, on which attempt and on which worker.
#[track_caller]
fn success(result: &CallResult) -> (String, u32, &str) {
    let output = result.outcome.as_ref().unwrap().to_string();
    let worker = result.ledger.worker_id.as_deref().unwrap();
    (output.trim().to_owned(), result.ledger.attempts, worker)
}

#[track_caller]
fn failure(result: &CallResult) -> &CallError {
    result.outcome.as_ref().unwrap_err()
}

#[track_caller]
fn assert_outcome_unknown(result: &CallResult) {
    let error = failure(result);
    assert_eq!(error.code, ErrorCode::OutcomeUnknown, "{error:?}");
    assert_eq!(error.effect, Effect::Maybe);
    assert_eq!(result.ledger.attempts, 1);
}

/// Waits until the call has its result; how it ended.
async fn until_ended(batch: &mut Batch, id: &str) -> Option<ErrorCode> {
    loop {
        let progress = batch.next_progress().await.unwrap().unwrap();
        if let ProgressEvent::Ended { error } = progress.event
            && progress.id == id
        {
            return error;
        }
    }
}

/// Shows that a pool has so many slots free, by as many calls that all run at once.
async fn assert_free_slots(client: &Client, workshop: &Workshop, slots: usize) {
    let ids: Vec<String> = (0..slots).map(|slot| format!("slot-{slot}")).collect();
    for id in &ids {
        workshop.hold(id, 1);
    }
    let calls: Vec<Call> = ids.iter().map(|id| call(id, "look")).collect();
    let client = client.clone();
    let batch = tokio::spawn(async move { client.execute(calls).await });
    for id in &ids {
        workshop.until_running(id, 1).await;
    }
    for id in &ids {
        workshop.release(id, 1);
    }
    assert!(batch.await.unwrap().unwrap().all_succeeded());
}

#[tokio::test]
async fn calls_of_a_killed_worker_run_again_where_that_is_harmless_and_nowhere_else() {
    let broker = Broker::start(&NO_GRACE);
    let workshop = Workshop::new();
    for id in ["look", "put", "pay"] {
        workshop.hold(id, 1);
    }
    let killed = broker.exec_worker("w-1", &workshop.tools(), &[]);
    broker.wait_for_workers("look", 1).await;
    let batch = run(&broker.client(), &["look", "put", "pay"]);
    for id in ["look", "put", "pay"] {
        workshop.until_running(id, 1).await;
    }
    let _other = broker.exec_worker("w-2", &workshop.tools(), &[]);
    broker.wait_for_workers("look", 2).await;
    killed.signal(Signal::KILL);

    let batch = batch.await.unwrap().unwrap();
    for id in ["look", "put"] {
        let expected = ("attempt 2".to_owned(), 2, "w-2");
        assert_eq!(success(result(&batch, id)), expected, "{id}");
        assert_eq!(workshop.runs_of(id), 2, "{id}");
    }
    assert_outcome_unknown(result(&batch, "pay"));
    let runs = workshop.runs();
    let keyed = |key: &str| runs.iter().filter(|run| run.idempotency_key == key).count();
    assert_eq!((keyed("look"), keyed("put"), keyed("pay")), (2, 2, 1));
}

#[tokio::test]
async fn a_killed_worker_that_comes_back_under_its_name_settles_what_it_had() {
    let broker = Broker::start(&LONG_GRACE);
    let workshop = Workshop::new();
    workshop.hold("pay", 1);
    let mut killed = broker.exec_worker("w-1", &workshop.tools(), &["--slots", "1"]);
    broker.wait_for_workers("pay", 1).await;
    let batch = run(&broker.client(), &["pay"]);
    workshop.until_running("pay", 1).await;
    killed.signal(Signal::KILL);
    killed.exit_code().await;
    // The broker would wait ten minutes for the old process. A new one says that there is nothing to wait for.
    let _new = broker.exec_worker("w-1", &workshop.tools(), &["--slots", "1"]);

    assert_outcome_unknown(result(&batch.await.unwrap().unwrap(), "pay"));
    assert_free_slots(&broker.client(), &workshop, 1).await;
    assert_eq!(workshop.runs_of("pay"), 1);
}

#[tokio::test]
async fn a_worker_that_stood_still_is_replaced_and_its_late_outcomes_are_fenced_off() {
    let broker = Broker::start(&[&QUICK_TO_MISS[..], &NO_GRACE].concat());
    let workshop = Workshop::new();
    for (id, attempt) in [("look", 1), ("look", 2), ("pay", 1)] {
        workshop.hold(id, attempt);
    }
    let stopped = broker.exec_worker("w-1", &workshop.tools(), &["--slots", "2"]);
    broker.wait_for_workers("look", 1).await;
    let options = BatchOptions::default().progress(true);
    let mut batch = broker.client().batch(options).await.unwrap();
    batch.push(call("look", "look")).await.unwrap();
    batch.push(call("pay", "pay")).await.unwrap();
    batch.seal(TurnEnd::Complete).await.unwrap();
    let (look, pay) = (
        workshop.until_running("look", 1).await,
        workshop.until_running("pay", 1).await,
    );
    let _other = broker.exec_worker("w-2", &workshop.tools(), &["--slots", "1"]);
    broker.wait_for_workers("look", 2).await;

    stopped.signal(Signal::STOP);
    workshop.until_running("look", 2).await;
    let pay_ended = until_ended(&mut batch, "pay").await;
    assert_eq!(pay_ended, Some(ErrorCode::OutcomeUnknown));
    // Its tools end well now, and the worker hears of it only when it goes on.
    workshop.release("look", 1);
    workshop.release("pay", 1);
    look.until_gone().await;
    pay.until_gone().await;
    stopped.signal(Signal::CONT);
    broker.wait_for_workers("look", 2).await;

    // The only slot of the other worker is taken, so this is for the one that came back.
    let next = run(&broker.client(), &["put"]).await.unwrap().unwrap();
    assert_eq!(success(result(&next, "put")).2, "w-1");
    workshop.release("look", 2);
    let batch = batch.finish().await.unwrap();
    let expected = ("attempt 2".to_owned(), 2, "w-2");
    assert_eq!(success(result(&batch, "look")), expected);
    assert_outcome_unknown(result(&batch, "pay"));
    assert_eq!((workshop.runs_of("look"), workshop.runs_of("pay")), (2, 1));
}

#[tokio::test]
async fn a_worker_that_stood_still_and_comes_back_in_time_keeps_what_must_not_run_again() {
    let broker = Broker::start(&[&QUICK_TO_MISS[..], &LONG_GRACE].concat());
    let workshop = Workshop::new();
    workshop.hold("pay", 1);
    let stopped = broker.exec_worker("w-1", &workshop.tools(), &["--slots", "1"]);
    broker.wait_for_workers("pay", 1).await;
    let batch = run(&broker.client(), &["pay"]);
    let pay = workshop.until_running("pay", 1).await;
    stopped.signal(Signal::STOP);
    broker.wait_for_workers("pay", 0).await;
    workshop.release("pay", 1);
    pay.until_gone().await;
    stopped.signal(Signal::CONT);

    let batch = batch.await.unwrap().unwrap();
    let expected = ("attempt 1".to_owned(), 1, "w-1");
    assert_eq!(success(result(&batch, "pay")), expected);
    assert_free_slots(&broker.client(), &workshop, 1).await;
    assert_eq!(workshop.runs_of("pay"), 1);
}

#[tokio::test]
async fn a_killed_broker_costs_its_open_batches_and_nothing_else() {
    let mut broker = Broker::start(&[]);
    let workshop = Workshop::new();
    workshop.hold("pay", 1);
    let mut worker = broker.exec_worker("w-1", &workshop.tools(), &["--slots", "1"]);
    broker.wait_for_workers("pay", 1).await;
    let client = broker.client();
    let batch = run(&client, &["pay"]);
    let pay = workshop.until_running("pay", 1).await;
    broker.process.signal(Signal::KILL);

    let error = batch.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    assert!(error.may_have_run());
    let said = error.to_string();
    assert!(said.contains("how its calls ended is not known"), "{said}");

    broker.start_again(&[]).await;
    // Nobody waits for it any more: the new broker has no such lease.
    pay.until_gone().await;
    assert!(worker.ended().is_none());
    assert_free_slots(&client, &workshop, 1).await;
    assert_eq!(workshop.runs_of("pay"), 1);
}

#[tokio::test]
async fn a_broker_that_stood_still_takes_its_workers_back_with_what_they_run() {
    let broker = Broker::start(&[&QUICK_TO_MISS[..], &LONG_GRACE].concat());
    let workshop = Workshop::new();
    workshop.hold("pay", 1);
    let mut command = broker.command(&["worker", "exec", "--slots", "1", "--id", "w-1"]);
    let log = std::fs::File::create(workshop.path("log")).unwrap();
    command.arg("--tools").arg(workshop.tools()).stderr(log);
    let _worker = Process::start(&mut command);
    broker.wait_for_workers("pay", 1).await;
    let client = broker.client();
    let batch = run(&client, &["pay"]);
    let pay = workshop.until_running("pay", 1).await;
    broker.process.signal(Signal::STOP);
    eventually("the worker gives the stream up", async || {
        let log = std::fs::read_to_string(workshop.path("log")).unwrap();
        log.contains("broker lost")
    })
    .await;
    workshop.release("pay", 1);
    pay.until_gone().await;
    broker.process.signal(Signal::CONT);

    let batch = batch.await.unwrap().unwrap();
    let expected = ("attempt 1".to_owned(), 1, "w-1");
    assert_eq!(success(result(&batch, "pay")), expected);
    assert_free_slots(&client, &workshop, 1).await;
    assert_eq!(workshop.runs_of("pay"), 1);
}

/// Agents that run batch after batch, half of whose calls must not run twice.
struct Load {
    agents: JoinSet<Error>,
    results: Arc<Mutex<Vec<CallResult>>>,
    stop: CancellationToken,
}

impl Load {
    const AGENTS: usize = 4;

    fn start(broker: &Broker) -> Self {
        let (mut agents, results, stop) = (
            JoinSet::new(),
            Arc::<Mutex<Vec<_>>>::default(),
            CancellationToken::new(),
        );
        for agent in 0..Self::AGENTS {
            // Half a second for a broker that drains to change its mind.
            let patience = ConnectOptions::default().connect_timeout(Duration::from_millis(500));
            let client = Client::lazy(&broker.url, patience).unwrap();
            let (results, stop) = (Arc::clone(&results), stop.clone());
            agents.spawn(async move {
                for turn in 0.. {
                    let tools = ["look", "pay", "look", "pay"].iter().enumerate();
                    let calls = tools
                        .map(|(index, tool)| call(&format!("load-{agent}-{turn}-{index}"), tool));
                    match client.execute(calls.collect::<Vec<_>>()).await {
                        Ok(batch) => results.lock().unwrap().extend(batch.into_results()),
                        Err(error) => return error,
                    }
                    if stop.is_cancelled() {
                        break;
                    }
                }
                std::future::pending().await
            });
        }
        Self {
            agents,
            results,
            stop,
        }
    }

    fn results(&self) -> Vec<CallResult> {
        self.results.lock().unwrap().clone()
    }

    /// Waits until every agent has had two more batches.
    async fn go_on(&self) {
        let enough = self.results().len() + 2 * 4 * Self::AGENTS;
        eventually("the load goes on", async || self.results().len() >= enough).await;
    }

    /// Every call had its one run, which went well.
    fn assert_nothing_lost(&self, workshop: &Workshop) {
        for result in self.results() {
            assert_eq!(success(&result).1, 1, "{result:?}");
            assert_eq!(workshop.runs_of(&result.id), 1, "{result:?}");
        }
    }
}

#[tokio::test]
async fn a_worker_that_is_told_to_go_under_load_loses_no_call() {
    let broker = Broker::start(&[]);
    let workshop = Workshop::new();
    workshop.hold("pay", 1);
    let mut going = broker.exec_worker("w-1", &workshop.tools(), &["--slots", "4"]);
    broker.wait_for_workers("pay", 1).await;
    let held = run(&broker.client(), &["pay"]);
    workshop.until_running("pay", 1).await;
    let _staying = broker.exec_worker("w-2", &workshop.tools(), &["--slots", "4"]);
    broker.wait_for_workers("pay", 2).await;
    let mut load = Load::start(&broker);
    let served_by = |worker: &str| {
        let mut results = load.results().into_iter();
        results.any(|result| result.ledger.worker_id.as_deref() == Some(worker))
    };
    eventually("both workers are busy", async || {
        served_by("w-1") && served_by("w-2")
    })
    .await;

    going.signal(Signal::TERM);
    broker.wait_for_workers("pay", 1).await;
    load.go_on().await;
    assert!(going.ended().is_none(), "it still has a call");
    workshop.release("pay", 1);
    let held = held.await.unwrap().unwrap();
    let expected = ("attempt 1".to_owned(), 1, "w-1");
    assert_eq!(success(result(&held, "pay")), expected);
    assert_eq!(going.exit_code().await, Some(0));
    load.go_on().await;

    load.stop.cancel();
    assert!(load.agents.try_join_next().is_none(), "an agent failed");
    load.assert_nothing_lost(&workshop);
}

#[tokio::test]
async fn a_broker_that_is_told_to_go_under_load_finishes_what_is_open_and_takes_nothing_new() {
    let mut broker = Broker::start(&[]);
    let workshop = Workshop::new();
    workshop.hold("pay", 1);
    let mut worker = broker.exec_worker("w-1", &workshop.tools(), &["--slots", "4"]);
    broker.wait_for_workers("pay", 1).await;
    let held = run(&broker.client(), &["pay"]);
    workshop.until_running("pay", 1).await;
    let mut load = Load::start(&broker);
    load.go_on().await;

    broker.process.signal(Signal::TERM);
    while let Some(error) = load.agents.join_next().await {
        let error = error.unwrap();
        let Error::Connect { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(!error.may_have_run());
        let said = source.to_string();
        assert!(said.contains("unavailable"), "{said}");
        assert!(said.contains("is draining"), "{said}");
    }
    load.assert_nothing_lost(&workshop);
    assert!(broker.process.ended().is_none(), "it has an open batch");
    let told = stderr(&broker.run(&["call", "pay", "{}"]));
    assert!(told.contains("takes nothing for now"), "{told}");
    assert!(!told.contains("no broker answers"), "{told}");
    workshop.release("pay", 1);
    assert!(held.await.unwrap().unwrap().all_succeeded());
    assert_eq!(broker.process.exit_code().await, Some(0));

    assert!(worker.ended().is_none());
    broker.start_again(&[]).await;
    broker.wait_for_workers("look", 1).await;
    assert_free_slots(&broker.client(), &workshop, 4).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_and_its_tools_at_once() {
    let broker = Broker::start(&NO_GRACE);
    let workshop = Workshop::new();
    workshop.hold("pay", 1);
    let mut worker = broker.exec_worker("w-1", &workshop.tools(), &[]);
    broker.wait_for_workers("pay", 1).await;
    let batch = run(&broker.client(), &["pay"]);
    let pay = workshop.until_running("pay", 1).await;
    worker.signal(Signal::TERM);
    broker.wait_for_workers("pay", 0).await;
    assert!(worker.ended().is_none());
    worker.signal(Signal::INT);
    assert_eq!(worker.exit_code().await, Some(128 + 2));
    pay.until_gone().await;
    assert_outcome_unknown(result(&batch.await.unwrap().unwrap(), "pay"));
}

#[tokio::test]
async fn a_second_signal_ends_a_broker_at_once() {
    let mut broker = Broker::start(&[]);
    let workshop = Workshop::new();
    workshop.hold("pay", 1);
    let _worker = broker.exec_worker("w-1", &workshop.tools(), &[]);
    broker.wait_for_workers("pay", 1).await;
    let batch = run(&broker.client(), &["pay"]);
    workshop.until_running("pay", 1).await;
    broker.process.signal(Signal::INT);
    let patience = ConnectOptions::default().connect_timeout(Duration::from_millis(500));
    let hasty = Client::lazy(&broker.url, patience).unwrap();
    eventually("the broker drains", async || {
        hasty.batch(BatchOptions::default()).await.is_err()
    })
    .await;
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.exit_code().await, Some(128 + 15));
    assert!(batch.await.unwrap().unwrap_err().may_have_run());
}

#[tokio::test]
async fn a_tool_that_hangs_costs_its_own_call_and_leaves_nothing_behind() {
    let broker = Broker::start(&[]);
    // It ignores SIGTERM, and so does what it leaves to itself.
    let workshop = Workshop::with(
        r#"
        slots = 4
        [[tool]]
        name = "look"
        command = ["sh", "work"]
        effects = "read_only"
        [[tool]]
        name = "slow_attempt"
        command = ["sh", "hang"]
        attempt_timeout = "1s"
        kill_grace = "200ms"
        [[tool]]
        name = "slow_call"
        command = ["sh", "hang"]
        effects = "read_only"
        call_timeout = "1s"
        kill_grace = "200ms"
        "#,
    );
    workshop.write(
        "hang",
        r#"
        trap "" TERM
        (while [ -e tools.toml ]; do sleep 1; done) &
        . ./work
        while [ -e tools.toml ]; do sleep 1; done
        "#,
    );
    let _worker = broker.exec_worker("w-1", &workshop.tools(), &[]);
    broker.wait_for_workers("look", 1).await;
    let client = broker.client();
    let batch = client.execute([
        call("a", "look"),
        call("hangs", "slow_attempt"),
        call("b", "look"),
        call("hangs_too", "slow_call"),
        call("c", "look"),
    ]);
    let batch = batch.await.unwrap();
    for id in ["a", "b", "c"] {
        assert_eq!(success(result(&batch, id)).0, "attempt 1");
    }
    for (id, scope) in [
        ("hangs", TimeoutScope::Attempt),
        ("hangs_too", TimeoutScope::Call),
    ] {
        let error = failure(result(&batch, id));
        assert_eq!(error.code, ErrorCode::Timeout, "{error:?}");
        assert_eq!(error.timeout, Some(scope), "{error:?}");
        assert_eq!(error.effect, Effect::Maybe);
        assert_eq!(workshop.runs_of(id), 1);
        workshop.until_running(id, 1).await.until_gone().await;
    }
    assert_free_slots(&client, &workshop, 4).await;
}

/// An agent, as a process, that is in the middle of its turn: one call runs, one is held for the seal.
async fn agent_in_mid_turn(broker: &Broker, workshop: &Workshop) -> Process {
    workshop.hold("look", 1);
    workshop.write(
        "turn.ndjson",
        r#"{"at": 0, "call": {"id": "look", "tool": "look", "arguments": {}}}
           {"at": 0, "call": {"id": "pay", "tool": "pay", "arguments": {}}}
           {"at": 3600, "seal": {}}"#,
    );
    let turn = workshop.path("turn.ndjson");
    let mut command = broker.command(&["replay"]);
    let agent = Process::start(command.arg(turn).stdout(Stdio::null()));
    workshop.until_running("look", 1).await;
    agent
}

#[tokio::test]
async fn an_agent_that_is_killed_in_mid_turn_leaves_nothing_running_and_nothing_that_will() {
    let broker = Broker::start(&["--max-open-batches", "1"]);
    let workshop = Workshop::new();
    let _worker = broker.exec_worker("w-1", &workshop.tools(), &["--slots", "1"]);
    broker.wait_for_workers("look", 1).await;
    let agent = agent_in_mid_turn(&broker, &workshop).await;
    let look = workshop.until_running("look", 1).await;
    agent.signal(Signal::KILL);
    look.until_gone().await;

    // The one place for a batch and the one slot are free again.
    let client = broker.client();
    eventually("another batch runs", async || {
        let batch = client.execute([call("put", "put")]).await;
        batch.is_ok_and(|batch| batch.all_succeeded())
    })
    .await;
    assert_eq!((workshop.runs_of("look"), workshop.runs_of("pay")), (1, 0));
}
