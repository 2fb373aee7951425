//! Why a call has not ended, in each state that it can be in. The admin port is a real one, so the clock runs.

mod support;

use support::operator::Operator;
use support::worker::{attempts, error, once, read_only, side_effecting, tool};
use support::{Broker, seconds, settle, soon, time, wire};
use tonic::Code;
use toolpool_proto::v1;
use v1::{CallPhase, ErrorCode, LaneBlock, WorkerState};

/// Tools that each make a call wait for something else.
fn tools_to_wait_for() -> [v1::Tool; 5] {
    let rated = v1::Policy {
        rate: Some(0.01),
        burst: Some(1),
        queue_timeout: Some(wire(seconds(500))),
        call_timeout: Some(wire(seconds(500))),
        ..once()
    };
    let one_at_a_time = v1::Policy {
        max_in_flight: Some(1),
        ..once()
    };
    let pauses = v1::Policy {
        retry_backoff: Some(wire(seconds(20))),
        ..attempts(2)
    };
    [
        read_only("read"),
        side_effecting("send"),
        tool("rated", rated),
        tool("single", one_at_a_time),
        tool("pauses", pauses),
    ]
}

#[tokio::test]
async fn every_reason_to_wait_is_said() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 4, tools_to_wait_for()).await;
    let mut operator = Operator::at(admin).await;
    let agent = broker.agent().await;
    for (id, tool) in [
        ("rated_1", "rated"),
        ("single_1", "single"),
        ("pauses_1", "pauses"),
        ("read_1", "read"),
    ] {
        agent.call(id, tool, "{}").await;
    }
    let running = worker.assignments(4).await;
    let again = v1::CallError {
        retryable: true,
        ..error(ErrorCode::ToolFailed, "busy")
    };
    worker.fail(&running[2], again).await;
    for (id, tool) in [
        ("rated_2", "rated"),
        ("rated_3", "rated"),
        ("single_2", "single"),
        ("held", "send"),
    ] {
        agent.call(id, tool, "{}").await;
    }
    agent.call("read_2", "read", "{}").await;
    let second = worker.assignment().await;
    assert_eq!(second.call_id, "read_2");
    agent.call("read_3", "read", "{}").await;
    agent.start(9, "open", "read").await;
    settle().await;

    let words = ["Attempt 1 of 1", "has been with w", "w was last heard of"];
    let run = operator
        .expect_why("single_1", CallPhase::Running, &words)
        .await;
    let call = run.call.unwrap();
    assert_eq!(call.lease_id, Some(running[1].lease_id));
    assert_eq!(call.ledger.unwrap().worker_id.as_deref(), Some("w"));
    let words = [
        "2 calls wait, 1 of them before it",
        "its own turn comes in 200.0s",
    ];
    operator
        .expect_why("rated_3", CallPhase::Queued, &words)
        .await;
    let words = [
        "rated may start 0.01 calls a second",
        "2 calls wait, of which it is the next",
    ];
    let rated = operator
        .expect_why("rated_2", CallPhase::Queued, &words)
        .await;
    let call = rated.call.unwrap();
    assert!(time(call.time_left) > seconds(400));
    let ledger = call.ledger.unwrap();
    assert!(ledger.limited_by() == v1::Limit::Rate && !time(ledger.limit_wait).is_zero());
    let lane = rated.lane.unwrap();
    assert_eq!((lane.queued, lane.blocked()), (2, LaneBlock::Rate));
    assert!(time(lane.next_look) > seconds(80));
    let words = ["1 calls in flight (max_in_flight)"];
    operator
        .expect_why("single_2", CallPhase::Queued, &words)
        .await;
    let words = [
        "Attempt 2 of 2 begins in",
        "retry_backoff",
        "Attempt 1 failed on w: tool_failed.",
    ];
    operator
        .expect_why("pauses_1", CallPhase::Backoff, &words)
        .await;
    let words = ["side effects", "until the turn is sealed"];
    operator.expect_why("held", CallPhase::Held, &words).await;
    let words = ["All slots of its one worker"];
    let waits = operator
        .expect_why("read_3", CallPhase::Queued, &words)
        .await;
    assert_eq!(waits.lane.unwrap().blocked(), LaneBlock::Slot);
    let words = ["block is not complete", "agent_silence"];
    operator
        .expect_why("open", CallPhase::Streaming, &words)
        .await;

    worker.answer(&running[3], "found").await;
    assert_eq!(worker.assignment().await.call_id, "read_3");
    let words = ["It has ended: ok", "other calls have not ended"];
    operator
        .expect_why("read_1", CallPhase::Ended, &words)
        .await;
    let nothing = v1::ExplainCallRequest {
        call_id: "none".to_owned(),
        batch_id: String::new(),
    };
    let status = soon(operator.0.explain_call(nothing)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn a_batchs_own_order_and_fan_out_are_said() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 4, [read_only("read")]).await;
    let mut operator = Operator::at(admin).await;
    let open = |most| v1::Open {
        max_parallel: Some(most),
        ..Default::default()
    };
    let strict = broker.agent_with(open(1)).await;
    strict.call("a_1", "read", "{}").await;
    strict.call("a_2", "read", "{}").await;
    let two = broker.agent_with(open(2)).await;
    for id in ["b_1", "b_2", "b_3"] {
        two.call(id, "read", "{}").await;
    }
    worker.assignments(3).await;
    settle().await;
    let words = ["model's order", "a_1 before it"];
    operator.expect_why("a_2", CallPhase::Ready, &words).await;
    let words = ["2 calls at a time (max_parallel)"];
    operator.expect_why("b_3", CallPhase::Ready, &words).await;
}

#[tokio::test]
async fn tools_without_a_worker_and_pauses_are_said() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker
        .worker("w", 4, [read_only("read"), read_only("gone")])
        .await;
    let mut leaves = broker.worker("v", 4, [read_only("left")]).await;
    leaves.half_close();
    leaves.ended().await.unwrap();
    let mut operator = Operator::at(admin).await;
    let agent = broker.agent().await;
    agent.call("paused", "read", "{}").await;
    let call = worker.assignment().await;
    let later = v1::CallError {
        retry_after: Some(wire(seconds(3))),
        ..error(ErrorCode::RateLimited, "later")
    };
    worker.fail(&call, later).await;
    settle().await;
    agent.call("behind", "read", "{}").await;
    agent.call("nobody", "left", "{}").await;
    settle().await;
    let words = ["asked not to be called"];
    let paused = operator
        .expect_why("behind", CallPhase::Queued, &words)
        .await;
    assert_eq!(paused.lane.unwrap().blocked(), LaneBlock::Pause);
    let words = ["No worker has served left", "no_worker_wait"];
    operator
        .expect_why("nobody", CallPhase::Queued, &words)
        .await;
}

#[tokio::test]
async fn a_call_that_was_lost_with_its_worker_says_so_while_it_runs_again() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut first = broker.worker("first", 1, [tool("read", attempts(2))]).await;
    let mut operator = Operator::at(admin).await;
    let agent = broker.agent().await;
    agent.call("a", "read", "{}").await;
    first.assignment().await;
    let mut second = broker
        .worker("second", 1, [tool("read", attempts(2))])
        .await;
    first.cut();
    soon(second.assignment()).await;
    settle().await;
    let words = [
        "Attempt 2 of ",
        "has been with second",
        "Attempt 1 was lost with first.",
    ];
    operator.expect_why("a", CallPhase::Running, &words).await;
}

#[tokio::test]
async fn a_call_whose_worker_is_away_says_so() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 1, [side_effecting("send")]).await;
    let mut operator = Operator::at(admin).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    worker.assignment().await;
    worker.cut();
    settle().await;
    let words = ["w is away: its stream broke"];
    operator.expect_why("a", CallPhase::Running, &words).await;
    // Taken out while it is away, it is marked.
    let drained = operator.drain("w").await.unwrap();
    assert_eq!(
        (drained.state(), drained.taken_out),
        (WorkerState::Away, true)
    );
}

#[tokio::test]
async fn what_ends_with_its_batch_says_so() {
    let (broker, admin) = Broker::start_with_admin(|_| ()).await;
    let mut worker = broker.worker("w", 1, [read_only("read")]).await;
    let open = v1::Open {
        deadline: Some(wire(seconds(30))),
        ..v1::Open::default()
    };
    let agent = broker.agent_with(open).await;
    agent.call("runs", "read", "{}").await;
    agent.call("waits", "read", "{}").await;
    let _running = worker.assignment().await;
    settle().await;
    let mut operator = Operator::at(admin).await;
    for (call, phase) in [("runs", CallPhase::Running), ("waits", CallPhase::Queued)] {
        let words = ["batch_timeout, or the agent's deadline"];
        let explained = operator.expect_why(call, phase, &words).await;
        assert!(time(explained.call.unwrap().time_left) <= seconds(30));
    }
}
