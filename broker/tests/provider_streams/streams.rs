//! What a stream is, and what may stand beside and behind it.

use serde_json::json;
use tonic::Code;
use toolpool_proto::v1::agent_frame::Frame;
use toolpool_proto::v1::batch_frame::Frame as Got;
use toolpool_proto::v1::{self, Dialect};

use super::look_up_and_send;
use crate::support::provider::{answered_ids, anthropic, piped, sse};
use crate::support::{Broker, settle};

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
    worker.answer_next("found").await;
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
async fn a_stream_that_tells_nothing_of_what_it_is_has_no_calls() {
    let broker = Broker::start();
    let (mut worker, mut agent) = look_up_and_send(&broker, piped(Dialect::Auto)).await;
    agent.events(&[json!({"hello": "world"})]).await;
    agent
        .data(": a keep-alive\n\ndata: {\"more\": 1}\n\n")
        .await;
    settle().await;
    agent.half_close();
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.results, []);
    let turn = batch.turn();
    assert_eq!(turn.dialect, None);
    assert_eq!(turn.turn_end(), v1::TurnEnd::Truncated);
    let error = batch.turn_error();
    assert!(error.contains("tells what it is"), "{error}");
    assert_eq!(batch.answer(), json!([]));
}

#[tokio::test(start_paused = true)]
async fn bytes_and_events_may_follow_each_other_in_one_stream() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Auto)).await;
    let [start, delta, stop] = anthropic::call(0, "toolu_1", "look_up");
    agent.data(sse(&[anthropic::message_start(), start])).await;
    agent.events(&[delta]).await;
    worker.expect_no_assignment().await;
    agent.data(sse(&[stop])).await;
    assert_eq!(worker.answer_next("found").await.call_id, "toolu_1");
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_1"]);
    assert_eq!(batch.turn().turn_end(), v1::TurnEnd::Complete);
}

#[tokio::test(start_paused = true)]
async fn what_follows_the_agents_own_seal_is_passed_over_too() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "look_up"))
        .await;
    let call = worker.assignment().await;
    agent.seal().await;
    settle().await;
    // The turn had no end of its own; now it is too late for one, and for another seal.
    agent.events(&anthropic::end("tool_use")).await;
    agent
        .data(sse(&anthropic::call(1, "toolu_2", "send")))
        .await;
    agent.seal_as(v1::TurnEnd::Aborted).await;
    agent.seal().await;
    settle().await;
    worker.expect_no_cancel().await;
    worker.answer(&call, "found").await;
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_1"]);
    assert_eq!(batch.results.len(), 1);
    let turn = batch.turn();
    assert_eq!(turn.turn_end(), v1::TurnEnd::Truncated);
    assert_eq!(turn.stop_reason, None);
    assert!(batch.turn_error().contains("ended before the turn did"));
}

#[tokio::test(start_paused = true)]
async fn an_output_that_finds_no_room_in_the_answer_is_left_out_of_it_only() {
    let broker = Broker::start_with(|config| config.max_answer_bytes = 4096);
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::Anthropic)).await;
    let large = "x".repeat(8 * 1024);
    for (index, id) in (0..).zip(["toolu_1", "toolu_2"]) {
        agent.events(&anthropic::call(index, id, "look_up")).await;
    }
    for (call, text) in worker.assignments(2).await.iter().zip(["found", &large]) {
        worker.answer(call, text).await;
    }
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["toolu_1", "toolu_2"]);
    assert_eq!(batch.text("toolu_2"), large);
    assert!(batch.turn().answer.len() <= 4096);
    let answer = batch.answer();
    assert_eq!(answered_ids(&answer), ["toolu_1", "toolu_2"]);
    let content = &answer[0]["content"];
    assert_eq!(content[0]["content"], "found");
    let said = content[1]["content"].to_string();
    assert!(
        said.contains("max_answer_bytes") && said.contains("The call succeeded"),
        "{said}"
    );
}
