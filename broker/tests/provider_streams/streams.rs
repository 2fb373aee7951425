//! What a stream is, and what may stand beside and behind it.

use serde_json::json;
use tonic::Code;
use toolpool_proto::v1::agent_frame::Frame;
use toolpool_proto::v1::batch_frame::Frame as Got;
use toolpool_proto::v1::{self, Dialect};

use super::look_up_and_send;
use crate::support::provider::{anthropic, piped, sse};
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
