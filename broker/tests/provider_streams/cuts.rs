//! Turns that end badly: cut, broken off, failed, over a limit, damaged, given up.

use serde_json::json;
use toolpool_proto::v1::pool_frame::Frame;
use toolpool_proto::v1::{self, Dialect, DropReason, ErrorCode, OnDisconnect};

use super::look_up_and_send;
use crate::support::agent::FakeAgent;
use crate::support::provider::{answered_ids, anthropic, chat, dropped, piped, sse};
use crate::support::worker::{FakeWorker, error, read_only, side_effecting};
use crate::support::{Broker, seconds, settle, wire};

#[tokio::test(start_paused = true)]
async fn a_cut_turn_drops_what_is_incomplete_and_runs_no_side_effects() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "look_up"))
        .await;
    agent.events(&anthropic::call(1, "toolu_2", "send")).await;
    agent
        .events(&anthropic::begun(2, "toolu_3", "look_up", r#"{"q": "#))
        .await;
    let call = worker.assignment().await;
    agent.events(&anthropic::end("max_tokens")).await;
    worker.expect_no_assignment().await;
    worker.answer(&call, "found").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_1"]);
    assert_eq!(batch.error("toolu_2").code(), ErrorCode::TruncatedTurn);
    assert_eq!(batch.error("toolu_3").code(), ErrorCode::Incomplete);
    let turn = batch.turn();
    assert_eq!(
        (turn.turn_end(), turn.stop_reason.as_deref()),
        (v1::TurnEnd::Truncated, Some("max_tokens"))
    );
    assert_eq!(dropped(turn), [("toolu_3", DropReason::Incomplete)]);
    let answer = batch.answer();
    assert_eq!(answered_ids(&answer), ["toolu_1", "toolu_2"]);
    assert_eq!(answer[0]["content"][1]["is_error"], true);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_a_cut_turn() {
    for half_close in [true, false] {
        let broker = Broker::start();
        let (mut worker, mut agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
        let events = [
            &anthropic::call(0, "toolu_1", "send")[..],
            &[anthropic::start(1, "toolu_2", "send")],
        ];
        agent.data(sse(&events.concat())).await;
        agent.data("data: {\"type\":\"content_bl").await;
        if half_close {
            agent.half_close();
        } else {
            agent.seal().await;
        }
        worker.expect_no_assignment().await;
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.error("toolu_1").code(), ErrorCode::TruncatedTurn);
        assert_eq!(dropped(batch.turn()), [("toolu_2", DropReason::Incomplete)]);
        let error = batch.turn_error();
        assert!(error.contains("ended before the turn did"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_provider_is_told() {
    let broker = Broker::start();
    let (_worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent.events(&anthropic::call(0, "toolu_1", "send")).await;
    let error =
        json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    agent.events(&[error]).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("toolu_1").code(), ErrorCode::TruncatedTurn);
    assert!(batch.turn_error().contains("overloaded_error"));
}

#[tokio::test(start_paused = true)]
async fn an_event_over_the_limit_ends_the_turn_and_names_it() {
    let broker = Broker::start_with(|config| config.max_event_bytes = 4096);
    let (_worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent
        .data(sse(&anthropic::call(0, "toolu_1", "send")))
        .await;
    agent.data(format!("data: {}", "x".repeat(5000))).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("toolu_1").code(), ErrorCode::TruncatedTurn);
    let error = batch.turn_error();
    assert!(
        error.contains("4096") && error.contains("max_event_bytes"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_event_may_have_been_anything_so_nothing_that_changes_things_runs() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent.events(&anthropic::call(0, "toolu_1", "send")).await;
    agent
        .data("data: {\"type\":\"content_block_start\",\"index\":1,\"content_bl\n\n")
        .await;
    agent.data(sse(&anthropic::end("tool_use"))).await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("toolu_1").code(), ErrorCode::TruncatedTurn);
    assert!(batch.turn_error().contains("could not be read"));
}

#[tokio::test(start_paused = true)]
async fn far_too_many_calls_cut_the_turn_and_each_that_began_has_its_result() {
    let broker = Broker::start_with(|config| config.max_calls_per_batch = 2);
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    for index in 0..20 {
        let id = format!("toolu_{index}");
        agent.events(&anthropic::call(index, &id, "look_up")).await;
    }
    for _ in 0..2 {
        worker.answer_next("found").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.results.len(), 8, "four times what may run");
    assert_eq!(batch.text("toolu_1"), "found");
    assert_eq!(batch.error("toolu_7").code(), ErrorCode::Overloaded);
    assert!(batch.turn_error().contains("more than 8 calls"));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_mid_stream_drops_what_is_open_and_says_so() {
    let broker = Broker::start();
    let open = v1::Open {
        deadline: Some(wire(seconds(5))),
        ..piped(Dialect::OpenaiChat)
    };
    let (mut worker, agent) = look_up_and_send(&broker, open).await;
    agent
        .events(&chat::begun(0, "call_early", "look_up", r#"{"q": 1}"#))
        .await;
    agent
        .events(&chat::begun(1, "call_open", "look_up", r#"{"q"#))
        .await;
    worker.assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), seconds(5));
    for id in ["call_early", "call_open"] {
        assert_eq!(batch.error(id).code(), ErrorCode::Incomplete);
    }
    let incomplete = ["call_early", "call_open"].map(|id| (id, DropReason::Incomplete));
    assert_eq!(dropped(batch.turn()), incomplete);
    assert_eq!(batch.answer(), json!([]));
    let error = batch.turn_error();
    assert!(error.contains("time of the batch"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_falls_silent_in_mid_block_has_cut_its_turn() {
    let broker = Broker::start();
    let (_worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent
        .events(&[anthropic::start(0, "toolu_1", "send")])
        .await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed().as_secs(), 120);
    assert_eq!(dropped(batch.turn()), [("toolu_1", DropReason::Incomplete)]);
    assert!(batch.turn_error().contains("silent"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_speaks_again_after_its_silence_still_gets_its_batch() {
    let broker = Broker::start_with(|config| config.call_timeout = seconds(500));
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "look_up"))
        .await;
    agent
        .events(&[anthropic::start(1, "toolu_2", "look_up")])
        .await;
    let call = worker.assignment().await;
    tokio::time::sleep(seconds(130)).await;
    agent.events(&[anthropic::delta(1, "{}")]).await;
    agent.seal().await;
    settle().await;
    worker.answer(&call, "found").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_1"]);
    assert_eq!(dropped(batch.turn()), [("toolu_2", DropReason::Incomplete)]);
}

#[tokio::test(start_paused = true)]
async fn the_agent_may_give_a_piped_turn_up() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "look_up"))
        .await;
    let call = worker.assignment().await;
    agent.seal_as(v1::TurnEnd::Aborted).await;
    assert_eq!(worker.cancel_at_once().await, call.lease_id);
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("toolu_1").code(), ErrorCode::Aborted);
    assert_eq!(batch.turn().turn_end(), v1::TurnEnd::Aborted);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_its_agent_calls_cut_runs_no_side_effects() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Gemini)).await;
    // Some models say STOP with every chunk, so only the end of the stream decides; and the agent says it was cut.
    let part = json!({"functionCall": {"name": "send", "args": {}}});
    let candidate = json!({"content": {"parts": [part]}, "finishReason": "STOP"});
    agent.events(&[json!({"candidates": [candidate]})]).await;
    agent.seal_as(v1::TurnEnd::Truncated).await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.turn().turn_end(), v1::TurnEnd::Truncated);
    assert_eq!(
        batch.error(&batch.results[0].id).code(),
        ErrorCode::TruncatedTurn
    );
}

/// What a turn has when its agent or its broker goes away: something of each kind, on its way to the worker.
async fn in_the_middle(action: Option<OnDisconnect>) -> (Broker, FakeWorker, FakeAgent) {
    let broker = Broker::start_with(|config| config.drain_grace = seconds(3));
    let open = v1::Open {
        on_disconnect: action.map(Into::into),
        ..piped(Dialect::Anthropic)
    };
    let tools = [read_only("look_up"), side_effecting("send")];
    let worker = broker.worker("w", 1, tools).await;
    let agent = broker.agent_with(open).await;
    for (index, id) in (0..).zip(["toolu_runs", "toolu_waits"]) {
        agent.events(&anthropic::call(index, id, "look_up")).await;
    }
    agent
        .events(&anthropic::call(2, "toolu_held", "send"))
        .await;
    let open = anthropic::begun(3, "toolu_open", "look_up", r#"{"q"#);
    agent.events(&open).await;
    settle().await;
    (broker, worker, agent)
}

#[tokio::test(start_paused = true)]
async fn a_piped_turn_is_called_off_when_its_agent_goes_away() {
    for action in [None, Some(OnDisconnect::Cancel)] {
        let (_broker, mut worker, agent) = in_the_middle(action).await;
        let runs = worker.assignment().await;
        agent.cut();
        assert_eq!(worker.cancel_at_once().await, runs.lease_id);
        let stopped = error(ErrorCode::Cancelled, "stopped");
        worker.fail(&runs, stopped).await;
        worker.expect_no_assignment_within(seconds(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_piped_turn_that_is_to_finish_without_its_agent_runs_what_is_complete_and_not_held() {
    let (_broker, mut worker, agent) = in_the_middle(Some(OnDisconnect::Finish)).await;
    let runs = worker.assignment().await;
    agent.cut();
    worker.expect_no_cancel().await;
    worker.answer(&runs, "found").await;
    assert_eq!(worker.answer_next("found").await.call_id, "toolu_waits");
    worker.expect_no_assignment_within(seconds(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_piped_turn_goes_on_while_the_broker_drains() {
    let (broker, mut worker, agent) = in_the_middle(None).await;
    let runs = worker.assignment().await;
    broker.shutdown.drain.cancel();
    assert!(matches!(worker.news().await, Ok(Some(Frame::Drain(_)))));
    let rest = [anthropic::delta(3, r#"": 2}"#), anthropic::stop(3)];
    agent.events(&rest).await;
    agent.events(&anthropic::end("tool_use")).await;
    worker.answer(&runs, "done").await;
    for _ in 0..3 {
        worker.answer_next("done").await;
    }
    let batch = agent.finished().await.unwrap();
    let all = ["toolu_runs", "toolu_waits", "toolu_held", "toolu_open"];
    assert_eq!(batch.succeeded(), all);
    assert_eq!(answered_ids(&batch.answer()), all);
}

#[tokio::test(start_paused = true)]
async fn a_piped_turn_is_delivered_with_what_it_has_when_the_brokers_grace_is_over() {
    let (broker, mut worker, agent) = in_the_middle(None).await;
    worker.answer_next("found").await;
    settle().await;
    broker.shutdown.drain.cancel();
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed().as_secs(), 3);
    assert_eq!(batch.succeeded(), ["toolu_runs"]);
    for id in ["toolu_waits", "toolu_held"] {
        assert_eq!(batch.error(id).code(), ErrorCode::Cancelled);
    }
    let turn = batch.turn();
    assert_eq!(turn.turn_end(), v1::TurnEnd::Truncated);
    assert_eq!(dropped(turn), [("toolu_open", DropReason::Incomplete)]);
    let error = batch.turn_error();
    assert!(error.contains("before the turn was"), "{error}");
    let answered = ["toolu_runs", "toolu_waits", "toolu_held"];
    assert_eq!(answered_ids(&batch.answer()), answered);
}
