//! Outcomes that come late, twice or for another lease; assignments that never arrive.

use tokio::time::sleep;
use toolpool_proto::v1::pool_frame::Frame;
use toolpool_proto::v1::worker_frame::Frame as FromWorker;
use toolpool_proto::v1::{self, Effect, ErrorCode};

use super::{back, sending};
use crate::support::worker::{attempts, tool};
use crate::support::{Broker, millis, seconds, settle, wire};

#[tokio::test(start_paused = true)]
async fn an_outcome_that_comes_twice_counts_once_and_is_acknowledged_twice() {
    let broker = Broker::start();
    let (mut worker, agent, assignment) = sending(&broker).await;
    worker.answer(&assignment, "first").await;
    assert_eq!(worker.acknowledged().await, assignment.lease_id);
    worker.answer(&assignment, "second").await;
    assert_eq!(worker.acknowledged().await, assignment.lease_id);
    assert_eq!(agent.finished().await.unwrap().text("a"), "first");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_another_attempt_is_fenced_off_and_acknowledged() {
    let broker = Broker::start();
    let mut slow = broker
        .worker("slow", 1, [tool("look_up", attempts(2))])
        .await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let first = slow.assignment().await;
    slow.cut();
    let mut worker = broker.worker("w", 1, [tool("look_up", attempts(2))]).await;
    let second = worker.assignment().await;
    assert_ne!(first.lease_id, second.lease_id);
    // Of the attempt that was given up, through the wrong worker's stream at that.
    worker.answer(&first, "first").await;
    assert_eq!(worker.acknowledged().await, first.lease_id);
    worker.answer(&second, "second").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "second");
}

#[tokio::test(start_paused = true)]
async fn a_late_outcome_after_its_attempts_timeout_is_fenced_off_and_frees_the_slot() {
    let broker = Broker::start();
    let policy = v1::Policy {
        attempt_timeout: Some(wire(seconds(1))),
        ..attempts(2)
    };
    let mut worker = broker.worker("w", 2, [tool("look_up", policy)]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let first = worker.assignment().await;
    assert_eq!(worker.cancel().await, first.lease_id);
    let second = worker.assignment().await;
    worker.answer(&first, "late").await;
    assert_eq!(worker.acknowledged().await, first.lease_id);
    worker.answer(&second, "in time").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "in time");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_for_a_lease_of_another_life_of_the_broker_is_acknowledged_and_forgotten() {
    let first_life = Broker::start();
    let (_worker, agent, old) = sending(&first_life).await;
    drop(agent);
    let broker = Broker::start();
    let mut worker = broker.join(back(&[old.lease_id])).await.unwrap();
    let news = worker.news().await.unwrap();
    let revoked = Frame::Revoked(v1::Revoked {
        lease_id: old.lease_id,
    });
    assert_eq!(news, Some(revoked));
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    assert_ne!(assignment.lease_id, old.lease_id);
    worker.answer(&old, "of another life").await;
    assert_eq!(worker.acknowledged().await, old.lease_id);
    worker.answer(&assignment, "of this life").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "of this life");
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_never_arrived_is_made_again_even_of_a_side_effecting_call() {
    let broker = Broker::start();
    let (worker, agent, lost) = sending(&broker).await;
    worker.cut();
    // The same process, and it has never heard of the lease.
    let mut worker = broker.join(back(&[])).await.unwrap();
    let again = worker.assignment().await;
    assert_eq!((again.attempt, &*again.call_id), (1, "a"));
    assert_ne!(again.lease_id, lost.lease_id);
    assert_eq!(again.idempotency_key, lost.idempotency_key);
    worker.answer(&again, "sent").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("a"), "sent");
    assert_eq!(batch.ledger("a").attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_started_and_is_forgotten_is_not_made_again() {
    let broker = Broker::start();
    let (worker, agent, started) = sending(&broker).await;
    let lease_id = started.lease_id;
    worker
        .send(FromWorker::Started(v1::LeaseStarted { lease_id }))
        .await;
    settle().await;
    worker.cut();
    let mut worker = broker.join(back(&[])).await.unwrap();
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_arrives_is_given_up_in_the_end() {
    let broker = Broker::start();
    let (mut worker, agent, _) = sending(&broker).await;
    for _ in 1..5 {
        worker.cut();
        worker = broker.join(back(&[])).await.unwrap();
        sleep(millis(200)).await;
    }
    worker.cut();
    let worker = broker.join(back(&[])).await.unwrap();
    let batch = agent.finished().await.unwrap();
    let error = batch.error("a");
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::WorkerLost, Effect::NotStarted),
        "{error:?}"
    );
    drop(worker);
}

#[tokio::test(start_paused = true)]
async fn leases_that_nobody_knows_are_revoked_at_once() {
    let broker = Broker::start();
    let mut worker = broker.join(back(&[7, 8])).await.unwrap();
    for lease_id in [7, 8] {
        let revoked = Frame::Revoked(v1::Revoked { lease_id });
        assert_eq!(worker.news().await.unwrap(), Some(revoked));
    }
}
