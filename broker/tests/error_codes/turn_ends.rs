//! Ends of the turn, and of the broker, which call calls off.

use tokio::time::Instant;
use toolpool_proto::v1::{self, Effect, ErrorCode, FailureAction, Policy, TurnEnd};

use super::{NOT_STARTED, TRY_AGAIN};
use crate::support::agent::{call, delta, seal, start};
use crate::support::batch::expect;
use crate::support::worker::{error, once, read_only, side_effecting, tool};
use crate::support::{Broker, seconds};

#[tokio::test(start_paused = true)]
async fn a_broker_that_goes_down_calls_off_what_did_not_end_in_its_grace_time() {
    let broker = Broker::start_with(|config| config.drain_grace = seconds(3));
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    let agent = broker.agent().await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.start(0, "streams", "search").await;
    worker.assignment().await;
    let asked = Instant::now();
    broker.shutdown.drain.cancel();
    let batch = agent.finished().await.unwrap();
    assert_eq!(asked.elapsed(), seconds(3));
    let down = "the broker is going down";
    let maybe = (true, Effect::Maybe);
    expect(
        batch.error("runs"),
        ErrorCode::Cancelled,
        maybe,
        &["search", down],
    );
    expect(
        batch.error("waits"),
        ErrorCode::Cancelled,
        TRY_AGAIN,
        &["search", down],
    );
    expect(
        batch.error("streams"),
        ErrorCode::Cancelled,
        TRY_AGAIN,
        &["search", down],
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_aborts_the_batch_where_the_tools_policy_says_so() {
    let broker = Broker::start();
    let vital = Policy {
        on_failure: Some(FailureAction::AbortBatch.into()),
        ..once()
    };
    let tools = [
        tool("vital", vital),
        read_only("search"),
        side_effecting("send"),
    ];
    let mut worker = broker.worker("w", 9, tools).await;
    let two_at_a_time = v1::Open {
        max_parallel: Some(2),
        ..Default::default()
    };
    let agent = broker.agent_with(two_at_a_time).await;
    agent.call("fails", "vital", "{}").await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.call("held", "send", "{}").await;
    let assignments = worker.assignments(2).await;
    worker
        .fail(&assignments[0], error(ErrorCode::ToolFailed, "no"))
        .await;
    assert_eq!(worker.cancel_at_once().await, assignments[1].lease_id);
    agent.call("late", "search", "{}").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    let failed = (false, Effect::Maybe);
    expect(batch.error("fails"), ErrorCode::ToolFailed, failed, &["no"]);
    expect(
        batch.error("runs"),
        ErrorCode::Aborted,
        failed,
        &["search", "failed"],
    );
    for (id, tool) in [("waits", "search"), ("held", "send"), ("late", "search")] {
        let words = [tool, "failed", "not run"];
        expect(batch.error(id), ErrorCode::Aborted, NOT_STARTED, &words);
    }
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_its_agent_gives_up_is_called_off() {
    let broker = Broker::start();
    let tools = [read_only("search"), side_effecting("send")];
    let mut worker = broker.worker("w", 1, tools).await;
    let agent = broker.agent().await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.call("held", "send", "{}").await;
    agent.start(0, "open", "search").await;
    let assignment = worker.assignment().await;
    agent.seal_as(TurnEnd::Aborted).await;
    let batch = agent.finished().await.unwrap();
    let words = ["gave the turn up"];
    let maybe = (false, Effect::Maybe);
    expect(batch.error("runs"), ErrorCode::Aborted, maybe, &words);
    for id in ["waits", "held"] {
        expect(batch.error(id), ErrorCode::Aborted, NOT_STARTED, &words);
    }
    expect(
        batch.error("open"),
        ErrorCode::Incomplete,
        TRY_AGAIN,
        &["search"],
    );
    assert_eq!(worker.cancel_at_once().await, assignment.lease_id);
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_and_the_abort_of_its_turn_in_one_packet_start_nothing() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    let agent = broker.agent().await;
    agent
        .send_all([call("a", "search", "{}"), seal(TurnEnd::Aborted)])
        .await;
    let batch = agent.finished().await.unwrap();
    expect(
        batch.error("a"),
        ErrorCode::Aborted,
        NOT_STARTED,
        &["gave the turn up"],
    );
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_block_that_never_stopped_is_incomplete_however_the_turn_ends() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    for end in [TurnEnd::Complete, TurnEnd::Truncated, TurnEnd::Aborted] {
        let agent = broker.agent().await;
        agent
            .send_all([start(0, "a", "search"), delta(0, "{}"), seal(end)])
            .await;
        let batch = agent.finished().await.unwrap();
        let words = ["search", "never complete", "the turn ended"];
        expect(batch.error("a"), ErrorCode::Incomplete, TRY_AGAIN, &words);
        assert_eq!(batch.ledger("a").block_complete, None);
    }
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_cut_short_runs_no_side_effects() {
    let broker = Broker::start();
    let tools = [read_only("search"), side_effecting("send")];
    let mut worker = broker.worker("w", 9, tools).await;
    let agent = broker.agent().await;
    agent.call("read", "search", "{}").await;
    agent.call("write", "send", "{}").await;
    agent.seal_as(TurnEnd::Truncated).await;
    worker.answer_next("done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["read"]);
    let words = ["send", "cut short"];
    expect(
        batch.error("write"),
        ErrorCode::TruncatedTurn,
        TRY_AGAIN,
        &words,
    );
    worker.expect_no_assignment().await;
}
