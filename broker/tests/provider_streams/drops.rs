//! Calls that are dropped, and calls that are not ours.

use toolpool_proto::v1::{self, Dialect, DropReason, ErrorCode, Owner};

use super::look_up_and_send;
use crate::support::provider::{anthropic, dropped, piped};
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
