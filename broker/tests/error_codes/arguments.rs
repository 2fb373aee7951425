//! Calls that are refused for what they say: arguments, names, ids, sizes.

use tokio::time::sleep;
use toolpool_broker::policy::PolicyPatch;
use toolpool_proto::v1::{self, ErrorCode};

use super::{NOT_STARTED, TRY_AGAIN};
use crate::support::batch::expect;
use crate::support::worker::read_only;
use crate::support::{Broker, millis, seconds};

#[tokio::test(start_paused = true)]
async fn arguments_that_are_not_json_are_not_repaired() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("search")]).await;
    let wrong = [
        ("cut", r#"{"q":"a"#),
        ("comma", r#"{"q":"a",}"#),
        ("more", "{} {}"),
        ("utf8", "{\"q\":\"\u{1}\"}"),
    ];
    let calls = wrong.map(|(id, arguments)| (id, "search", arguments));
    let batch = broker.run(&calls).await;
    for (id, _) in wrong {
        expect(
            batch.error(id),
            ErrorCode::InvalidArguments,
            NOT_STARTED,
            &["search", "not valid JSON", "line 1 column"],
        );
    }
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn every_violation_of_the_schema_is_named_with_its_path() {
    let broker = Broker::start();
    let schema = br#"{"type":"object","required":["q"],"additionalProperties":false,"properties":{
        "q":{"type":"string"},"opts":{"type":"object","properties":{"n":{"type":"integer"}}}}}"#;
    let search = v1::Tool {
        input_schema: schema.as_slice().into(),
        ..read_only("search")
    };
    let _worker = broker.worker("w", 1, [search]).await;
    let batch = broker
        .run(&[
            ("bad", "search", r#"{"opts":{"n":"one"},"z":1}"#),
            ("list", "search", "[1]"),
        ])
        .await;
    let bad = batch.error("bad");
    let words = ["search", "/opts/n", "\"q\"", "'z'"];
    expect(bad, ErrorCode::InvalidArguments, NOT_STARTED, &words);
    let mut paths: Vec<_> = bad.violations.iter().map(|of| &*of.path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["", "", "/opts/n"]);
    let list = batch.error("list");
    let words = ["must be a JSON object, not an array"];
    expect(list, ErrorCode::InvalidArguments, NOT_STARTED, &words);
}

#[tokio::test(start_paused = true)]
async fn arguments_over_the_limit_are_refused_however_they_come() {
    let broker = Broker::start_with(|config| config.max_arguments_bytes = 32);
    let mut worker = broker.worker("w", 9, [read_only("search")]).await;
    let large = format!(r#"{{"q":"{}"}}"#, "a".repeat(32));
    let agent = broker.agent().await;
    agent.block(0, "streamed", "search", &large).await;
    agent.call("whole", "search", &large).await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    for id in ["streamed", "whole"] {
        let words = ["search", "32 bytes", "max_arguments_bytes"];
        expect(
            batch.error(id),
            ErrorCode::InvalidArguments,
            NOT_STARTED,
            &words,
        );
    }
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn arguments_of_all_calls_together_have_a_limit() {
    let broker = Broker::start_with(|config| {
        config.max_batch_bytes = 1024;
        config.max_result_bytes = 1024;
        config.max_arguments_bytes = 1024;
    });
    let _worker = broker
        .worker("w", 9, [read_only("search")])
        .await
        .serve(millis(1));
    let large = format!(r#"{{"q":"{}"}}"#, "a".repeat(600));
    let batch = broker
        .run(&[
            ("a", "search", &large),
            ("b", "search", &large),
            ("c", "search", "{}"),
        ])
        .await;
    assert_eq!(batch.succeeded(), ["a", "c"]);
    let words = ["1024 bytes", "max_batch_bytes"];
    expect(batch.error("b"), ErrorCode::Overloaded, TRY_AGAIN, &words);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_batchs_limit_are_refused_one_by_one() {
    let broker = Broker::start_with(|config| config.max_calls_per_batch = 2);
    let worker = broker
        .worker("w", 9, [read_only("search")])
        .await
        .serve(millis(1));
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.block(0, "b", "search", "{}").await;
    agent.call("c", "search", "{}").await;
    agent.block(0, "d", "search", "{}").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b"]);
    for id in ["c", "d"] {
        let words = ["2 calls", "max_calls_per_batch"];
        expect(batch.error(id), ErrorCode::Overloaded, TRY_AGAIN, &words);
    }
    assert_eq!(worker.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn of_calls_under_one_id_the_first_stands_and_the_others_are_reported() {
    let broker = Broker::start();
    let worker = broker
        .worker("w", 9, [read_only("search"), read_only("fetch")])
        .await
        .serve(millis(1));
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.block(3, "a", "fetch", "{").await;
    agent.call("b", "fetch", "{}").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b"]);
    assert_eq!(batch.result("a").tool, "search");
    assert_eq!(batch.result("b").position, 2);
    let [duplicate] = &*batch.summary.duplicates else {
        panic!("{:?}", batch.summary)
    };
    assert_eq!(
        (&*duplicate.id, &*duplicate.tool, duplicate.position),
        ("a", "fetch", 1)
    );
    let words = ["id a", "first", "fetch"];
    let error = duplicate.error.as_ref().unwrap();
    expect(error, ErrorCode::DuplicateId, NOT_STARTED, &words);
    assert_eq!(worker.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_tool_is_answered_with_the_names_that_are_close() {
    let broker = Broker::start();
    let tools = [
        read_only("web_search"),
        read_only("web_fetch"),
        read_only("mail"),
    ];
    let _worker = broker.worker("w", 1, tools).await;
    sleep(seconds(10)).await;
    let batch = broker
        .run(&[("near", "WebSearch", "{}"), ("far", "xyz", "{}")])
        .await;
    let near = batch.error("near");
    expect(
        near,
        ErrorCode::UnknownTool,
        NOT_STARTED,
        &["WebSearch", "web_search"],
    );
    assert_eq!(near.near_names[0], "web_search");
    let far = batch.error("far");
    expect(far, ErrorCode::UnknownTool, NOT_STARTED, &["\"xyz\""]);
    assert!(far.near_names.is_empty());
}

#[tokio::test(start_paused = true)]
async fn right_after_the_brokers_start_an_unknown_name_may_be_a_workers_that_has_not_joined_yet() {
    let broker = Broker::start();
    sleep(millis(9_900)).await;
    let batch = broker.run(&[("a", "search", "{}")]).await;
    expect(
        batch.error("a"),
        ErrorCode::NoWorker,
        TRY_AGAIN,
        &["search", "9.9s"],
    );
    sleep(millis(200)).await;
    let batch = broker.run(&[("a", "search", "{}")]).await;
    expect(
        batch.error("a"),
        ErrorCode::UnknownTool,
        NOT_STARTED,
        &["search"],
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_the_operator_gave_is_known_before_any_worker_serves_it() {
    let broker = Broker::start_with(|config| {
        config
            .tools
            .insert("search".to_owned(), PolicyPatch::default());
    });
    sleep(seconds(60)).await;
    let batch = broker
        .run(&[("a", "search", "{}"), ("b", "searhc", "{}")])
        .await;
    expect(
        batch.error("a"),
        ErrorCode::NoWorker,
        TRY_AGAIN,
        &["search"],
    );
    expect(
        batch.error("b"),
        ErrorCode::UnknownTool,
        NOT_STARTED,
        &["searhc"],
    );
}
