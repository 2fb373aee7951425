//! Calls that are dropped, and calls that are not ours.

use serde_json::{Value, json};
use toolpool_proto::v1::{self, Dialect, DropReason, Effect, ErrorCode, Owner};

use super::look_up_and_send;
use crate::support::batch::expect;
use crate::support::provider::{answered_ids, anthropic, dropped, not_ours, piped};
use crate::support::{Broker, seconds};

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
    assert_eq!(worker.cancel_at_once().await, first.lease_id);
    agent
        .events(&anthropic::call(0, "toolu_2", "look_up"))
        .await;
    worker.answer_next("found").await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_2"]);
    assert_eq!(dropped(batch.turn()), [("toolu_1", DropReason::Superseded)]);
    assert_eq!(answered_ids(&batch.answer()), ["toolu_2"]);
}

#[tokio::test(start_paused = true)]
async fn arguments_that_are_no_json_drop_the_call_and_bad_ones_are_answered() {
    let broker = Broker::start();
    let (_worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    for (index, id, name, text) in [
        (0, "toolu_1", "look_up", r#"{"q": "#),
        (1, "toolu_2", "nobody", r#"{"q": "#),
        (2, "toolu_3", "look_up", "[1]"),
        (3, "toolu_4", "nobody", "{}"),
    ] {
        let block = anthropic::call_with(index, id, name, text);
        agent.events(&block).await;
    }
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
    let answer = batch.answer();
    assert_eq!(answered_ids(&answer), ["toolu_3", "toolu_4"]);
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
        worker.answer_next("found").await;
    }
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.turn().dropped, []);
    assert_eq!(answered_ids(&batch.answer()), ["toolu_1"]);
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
    worker.answer_next("found").await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_2"]);
    let expected = [
        ("toolu_1", "mine", 0, Owner::Agent),
        ("srvtoolu_1", "web_search", 1, Owner::Provider),
    ];
    assert_eq!(not_ours(batch.turn()), expected);
    assert_eq!(answered_ids(&batch.answer()), ["toolu_2"]);
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
        .events(&anthropic::begun(1, "toolu_2", "mine", r#"{"q"#))
        .await;
    agent.events(&anthropic::end("max_tokens")).await;
    let batch = agent.finished().await.unwrap();
    let turn = batch.turn();
    assert_eq!(not_ours(turn), [("toolu_1", "mine", 0, Owner::Agent)]);
    assert_eq!(turn.dropped[0].provider_id(), "toolu_2");
    assert_eq!(turn.dropped[0].id, "");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_provider_withdraws_is_called_off_and_dropped() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::VercelUi)).await;
    let part = |kind: &str, id: &str| {
        let kind = format!("tool-{kind}");
        json!({"type": kind, "toolCallId": id, "toolName": "look_up", "input": {"q": 1}})
    };
    agent
        .events(&[
            json!({"type": "start"}),
            part("input-available", "call_server"),
            part("input-available", "call_ours"),
            part("input-start", "call_broken"),
            part("input-error", "call_broken"),
        ])
        .await;
    let calls = worker.assignments(2).await;
    // The server has run this one after all.
    agent
        .events(&[part("output-available", "call_server")])
        .await;
    assert_eq!(worker.cancel_at_once().await, calls[0].lease_id);
    worker.answer(&calls[1], "found").await;
    agent.events(&[json!({"type": "finish"})]).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["call_ours"]);
    assert_eq!(
        dropped(batch.turn()),
        [
            ("call_server", DropReason::Withdrawn),
            ("call_broken", DropReason::Withdrawn)
        ]
    );
    let withdrawn = batch.error("call_server");
    let words = ["look_up", "withdrawn"];
    expect(
        withdrawn,
        ErrorCode::Incomplete,
        (true, Effect::Maybe),
        &words,
    );
    assert_eq!(answered_ids(&batch.answer()), ["call_ours"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_damaged_event_may_have_been_a_part_of_is_dropped() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "look_up"))
        .await;
    worker.answer_next("found").await;
    agent
        .events(&anthropic::begun(1, "toolu_2", "look_up", r#"{"q": 1"#))
        .await;
    agent
        .data("data: {\"type\":\"content_block_delta\",\"index\":1,\"del\n\n")
        .await;
    // What follows would make it a call with another number.
    let rest = [anthropic::delta(1, "4}"), anthropic::stop(1)];
    agent.events(&rest).await;
    agent.events(&anthropic::end("tool_use")).await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_1"]);
    let turn = batch.turn();
    assert_eq!(turn.turn_end(), v1::TurnEnd::Truncated);
    assert_eq!(dropped(turn), [("toolu_2", DropReason::Unreadable)]);
    assert_eq!(answered_ids(&batch.answer()), ["toolu_1"]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_the_agents_side_carries_out_are_passed_over() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::OpenaiResponses)).await;
    let done = |index: u32, item: &Value| json!({"type": "response.output_item.done", "output_index": index, "item": item});
    let shell = json!({"type": "local_shell_call", "id": "lsh_1", "call_id": "call_shell", "action": {"type": "exec", "command": ["ls"]}});
    let search = json!({"type": "web_search_call", "id": "ws_1", "status": "completed"});
    let call = json!({"type": "function_call", "id": "fc_1", "call_id": "call_ours", "name": "look_up", "arguments": "{}"});
    agent
        .events(&[done(0, &shell), done(1, &search), done(2, &call)])
        .await;
    worker.answer_next("found").await;
    agent
        .events(&[json!({"type": "response.completed", "response": {"status": "completed"}})])
        .await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(
        not_ours(batch.turn()),
        [
            ("call_shell", "local_shell_call", 0, Owner::Client),
            ("ws_1", "web_search_call", 1, Owner::Provider)
        ]
    );
    assert_eq!(batch.result("call_ours").position, 2);
    assert_eq!(answered_ids(&batch.answer()), ["call_ours"]);
}
