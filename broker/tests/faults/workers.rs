//! Workers whose streams break, that come back, or that fall silent.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::Code;
use toolpool_proto::v1::pool_frame::Frame;
use toolpool_proto::v1::worker_frame::Frame as FromWorker;
use toolpool_proto::v1::{self, ErrorCode};

use super::{back, restarted, sending};
use crate::support::worker::{attempts, error, read_only, register, side_effecting, tool};
use crate::support::{Broker, seconds, settle, time};

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_keeps_its_side_effecting_calls() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    worker.cut();
    sleep(seconds(4)).await;
    let mut worker = broker.join(back(&[assignment.lease_id])).await.unwrap();
    // Its one slot is in use.
    let other = broker.agent().await;
    other.call("b", "send", "{}").await;
    other.seal().await;
    worker.expect_no_assignment_within(seconds(10)).await;
    worker.answer(&assignment, "sent").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("a"), "sent");
    assert_eq!(batch.ledger("a").attempts, 1);
    assert_eq!(worker.assignment().await.call_id, "b");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dials_again_while_its_old_stream_seems_open_keeps_its_calls_too() {
    let broker = Broker::start();
    let (old, agent, assignment) = sending(&broker).await;
    let worker = broker.join(back(&[assignment.lease_id])).await.unwrap();
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
    drop(old);
}

#[tokio::test(start_paused = true)]
async fn a_reset_of_a_workers_stream_is_a_break_and_not_its_end() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    worker.reset();
    sleep(seconds(4)).await;
    let worker = broker.join(back(&[assignment.lease_id])).await.unwrap();
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
}

#[tokio::test(start_paused = true)]
async fn a_half_close_of_a_workers_stream_is_its_end() {
    let broker = Broker::start();
    let (mut worker, agent, _) = sending(&broker).await;
    let closed = Instant::now();
    worker.half_close();
    let batch = agent.finished().await.unwrap();
    assert_eq!(closed.elapsed(), Duration::ZERO, "nobody waits for it");
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_does_not_come_back_in_time_loses_its_calls() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    let broke = Instant::now();
    worker.cut();
    let batch = agent.finished().await.unwrap();
    assert_eq!(broke.elapsed(), seconds(5));
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
    let mut worker = broker.join(back(&[assignment.lease_id])).await.unwrap();
    let revoked = worker.news().await.unwrap();
    assert!(matches!(revoked, Some(Frame::Revoked(of)) if of.lease_id == assignment.lease_id));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_given_to_another_worker_meanwhile_is_cancelled_when_its_worker_comes_back()
 {
    let broker = Broker::start();
    let look_up = || tool("look_up", attempts(2));
    let mut away = broker.worker("away", 1, [look_up()]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.seal().await;
    let first = away.assignment().await;
    away.cut();
    let mut other = broker.worker("other", 1, [look_up()]).await;
    let second = other.assignment().await;
    let back = v1::Register {
        running_leases: vec![first.lease_id],
        ..register("away", 1, [look_up()])
    };
    let mut away = broker.join(back).await.unwrap();
    assert_eq!(away.cancel_at_once().await, first.lease_id);
    let stopped = error(ErrorCode::Cancelled, "stopped");
    away.fail(&first, stopped).await;
    assert_eq!(away.acknowledged().await, first.lease_id);
    other.answer(&second, "done").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "done");
}

#[tokio::test(start_paused = true)]
async fn a_second_live_worker_under_an_id_is_refused() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    let status = broker.join(restarted()).await.err().unwrap();
    assert_eq!(status.code(), Code::AlreadyExists, "{status:?}");
    assert!(
        status.message().contains("register.worker_id w"),
        "{status:?}"
    );
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_worker_has_lost_its_earlier_lifes_calls_and_may_dial_again() {
    let broker = Broker::start();
    let (worker, agent, _) = sending(&broker).await;
    worker.cut();
    settle().await;
    let status = broker.join(restarted()).await.err().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().contains("dial again"), "{status:?}");
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
    assert!(
        batch.elapsed() < seconds(1),
        "known before the grace is over"
    );
    let mut worker = broker.join(restarted()).await.unwrap();
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    worker.assignment().await;
}

#[tokio::test(start_paused = true)]
async fn missed_beats_give_harmless_calls_to_another_worker_and_side_effects_a_grace() {
    let broker = Broker::start();
    let tools = || [tool("look_up", attempts(2)), side_effecting("send")];
    let mut silent = broker.worker("silent", 2, tools()).await;
    silent.go_silent();
    let agent = broker.agent().await;
    agent.call("look", "look_up", "{}").await;
    agent.call("sent", "send", "{}").await;
    agent.seal().await;
    silent.assignments(2).await;
    let went = Instant::now();
    let mut other = broker.worker("other", 2, tools()).await;
    let again = other.assignment().await;
    assert!(went.elapsed() >= seconds(15) && went.elapsed() <= seconds(20));
    assert_eq!((&*again.call_id, again.attempt), ("look", 2));
    other.answer(&again, "done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("look"), "done");
    assert_eq!(batch.error("sent").code(), ErrorCode::OutcomeUnknown);
    assert!(went.elapsed() <= seconds(25), "{:?}", went.elapsed());
    other.expect_no_assignment_within(seconds(30)).await;
}

#[tokio::test(start_paused = true)]
async fn any_packet_is_a_sign_of_life() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    worker.go_silent();
    for _ in 0..6 {
        sleep(seconds(9)).await;
        let started = v1::LeaseStarted {
            lease_id: assignment.lease_id,
        };
        worker.send(FromWorker::Started(started)).await;
    }
    worker.answer(&assignment, "sent").await;
    assert_eq!(agent.finished().await.unwrap().text("a"), "sent");
}

#[tokio::test(start_paused = true)]
async fn the_broker_beats_too() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("look_up")]).await;
    assert_eq!(time(worker.registered.beat_interval), seconds(5));
    assert_eq!(worker.registered.missed_beats, 3);
    let began = Instant::now();
    for _ in 0..3 {
        let beat = worker.link.frame().await.unwrap();
        assert!(matches!(beat, Some(Frame::Beat(_))), "{beat:?}");
    }
    assert_eq!(began.elapsed(), seconds(15));
}

#[tokio::test(start_paused = true)]
async fn workers_and_tools_have_a_limit_and_who_is_over_it_may_dial_again_later() {
    let broker = Broker::start_with(|config| {
        config.max_workers = 2;
        config.max_tools = 2;
    });
    let first = broker
        .worker("w1", 1, [read_only("a"), read_only("b")])
        .await;
    let more = register("w2", 1, [read_only("a"), read_only("c")]);
    let status = broker.join(more).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("max_tools"), "{status:?}");
    let _second = broker.worker("w2", 1, [read_only("a")]).await;
    let third = || register("w3", 1, [read_only("b")]);
    let status = broker.join(third()).await.err().unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("max_workers"), "{status:?}");
    // Its place is free once its time to come back is over.
    first.cut();
    sleep(seconds(6)).await;
    broker.join(third()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_comes_back_with_other_slots_is_refused() {
    let broker = Broker::start();
    let (worker, agent, assignment) = sending(&broker).await;
    worker.cut();
    settle().await;
    let larger = v1::Register {
        slots: 2,
        ..back(&[assignment.lease_id])
    };
    let status = broker.join(larger).await.err().unwrap();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("register.slots"), "{status:?}");
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("a").code(), ErrorCode::OutcomeUnknown);
}
