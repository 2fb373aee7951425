//! What the catalogue says of the tools.

use toolpool_broker::policy::{Effects, PolicyPatch};
use toolpool_proto::v1::{self, ErrorCode, FailureAction, Policy};

use crate::support::worker::{read_only, side_effecting, tool};
use crate::support::{Broker, millis, seconds, settle, wire};

#[tokio::test(start_paused = true)]
async fn the_catalogue_has_the_effective_policy_and_the_registered_one() {
    let operator = PolicyPatch {
        effects: Some(Effects::ReadOnly),
        call_timeout: Some(seconds(7)),
        rate: Some(2.0),
        ..Default::default()
    };
    let broker = Broker::start_with(|config| {
        config.tools.insert("search".to_owned(), operator);
    });
    let registered = Policy {
        rate: Some(50.0),
        burst: Some(5),
        on_failure: Some(FailureAction::AbortBatch.into()),
        ..Default::default()
    };
    let search = v1::Tool {
        description: "Finds pages.".to_owned(),
        input_schema: br#"{"type":"object"}"#.as_slice().into(),
        ..tool("search", registered)
    };
    let worker = broker
        .worker("w1", 1, [search.clone(), side_effecting("mail")])
        .await;
    let _other = broker.worker("w2", 1, [search.clone()]).await;
    let tools = broker.list_tools().await;
    let names = tools
        .iter()
        .map(|entry| &*entry.tool.as_ref().unwrap().name);
    assert_eq!(names.collect::<Vec<_>>(), ["mail", "search"]);
    let entry = &tools[1];
    assert_eq!(entry.workers, 2);
    assert_eq!(entry.registered_policy, Some(registered));
    let effective = v1::Tool {
        policy: Some(Policy {
            effects: Some(v1::Effects::ReadOnly.into()),
            attempt_timeout: Some(wire(seconds(7))),
            call_timeout: Some(wire(seconds(7))),
            queue_timeout: Some(wire(seconds(7))),
            max_attempts: Some(3),
            retry_backoff: Some(wire(millis(100))),
            rate: Some(2.0),
            burst: Some(5),
            max_in_flight: None,
            on_failure: Some(FailureAction::AbortBatch.into()),
        }),
        ..search
    };
    assert_eq!(entry.tool, Some(effective));
    worker.cut();
    settle().await;
    let workers = broker
        .list_tools()
        .await
        .iter()
        .map(|entry| entry.workers)
        .collect::<Vec<_>>();
    assert_eq!(
        workers,
        [0, 1],
        "a tool stays known when its last worker leaves"
    );
}

#[tokio::test(start_paused = true)]
async fn the_operators_word_wins_over_the_workers() {
    let operator = PolicyPatch {
        effects: Some(Effects::SideEffecting),
        ..Default::default()
    };
    let broker = Broker::start_with(|config| {
        config.tools.insert("look_up".to_owned(), operator);
    });
    let mut worker = broker.worker("w", 9, [read_only("look_up")]).await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    worker.expect_no_assignment_within(seconds(1)).await;
    agent.seal().await;
    worker.assignment().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_registration_of_a_name_defines_the_tool_for_everybody() {
    let broker = Broker::start();
    let mut old = broker.worker("w1", 9, [read_only("look_up")]).await;
    let stricter = v1::Tool {
        input_schema: br#"{"required":["q"]}"#.as_slice().into(),
        ..read_only("look_up")
    };
    let new = broker.worker("w2", 9, [stricter]).await;
    new.cut();
    settle().await;
    let agent = broker.agent().await;
    agent.call("a", "look_up", "{}").await;
    agent.call("b", "look_up", r#"{"q":1}"#).await;
    agent.seal().await;
    old.answer_next("done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["b"]);
    assert_eq!(batch.error("a").code(), ErrorCode::InvalidArguments);
}
