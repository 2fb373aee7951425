//! The end in good order: of a worker, and of the broker under load.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Code;
use toolpool_proto::v1::pool_frame::Frame;
use toolpool_proto::v1::{self, ErrorCode};

use super::sending;
use crate::support::worker::{attempts, read_only, side_effecting, tool};
use crate::support::{Broker, seconds, settle, soon};

#[tokio::test(start_paused = true)]
async fn a_worker_that_drains_gets_nothing_new_and_finishes_what_it_has() {
    let broker = Broker::start();
    let mut leaving = broker.worker("leaving", 2, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = leaving.assignment().await;
    leaving.drain().await;
    assert!(matches!(leaving.news().await, Ok(Some(Frame::DrainAck(_)))));
    let other = broker.agent().await;
    other.call("b", "send", "{}").await;
    other.seal().await;
    leaving.expect_no_assignment_within(seconds(5)).await;
    leaving.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
    let mut fresh = broker.worker("fresh", 1, [side_effecting("send")]).await;
    assert_eq!(fresh.assignment().await.call_id, "b");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_drains_takes_no_new_batches_and_finishes_open_ones() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let worker = broker.worker("w", 4, tools).await.serve(seconds(1));
    let mut agents = Vec::new();
    for _ in 0..8 {
        let agent = broker.agent().await;
        agent.call("a", "look_up", "{}").await;
        agent.call("b", "send", "{}").await;
        agents.push(agent);
    }
    settle().await;
    broker.shutdown.drain.cancel();
    settle().await;
    let status = broker.open(v1::Open::default()).await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("draining"), "{status:?}");
    let request = v1::ExecuteBatchRequest::default();
    let status = broker.execute_batch(request).await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    for agent in agents {
        agent.call("c", "look_up", "{}").await;
        agent.seal().await;
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.succeeded(), ["a", "b", "c"]);
    }
    assert_eq!(worker.count(), 24);
    let ended = soon(broker.server).await.unwrap();
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn workers_are_told_of_a_drain_and_their_streams_end_in_good_order() {
    let broker = Broker::start();
    let (mut worker, agent, assignment) = sending(&broker).await;
    broker.shutdown.drain.cancel();
    assert!(matches!(worker.news().await, Ok(Some(Frame::Drain(_)))));
    // One that joins now is needed all the same, and told at once.
    let mut late = broker.worker("late", 1, [read_only("look_up")]).await;
    assert!(matches!(late.news().await, Ok(Some(Frame::Drain(_)))));
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
    worker.ended().await.unwrap();
    late.ended().await.unwrap();
    assert!(soon(broker.server).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn when_the_grace_is_over_every_open_batch_is_delivered_with_what_it_has() {
    let broker = Broker::start_with(|config| config.drain_grace = seconds(3));
    let tools = [tool("look_up", attempts(3)), side_effecting("send")];
    let mut worker = broker.worker("w", 2, tools).await;
    let mut agents = Vec::new();
    for _ in 0..5 {
        let agent = broker.agent().await;
        agent.call("a", "look_up", "{}").await;
        agent.call("b", "look_up", "{}").await;
        agents.push(agent);
    }
    let assignments = worker.assignments(2).await;
    let asked = Instant::now();
    broker.shutdown.drain.cancel();
    sleep(seconds(1)).await;
    worker.answer(&assignments[0], "done").await;
    let mut succeeded = 0;
    for agent in agents {
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.results.len(), 2);
        for result in &batch.results {
            if batch.succeeded().contains(&&*result.id) {
                succeeded += 1;
            } else {
                assert_eq!(batch.error(&result.id).code(), ErrorCode::Cancelled);
            }
        }
    }
    assert_eq!((succeeded, asked.elapsed()), (1, seconds(3)));
    assert!(soon(broker.server).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_second_word_ends_the_broker_at_once() {
    let broker = Broker::start();
    let (_worker, _agent, _) = sending(&broker).await;
    broker.shutdown.drain.cancel();
    sleep(seconds(1)).await;
    let asked = Instant::now();
    broker.shutdown.now.cancel();
    assert!(soon(broker.server).await.unwrap().is_ok());
    assert_eq!(asked.elapsed(), Duration::ZERO);
}
