//! What becomes of a call of Chat Completions that was started early, before its block was complete.

use tokio::time::sleep;
use toolpool_proto::v1::{
    self, Dialect, DropReason, Effect, ErrorCode, FailureAction, Policy, TimeoutScope, TurnEnd,
};

use super::look_up_and_send;
use crate::support::agent::FakeAgent;
use crate::support::batch::expect;
use crate::support::provider::{answered_ids, anthropic, chat, dropped, piped};
use crate::support::worker::{FakeWorker, attempts, error, once, read_only, tool};
use crate::support::{Broker, seconds, settle, time, wire};

const MAYBE: (bool, Effect) = (true, Effect::Maybe);
const FAILED: (bool, Effect) = (false, Effect::Maybe);

/// A worker of these tools, and an agent whose stream has a call of the first one, started early.
async fn started<const N: usize>(
    broker: &Broker,
    tools: [v1::Tool; N],
) -> (FakeWorker, FakeAgent, v1::Assignment) {
    let name = tools[0].name.clone();
    let mut worker = broker.worker("w", 3, tools).await;
    let agent = broker.agent_with(piped(Dialect::OpenaiChat)).await;
    begin(&agent, 0, "call_early", &name).await;
    let early = worker.assignment().await;
    assert_eq!(early.call_id, "call_early");
    (worker, agent, early)
}

/// A call whose text is a closed object.
async fn begin(agent: &FakeAgent, index: u32, id: &str, name: &str) {
    let events = chat::begun(index, id, name, r#"{"q": 1}"#);
    agent.events(&events).await;
}

/// The finish reason, which makes every call complete, and the end of the stream.
async fn finish(agent: &FakeAgent) {
    agent.events(&[chat::finish("tool_calls")]).await;
    agent.seal().await;
}

fn vital() -> v1::Tool {
    let policy = Policy {
        on_failure: Some(FailureAction::AbortBatch.into()),
        ..once()
    };
    tool("vital", policy)
}

#[tokio::test(start_paused = true)]
async fn it_may_succeed_after_its_block_is_complete() {
    let broker = Broker::start();
    let (worker, agent, early) = started(&broker, [read_only("look_up")]).await;
    sleep(seconds(1)).await;
    finish(&agent).await;
    sleep(seconds(1)).await;
    worker.answer(&early, "found").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("call_early"), "found");
    let ledger = batch.ledger("call_early");
    let moments = [ledger.started_early, ledger.block_complete, ledger.ended];
    assert_eq!(moments.map(|at| time(at).as_secs()), [0, 1, 2]);
    assert_eq!(time(ledger.ran).as_secs(), 2);
    assert_eq!(answered_ids(&batch.answer()), ["call_early"]);
}

#[tokio::test(start_paused = true)]
async fn its_failure_is_its_result_once_its_block_is_complete() {
    let broker = Broker::start();
    let (mut worker, agent, early) = started(&broker, [read_only("look_up")]).await;
    worker
        .fail(&early, error(ErrorCode::ToolFailed, "no such key"))
        .await;
    sleep(seconds(1)).await;
    finish(&agent).await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    expect(
        batch.error("call_early"),
        ErrorCode::ToolFailed,
        FAILED,
        &["no such key"],
    );
    assert_eq!(time(batch.ledger("call_early").ended).as_secs(), 0);
    assert_eq!(batch.answer()[0]["content"], "error: no such key");
}

#[tokio::test(start_paused = true)]
async fn its_failure_aborts_nobody_before_its_block_is_complete() {
    let broker = Broker::start();
    let (mut worker, agent, early) = started(&broker, [vital(), read_only("look_up")]).await;
    begin(&agent, 1, "call_sibling", "look_up").await;
    let sibling = worker.assignment().await;
    worker
        .fail(&early, error(ErrorCode::ToolFailed, "no"))
        .await;
    worker.expect_no_cancel().await;
    // Not even a call that comes after it is held back.
    begin(&agent, 2, "call_late", "look_up").await;
    let late = worker.assignment().await;
    finish(&agent).await;
    for sibling in [sibling, late] {
        assert_eq!(worker.cancel_at_once().await, sibling.lease_id);
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("call_early").code(), ErrorCode::ToolFailed);
    for id in ["call_sibling", "call_late"] {
        let aborted = batch.error(id);
        let aborted_for = ["look_up", "failed"];
        expect(aborted, ErrorCode::Aborted, FAILED, &aborted_for);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_tried_again_before_its_block_is_complete() {
    let broker = Broker::start();
    let (mut worker, agent, first) = started(&broker, [tool("look_up", attempts(2))]).await;
    let again = v1::CallError {
        retryable: true,
        ..error(ErrorCode::ToolFailed, "busy")
    };
    worker.fail(&first, again).await;
    let second = worker.assignment().await;
    assert_eq!((&*second.call_id, second.attempt), ("call_early", 2));
    assert_eq!(second.idempotency_key, first.idempotency_key);
    worker.answer(&second, "found").await;
    settle().await;
    finish(&agent).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.text("call_early"), "found");
    assert_eq!(batch.ledger("call_early").attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn its_time_may_run_out_before_its_block_is_complete() {
    let broker = Broker::start();
    let slow = Policy {
        attempt_timeout: Some(wire(seconds(2))),
        ..once()
    };
    let (mut worker, agent, early) = started(&broker, [tool("look_up", slow)]).await;
    assert_eq!(worker.cancel().await, early.lease_id);
    sleep(seconds(1)).await;
    finish(&agent).await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    let late = batch.error("call_early");
    expect(late, ErrorCode::Timeout, MAYBE, &["look_up", "2.0s"]);
    assert_eq!(late.timeout(), TimeoutScope::Attempt);
    assert_eq!(time(batch.ledger("call_early").ended).as_secs(), 2);
    assert_eq!(answered_ids(&batch.answer()), ["call_early"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_refused_where_its_queue_is_full() {
    let broker = Broker::start_with(|config| config.max_queued_per_tool = 1);
    let mut worker = broker.worker("w", 1, [read_only("look_up")]).await;
    let agent = broker.agent_with(piped(Dialect::OpenaiChat)).await;
    for (index, id) in (0..).zip(["call_runs", "call_waits", "call_over"]) {
        begin(&agent, index, id, "look_up").await;
    }
    settle().await;
    finish(&agent).await;
    for id in ["call_runs", "call_waits"] {
        assert_eq!(worker.answer_next("found").await.call_id, id);
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["call_runs", "call_waits"]);
    let over = (true, Effect::NotStarted);
    let words = ["look_up", "max_queued_per_tool"];
    expect(
        batch.error("call_over"),
        ErrorCode::Overloaded,
        over,
        &words,
    );
    assert!(batch.ledger("call_over").started_early.is_some());
}

#[tokio::test(start_paused = true)]
async fn its_worker_may_be_lost() {
    let broker = Broker::start();
    let (worker, agent, _) = started(&broker, [read_only("look_up")]).await;
    worker.cut();
    settle().await;
    finish(&agent).await;
    let batch = agent.finished().await.unwrap();
    let words = ["worker w", "look_up"];
    expect(
        batch.error("call_early"),
        ErrorCode::WorkerLost,
        MAYBE,
        &words,
    );
    assert_eq!(answered_ids(&batch.answer()), ["call_early"]);
}

#[tokio::test(start_paused = true)]
async fn another_worker_takes_it_over_before_its_block_is_complete() {
    let broker = Broker::start();
    let (lost, agent, _) = started(&broker, [tool("look_up", attempts(2))]).await;
    let mut other = broker
        .worker("other", 1, [tool("look_up", attempts(2))])
        .await;
    lost.cut();
    let again = other.answer_next("found").await;
    assert_eq!((&*again.call_id, again.attempt), ("call_early", 2));
    settle().await;
    finish(&agent).await;
    assert_eq!(agent.finished().await.unwrap().text("call_early"), "found");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_its_agent_cuts_or_gives_up_throws_it_away() {
    let ends = [TurnEnd::Truncated, TurnEnd::Aborted];
    for (end, answered) in ends.iter().flat_map(|&end| [(end, false), (end, true)]) {
        let broker = Broker::start();
        let (mut worker, agent, early) = started(&broker, [read_only("look_up")]).await;
        if answered {
            worker.answer(&early, "thrown away").await;
            settle().await;
        }
        agent.seal_as(end).await;
        if !answered {
            assert_eq!(worker.cancel_at_once().await, early.lease_id);
        }
        let batch = agent.finished().await.unwrap();
        let words = ["look_up", "thrown away"];
        expect(
            batch.error("call_early"),
            ErrorCode::Incomplete,
            MAYBE,
            &words,
        );
        let turn = batch.turn();
        assert_eq!(turn.turn_end(), end);
        assert_eq!(dropped(turn), [("call_early", DropReason::Incomplete)]);
        assert_eq!(answered_ids(&batch.answer()), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_object_that_violates_the_schema_starts_nothing() {
    let broker = Broker::start();
    let schema = r#"{"type": "object", "properties": {"q": {"type": "string"}}}"#;
    let strict = v1::Tool {
        input_schema: schema.into(),
        ..read_only("strict")
    };
    let mut worker = broker.worker("w", 9, [strict]).await;
    let agent = broker.agent_with(piped(Dialect::OpenaiChat)).await;
    begin(&agent, 0, "call_wrong", "strict").await;
    worker.expect_no_assignment().await;
    let right = chat::begun(1, "call_right", "strict", r#"{"q": "1"}"#);
    agent.events(&right).await;
    assert_eq!(worker.answer_next("found").await.call_id, "call_right");
    finish(&agent).await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["call_right"]);
    assert_eq!(
        batch.error("call_wrong").code(),
        ErrorCode::InvalidArguments
    );
    assert_eq!(batch.ledger("call_wrong").started_early, None);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_away_calls_it_off_even_if_its_batch_is_to_be_finished() {
    for action in [v1::OnDisconnect::Cancel, v1::OnDisconnect::Finish] {
        let broker = Broker::start();
        let open = v1::Open {
            on_disconnect: Some(action.into()),
            ..piped(Dialect::OpenaiChat)
        };
        let (mut worker, agent) = look_up_and_send(&broker, open).await;
        begin(&agent, 0, "call_early", "look_up").await;
        let early = worker.assignment().await;
        agent.cut();
        assert_eq!(worker.cancel_at_once().await, early.lease_id, "{action:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_no_call_in_the_end_aborts_nobody() {
    for failed in [false, true] {
        let broker = Broker::start();
        let (mut worker, agent, early) = started(&broker, [vital(), read_only("look_up")]).await;
        begin(&agent, 1, "call_sibling", "look_up").await;
        let sibling = worker.assignment().await;
        if failed {
            worker
                .fail(&early, error(ErrorCode::ToolFailed, "no"))
                .await;
            settle().await;
        }
        // More follows, so what was taken for the call was none.
        agent.events(&[chat::delta(0, "x")]).await;
        if !failed {
            assert_eq!(worker.cancel_at_once().await, early.lease_id);
        }
        worker.expect_no_cancel().await;
        worker.answer(&sibling, "found").await;
        finish(&agent).await;
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.error("call_early").code(), ErrorCode::Incomplete);
        assert_eq!(batch.succeeded(), ["call_sibling"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_message_that_began_anew_aborts_nobody() {
    let broker = Broker::start();
    let tools = [vital(), read_only("look_up")];
    let mut worker = broker.worker("w", 3, tools).await;
    let agent = broker.agent_with(piped(Dialect::Anthropic)).await;
    agent.events(&anthropic::call(0, "toolu_1", "vital")).await;
    worker.assignment().await;
    agent.events(&[anthropic::message_start()]).await;
    let again = anthropic::call(0, "toolu_2", "look_up");
    agent.events(&again).await;
    agent.events(&anthropic::end("tool_use")).await;
    worker.cancel_at_once().await;
    worker.answer_next("found").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_2"]);
}
