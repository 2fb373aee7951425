//! What others' trackers warn of; each test is named after the hazard that must not come about here.

mod support;

use std::time::Duration;

use support::agent::{call, whole};
use support::batch::expect;
use support::worker::{
    answer, attempts, error, failure, once, read_only, register, side_effecting, tool,
};
use support::{A_MOMENT, Broker, millis, seconds, settle, time, wire, within};
use tokio::time::{Instant, sleep};
use toolpool_proto::v1::pool_frame::Frame;
use toolpool_proto::v1::{self, Effect, ErrorCode, FailureAction, Policy, TimeoutScope};

#[tokio::test(start_paused = true)]
async fn a_zombie_whose_stream_died_gets_no_work() {
    let broker = Broker::start();
    let zombie = broker.worker("zombie", 99, [read_only("look_up")]).await;
    let mut alive = broker.worker("alive", 99, [read_only("look_up")]).await;
    zombie.cut();
    settle().await;
    let agent = broker.agent().await;
    for n in 0..20 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    agent.seal().await;
    for assignment in alive.assignments(20).await {
        alive.answer(&assignment, "done").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(
        (batch.succeeded().len(), batch.elapsed()),
        (20, Duration::ZERO)
    );
    assert_eq!(broker.list_tools().await[0].workers, 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_beats_no_more_gets_no_work_though_its_stream_seems_open() {
    let broker = Broker::start();
    let mut silent = broker.worker("silent", 99, [read_only("look_up")]).await;
    silent.go_silent();
    sleep(seconds(21)).await;
    assert_eq!(broker.list_tools().await[0].workers, 0);
    let status = silent.ended().await.unwrap_err();
    assert!(status.message().contains("no sign of life"), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_or_blocked_worker_is_not_declared_dead() {
    let broker = Broker::start_with(|config| {
        config.call_timeout = seconds(7_200);
        config.batch_timeout = seconds(7_200);
    });
    let mut blocked = broker
        .worker("blocked", 2, [tool("look_up", attempts(3))])
        .await;
    let agent = broker.agent().await;
    for id in ["a", "b", "c"] {
        agent.call(id, "look_up", "{}").await;
    }
    agent.seal().await;
    let running = blocked.assignments(2).await;
    let spare = tool("look_up", attempts(3));
    sleep(seconds(3_000)).await;
    let mut other = broker.worker("other", 2, [spare]).await;
    let third = other.assignment().await;
    assert_eq!((&*third.call_id, third.attempt), ("c", 1));
    other.answer(&third, "done").await;
    other.expect_no_assignment_within(seconds(300)).await;
    for assignment in &running {
        blocked.answer(assignment, "done").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b", "c"]);
    for id in ["a", "b"] {
        let ledger = batch.ledger(id);
        assert_eq!((ledger.attempts, ledger.worker_id()), (1, "blocked"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limiters_slot_does_not_leak_when_a_call_is_cancelled_between_grant_and_dispatch() {
    let broker = Broker::start();
    let alone = Policy {
        max_in_flight: Some(1),
        ..once()
    };
    let mut worker = broker.worker("w", 1, [tool("look_up", alone)]).await;
    for _ in 0..50 {
        let (first, second) = (broker.agent().await, broker.agent().await);
        first.call("a", "look_up", "{}").await;
        let running = worker.assignment().await;
        second.call("b", "look_up", "{}").await;
        settle().await;
        // At one moment, in whatever order the broker hears of it: the slot comes free, and who waits for it is gone.
        worker.answer(&running, "done").await;
        second.reset();
        drop(first);
        settle().await;
        while let Some(news) = within(A_MOMENT, worker.news()).await {
            if let Ok(Some(Frame::Cancel(v1::Cancel { lease_id }))) = news {
                let stopped = error(ErrorCode::Cancelled, "stopped");
                worker.send(failure(lease_id, stopped)).await;
            }
        }
        let agent = broker.agent().await;
        agent.call("c", "look_up", "{}").await;
        agent.seal().await;
        worker.answer_next("done").await;
        assert_eq!(agent.finished().await.unwrap().text("c"), "done");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_exits_only_after_its_last_result_is_acknowledged() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 2, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    worker.drain().await;
    assert!(matches!(worker.news().await, Ok(Some(Frame::DrainAck(_)))));
    worker.answer(&assignment, "sent").await;
    let sent = Instant::now();
    assert_eq!(worker.acknowledged().await, assignment.lease_id);
    assert_eq!(sent.elapsed(), Duration::ZERO, "it waits for nothing else");
    worker.half_close();
    worker.ended().await.unwrap();
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
}

#[tokio::test(start_paused = true)]
async fn a_result_and_the_exit_in_one_breath_lose_nothing() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 2, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    worker.answer_next("sent").await;
    worker.half_close();
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
}

#[tokio::test(start_paused = true)]
async fn a_workers_drain_is_no_failed_attempt() {
    let broker = Broker::start();
    let mut leaving = broker
        .worker("leaving", 1, [tool("look_up", attempts(1))])
        .await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.call("b", "look_up", "{}").await;
    agent.seal().await;
    let first = leaving.assignment().await;
    leaving.drain().await;
    sleep(seconds(5)).await;
    leaving.answer(&first, "done").await;
    settle().await;
    leaving.half_close();
    settle().await;
    let mut other = broker
        .worker("other", 1, [tool("look_up", attempts(1))])
        .await;
    let second = other.assignment().await;
    assert_eq!(second.attempt, 1);
    other.answer(&second, "done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b"]);
    assert_eq!(batch.ledger("b").attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_was_lost_from_sight_costs_no_attempt() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let running = worker.assignment().await;
    worker.cut();
    sleep(seconds(2)).await;
    let again = v1::Register {
        running_leases: vec![running.lease_id],
        ..register("w", 1, [side_effecting("send")])
    };
    let mut worker = broker.join(again).await.unwrap();
    worker.expect_no_assignment_within(seconds(20)).await;
    worker.answer(&running, "sent").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("a"), "sent");
    assert_eq!(batch.ledger("a").attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_brokers_drain_is_no_failed_attempt() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [tool("look_up", attempts(1))]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.call("b", "look_up", "{}").await;
    agent.seal().await;
    let first = worker.assignment().await;
    broker.shutdown.drain.cancel();
    assert!(matches!(worker.news().await, Ok(Some(Frame::Drain(_)))));
    sleep(seconds(5)).await;
    worker.answer(&first, "done").await;
    worker.answer_next("done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn an_oversize_result_is_final() {
    let broker = Broker::start_with(|config| config.max_result_bytes = 1024);
    let mut worker = broker.worker("w", 9, [tool("look_up", attempts(9))]).await;
    let agent = broker.agent().await;
    agent.call("sent", "look_up", "{}").await;
    agent.call("told", "look_up", "{}").await;
    agent.seal().await;
    let assignments = worker.assignments(2).await;
    worker.answer(&assignments[0], &"a".repeat(2_000)).await;
    // The worker has found out by itself, and wrongly thinks that a repeat could help.
    let told = v1::CallError {
        retryable: true,
        effect: Effect::Done.into(),
        ..error(ErrorCode::ResultTooLarge, "20 MiB of output")
    };
    worker.fail(&assignments[1], told).await;
    let batch = agent.finished().await.unwrap();
    let done = (false, Effect::Done);
    expect(
        batch.error("sent"),
        ErrorCode::ResultTooLarge,
        done,
        &["1024 bytes"],
    );
    expect(
        batch.error("told"),
        ErrorCode::ResultTooLarge,
        done,
        &["20 MiB"],
    );
    worker.expect_no_assignment_within(seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_stops_reading_is_backpressure_not_growth() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("look_up")]).await;
    let open = v1::Open {
        progress: true,
        ..Default::default()
    };
    let agent = broker.agent_with(open).await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    for n in 0..10_000 {
        let progress = v1::ToolProgress {
            message: format!("{n:01000}"),
            fraction: None,
        };
        let says = v1::worker_frame::Frame::Progress(v1::LeaseProgress {
            lease_id: assignment.lease_id,
            progress: Some(progress),
        });
        worker.send(says).await;
    }
    settle().await;
    worker.answer(&assignment, "done").await;
    sleep(seconds(5)).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("a"), "done");
    // The agent's own side of the connection takes 2 MiB.
    let read = batch.progress.len();
    assert!(
        read < 4_000,
        "{read} of 10,000 were kept for a reader that was away"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stops_reading_is_backpressure_not_growth() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 20, [read_only("look_up")]).await;
    let agent = broker.agent().await;
    agent.call("small", "look_up", "{}").await;
    let small = worker.assignment().await;
    let large = format!(r#"{{"q":"{}"}}"#, "a".repeat(500_000));
    for n in 0..19 {
        agent.call(&n.to_string(), "look_up", &large).await;
    }
    settle().await;
    // Its acknowledgement finds no room, and neither do the beats of an hour.
    worker.answer(&small, "done").await;
    sleep(seconds(3_600)).await;
    let mut beats = 0;
    while let Some(frame) = within(A_MOMENT, worker.link.frame()).await {
        match frame.unwrap() {
            Some(Frame::Beat(_)) => beats += 1,
            Some(_) => {}
            None => panic!("a worker that beats is alive"),
        }
    }
    assert!(
        beats < 20,
        "{beats} beats were kept for a reader that was away"
    );
    drop(agent);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_still_yields_its_result() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let open = v1::Open {
        deadline: Some(wire(seconds(2))),
        ..Default::default()
    };
    let agent = broker.agent_with(open).await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    // The batch does not wait for the tool to stop.
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), seconds(2));
    assert_eq!(batch.error("a").timeout(), TimeoutScope::Batch);
    assert_eq!(worker.cancel_at_once().await, assignment.lease_id);
    // What it says in the end is thrown away, and acknowledged.
    worker.answer(&assignment, "late").await;
    assert_eq!(worker.acknowledged().await, assignment.lease_id);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_calls_slot_is_taken_until_its_tool_has_stopped() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("look_up")]).await;
    let gone = broker.agent().await;
    gone.call("a", "look_up", "{}").await;
    let first = worker.assignment().await;
    gone.reset();
    assert_eq!(worker.cancel_at_once().await, first.lease_id);
    let agent = broker.agent().await;
    agent.call("b", "look_up", "{}").await;
    worker.expect_no_assignment_within(seconds(30)).await;
    let stopped = error(ErrorCode::Cancelled, "stopped");
    worker.fail(&first, stopped).await;
    assert_eq!(worker.assignment().await.call_id, "b");
}

#[tokio::test(start_paused = true)]
async fn one_failure_does_not_cancel_26_siblings() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 99, [read_only("look_up")]).await;
    let agent = broker.agent().await;
    for n in 0..27 {
        agent.call(&n.to_string(), "look_up", "{}").await;
    }
    agent.seal().await;
    let assignments = worker.assignments(27).await;
    let no = error(ErrorCode::ToolFailed, "no");
    worker.fail(&assignments[13], no).await;
    sleep(seconds(1)).await;
    for assignment in assignments.iter().filter(|of| of.call_id != "13") {
        worker.answer(assignment, "done").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded().len(), 26);
    assert_eq!(batch.error("13").code(), ErrorCode::ToolFailed);
}

#[tokio::test(start_paused = true)]
async fn a_turn_with_792_calls_does_not_stall_everyone() {
    let broker = Broker::start();
    let worker = broker.worker("w", 4, [read_only("look_up")]).await;
    let worker = worker.serve(millis(100));
    let large = broker.agent().await;
    let calls = (0..792).map(|n| call(&n.to_string(), "look_up", "{}"));
    large.send_all(calls).await;
    large.seal().await;
    sleep(millis(350)).await;
    let small = broker
        .run(&[("a", "look_up", "{}"), ("b", "look_up", "{}")])
        .await;
    assert_eq!(small.succeeded(), ["a", "b"]);
    assert!(small.elapsed() <= millis(300), "{:?}", small.elapsed());
    let large = large.finished().await.unwrap();
    assert_eq!((large.results.len(), large.succeeded().len()), (792, 256));
    let refused = large.error("256");
    expect(
        refused,
        ErrorCode::Overloaded,
        (true, Effect::NotStarted),
        &["256 calls"],
    );
    assert_eq!(worker.count(), 258);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_over_all_attempts_queue_wait_included() {
    let broker = Broker::start();
    let policy = Policy {
        attempt_timeout: Some(wire(seconds(3))),
        call_timeout: Some(wire(seconds(10))),
        retry_backoff: Some(wire(seconds(1))),
        ..attempts(10)
    };
    let mut worker = broker.worker("w", 1, [tool("look_up", policy)]).await;
    let other = broker.agent().await;
    other.call("first", "look_up", "{}").await;
    let first = worker.assignment().await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    sleep(seconds(2)).await;
    worker.answer(&first, "done").await;
    let mut last = 0;
    let began = Instant::now();
    while began.elapsed() < seconds(9) {
        let Some(news) = within(seconds(9), worker.news()).await else {
            break;
        };
        match news.unwrap() {
            Some(Frame::Assignment(assignment)) => {
                let left = time(assignment.timeout);
                assert!(began.elapsed() + left <= seconds(8), "{left:?}");
                last = assignment.attempt;
            }
            Some(Frame::Cancel(cancel)) => {
                let stopped = error(ErrorCode::Cancelled, "stopped");
                worker.send(failure(cancel.lease_id, stopped)).await;
            }
            _ => {}
        }
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), seconds(10));
    assert_eq!(batch.error("a").timeout(), TimeoutScope::Call);
    assert_eq!(batch.ledger("a").attempts, last);
    assert!((2..=3).contains(&last), "{last}");
}

#[tokio::test(start_paused = true)]
async fn the_agents_own_idempotency_key_reaches_the_worker() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [tool("look_up", attempts(2))]).await;
    let with_key = |id: &str| v1::Call {
        idempotency_key: Some("order-7".to_owned()),
        ..whole(id, "look_up", "{}")
    };
    // The model asks again in another turn, under another id.
    for id in ["a", "b"] {
        let agent = broker.agent().await;
        agent.send(v1::agent_frame::Frame::Call(with_key(id))).await;
        agent.seal().await;
        for attempt in [1, 2] {
            let assignment = worker.assignment().await;
            assert_eq!(assignment.idempotency_key, "order-7");
            assert_eq!(assignment.attempt, attempt);
            let again = v1::CallError {
                retryable: true,
                ..error(ErrorCode::ToolFailed, "again")
            };
            worker.fail(&assignment, again).await;
        }
        agent.finished().await.unwrap();
    }
    let agent = broker.agent().await;
    let start = v1::BlockStart {
        index: 0,
        id: "c".to_owned(),
        tool: "look_up".to_owned(),
        idempotency_key: Some("order-8".to_owned()),
    };
    agent.send(v1::agent_frame::Frame::BlockStart(start)).await;
    agent.stop(0).await;
    assert_eq!(worker.assignment().await.idempotency_key, "order-8");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_keeps_nobody_elses_worker_waiting() {
    let broker = Broker::start();
    let alone = Policy {
        max_in_flight: Some(1),
        ..once()
    };
    let tools = [tool("alone", alone), read_only("free")];
    let mut worker = broker.worker("w", 2, tools).await;
    let agent = broker.agent().await;
    agent.call("1", "alone", "{}").await;
    agent.call("2", "alone", "{}").await;
    agent.call("3", "free", "{}").await;
    let assignments = worker.assignments(2).await;
    let ids: Vec<_> = assignments.iter().map(|of| &*of.call_id).collect();
    assert_eq!(ids, ["1", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_aborts_its_batch_aborts_no_other() {
    let broker = Broker::start();
    let vital = Policy {
        on_failure: Some(FailureAction::AbortBatch.into()),
        ..once()
    };
    let mut worker = broker.worker("w", 9, [tool("vital", vital)]).await;
    let agents = [broker.agent().await, broker.agent().await];
    for agent in &agents {
        agent.call("a", "vital", "{}").await;
        agent.seal().await;
    }
    let assignments = worker.assignments(2).await;
    let no = error(ErrorCode::ToolFailed, "no");
    worker.fail(&assignments[0], no).await;
    sleep(seconds(1)).await;
    worker.send(answer(assignments[1].lease_id, "done")).await;
    let mut succeeded = 0;
    for agent in agents {
        succeeded += agent.finished().await.unwrap().succeeded().len();
    }
    assert_eq!(succeeded, 1);
}
