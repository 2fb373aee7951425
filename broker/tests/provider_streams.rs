//! An agent that pipes its provider's own stream in: when its calls start, what becomes of a turn that ends badly, whose
//! calls are whose, and what comes back.

mod support;

use serde_json::{Value, json};
use tonic::Code;
use toolpool_broker::Config;
use toolpool_proto::v1;
use v1::agent_frame::Frame;
use v1::batch_frame::Frame as Got;
use v1::{Dialect, DropReason, Effect, ErrorCode, Owner};

use support::agent::FakeAgent;
use support::batch::expect;
use support::worker::{FakeWorker, once, read_only, side_effecting, tool};
use support::{Broker, millis, seconds, settle, time};

fn piped(dialect: Dialect) -> v1::Open {
    v1::Open {
        dialect: Some(dialect.into()),
        ..Default::default()
    }
}

/// A worker that can look up and send, and an agent of that dialect.
async fn look_up_and_send(broker: &Broker, open: v1::Open) -> (FakeWorker, FakeAgent) {
    let idempotent = v1::Policy {
        effects: Some(v1::Effects::Idempotent.into()),
        ..once()
    };
    let tools = [
        read_only("look_up"),
        side_effecting("send"),
        tool("put", idempotent),
    ];
    let worker = broker.worker("w", 9, tools).await;
    (worker, broker.agent_with(open).await)
}

/// Events of Anthropic Messages.
mod anthropic {
    use super::{Value, json};

    pub(super) fn message_start() -> Value {
        json!({"type": "message_start", "message": {"role": "assistant", "content": []}})
    }

    pub(super) fn start(index: u32, id: &str, name: &str) -> Value {
        let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        json!({"type": "content_block_start", "index": index, "content_block": block})
    }

    pub(super) fn delta(index: u32, text: &str) -> Value {
        let delta = json!({"type": "input_json_delta", "partial_json": text});
        json!({"type": "content_block_delta", "index": index, "delta": delta})
    }

    pub(super) fn stop(index: u32) -> Value {
        json!({"type": "content_block_stop", "index": index})
    }

    pub(super) fn call(index: u32, id: &str, name: &str) -> [Value; 3] {
        [
            start(index, id, name),
            delta(index, r#"{"q": 1}"#),
            stop(index),
        ]
    }

    pub(super) fn end(reason: &str) -> [Value; 2] {
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": reason}});
        [delta, json!({"type": "message_stop"})]
    }
}

/// Chunks of OpenAI Chat Completions.
mod chat {
    use super::{Value, json};

    pub(super) fn start(index: u32, id: &str, name: &str) -> Value {
        let call = json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
        chunk(&json!({"tool_calls": [call]}), None)
    }

    pub(super) fn delta(index: u32, text: &str) -> Value {
        let call = json!({"index": index, "function": {"arguments": text}});
        chunk(&json!({"tool_calls": [call]}), None)
    }

    pub(super) fn finish(reason: &str) -> Value {
        chunk(&json!({}), Some(reason))
    }

    fn chunk(delta: &Value, reason: Option<&str>) -> Value {
        json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    }
}

fn sse(events: &[Value]) -> String {
    let mut text = String::new();
    for event in events {
        text.extend(["data: ", &event.to_string(), "\n\n"]);
    }
    text
}

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
        .events(&[
            anthropic::start(1, "toolu_look", "look_up"),
            anthropic::delta(1, "{}"),
        ])
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
async fn a_stream_tells_by_itself_what_it_is() {
    let broker = Broker::start();
    let (mut worker, mut agent) = look_up_and_send(&broker, piped(Dialect::Auto)).await;
    let bytes = sse(&[
        &[anthropic::message_start()][..],
        &anthropic::call(0, "toolu_1", "look_up"),
    ]
    .concat());
    let (first, rest) = bytes.split_at(20);
    agent.data(first).await;
    settle().await;
    agent.data(rest).await;
    match agent.frame().await.unwrap() {
        Some(Got::Accepted(accepted)) => {
            assert_eq!(accepted.dialect(), Dialect::Anthropic);
            assert_eq!(accepted.batch_id, agent.batch_id);
        }
        other => panic!("{other:?}"),
    }
    let call = worker.assignment().await;
    worker.answer(&call, "found").await;
    agent.data(sse(&anthropic::end("tool_use"))).await;
    assert_eq!(agent.finished().await.unwrap().succeeded(), ["toolu_1"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_with_open_is_known_when_the_batch_is_accepted() {
    let broker = Broker::start();
    let bytes = sse(&[anthropic::message_start()]);
    let frames = vec![
        Frame::Open(piped(Dialect::Auto)),
        Frame::ProviderData(bytes.into()),
    ];
    let agent = broker.open_with(frames, |_| ()).await.unwrap();
    assert_eq!(agent.dialect, Some(Dialect::Anthropic.into()));
}

#[tokio::test(start_paused = true)]
async fn in_chat_a_closed_object_starts_what_only_reads() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::OpenaiChat)).await;
    agent
        .events(&[
            chat::start(0, "call_put", "put"),
            chat::delta(0, r#"{"q": 1}"#),
        ])
        .await;
    agent
        .events(&[
            chat::start(1, "call_empty", "look_up"),
            chat::delta(1, "{}"),
        ])
        .await;
    agent
        .events(&[
            chat::start(2, "call_look", "look_up"),
            chat::delta(2, r#"{"q": "}"#),
        ])
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
        .events(&[
            chat::start(0, "call_a", "look_up"),
            chat::delta(0, r#"{"q": 1}"#),
        ])
        .await;
    agent
        .events(&[
            chat::start(1, "call_b", "look_up"),
            chat::delta(1, r#"{"q": 2}"#),
        ])
        .await;
    let early = worker.assignments(2).await;
    worker.answer(&early[1], "thrown away").await;
    settle().await;
    agent
        .events(&[chat::delta(0, r#"{"q": 3}"#), chat::delta(1, "x")])
        .await;
    assert_eq!(worker.cancel().await, early[0].lease_id);
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

fn dropped(turn: &v1::Turn) -> Vec<(&str, DropReason)> {
    turn.dropped
        .iter()
        .map(|call| (&*call.id, call.reason()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_cut_turn_drops_what_is_incomplete_and_runs_no_side_effects() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "look_up"))
        .await;
    agent.events(&anthropic::call(1, "toolu_2", "send")).await;
    agent
        .events(&[
            anthropic::start(2, "toolu_3", "look_up"),
            anthropic::delta(2, r#"{"q": "#),
        ])
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
    let answered = batch.answer();
    let content = answered[0]["content"].as_array().unwrap();
    let ids: Vec<_> = content
        .iter()
        .map(|block| block["tool_use_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["toolu_1", "toolu_2"]);
    assert_eq!(content[1]["is_error"], true);
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
        let error = batch.turn().error.as_deref().unwrap();
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
    assert!(
        batch
            .turn()
            .error
            .as_deref()
            .unwrap()
            .contains("overloaded_error")
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_that_begins_anew_voids_what_came_before() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent.events(&[anthropic::message_start()]).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "look_up"))
        .await;
    let first = worker.assignment().await;
    agent.events(&[anthropic::message_start()]).await;
    assert_eq!(worker.cancel().await, first.lease_id);
    agent
        .events(&anthropic::call(0, "toolu_2", "look_up"))
        .await;
    let second = worker.assignment().await;
    worker.answer(&second, "found").await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_2"]);
    assert_eq!(dropped(batch.turn()), [("toolu_1", DropReason::Superseded)]);
    assert_eq!(batch.answer()[0]["content"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_agents_and_the_providers_own_calls_are_passed_over() {
    let broker = Broker::start();
    let open = v1::Open {
        local_tools: vec!["mine".to_owned()],
        ..piped(Dialect::Anthropic)
    };
    let (mut worker, agent) = look_up_and_send(&broker, open).await;
    let mut server = anthropic::call(1, "srvtoolu_1", "web_search");
    server[0]["content_block"]["type"] = "server_tool_use".into();
    agent.events(&anthropic::call(0, "toolu_1", "mine")).await;
    agent.events(&server).await;
    agent
        .events(&anthropic::call(2, "toolu_2", "look_up"))
        .await;
    let call = worker.assignment().await;
    worker.answer(&call, "found").await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_2"]);
    let not_ours: Vec<_> = (batch.turn().not_ours.iter())
        .map(|call| {
            (
                call.provider_id.as_deref(),
                &*call.tool,
                call.position,
                call.owner(),
            )
        })
        .collect();
    let expected = [
        (Some("toolu_1"), "mine", 0, Owner::Agent),
        (Some("srvtoolu_1"), "web_search", 1, Owner::Provider),
    ];
    assert_eq!(not_ours, expected);
    assert_eq!(batch.answer()[0]["content"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn results_go_back_under_the_providers_ids_even_if_those_are_useless() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::OpenaiChat)).await;
    agent
        .events(&[
            chat::start(0, "twice", "look_up"),
            chat::start(1, "twice", "look_up"),
            chat::start(2, "", "look_up"),
            chat::finish("tool_calls"),
        ])
        .await;
    agent.data("data: [DONE]\n\n").await;
    for (call, text) in worker.assignments(3).await.iter().zip(["1", "2", "3"]) {
        worker.answer(call, text).await;
    }
    let batch = agent.finished().await.unwrap();
    let given: Vec<_> = batch
        .results
        .iter()
        .map(|result| result.provider_id.as_deref())
        .collect();
    assert_eq!(given, [Some("twice"), Some("twice"), None]);
    let answer = batch.answer();
    let ids: Vec<_> = (0..3)
        .map(|n| answer[n]["tool_call_id"].as_str().unwrap())
        .collect();
    // The one that was made is the result's, so that the agent can put it into the assistant's message.
    assert_eq!(ids, ["twice", "twice", &*batch.results[2].id]);
    assert_eq!(answer[1]["content"], "2");
}

#[tokio::test(start_paused = true)]
async fn arguments_that_are_no_json_drop_the_call_and_bad_ones_are_answered() {
    let broker = Broker::start();
    let (_worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    let block = |index, id, name, text| {
        [
            anthropic::start(index, id, name),
            anthropic::delta(index, text),
            anthropic::stop(index),
        ]
    };
    agent
        .events(&block(0, "toolu_1", "look_up", r#"{"q": "#))
        .await;
    agent
        .events(&block(1, "toolu_2", "nobody", r#"{"q": "#))
        .await;
    agent.events(&block(2, "toolu_3", "look_up", "[1]")).await;
    agent.events(&block(3, "toolu_4", "nobody", "{}")).await;
    tokio::time::sleep(seconds(11)).await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(
        dropped(batch.turn()),
        [
            ("toolu_1", DropReason::NotJson),
            ("toolu_2", DropReason::NotJson)
        ]
    );
    assert_eq!(batch.error("toolu_3").code(), ErrorCode::InvalidArguments);
    let answered = batch.answer();
    let content = answered[0]["content"].as_array().unwrap();
    let ids: Vec<_> = content
        .iter()
        .map(|block| block["tool_use_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["toolu_3", "toolu_4"]);
}

#[tokio::test(start_paused = true)]
async fn what_follows_the_turns_end_is_taken_and_passed_over() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent.events(&anthropic::call(0, "toolu_1", "send")).await;
    agent.events(&anthropic::end("tool_use")).await;
    let call = worker.assignment().await;
    // Far more than a connection holds: an agent that pipes must not stand still until the calls have ended.
    for _ in 0..64 {
        agent
            .data(sse(&[
                json!({"type": "ping", "padding": "x".repeat(64 * 1024)}),
            ]))
            .await;
    }
    agent.events(&anthropic::call(0, "toolu_9", "send")).await;
    agent.seal().await;
    settle().await;
    worker.expect_no_assignment().await;
    worker.answer(&call, "sent").await;
    assert_eq!(agent.finished().await.unwrap().succeeded(), ["toolu_1"]);
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
    let error = batch.turn().error.as_deref().unwrap();
    assert!(
        error.contains("4096") && error.contains("max_event_bytes"),
        "{error}"
    );
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
    assert!(batch.turn().error.as_deref().unwrap().contains("silent"));
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
    assert_eq!(worker.cancel().await, call.lease_id);
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.error("toolu_1").code(), ErrorCode::Aborted);
    assert_eq!(batch.turn().turn_end(), v1::TurnEnd::Aborted);
}

#[tokio::test(start_paused = true)]
async fn blocks_and_a_providers_stream_do_not_mix() {
    let broker = Broker::start();
    let piping = broker.agent_with(piped(Dialect::Auto)).await;
    piping.start(0, "a", "look_up").await;
    let plain = broker.agent().await;
    plain.data("data: {}\n\n").await;
    for (agent, word) in [(piping, "open.dialect"), (plain, "open.dialect")] {
        let status = agent.refused().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(word), "{status}");
    }
    let unspecified = broker
        .open(piped(Dialect::Unspecified))
        .await
        .err()
        .unwrap();
    assert_eq!(unspecified.code(), Code::InvalidArgument);
    let local_tools = v1::Open {
        local_tools: vec!["mine".to_owned()],
        ..Default::default()
    };
    let without = broker.open(local_tools).await.err().unwrap();
    assert!(without.message().contains("open.local_tools"), "{without}");
    let request = v1::ExecuteBatchRequest {
        open: Some(piped(Dialect::Auto)),
        ..Default::default()
    };
    assert_eq!(
        broker.execute_batch(request).await.err().unwrap().code(),
        Code::InvalidArgument
    );
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_known_by_the_name_that_its_provider_permits() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("files.read")]).await;
    let request = v1::ListToolsRequest {
        format: Some(Dialect::Anthropic.into()),
        ..Default::default()
    };
    let mut client = broker.client().await;
    let listed = support::soon(client.list_tools(request)).await.unwrap();
    let name = &listed.into_inner().adaptations[0].name;
    assert_ne!(name, "files.read");

    let agent = broker.agent_with(piped(Dialect::Anthropic)).await;
    agent.events(&anthropic::call(0, "toolu_1", name)).await;
    let call = worker.assignment().await;
    assert_eq!(call.tool, "files.read");
    worker.answer(&call, "found").await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(&batch.result("toolu_1").tool, name);
    // And to an agent that assembles blocks by itself too.
    let plain = broker.agent().await;
    plain.call("a", name, "{}").await;
    assert_eq!(worker.assignment().await.tool, "files.read");
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

#[tokio::test(start_paused = true)]
async fn a_deadline_in_mid_stream_drops_what_is_open_and_says_so() {
    let broker = Broker::start();
    let open = v1::Open {
        deadline: Some(support::wire(seconds(5))),
        ..piped(Dialect::OpenaiChat)
    };
    let (mut worker, agent) = look_up_and_send(&broker, open).await;
    agent
        .events(&[
            chat::start(0, "call_early", "look_up"),
            chat::delta(0, r#"{"q": 1}"#),
        ])
        .await;
    agent
        .events(&[
            chat::start(1, "call_open", "look_up"),
            chat::delta(1, r#"{"q"#),
        ])
        .await;
    worker.assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), seconds(5));
    for id in ["call_early", "call_open"] {
        assert_eq!(batch.error(id).code(), ErrorCode::Incomplete);
    }
    assert_eq!(batch.turn().dropped.len(), 2);
    assert_eq!(batch.answer(), json!([]));
    let error = batch.turn().error.as_deref().unwrap();
    assert!(error.contains("time of the batch"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn names_that_are_close_are_those_that_the_model_knows() {
    let broker = Broker::start();
    let _worker = broker.worker("w", 9, [read_only("files.read")]).await;
    tokio::time::sleep(seconds(10)).await;
    let agent = broker.agent_with(piped(Dialect::Anthropic)).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "files_read"))
        .await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    let error = batch.error("toolu_1");
    assert_eq!(error.near_names, ["files_read_059c287d"]);
    assert!(error.message.contains("files_read_059c287d"), "{error:?}");
    let plain = broker.run(&[("a", "files_read", "{}")]).await;
    assert_eq!(plain.error("a").near_names, ["files.read"]);
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

#[tokio::test(start_paused = true)]
async fn a_local_call_that_never_became_one_is_dropped_too() {
    let broker = Broker::start();
    let open = v1::Open {
        local_tools: vec!["mine".to_owned()],
        ..piped(Dialect::Anthropic)
    };
    let (_worker, agent) = look_up_and_send(&broker, open).await;
    agent.events(&anthropic::call(0, "toolu_1", "mine")).await;
    agent
        .events(&[
            anthropic::start(1, "toolu_2", "mine"),
            anthropic::delta(1, r#"{"q"#),
        ])
        .await;
    agent.events(&anthropic::end("max_tokens")).await;
    let batch = agent.finished().await.unwrap();
    let turn = batch.turn();
    let ids: Vec<_> = turn
        .not_ours
        .iter()
        .map(v1::PassedOverCall::provider_id)
        .collect();
    assert_eq!(ids, ["toolu_1"]);
    assert_eq!(turn.dropped[0].provider_id(), "toolu_2");
    assert_eq!(turn.dropped[0].id, "");
}

#[tokio::test(start_paused = true)]
async fn a_live_call_is_not_dropped_under_the_id_of_a_dead_one() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    for _ in 0..2 {
        agent.events(&[anthropic::message_start()]).await;
        agent
            .events(&anthropic::call(0, "toolu_1", "look_up"))
            .await;
        let call = worker.assignment().await;
        worker.answer(&call, "found").await;
    }
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.turn().dropped, []);
    let answer = batch.answer();
    assert_eq!(answer[0]["content"].as_array().unwrap().len(), 1);
    assert_eq!(answer[0]["content"][0]["tool_use_id"], "toolu_1");
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
    assert!(batch.turn().error().contains("could not be read"));
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
        let call = worker.assignment().await;
        worker.answer(&call, "found").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.results.len(), 8, "four times what may run");
    assert_eq!(batch.text("toolu_1"), "found");
    assert_eq!(batch.error("toolu_7").code(), ErrorCode::Overloaded);
    assert!(batch.turn().error().contains("more than 8 calls"));
}
