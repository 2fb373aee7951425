//! Calls that wait too long, for whatever it is.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use toolpool_proto::v1::{self, Effect, ErrorCode, Limit, Policy, TimeoutScope};

use super::TRY_AGAIN;
use crate::support::batch::expect;
use crate::support::worker::{attempts, error, once, read_only, side_effecting, tool};
use crate::support::{Broker, millis, seconds, settle, time, wire};

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_worker_to_come_but_not_for_ever() {
    let broker = Broker::start();
    broker
        .worker("w", 1, [read_only("search")])
        .await
        .half_close();
    settle().await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    expect(
        batch.error("a"),
        ErrorCode::NoWorker,
        TRY_AGAIN,
        &["search", "10.0s"],
    );
    let waited = time(batch.ledger("a").slot_wait);
    assert!(waited > seconds(9) && waited <= seconds(10), "{waited:?}");
    let again = broker.run(&[("a", "search", "{}")]).await;
    expect(again.error("a"), ErrorCode::NoWorker, TRY_AGAIN, &[]);
    assert_eq!(again.elapsed(), Duration::ZERO, "the time to wait is over");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_what_comes_after() {
    let broker = Broker::start_with(|config| config.max_queued_per_tool = 2);
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    let agent = broker.agent().await;
    for id in ["runs", "waits", "waits too", "refused"] {
        agent.call(id, "search", "{}").await;
    }
    agent.seal().await;
    for _ in 0..3 {
        worker.answer_next("done").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["runs", "waits", "waits too"]);
    let refused = batch.error("refused");
    let words = ["search", "2 calls", "max_queued_per_tool"];
    expect(refused, ErrorCode::Overloaded, TRY_AGAIN, &words);
    assert!(time(refused.retry_after) > Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_tools_rate_cannot_start_in_time_is_told_so_at_once() {
    let broker = Broker::start();
    let slow = Policy {
        rate: Some(0.1),
        queue_timeout: Some(wire(seconds(15))),
        ..once()
    };
    let worker = broker
        .worker("w", 9, [tool("search", slow)])
        .await
        .serve(millis(1));
    let agent = broker.agent().await;
    for id in ["now", "in 10 s", "in 20 s"] {
        agent.call(id, "search", "{}").await;
    }
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["now", "in 10 s"]);
    assert_eq!(batch.ledger("in 10 s").limited_by(), Limit::Rate);
    let refused = batch.error("in 20 s");
    expect(
        refused,
        ErrorCode::RateLimited,
        TRY_AGAIN,
        &["search", "20.0s"],
    );
    assert_eq!(time(refused.retry_after), seconds(20));
    assert_eq!(time(batch.ledger("in 20 s").ended), Duration::ZERO);
    assert_eq!(worker.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_asks_to_be_called_later_pauses_its_lane_for_everyone() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("search")]).await;
    let limited = broker.agent().await;
    limited.call("a", "search", "{}").await;
    limited.seal().await;
    let later = v1::CallError {
        retry_after: Some(wire(seconds(5))),
        retryable: true,
        effect: Effect::NotStarted.into(),
        ..error(ErrorCode::RateLimited, "the provider wants a rest")
    };
    let assignment = worker.assignment().await;
    worker.fail(&assignment, later).await;
    let refused = limited.finished().await.unwrap();
    let refused = refused.error("a");
    expect(
        refused,
        ErrorCode::RateLimited,
        TRY_AGAIN,
        &["the provider wants a rest"],
    );
    assert_eq!(time(refused.retry_after), seconds(5));

    let other = broker.agent().await;
    other.call("b", "search", "{}").await;
    other.seal().await;
    worker.expect_no_assignment_within(millis(4_990)).await;
    worker.answer_next("done").await;
    let batch = other.finished().await.unwrap();
    assert_eq!(batch.text("b"), "done");
    assert_eq!(batch.ledger("b").limited_by(), Limit::Pause);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_no_longer_than_the_operator_permits() {
    let broker = Broker::start_with(|config| config.max_pause = seconds(1));
    let mut worker = broker.worker("w", 9, [read_only("search")]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    let later = v1::CallError {
        retry_after: Some(wire(seconds(100_000))),
        ..error(ErrorCode::RateLimited, "never again")
    };
    let assignment = worker.assignment().await;
    worker.fail(&assignment, later).await;
    settle().await;
    let paused = Instant::now();
    agent.call("b", "search", "{}").await;
    worker.assignment().await;
    assert!(paused.elapsed() <= millis(1_001), "{:?}", paused.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_slot_that_is_too_long_is_a_queue_timeout() {
    let broker = Broker::start();
    let impatient = Policy {
        queue_timeout: Some(wire(seconds(2))),
        ..once()
    };
    let mut worker = broker.worker("w", 1, [tool("search", impatient)]).await;
    let agent = broker.agent().await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    sleep(seconds(3)).await;
    worker.answer(&assignment, "done").await;
    let batch = agent.finished().await.unwrap();
    let waits = batch.error("waits");
    let words = ["search", "waited 2.0s", "a free worker slot"];
    expect(waits, ErrorCode::Timeout, TRY_AGAIN, &words);
    assert_eq!(waits.timeout(), TimeoutScope::Queue);
    assert_eq!(time(batch.ledger("waits").slot_wait), seconds(2));
    assert_eq!(batch.text("runs"), "done");
}

#[tokio::test(start_paused = true)]
async fn a_queue_timeout_names_what_was_waited_for() {
    let broker = Broker::start();
    let impatient = |policy: Policy| Policy {
        queue_timeout: Some(wire(seconds(2))),
        ..policy
    };
    let alone = impatient(Policy {
        max_in_flight: Some(1),
        ..once()
    });
    let tools = [tool("alone", alone), tool("paused", impatient(once()))];
    let mut worker = broker.worker("w", 9, tools).await;
    let first = broker.agent().await;
    first.call("1", "alone", "{}").await;
    first.call("2", "paused", "{}").await;
    let assignments = worker.assignments(2).await;
    let later = v1::CallError {
        retry_after: Some(wire(seconds(30))),
        ..error(ErrorCode::RateLimited, "later")
    };
    worker.fail(&assignments[1], later).await;
    settle().await;
    let agent = broker.agent().await;
    agent.call("a", "alone", "{}").await;
    agent.call("p", "paused", "{}").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    let words = ["2.0s", "one of the tool's calls in flight"];
    expect(batch.error("a"), ErrorCode::Timeout, TRY_AGAIN, &words);
    assert_eq!(batch.error("a").timeout(), TimeoutScope::Queue);
    assert_eq!(batch.ledger("a").limited_by(), Limit::InFlight);
    assert_eq!(time(batch.ledger("a").limit_wait), seconds(2));
    // The pause is longer than the call may wait, so it need not wait to find out.
    expect(
        batch.error("p"),
        ErrorCode::RateLimited,
        TRY_AGAIN,
        &["30.0s"],
    );
    assert_eq!(time(batch.ledger("p").ended), seconds(0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_cancelled_and_the_last_one_is_the_result() {
    let broker = Broker::start();
    let policy = Policy {
        attempt_timeout: Some(wire(seconds(2))),
        retry_backoff: Some(wire(seconds(1))),
        ..attempts(2)
    };
    let mut worker = broker.worker("w", 2, [tool("search", policy)]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.seal().await;
    for attempt in [1, 2] {
        let assignment = worker.assignment().await;
        assert_eq!(
            (assignment.attempt, time(assignment.timeout)),
            (attempt, seconds(2))
        );
        assert_eq!(worker.cancel().await, assignment.lease_id);
    }
    let batch = agent.finished().await.unwrap();
    let words = ["search", "2.0s", "one attempt"];
    let maybe = (true, Effect::Maybe);
    expect(batch.error("a"), ErrorCode::Timeout, maybe, &words);
    assert_eq!(batch.error("a").timeout(), TimeoutScope::Attempt);
    assert_eq!(time(batch.ledger("a").ran), seconds(2));
    assert_eq!(batch.ledger("a").attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_a_call_timeout() {
    let broker = Broker::start_with(|config| config.call_timeout = seconds(7));
    let mut worker = broker.worker("w", 2, [tool("search", attempts(3))]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    assert_eq!(time(assignment.timeout), seconds(7));
    assert_eq!(worker.cancel().await, assignment.lease_id);
    let batch = agent.finished().await.unwrap();
    let words = ["search", "7.0s", "a call may take with all its attempts"];
    let maybe = (true, Effect::Maybe);
    expect(batch.error("a"), ErrorCode::Timeout, maybe, &words);
    assert_eq!(batch.error("a").timeout(), TimeoutScope::Call);
    assert_eq!(time(batch.ledger("a").ended), seconds(7));
}

#[tokio::test(start_paused = true)]
async fn when_the_batchs_time_is_over_every_call_gets_its_result() {
    let broker = Broker::start();
    let tools = [read_only("search"), side_effecting("send")];
    let mut worker = broker.worker("w", 1, tools).await;
    let agent = broker
        .agent_with(v1::Open {
            deadline: Some(wire(seconds(5))),
            ..Default::default()
        })
        .await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.call("held", "send", "{}").await;
    agent.start(0, "streams", "search").await;
    let assignment = worker.assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), seconds(5));
    let words = ["5.0s", "whole batch"];
    let maybe = (true, Effect::Maybe);
    expect(batch.error("runs"), ErrorCode::Timeout, maybe, &words);
    for id in ["waits", "held"] {
        expect(batch.error(id), ErrorCode::Timeout, TRY_AGAIN, &words);
        assert_eq!(batch.error(id).timeout(), TimeoutScope::Batch);
    }
    let words = ["search", "the time of its batch was over"];
    expect(
        batch.error("streams"),
        ErrorCode::Incomplete,
        TRY_AGAIN,
        &words,
    );
    assert_eq!(worker.cancel().await, assignment.lease_id);
    worker.expect_no_assignment().await;
}
