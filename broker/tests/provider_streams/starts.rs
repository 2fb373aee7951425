//! When a call of a provider's stream starts, and what undoes an early start.

use serde_json::json;
use toolpool_broker::Config;
use toolpool_proto::v1::{self, Dialect, DropReason, Effect, ErrorCode};

use super::look_up_and_send;
use crate::support::batch::expect;
use crate::support::provider::{anthropic, chat, dropped, piped};
use crate::support::{Broker, millis, seconds, settle, time};

#[tokio::test(start_paused = true)]
async fn calls_start_when_the_dialects_own_marker_says_so() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent.events(&[anthropic::message_start()]).await;
    agent
        .events(&anthropic::call(0, "toolu_send", "send"))
        .await;
    tokio::time::sleep(seconds(1)).await;
    agent
        .events(&anthropic::begun(1, "toolu_look", "look_up", "{}"))
        .await;
    worker.expect_no_assignment().await;
    agent.events(&[anthropic::stop(1)]).await;
    let early = worker.assignment().await;
    assert_eq!(
        (&*early.call_id, &*early.arguments),
        ("toolu_look", b"{}".as_slice())
    );
    worker.answer(&early, "found").await;
    tokio::time::sleep(seconds(1)).await;
    agent.events(&anthropic::end("tool_use")).await;
    // The stream's own end is the seal; the agent has said nothing.
    let held = worker.assignment().await;
    assert_eq!(held.call_id, "toolu_send");
    worker.answer(&held, "sent").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(
        (batch.text("toolu_look"), batch.text("toolu_send")),
        ("found", "sent")
    );
    assert_eq!(time(batch.ledger("toolu_send").held).as_secs(), 2);
    assert_eq!(batch.ledger("toolu_look").held, None);
    let turn = batch.turn();
    assert_eq!(turn.dialect(), Dialect::Anthropic);
    assert_eq!(
        (turn.turn_end(), turn.stop_reason.as_deref()),
        (v1::TurnEnd::Complete, Some("tool_use"))
    );
    assert_eq!(
        (
            turn.error.as_deref(),
            turn.dropped.len(),
            turn.not_ours.len()
        ),
        (None, 0, 0)
    );
    let result =
        |id: &str, text: &str| json!({"type": "tool_result", "tool_use_id": id, "content": text});
    let content = [result("toolu_send", "sent"), result("toolu_look", "found")];
    assert_eq!(
        batch.answer(),
        json!([{"role": "user", "content": content}])
    );
}

#[tokio::test(start_paused = true)]
async fn in_chat_a_closed_object_starts_what_only_reads() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::OpenaiChat)).await;
    agent
        .events(&chat::begun(0, "call_put", "put", r#"{"q": 1}"#))
        .await;
    agent
        .events(&chat::begun(1, "call_empty", "look_up", "{}"))
        .await;
    agent
        .events(&chat::begun(2, "call_look", "look_up", r#"{"q": "}"#))
        .await;
    worker.expect_no_assignment().await;
    agent.events(&[chat::delta(2, r#""} "#)]).await;
    let early = worker.assignment().await;
    assert_eq!(
        (&*early.call_id, &*early.arguments),
        ("call_look", br#"{"q": "}"} "#.as_slice())
    );
    worker.answer(&early, "found").await;
    tokio::time::sleep(seconds(2)).await;
    worker.expect_no_assignment().await;
    agent
        .events(&[chat::delta(2, "\n"), chat::finish("tool_calls")])
        .await;
    agent.seal().await;
    for call in worker.assignments(2).await {
        worker.answer(&call, "done").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["call_put", "call_empty", "call_look"]);
    let ledger = batch.ledger("call_look");
    assert!(time(ledger.started_early) < millis(100) && time(ledger.ended) < millis(100));
    assert_eq!(time(ledger.block_complete).as_secs(), 2);
    assert_eq!(batch.ledger("call_put").started_early, None);
    let answer =
        |id: &str, text: &str| json!({"role": "tool", "tool_call_id": id, "content": text});
    let expected = [
        answer("call_put", "done"),
        answer("call_empty", "done"),
        answer("call_look", "found"),
    ];
    assert_eq!(batch.answer(), json!(expected));
}

#[tokio::test(start_paused = true)]
async fn what_was_started_early_is_cancelled_if_more_follows() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::OpenaiChat)).await;
    agent
        .events(&chat::begun(0, "call_a", "look_up", r#"{"q": 1}"#))
        .await;
    agent
        .events(&chat::begun(1, "call_b", "look_up", r#"{"q": 2}"#))
        .await;
    let early = worker.assignments(2).await;
    worker.answer(&early[1], "thrown away").await;
    settle().await;
    agent
        .events(&[chat::delta(0, r#"{"q": 3}"#), chat::delta(1, "x")])
        .await;
    assert_eq!(worker.cancel_at_once().await, early[0].lease_id);
    agent.events(&[chat::finish("tool_calls")]).await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    for id in ["call_a", "call_b"] {
        expect(
            batch.error(id),
            ErrorCode::Incomplete,
            (true, Effect::Maybe),
            &["not JSON", "thrown away"],
        );
    }
    assert_eq!(
        dropped(batch.turn()),
        [
            ("call_a", DropReason::NotJson),
            ("call_b", DropReason::NotJson)
        ]
    );
    assert_eq!(batch.answer(), json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_arguments_does_not_start_before_more_shows_that_it_was_whole() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Cohere)).await;
    let call = json!({"id": "put_1", "function": {"name": "put", "arguments": ""}});
    let start =
        json!({"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": call}}});
    agent
        .events(&[start, json!({"type": "tool-call-end", "index": 0})])
        .await;
    worker.expect_no_assignment().await;
    let end = json!({"type": "message-end", "delta": {"finish_reason": "MAX_TOKENS"}});
    agent.events(&[end]).await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(dropped(batch.turn()), [("put_1", DropReason::Incomplete)]);
}

/// White space is permitted behind a closed object, but not without end.
#[tokio::test(start_paused = true)]
async fn what_was_started_early_is_cancelled_if_it_grows_over_a_limit() {
    let limits: [(fn(&mut Config), _, _); 2] = [
        (
            |config| config.max_arguments_bytes = 32,
            (ErrorCode::InvalidArguments, false),
            ["32 bytes (max_arguments_bytes)", "thrown away"],
        ),
        (
            |config| {
                config.max_batch_bytes = 1024;
                config.max_arguments_bytes = 1024;
                config.max_result_bytes = 1024;
            },
            (ErrorCode::Overloaded, true),
            ["1024 bytes (max_batch_bytes)", "thrown away"],
        ),
    ];
    for (limit, (code, retryable), words) in limits {
        let broker = Broker::start_with(limit);
        let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::OpenaiChat)).await;
        for (index, id) in [(0, "call_runs"), (1, "call_ended"), (2, "call_fine")] {
            let events = [
                chat::start(index, id, "look_up"),
                chat::delta(index, r#"{"q": 1}"#),
            ];
            agent.events(&events).await;
        }
        let early = worker.assignments(3).await;
        worker.answer(&early[1], "in vain").await;
        worker.answer(&early[2], "found").await;
        settle().await;
        // Too much for a batch with what the others have, though not for a call.
        let spaces = " ".repeat(1010);
        agent
            .events(&[chat::delta(0, &spaces), chat::delta(1, &spaces)])
            .await;
        assert_eq!(worker.cancel().await, early[0].lease_id);
        agent.events(&[chat::finish("tool_calls")]).await;
        agent.seal().await;
        let batch = agent.finished().await.unwrap();
        for id in ["call_runs", "call_ended"] {
            expect(batch.error(id), code, (retryable, Effect::Maybe), &words);
        }
        // The model made these calls, so each is answered.
        assert!(dropped(batch.turn()).is_empty());
        assert_eq!(batch.answer().as_array().map(Vec::len), Some(3));
        assert_eq!(batch.succeeded(), ["call_fine"]);
    }
}
