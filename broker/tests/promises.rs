//! What is promised to every agent and every operator, over the wire.

mod support;

use std::collections::HashSet;
use std::time::Duration;

use support::agent::{FakeAgent, call, delta, seal, start, whole};
use support::batch::expect;
use support::worker::{
    FakeWorker, answer, attempts, error, once, read_only, register, side_effecting, tool,
};
use support::{Broker, millis, seconds, settle, time, wire};
use tokio::time::{Instant, sleep};
use tonic::Code;
use toolpool_broker::policy::{Effects, PolicyPatch};
use toolpool_proto::v1::call_progress::{Ended, Event, Queued, Started};
use toolpool_proto::v1::{
    self, Effect, ErrorCode, FailureAction, Limit, OnDisconnect, Policy, TimeoutScope, TurnEnd,
};

fn at_most(parallel: u32) -> v1::Open {
    v1::Open {
        max_parallel: Some(parallel),
        ..Default::default()
    }
}

fn on_disconnect(action: OnDisconnect) -> v1::Open {
    v1::Open {
        on_disconnect: Some(action.into()),
        ..Default::default()
    }
}

/// A worker that can look up and send, and an agent.
async fn look_up_and_send(broker: &Broker, slots: u32, open: v1::Open) -> (FakeWorker, FakeAgent) {
    let tools = [read_only("look_up"), side_effecting("send")];
    let worker = broker.worker("w", slots, tools).await;
    (worker, broker.agent_with(open).await)
}

#[tokio::test(start_paused = true)]
async fn every_id_gets_one_result_whatever_becomes_of_its_call() {
    let broker = Broker::start_with(|config| config.no_worker_wait = seconds(1));
    sleep(seconds(1)).await;
    let vanishes = broker.worker("v", 9, [side_effecting("vanish")]).await;
    let tools = [
        tool("ok", once()),
        tool("fails", once()),
        tool("hangs", once()),
        side_effecting("send"),
    ];
    let mut worker = broker.worker("w", 9, tools).await;
    let mut gone = broker.worker("g", 1, [read_only("gone")]).await;
    gone.half_close();
    let agent = broker.agent().await;
    for (id, tool, arguments) in [
        ("1", "ok", "{}"),
        ("2", "fails", "{}"),
        ("3", "hangs", "{}"),
        ("4", "send", "{}"),
        ("5", "ok", "{"),
        ("6", "nobody", "{}"),
        ("7", "gone", "{}"),
        ("1", "ok", "{}"),
    ] {
        agent.call(id, tool, arguments).await;
    }
    agent.call("9", "vanish", "{}").await;
    agent.start(0, "10", "ok").await;
    agent.seal().await;
    let mut vanishes = vanishes;
    vanishes.assignment().await;
    vanishes.cut();
    for assignment in worker.assignments(4).await {
        match &*assignment.tool {
            "hangs" => {}
            "fails" => {
                let no = error(ErrorCode::ToolFailed, "no");
                worker.fail(&assignment, no).await;
            }
            _ => worker.answer(&assignment, "done").await,
        }
    }
    let batch = agent.finished().await.unwrap();
    let ids: Vec<_> = batch.results.iter().map(|result| &*result.id).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "9", "10"]);
    assert_eq!(batch.succeeded(), ["1", "4"]);
    let codes = ["2", "3", "5", "6", "7", "9", "10"].map(|id| batch.error(id).code());
    let expected = [
        ErrorCode::ToolFailed,
        ErrorCode::Timeout,
        ErrorCode::InvalidArguments,
        ErrorCode::UnknownTool,
        ErrorCode::NoWorker,
        ErrorCode::OutcomeUnknown,
        ErrorCode::Incomplete,
    ];
    assert_eq!(codes, expected);
    assert_eq!(batch.summary.duplicates.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn arguments_reach_the_tool_as_the_model_wrote_them_however_they_were_cut() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, 9, v1::Open::default()).await;
    let text = r#" {"q" : "naïve 🦀 café", "n":1.50} "#;
    agent
        .send_all([start(7, "a", "look_up"), start(2, "b", "look_up")])
        .await;
    for byte in text.as_bytes() {
        agent.send_all([delta(7, [*byte]), delta(2, "")]).await;
    }
    agent.stop(2).await;
    agent.stop(7).await;
    let empty = worker.assignment().await;
    assert_eq!(
        (&*empty.call_id, &*empty.arguments),
        ("b", b"{}".as_slice())
    );
    let exact = worker.assignment().await;
    assert_eq!((&*exact.call_id, &*exact.arguments), ("a", text.as_bytes()));
    for nothing in ["null", " \n"] {
        agent.block(2, nothing, "look_up", nothing).await;
        assert_eq!(worker.assignment().await.arguments, "{}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_can_do_no_harm_starts_while_later_blocks_still_stream() {
    let broker = Broker::start();
    let idempotent = Policy {
        effects: Some(v1::Effects::Idempotent.into()),
        ..Default::default()
    };
    let tools = [read_only("look_up"), tool("put", idempotent)];
    let mut worker = broker.worker("w", 9, tools).await;
    let agent = broker.agent().await;
    agent.start(0, "a", "look_up").await;
    agent.start(1, "b", "put").await;
    agent.delta(0, "{").await;
    worker.expect_no_assignment().await;
    agent.delta(0, "}").await;
    worker.expect_no_assignment().await;
    agent.stop(0).await;
    let first = worker.assignment().await;
    assert_eq!(first.call_id, "a");
    agent.stop(1).await;
    let second = worker.assignment().await;
    assert_eq!(second.call_id, "b");
    worker.answer(&first, "done").await;
    worker.answer(&second, "done").await;
    agent.start(2, "c", "look_up").await;
    sleep(seconds(1)).await;
    agent.stop(2).await;
    let third = worker.assignment().await;
    worker.answer(&third, "done").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b", "c"]);
    assert_eq!(batch.ledger("a").held, None);
    assert_eq!(
        time(batch.ledger("c").block_complete),
        seconds(1) + millis(2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_side_effecting_call_is_held_until_the_turn_is_sealed() {
    let broker = Broker::start();
    for half_close in [false, true] {
        let mut worker = broker
            .join(register(
                &format!("w-{half_close}"),
                9,
                [side_effecting("send")],
            ))
            .await
            .unwrap();
        let mut agent = broker.agent().await;
        agent.call("a", "send", "{}").await;
        worker.expect_no_assignment_within(seconds(30)).await;
        if half_close {
            agent.half_close();
        } else {
            agent.seal().await;
        }
        let assignment = worker.assignment().await;
        worker.answer(&assignment, "sent").await;
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.text("a"), "sent");
        let held = time(batch.ledger("a").held);
        assert!(held >= seconds(30) && held < seconds(31), "{held:?}");
        worker.half_close();
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_held_runs_after_a_seal_that_is_not_complete() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let mut worker = broker.worker("w", 9, tools).await;
    for end in [TurnEnd::Truncated, TurnEnd::Aborted] {
        let agent = broker.agent().await;
        agent.call("a", "send", "{}").await;
        settle().await;
        agent.seal_as(end).await;
        worker.expect_no_assignment_within(seconds(5)).await;
        assert!(agent.finished().await.unwrap().succeeded().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_agents_stream_is_no_seal() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, 9, v1::Open::default()).await;
    agent.call("held", "send", "{}").await;
    agent.call("runs", "look_up", "{}").await;
    let runs = worker.assignment().await;
    agent.reset();
    assert_eq!(worker.cancel().await, runs.lease_id);
    worker.expect_no_assignment_within(seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_right_behind_the_calls_is_no_seal_either() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, 9, v1::Open::default()).await;
    agent.call("held", "send", "{}").await;
    agent.reset();
    worker.expect_no_assignment_within(seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_no_seal() {
    let broker = Broker::start();
    for action in [OnDisconnect::Cancel, OnDisconnect::Finish] {
        let worker = register(&format!("{action:?}"), 9, [side_effecting("send")]);
        let mut worker = broker.join(worker).await.unwrap();
        let agent = broker.agent_with(on_disconnect(action)).await;
        agent.call("held", "send", "{}").await;
        settle().await;
        agent.cut();
        worker.expect_no_assignment_within(seconds(60)).await;
        worker.half_close();
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_to_finish_without_its_agent_runs_what_is_complete_and_not_held() {
    let broker = Broker::start();
    let open = on_disconnect(OnDisconnect::Finish);
    let (mut worker, agent) = look_up_and_send(&broker, 1, open).await;
    agent.call("held", "send", "{}").await;
    agent.call("runs", "look_up", "{}").await;
    agent.call("waits", "look_up", "{}").await;
    agent.start(0, "open", "look_up").await;
    let runs = worker.assignment().await;
    agent.reset();
    worker.expect_no_assignment_within(seconds(1)).await;
    worker.answer(&runs, "done").await;
    let waits = worker.assignment().await;
    assert_eq!(waits.call_id, "waits");
    worker.answer(&waits, "done").await;
    worker.expect_no_assignment_within(seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_sealed_finishes_without_its_agent_with_all_its_calls() {
    let broker = Broker::start();
    let open = on_disconnect(OnDisconnect::Finish);
    let (mut worker, agent) = look_up_and_send(&broker, 1, open).await;
    agent.call("a", "send", "{}").await;
    agent.call("b", "send", "{}").await;
    agent.seal().await;
    let first = worker.assignment().await;
    agent.cut();
    settle().await;
    worker.answer(&first, "done").await;
    assert_eq!(worker.assignment().await.call_id, "b");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_away_after_its_seal_calls_off_what_runs_and_what_waits() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, 1, v1::Open::default()).await;
    agent.call("runs", "send", "{}").await;
    agent.call("waits", "send", "{}").await;
    agent.seal().await;
    let runs = worker.assignment().await;
    agent.cut();
    assert_eq!(worker.cancel().await, runs.lease_id);
    let stopped = error(ErrorCode::Cancelled, "stopped");
    worker.fail(&runs, stopped).await;
    worker.expect_no_assignment_within(seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_is_strictly_in_the_models_order() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, 9, at_most(1)).await;
    agent.start(0, "a", "look_up").await;
    agent.call("b", "look_up", "{}").await;
    agent.call("c", "send", "{}").await;
    agent.call("bad", "look_up", "{").await;
    agent.call("d", "look_up", "{}").await;
    worker.expect_no_assignment_within(seconds(1)).await;
    agent.stop(0).await;
    for id in ["a", "b"] {
        let assignment = worker.assignment().await;
        assert_eq!(assignment.call_id, id);
        worker.expect_no_assignment_within(seconds(1)).await;
        worker.answer(&assignment, "done").await;
    }
    // The next in order is held.
    worker.expect_no_assignment_within(seconds(1)).await;
    agent.seal().await;
    for id in ["c", "d"] {
        let assignment = worker.assignment().await;
        assert_eq!(assignment.call_id, id);
        worker.expect_no_assignment().await;
        worker.answer(&assignment, "done").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b", "c", "d"]);
    assert_eq!(batch.ledger("d").limited_by(), Limit::MaxParallel);
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_of_a_batch_run_at_once_than_it_asked_for() {
    let broker = Broker::start();
    let worker = broker.worker("w", 99, [read_only("look_up")]).await;
    let worker = worker.serve(seconds(1));
    let agent = broker.agent_with(at_most(3)).await;
    for n in 0..10 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded().len(), 10);
    assert_eq!(*worker.most.lock().unwrap(), 3);
    assert!(batch.elapsed() >= seconds(4) && batch.elapsed() < seconds(5));
}

#[tokio::test(start_paused = true)]
async fn a_worker_never_has_more_calls_than_slots_whatever_tools_they_are_of() {
    let broker = Broker::start();
    let tools = [read_only("a"), read_only("b"), side_effecting("c")];
    let worker = broker.worker("w", 3, tools).await.serve(millis(10));
    let agents = (0..5).map(|_| async {
        let agent = broker.agent().await;
        for n in 0..20 {
            let tool = ["a", "b", "c"][n % 3];
            agent.call(&n.to_string(), tool, "{}").await;
        }
        agent.seal().await;
        agent.finished().await.unwrap().succeeded().len()
    });
    let succeeded = futures_util::future::join_all(agents).await;
    assert_eq!(succeeded, [20; 5]);
    assert_eq!(*worker.most.lock().unwrap(), 3);
    assert_eq!(worker.count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_tools_calls_in_flight_are_counted_over_all_workers_and_agents() {
    let broker = Broker::start();
    let policy = || Policy {
        max_in_flight: Some(2),
        ..once()
    };
    let mut workers = [
        broker.worker("w1", 9, [tool("look_up", policy())]).await,
        broker.worker("w2", 9, [tool("look_up", policy())]).await,
    ];
    let agents = [broker.agent().await, broker.agent().await];
    for agent in &agents {
        for id in ["a", "b", "c"] {
            agent.call(id, "look_up", "{}").await;
        }
        agent.seal().await;
    }
    settle().await;
    let mut answered = 0;
    let mut running = Vec::new();
    while answered < 6 {
        for (index, worker) in workers.iter_mut().enumerate() {
            while let Some(assignment) = support::within(millis(1), worker.assignment()).await {
                running.push((index, assignment));
            }
        }
        assert!((1..=2).contains(&running.len()), "{running:?}");
        let (index, assignment) = running.remove(0);
        workers[index].answer(&assignment, "done").await;
        answered += 1;
        sleep(millis(1)).await;
    }
    for agent in agents {
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.succeeded(), ["a", "b", "c"]);
        assert_eq!(batch.ledger("c").limited_by(), Limit::InFlight);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_held_to_and_used_up_by_64_agents() {
    let broker = Broker::start();
    let limited = Policy {
        rate: Some(100.0),
        burst: Some(10),
        ..once()
    };
    let tools = [tool("look_up", limited)];
    let worker = broker.worker("w", 1_000, tools).await.serve(millis(3));
    let began = Instant::now();
    let mut agents = Vec::new();
    for _ in 0..64 {
        let agent = broker.agent().await;
        let calls = (0..20).map(|n| call(&n.to_string(), "look_up", "{}"));
        agent.send_all(calls).await;
        agents.push(agent);
    }
    tokio::time::sleep_until(began + seconds(10)).await;
    let started = worker.count();
    assert!((990..=1_010).contains(&started), "{started} started");
    let started = worker.started.lock().unwrap();
    for (n, (from, _)) in started.iter().enumerate() {
        let within_a_second = started[n..]
            .iter()
            .take_while(|(at, _)| *at - *from < seconds(1))
            .count();
        assert!(within_a_second <= 110, "{within_a_second} in one second");
    }
}

#[tokio::test(start_paused = true)]
async fn agents_take_turns_under_a_rate_however_much_each_asks_for() {
    let broker = Broker::start();
    let limited = Policy {
        rate: Some(10.0),
        ..once()
    };
    let worker = broker.worker("w", 99, [tool("look_up", limited)]).await;
    let worker = worker.serve(millis(1));
    let large = broker.agent().await;
    large
        .send_all((0..200).map(|n| call(&n.to_string(), "look_up", "{}")))
        .await;
    settle().await;
    let small = broker
        .run(&[("a", "look_up", "{}"), ("b", "look_up", "{}")])
        .await;
    assert_eq!(small.succeeded(), ["a", "b"]);
    assert!(small.elapsed() <= millis(401), "{:?}", small.elapsed());
    assert!(worker.count() < 8);
}

#[tokio::test(start_paused = true)]
async fn a_batch_takes_as_long_as_its_slowest_call() {
    let broker = Broker::start();
    let quick = broker.worker("q", 99, [read_only("quick")]).await;
    let slow = broker.worker("s", 99, [read_only("slow")]).await;
    let (_quick, _slow) = (quick.serve(millis(100)), slow.serve(seconds(3)));
    let agent = broker.agent().await;
    for n in 0..20 {
        let tool = if n == 7 { "slow" } else { "quick" };
        agent.call(&n.to_string(), tool, "{}").await;
    }
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), seconds(3));
    let summed = time(batch.summary.summed_run);
    assert_eq!(summed, seconds(3) + 19 * millis(100));
}

#[tokio::test(start_paused = true)]
async fn results_come_together_once_the_last_call_has_ended() {
    let broker = Broker::start();
    let (mut worker, mut agent) = look_up_and_send(&broker, 9, v1::Open::default()).await;
    for id in ["a", "b", "c"] {
        agent.call(id, "look_up", "{}").await;
    }
    let assignments = worker.assignments(3).await;
    for last in [2, 0] {
        worker.answer(&assignments[last], "done").await;
    }
    assert!(support::within(seconds(1), agent.frame()).await.is_none());
    worker.answer(&assignments[1], "done").await;
    // Not yet: more may come.
    assert!(support::within(seconds(1), agent.frame()).await.is_none());
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn the_rpcs_deadline_gives_a_finished_batch_a_little_before_it() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let open = v1::agent_frame::Frame::Open(v1::Open::default());
    let agent = broker
        .open_with(vec![open], |request| request.set_timeout(seconds(10)))
        .await
        .unwrap();
    agent.call("quick", "look_up", "{}").await;
    agent.call("slow", "look_up", "{}").await;
    agent.seal().await;
    let assignments = worker.assignments(2).await;
    assert!(time(assignments[1].timeout) >= seconds(9));
    worker.answer(&assignments[0], "done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), millis(9_750));
    assert_eq!(batch.text("quick"), "done");
    assert_eq!(batch.error("slow").timeout(), TimeoutScope::Batch);
    assert_eq!(worker.cancel().await, assignments[1].lease_id);
}

#[tokio::test(start_paused = true)]
async fn the_rpcs_deadline_holds_for_complete_turns_too() {
    let broker = Broker::start();
    let _worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let mut request = tonic::Request::new(v1::ExecuteBatchRequest {
        calls: vec![whole("a", "look_up", "{}")],
        ..Default::default()
    });
    request.set_timeout(seconds(1));
    let mut client = broker.client().await;
    let response = client.execute_batch(request).await.unwrap().into_inner();
    assert_eq!(time(response.finished.unwrap().elapsed), millis(900));
}

#[tokio::test(start_paused = true)]
async fn the_shorter_of_the_batchs_own_deadline_and_the_operators_counts() {
    let broker = Broker::start_with(|config| config.batch_timeout = seconds(5));
    let _worker = broker.worker("w", 9, [read_only("look_up")]).await;
    for (asked, given) in [(2, 2), (100, 5)] {
        let open = v1::Open {
            deadline: Some(wire(seconds(asked))),
            ..Default::default()
        };
        let agent = broker.agent_with(open).await;
        agent.call("a", "look_up", "{}").await;
        assert_eq!(agent.finished().await.unwrap().elapsed(), seconds(given));
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_its_number_and_all_have_one_key() {
    let broker = Broker::start();
    let policy = Policy {
        retry_backoff: Some(wire(seconds(1))),
        ..attempts(4)
    };
    let mut worker = broker.worker("w", 9, [tool("look_up", policy)]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let mut leases = HashSet::new();
    let mut pauses = Vec::new();
    let key = format!("{} a", agent.batch_id);
    for attempt in 1..=4 {
        let asked = Instant::now();
        let assignment = worker.assignment().await;
        pauses.push(asked.elapsed());
        assert_eq!(
            (assignment.attempt, &assignment.idempotency_key),
            (attempt, &key)
        );
        assert!(leases.insert(assignment.lease_id), "a lease of its own");
        let again = v1::CallError {
            retryable: true,
            ..error(ErrorCode::ToolFailed, "try again")
        };
        worker.fail(&assignment, again).await;
        settle().await;
    }
    let batch = agent.finished().await.unwrap();
    expect(
        batch.error("a"),
        ErrorCode::ToolFailed,
        (true, Effect::Maybe),
        &["try again"],
    );
    assert_eq!(batch.ledger("a").attempts, 4);
    for (pause, most) in pauses[1..].iter().zip([1, 2, 4]) {
        let most = seconds(most);
        assert!(
            *pause + millis(2) >= most / 2 && *pause <= most,
            "{pauses:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_final_is_not_tried_again() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [tool("look_up", attempts(4))]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    let no = error(ErrorCode::ToolFailed, "no");
    worker.fail(&assignment, no).await;
    assert_eq!(agent.finished().await.unwrap().ledger("a").attempts, 1);
    worker.expect_no_assignment_within(seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_side_effecting_call_is_started_once_whatever_its_tool_and_its_worker_say() {
    let broker = Broker::start();
    let policy = Policy {
        max_attempts: Some(10),
        ..Default::default()
    };
    let mut worker = broker.worker("w", 9, [tool("send", policy)]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    let again = v1::CallError {
        retryable: true,
        ..error(ErrorCode::ToolFailed, "try again")
    };
    worker.fail(&assignment, again).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("a").code(), ErrorCode::ToolFailed);
    worker.expect_no_assignment_within(seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_worker_gives_its_harmless_calls_to_another_at_once() {
    let broker = Broker::start();
    let mut lost = broker.worker("w1", 9, [tool("look_up", attempts(2))]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let first = lost.assignment().await;
    let mut other = broker.worker("w2", 9, [tool("look_up", attempts(2))]).await;
    let broke = Instant::now();
    lost.cut();
    let second = other.assignment().await;
    assert!(broke.elapsed() <= millis(1));
    assert_eq!(second.idempotency_key, first.idempotency_key);
    assert_eq!((first.attempt, second.attempt), (1, 2));
    other.answer(&second, "done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("a"), "done");
    assert_eq!(batch.ledger("a").worker_id(), "w2");
}

#[tokio::test(start_paused = true)]
async fn the_time_ledger_adds_up() {
    let broker = Broker::start();
    let policy = Policy {
        rate: Some(0.5),
        ..Default::default()
    };
    let mut worker = broker.worker("w", 1, [tool("send", policy)]).await;
    let agent = broker.agent().await;
    agent.call("first", "send", "{}").await;
    sleep(seconds(1)).await;
    agent.start(0, "second", "send").await;
    settle().await;
    sleep(seconds(1)).await;
    agent.stop(0).await;
    settle().await;
    sleep(seconds(3)).await;
    // Held until here. Then 2 s for the rate, and 1 s more for the slot, which is free after 3 s; then 4 s to run.
    agent.seal().await;
    let first = worker.assignment().await;
    sleep(seconds(3)).await;
    worker.answer(&first, "done").await;
    let second = worker.assignment().await;
    sleep(seconds(4)).await;
    worker.answer(&second, "done").await;
    let batch = agent.finished().await.unwrap();
    let ledger = batch.ledger("second");
    let close = |time: Duration, to: Duration| time >= to && time <= to + millis(5);
    let began = time(ledger.block_began);
    let complete = time(ledger.block_complete);
    let waits = [ledger.held, ledger.limit_wait, ledger.slot_wait, ledger.ran].map(time);
    assert!(
        close(began, seconds(1)) && close(complete, seconds(2)),
        "{ledger:?}"
    );
    for (wait, expected) in waits.into_iter().zip([3, 2, 1, 4]) {
        assert!(close(wait, seconds(expected)), "{ledger:?}");
    }
    assert_eq!(ledger.limited_by(), Limit::Rate);
    assert_eq!(
        complete + waits.into_iter().sum::<Duration>(),
        time(ledger.ended)
    );
    assert_eq!(time(ledger.ended), batch.elapsed());
    assert_eq!((ledger.attempts, ledger.worker_id()), (1, "w"));
}

#[tokio::test(start_paused = true)]
async fn a_complete_turn_in_one_request_ends_as_the_same_turn_streamed() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let _worker = broker.worker("w", 9, tools).await.serve(seconds(1));
    sleep(seconds(10)).await;
    let calls = [
        ("a", "send", "{}"),
        ("b", "look_up", r#"{"q":1}"#),
        ("c", "nobody", "{}"),
        ("b", "look_up", "{}"),
        ("d", "look_up", "{"),
    ];
    let streamed = broker.run(&calls).await;
    let request = v1::ExecuteBatchRequest {
        calls: calls
            .iter()
            .map(|(id, tool, arguments)| whole(id, tool, arguments))
            .collect(),
        ..Default::default()
    };
    let at_once = broker.execute_batch(request.clone()).await.unwrap();
    assert_eq!(streamed.results, at_once.results);
    assert_eq!(streamed.summary.duplicates, at_once.summary.duplicates);
    assert_eq!(streamed.elapsed(), at_once.elapsed());

    let truncated = v1::ExecuteBatchRequest {
        open: Some(v1::Open {
            batch_id: Some("mine".to_owned()),
            ..Default::default()
        }),
        seal: Some(v1::Seal {
            turn_end: Some(TurnEnd::Truncated.into()),
        }),
        ..request
    };
    let batch = broker.execute_batch(truncated).await.unwrap();
    assert_eq!(batch.summary.batch_id, "mine");
    assert_eq!(batch.error("a").code(), ErrorCode::TruncatedTurn);
    assert_eq!(batch.text("b"), "done");
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_nothing_is_finished_at_once() {
    let broker = Broker::start();
    assert_eq!(broker.run(&[]).await.summary.calls, 0);
    let nothing = v1::ExecuteBatchRequest::default();
    let batch = broker.execute_batch(nothing).await.unwrap();
    assert_eq!(batch.summary.calls, 0);
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_has_the_effective_policy_and_the_registered_one() {
    let operator = PolicyPatch {
        effects: Some(Effects::ReadOnly),
        call_timeout: Some(seconds(7)),
        rate: Some(2.0),
        ..Default::default()
    };
    let broker = Broker::start_with(|config| {
        config.tools.insert("search".to_owned(), operator);
    });
    let registered = Policy {
        rate: Some(50.0),
        burst: Some(5),
        on_failure: Some(FailureAction::AbortBatch.into()),
        ..Default::default()
    };
    let search = v1::Tool {
        description: "Finds pages.".to_owned(),
        input_schema: br#"{"type":"object"}"#.as_slice().into(),
        ..tool("search", registered)
    };
    let worker = broker
        .worker("w1", 1, [search.clone(), side_effecting("mail")])
        .await;
    let _other = broker.worker("w2", 1, [search.clone()]).await;
    let tools = broker.list_tools().await;
    let names = tools
        .iter()
        .map(|entry| &*entry.tool.as_ref().unwrap().name);
    assert_eq!(names.collect::<Vec<_>>(), ["mail", "search"]);
    let entry = &tools[1];
    assert_eq!(entry.workers, 2);
    assert_eq!(entry.registered_policy, Some(registered));
    let effective = v1::Tool {
        policy: Some(Policy {
            effects: Some(v1::Effects::ReadOnly.into()),
            attempt_timeout: Some(wire(seconds(7))),
            call_timeout: Some(wire(seconds(7))),
            queue_timeout: Some(wire(seconds(7))),
            max_attempts: Some(3),
            retry_backoff: Some(wire(millis(100))),
            rate: Some(2.0),
            burst: Some(5),
            max_in_flight: None,
            on_failure: Some(FailureAction::AbortBatch.into()),
        }),
        ..search
    };
    assert_eq!(entry.tool, Some(effective));
    worker.cut();
    settle().await;
    let workers = broker
        .list_tools()
        .await
        .iter()
        .map(|entry| entry.workers)
        .collect::<Vec<_>>();
    assert_eq!(
        workers,
        [0, 1],
        "a tool stays known when its last worker leaves"
    );
}

#[tokio::test(start_paused = true)]
async fn the_operators_word_wins_over_the_workers() {
    let operator = PolicyPatch {
        effects: Some(Effects::SideEffecting),
        ..Default::default()
    };
    let broker = Broker::start_with(|config| {
        config.tools.insert("look_up".to_owned(), operator);
    });
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    worker.expect_no_assignment_within(seconds(1)).await;
    agent.seal().await;
    worker.assignment().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_registration_of_a_name_defines_the_tool_for_everybody() {
    let broker = Broker::start();
    let mut old = broker.worker("w1", 9, [read_only("look_up")]).await;
    let stricter = v1::Tool {
        input_schema: br#"{"required":["q"]}"#.as_slice().into(),
        ..read_only("look_up")
    };
    let new = broker.worker("w2", 9, [stricter]).await;
    new.cut();
    settle().await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.call("b", "look_up", r#"{"q":1}"#).await;
    agent.seal().await;
    let assignment = old.assignment().await;
    old.answer(&assignment, "done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["b"]);
    assert_eq!(batch.error("a").code(), ErrorCode::InvalidArguments);
}

#[tokio::test(start_paused = true)]
async fn progress_tells_what_becomes_of_each_call_but_never_its_result() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [tool("look_up", attempts(2))]).await;
    let open = v1::Open {
        progress: true,
        ..Default::default()
    };
    let mut agent = broker.agent_with(open).await;
    let mut events = Vec::new();
    agent.call("a", "look_up", "{}").await;
    let first = worker.assignment().await;
    agent.call("b", "look_up", "{}").await;
    settle().await;
    let half = v1::ToolProgress {
        message: "half way".to_owned(),
        fraction: Some(0.5),
    };
    let says = v1::worker_frame::Frame::Progress(v1::LeaseProgress {
        lease_id: first.lease_id,
        progress: Some(half.clone()),
    });
    worker.send(says).await;
    sleep(seconds(1)).await;
    worker.answer(&first, "done").await;
    let second = worker.assignment().await;
    let no = error(ErrorCode::ToolFailed, "no");
    worker.fail(&second, no).await;
    for _ in 0..6 {
        let progress = agent.progress().await;
        events.push((
            progress.id,
            progress.event.unwrap(),
            time(progress.at).as_secs(),
        ));
    }
    let started = || {
        Event::Started(Started {
            worker_id: "w".to_owned(),
            attempt: 1,
        })
    };
    let ended = |error: Option<ErrorCode>| {
        Event::Ended(Ended {
            error: error.map(Into::into),
        })
    };
    let of = |id: &str| -> Vec<_> {
        let own = events.iter().filter(|(of, ..)| of == id);
        own.map(|(_, event, at)| (event.clone(), *at)).collect()
    };
    assert_eq!(
        of("a"),
        [(started(), 0), (Event::Tool(half), 0), (ended(None), 1)]
    );
    let failed = ended(Some(ErrorCode::ToolFailed));
    assert_eq!(
        of("b"),
        [(Event::Queued(Queued {}), 0), (started(), 1), (failed, 1)]
    );
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert!(batch.progress.is_empty());
    assert_eq!(batch.text("a"), "done");
}

#[tokio::test(start_paused = true)]
async fn progress_comes_only_if_it_is_wanted() {
    let broker = Broker::start();
    let _worker = broker
        .worker("w", 1, [read_only("look_up")])
        .await
        .serve(seconds(1));
    let batch = broker
        .run(&[("a", "look_up", "{}"), ("b", "look_up", "{}")])
        .await;
    assert!(batch.progress.is_empty());
}

#[tokio::test(start_paused = true)]
async fn open_batches_have_a_limit_and_ids_of_their_own() {
    let broker = Broker::start_with(|config| config.max_open_batches = 2);
    let named = |id: &str| v1::Open {
        batch_id: Some(id.to_owned()),
        ..Default::default()
    };
    let mut first = broker.agent_with(named("a")).await;
    let taken = broker.open(named("a")).await.err().unwrap();
    assert_eq!(taken.code(), Code::AlreadyExists, "{taken:?}");
    assert!(taken.message().contains("open.batch_id"), "{taken:?}");
    let second = broker.agent().await;
    assert_ne!(second.batch_id, "");
    let full = broker.open(v1::Open::default()).await.err().unwrap();
    assert_eq!(full.code(), Code::ResourceExhausted, "{full:?}");
    assert!(full.message().contains("max_open_batches"), "{full:?}");
    first.half_close();
    assert_eq!(first.finished().await.unwrap().summary.batch_id, "a");
    broker.agent_with(named("a")).await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_far_over_the_limit_of_calls_is_refused_as_a_whole() {
    let broker = Broker::start_with(|config| config.max_calls_per_batch = 2);
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let agent = broker.agent().await;
    agent.call("runs", "look_up", "{}").await;
    let runs = worker.assignment().await;
    for n in 0..8 {
        agent.call(&n.to_string(), "nobody", "{}").await;
    }
    let status = agent.refused().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(
        status.message().contains("max_calls_per_batch"),
        "{status:?}"
    );
    assert_eq!(worker.cancel().await, runs.lease_id);

    let calls = (0..9).map(|n| whole(&n.to_string(), "look_up", "{}"));
    let request = v1::ExecuteBatchRequest {
        calls: calls.collect(),
        ..Default::default()
    };
    let asked = Instant::now();
    let status = broker.execute_batch(request).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_least_busy_worker_gets_the_call() {
    let broker = Broker::start();
    let mut workers = Vec::new();
    for id in ["w1", "w2", "w3"] {
        workers.push(broker.worker(id, 4, [read_only("look_up")]).await);
    }
    let agent = broker.agent().await;
    for n in 0..6 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    for worker in &mut workers {
        worker.assignments(2).await;
        worker.expect_no_assignment().await;
    }
}

#[tokio::test(start_paused = true)]
async fn frames_in_one_packet_are_taken_as_if_each_had_come_alone() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let mut worker = broker.worker("w", 9, tools).await;
    let turn = vec![
        v1::agent_frame::Frame::Open(v1::Open::default()),
        call("a", "send", "{}"),
        start(0, "b", "look_up"),
        delta(0, "{}"),
        v1::agent_frame::Frame::BlockStop(v1::BlockStop { index: 0 }),
        seal(TurnEnd::Complete),
    ];
    let agent = broker.open_with(turn, |_| ()).await.unwrap();
    let assignments = worker.assignments(2).await;
    let outcomes = assignments
        .iter()
        .map(|of| answer(of.lease_id, &of.call_id));
    worker.link.send_all(outcomes).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!((batch.text("a"), batch.text("b")), ("a", "b"));
}
