//! Agents that go away, in every manner.

use toolpool_proto::v1::{self, ErrorCode, OnDisconnect};

use super::{look_up_and_send, on_disconnect};
use crate::support::worker::{error, register, side_effecting};
use crate::support::{Broker, seconds, settle};

#[tokio::test(start_paused = true)]
async fn a_reset_of_the_agents_stream_is_no_seal() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, 9, v1::Open::default()).await;
    agent.call("held", "send", "{}").await;
    agent.call("runs", "look_up", "{}").await;
    let runs = worker.assignment().await;
    agent.reset();
    assert_eq!(worker.cancel_at_once().await, runs.lease_id);
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
    assert_eq!(worker.cancel_at_once().await, runs.lease_id);
    let stopped = error(ErrorCode::Cancelled, "stopped");
    worker.fail(&runs, stopped).await;
    worker.expect_no_assignment_within(seconds(60)).await;
}
