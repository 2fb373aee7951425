//! Attempts: their number and key, and who is tried again.

use std::collections::HashSet;

use tokio::time::Instant;
use toolpool_proto::v1::{self, Effect, ErrorCode, Policy};

use crate::support::batch::expect;
use crate::support::worker::{attempts, error, tool};
use crate::support::{Broker, millis, seconds, settle, wire};

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
