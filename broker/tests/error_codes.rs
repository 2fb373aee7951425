//! Every error code of the protocol, brought about over the wire.
//!
//! `INTERNAL` is missing: nothing that an agent or a worker can send leads to it, so its test is beside the batch's task.

mod support;

use std::time::Duration;

use support::agent::{call, seal, start};
use support::batch::expect;
use support::worker::{attempts, error, once, read_only, side_effecting, tool};
use support::{Broker, millis, seconds, settle, time, wire};
use tokio::time::{Instant, sleep};
use toolpool_broker::policy::PolicyPatch;
use toolpool_proto::v1::{
    self, Effect, ErrorCode, FailureAction, Limit, Policy, TimeoutScope, TurnEnd,
};

const NOT_STARTED: (bool, Effect) = (false, Effect::NotStarted);
const TRY_AGAIN: (bool, Effect) = (true, Effect::NotStarted);

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

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_worker_to_come_but_not_for_ever() {
    let broker = Broker::start();
    broker
        .worker("w", 1, [read_only("search")])
        .await
        .half_close();
    settle().await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    expect(
        batch.error("a"),
        ErrorCode::NoWorker,
        TRY_AGAIN,
        &["search", "10.0s"],
    );
    let waited = time(batch.ledger("a").slot_wait);
    assert!(waited > seconds(9) && waited <= seconds(10), "{waited:?}");
    let again = broker.run(&[("a", "search", "{}")]).await;
    expect(again.error("a"), ErrorCode::NoWorker, TRY_AGAIN, &[]);
    assert_eq!(again.elapsed(), Duration::ZERO, "the time to wait is over");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_what_comes_after() {
    let broker = Broker::start_with(|config| config.max_queued_per_tool = 2);
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    let agent = broker.agent().await;
    for id in ["runs", "waits", "waits too", "refused"] {
        agent.call(id, "search", "{}").await;
    }
    agent.seal().await;
    for _ in 0..3 {
        let assignment = worker.assignment().await;
        worker.answer(&assignment, "done").await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["runs", "waits", "waits too"]);
    let refused = batch.error("refused");
    let words = ["search", "2 calls", "max_queued_per_tool"];
    expect(refused, ErrorCode::Overloaded, TRY_AGAIN, &words);
    assert!(time(refused.retry_after) > Duration::ZERO);
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
async fn a_call_that_its_tools_rate_cannot_start_in_time_is_told_so_at_once() {
    let broker = Broker::start();
    let slow = Policy {
        rate: Some(0.1),
        queue_timeout: Some(wire(seconds(15))),
        ..once()
    };
    let worker = broker
        .worker("w", 9, [tool("search", slow)])
        .await
        .serve(millis(1));
    let agent = broker.agent().await;
    for id in ["now", "in 10 s", "in 20 s"] {
        agent.call(id, "search", "{}").await;
    }
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["now", "in 10 s"]);
    assert_eq!(batch.ledger("in 10 s").limited_by(), Limit::Rate);
    let refused = batch.error("in 20 s");
    expect(
        refused,
        ErrorCode::RateLimited,
        TRY_AGAIN,
        &["search", "20.0s"],
    );
    assert_eq!(time(refused.retry_after), seconds(20));
    assert_eq!(time(batch.ledger("in 20 s").ended), Duration::ZERO);
    assert_eq!(worker.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_asks_to_be_called_later_pauses_its_lane_for_everyone() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("search")]).await;
    let limited = broker.agent().await;
    limited.call("a", "search", "{}").await;
    limited.seal().await;
    let later = v1::CallError {
        retry_after: Some(wire(seconds(5))),
        retryable: true,
        effect: Effect::NotStarted.into(),
        ..error(ErrorCode::RateLimited, "the provider wants a rest")
    };
    let assignment = worker.assignment().await;
    worker.fail(&assignment, later).await;
    let refused = limited.finished().await.unwrap();
    let refused = refused.error("a");
    expect(
        refused,
        ErrorCode::RateLimited,
        TRY_AGAIN,
        &["the provider wants a rest"],
    );
    assert_eq!(time(refused.retry_after), seconds(5));

    let other = broker.agent().await;
    other.call("b", "search", "{}").await;
    other.seal().await;
    worker.expect_no_assignment_within(millis(4_990)).await;
    let assignment = worker.assignment().await;
    worker.answer(&assignment, "done").await;
    let batch = other.finished().await.unwrap();
    assert_eq!(batch.text("b"), "done");
    assert_eq!(batch.ledger("b").limited_by(), Limit::Pause);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_no_longer_than_the_operator_permits() {
    let broker = Broker::start_with(|config| config.max_pause = seconds(1));
    let mut worker = broker.worker("w", 9, [read_only("search")]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    let later = v1::CallError {
        retry_after: Some(wire(seconds(100_000))),
        ..error(ErrorCode::RateLimited, "never again")
    };
    let assignment = worker.assignment().await;
    worker.fail(&assignment, later).await;
    settle().await;
    let paused = Instant::now();
    agent.call("b", "search", "{}").await;
    worker.assignment().await;
    assert!(paused.elapsed() <= millis(1_001), "{:?}", paused.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_tools_own_failure_reaches_the_model_in_the_tools_words() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("search")]).await;
    let agent = broker.agent().await;
    for id in ["plain", "told", "foreign"] {
        agent.call(id, "search", "{}").await;
    }
    agent.seal().await;
    let told = v1::CallError {
        effect: Effect::Done.into(),
        retryable: true,
        ..error(ErrorCode::ToolFailed, "the index is locked")
    };
    let answers = [
        error(ErrorCode::ToolFailed, "no such page"),
        told,
        // Only the broker may say this.
        error(ErrorCode::OutcomeUnknown, "who knows"),
    ];
    let assignments = worker.assignments(3).await;
    for (assignment, answer) in assignments.iter().zip(answers) {
        worker.fail(assignment, answer).await;
    }
    let batch = agent.finished().await.unwrap();
    let maybe = (false, Effect::Maybe);
    expect(
        batch.error("plain"),
        ErrorCode::ToolFailed,
        maybe,
        &["no such page"],
    );
    let done = (true, Effect::Done);
    expect(
        batch.error("told"),
        ErrorCode::ToolFailed,
        done,
        &["the index is locked"],
    );
    expect(
        batch.error("foreign"),
        ErrorCode::ToolFailed,
        maybe,
        &["who knows"],
    );
}

#[tokio::test(start_paused = true)]
async fn a_tool_may_find_arguments_invalid_that_its_schema_permits() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.seal().await;
    let violation = v1::Violation {
        path: "/until".to_owned(),
        message: "lies before /from".to_owned(),
    };
    let answer = v1::CallError {
        effect: Effect::NotStarted.into(),
        violations: vec![violation.clone()],
        ..error(ErrorCode::InvalidArguments, "/until lies before /from")
    };
    let assignment = worker.assignment().await;
    worker.fail(&assignment, answer).await;
    let batch = agent.finished().await.unwrap();
    expect(
        batch.error("a"),
        ErrorCode::InvalidArguments,
        NOT_STARTED,
        &["/until"],
    );
    assert_eq!(batch.error("a").violations, [violation]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_tool_is_permission_denied() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    let answer = v1::CallError {
        effect: Effect::NotStarted.into(),
        ..error(ErrorCode::PermissionDenied, "not to this address")
    };
    worker.fail(&assignment, answer).await;
    let batch = agent.finished().await.unwrap();
    let words = ["not to this address"];
    expect(
        batch.error("a"),
        ErrorCode::PermissionDenied,
        NOT_STARTED,
        &words,
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_harmless_to_repeat_is_lost_when_its_last_attempt_is() {
    let broker = Broker::start();
    let agent = broker.agent().await;
    for (worker, attempt) in [("w1", 1), ("w2", 2)] {
        let mut worker = broker
            .worker(worker, 1, [tool("search", attempts(2))])
            .await;
        if attempt == 1 {
            agent.call("a", "search", "{}").await;
            agent.seal().await;
        }
        assert_eq!(worker.assignment().await.attempt, attempt);
        worker.cut();
    }
    let batch = agent.finished().await.unwrap();
    let words = ["worker w2", "search", "attempt 2", "harmless"];
    expect(
        batch.error("a"),
        ErrorCode::WorkerLost,
        (true, Effect::Maybe),
        &words,
    );
    assert_eq!(batch.ledger("a").attempts, 2);
    assert_eq!(batch.ledger("a").worker_id(), "w2");
}

#[tokio::test(start_paused = true)]
async fn a_side_effecting_call_whose_worker_is_lost_may_have_happened_and_is_not_repeated() {
    let broker = Broker::start();
    let mut lost = broker.worker("w1", 1, [side_effecting("send")]).await;
    let agent = broker.agent().await;
    agent.call("a", "send", "{}").await;
    agent.seal().await;
    lost.assignment().await;
    let mut other = broker.worker("w2", 1, [side_effecting("send")]).await;
    lost.cut();
    let batch = agent.finished().await.unwrap();
    let words = ["worker w1", "send", "may or may not have taken effect"];
    expect(
        batch.error("a"),
        ErrorCode::OutcomeUnknown,
        (false, Effect::Maybe),
        &words,
    );
    other.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_over_the_limit_is_refused_and_the_batch_goes_on() {
    let broker = Broker::start_with(|config| config.max_result_bytes = 1024);
    let mut worker = broker.worker("w", 2, [tool("search", attempts(3))]).await;
    assert_eq!(worker.registered.max_result_bytes, 1024);
    let agent = broker.agent().await;
    agent.call("large", "search", "{}").await;
    agent.call("small", "search", "{}").await;
    agent.seal().await;
    let assignments = worker.assignments(2).await;
    worker.answer(&assignments[0], &"a".repeat(2_000)).await;
    worker.answer(&assignments[1], &"a".repeat(1_000)).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["small"]);
    let words = ["search", "20", "1024 bytes", "max_result_bytes"];
    let done = (false, Effect::Done);
    expect(
        batch.error("large"),
        ErrorCode::ResultTooLarge,
        done,
        &words,
    );
    assert_eq!(batch.ledger("large").attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn the_results_of_a_batch_together_have_a_limit() {
    let broker = Broker::start_with(|config| {
        config.max_arguments_bytes = 1024;
        config.max_result_bytes = 1024;
        config.max_batch_bytes = 1024;
    });
    let mut worker = broker.worker("w", 9, [read_only("search")]).await;
    let agent = broker.agent().await;
    for id in ["a", "b", "c"] {
        agent.call(id, "search", "{}").await;
    }
    agent.seal().await;
    for assignment in worker.assignments(3).await {
        worker.answer(&assignment, &"a".repeat(400)).await;
    }
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b"]);
    let words = [
        "search",
        "1024 bytes",
        "max_batch_bytes",
        "all calls together",
    ];
    let done = (false, Effect::Done);
    expect(batch.error("c"), ErrorCode::ResultTooLarge, done, &words);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_goes_down_calls_off_what_did_not_end_in_its_grace_time() {
    let broker = Broker::start_with(|config| config.drain_grace = seconds(3));
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    let agent = broker.agent().await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.start(0, "streams", "search").await;
    worker.assignment().await;
    let asked = Instant::now();
    broker.shutdown.drain.cancel();
    let batch = agent.finished().await.unwrap();
    assert_eq!(asked.elapsed(), seconds(3));
    let down = "the broker is going down";
    let maybe = (true, Effect::Maybe);
    expect(
        batch.error("runs"),
        ErrorCode::Cancelled,
        maybe,
        &["search", down],
    );
    expect(
        batch.error("waits"),
        ErrorCode::Cancelled,
        TRY_AGAIN,
        &["search", down],
    );
    expect(
        batch.error("streams"),
        ErrorCode::Cancelled,
        TRY_AGAIN,
        &["search", down],
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_aborts_the_batch_where_the_tools_policy_says_so() {
    let broker = Broker::start();
    let vital = Policy {
        on_failure: Some(FailureAction::AbortBatch.into()),
        ..once()
    };
    let tools = [
        tool("vital", vital),
        read_only("search"),
        side_effecting("send"),
    ];
    let mut worker = broker.worker("w", 9, tools).await;
    let two_at_a_time = v1::Open {
        max_parallel: Some(2),
        ..Default::default()
    };
    let agent = broker.agent_with(two_at_a_time).await;
    agent.call("fails", "vital", "{}").await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.call("held", "send", "{}").await;
    let assignments = worker.assignments(2).await;
    worker
        .fail(&assignments[0], error(ErrorCode::ToolFailed, "no"))
        .await;
    assert_eq!(worker.cancel().await, assignments[1].lease_id);
    agent.call("late", "search", "{}").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    let failed = (false, Effect::Maybe);
    expect(batch.error("fails"), ErrorCode::ToolFailed, failed, &["no"]);
    expect(
        batch.error("runs"),
        ErrorCode::Aborted,
        failed,
        &["search", "failed"],
    );
    for (id, tool) in [("waits", "search"), ("held", "send"), ("late", "search")] {
        let words = [tool, "failed", "not run"];
        expect(batch.error(id), ErrorCode::Aborted, NOT_STARTED, &words);
    }
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_its_agent_gives_up_is_called_off() {
    let broker = Broker::start();
    let tools = [read_only("search"), side_effecting("send")];
    let mut worker = broker.worker("w", 1, tools).await;
    let agent = broker.agent().await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.call("held", "send", "{}").await;
    agent.start(0, "open", "search").await;
    let assignment = worker.assignment().await;
    agent.seal_as(TurnEnd::Aborted).await;
    let batch = agent.finished().await.unwrap();
    let words = ["gave the turn up"];
    let maybe = (false, Effect::Maybe);
    expect(batch.error("runs"), ErrorCode::Aborted, maybe, &words);
    for id in ["waits", "held"] {
        expect(batch.error(id), ErrorCode::Aborted, NOT_STARTED, &words);
    }
    expect(
        batch.error("open"),
        ErrorCode::Incomplete,
        TRY_AGAIN,
        &["search"],
    );
    assert_eq!(worker.cancel().await, assignment.lease_id);
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_and_the_abort_of_its_turn_in_one_packet_start_nothing() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    let agent = broker.agent().await;
    agent
        .send_all([call("a", "search", "{}"), seal(TurnEnd::Aborted)])
        .await;
    let batch = agent.finished().await.unwrap();
    expect(
        batch.error("a"),
        ErrorCode::Aborted,
        NOT_STARTED,
        &["gave the turn up"],
    );
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_block_that_never_stopped_is_incomplete_however_the_turn_ends() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    for end in [TurnEnd::Complete, TurnEnd::Truncated, TurnEnd::Aborted] {
        let agent = broker.agent().await;
        agent
            .send_all([
                start(0, "a", "search"),
                support::agent::delta(0, "{}"),
                seal(end),
            ])
            .await;
        let batch = agent.finished().await.unwrap();
        let words = ["search", "never complete", "the turn ended"];
        expect(batch.error("a"), ErrorCode::Incomplete, TRY_AGAIN, &words);
        assert_eq!(batch.ledger("a").block_complete, None);
    }
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_cut_short_runs_no_side_effects() {
    let broker = Broker::start();
    let tools = [read_only("search"), side_effecting("send")];
    let mut worker = broker.worker("w", 9, tools).await;
    let agent = broker.agent().await;
    agent.call("read", "search", "{}").await;
    agent.call("write", "send", "{}").await;
    agent.seal_as(TurnEnd::Truncated).await;
    let assignment = worker.assignment().await;
    worker.answer(&assignment, "done").await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["read"]);
    let words = ["send", "cut short"];
    expect(
        batch.error("write"),
        ErrorCode::TruncatedTurn,
        TRY_AGAIN,
        &words,
    );
    worker.expect_no_assignment().await;
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
async fn a_wait_for_a_slot_that_is_too_long_is_a_queue_timeout() {
    let broker = Broker::start();
    let impatient = Policy {
        queue_timeout: Some(wire(seconds(2))),
        ..once()
    };
    let mut worker = broker.worker("w", 1, [tool("search", impatient)]).await;
    let agent = broker.agent().await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    sleep(seconds(3)).await;
    worker.answer(&assignment, "done").await;
    let batch = agent.finished().await.unwrap();
    let waits = batch.error("waits");
    let words = ["search", "waited 2.0s", "a free worker slot"];
    expect(waits, ErrorCode::Timeout, TRY_AGAIN, &words);
    assert_eq!(waits.timeout(), TimeoutScope::Queue);
    assert_eq!(time(batch.ledger("waits").slot_wait), seconds(2));
    assert_eq!(batch.text("runs"), "done");
}

#[tokio::test(start_paused = true)]
async fn a_queue_timeout_names_what_was_waited_for() {
    let broker = Broker::start();
    let impatient = |policy: Policy| Policy {
        queue_timeout: Some(wire(seconds(2))),
        ..policy
    };
    let alone = impatient(Policy {
        max_in_flight: Some(1),
        ..once()
    });
    let tools = [tool("alone", alone), tool("paused", impatient(once()))];
    let mut worker = broker.worker("w", 9, tools).await;
    let first = broker.agent().await;
    first.call("1", "alone", "{}").await;
    first.call("2", "paused", "{}").await;
    let assignments = worker.assignments(2).await;
    let later = v1::CallError {
        retry_after: Some(wire(seconds(30))),
        ..error(ErrorCode::RateLimited, "later")
    };
    worker.fail(&assignments[1], later).await;
    settle().await;
    let agent = broker.agent().await;
    agent.call("a", "alone", "{}").await;
    agent.call("p", "paused", "{}").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    let words = ["2.0s", "one of the tool's calls in flight"];
    expect(batch.error("a"), ErrorCode::Timeout, TRY_AGAIN, &words);
    assert_eq!(batch.error("a").timeout(), TimeoutScope::Queue);
    assert_eq!(batch.ledger("a").limited_by(), Limit::InFlight);
    assert_eq!(time(batch.ledger("a").limit_wait), seconds(2));
    // The pause is longer than the call may wait, so it need not wait to find out.
    expect(
        batch.error("p"),
        ErrorCode::RateLimited,
        TRY_AGAIN,
        &["30.0s"],
    );
    assert_eq!(time(batch.ledger("p").ended), seconds(0));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_cancelled_and_the_last_one_is_the_result() {
    let broker = Broker::start();
    let policy = Policy {
        attempt_timeout: Some(wire(seconds(2))),
        retry_backoff: Some(wire(seconds(1))),
        ..attempts(2)
    };
    let mut worker = broker.worker("w", 2, [tool("search", policy)]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.seal().await;
    for attempt in [1, 2] {
        let assignment = worker.assignment().await;
        assert_eq!(
            (assignment.attempt, time(assignment.timeout)),
            (attempt, seconds(2))
        );
        assert_eq!(worker.cancel().await, assignment.lease_id);
    }
    let batch = agent.finished().await.unwrap();
    let words = ["search", "2.0s", "one attempt"];
    let maybe = (true, Effect::Maybe);
    expect(batch.error("a"), ErrorCode::Timeout, maybe, &words);
    assert_eq!(batch.error("a").timeout(), TimeoutScope::Attempt);
    assert_eq!(time(batch.ledger("a").ran), seconds(2));
    assert_eq!(batch.ledger("a").attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_a_call_timeout() {
    let broker = Broker::start_with(|config| config.call_timeout = seconds(7));
    let mut worker = broker.worker("w", 2, [tool("search", attempts(3))]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    assert_eq!(time(assignment.timeout), seconds(7));
    assert_eq!(worker.cancel().await, assignment.lease_id);
    let batch = agent.finished().await.unwrap();
    let words = ["search", "7.0s", "a call may take with all its attempts"];
    let maybe = (true, Effect::Maybe);
    expect(batch.error("a"), ErrorCode::Timeout, maybe, &words);
    assert_eq!(batch.error("a").timeout(), TimeoutScope::Call);
    assert_eq!(time(batch.ledger("a").ended), seconds(7));
}

#[tokio::test(start_paused = true)]
async fn when_the_batchs_time_is_over_every_call_gets_its_result() {
    let broker = Broker::start();
    let tools = [read_only("search"), side_effecting("send")];
    let mut worker = broker.worker("w", 1, tools).await;
    let agent = broker
        .agent_with(v1::Open {
            deadline: Some(wire(seconds(5))),
            ..Default::default()
        })
        .await;
    agent.call("runs", "search", "{}").await;
    agent.call("waits", "search", "{}").await;
    agent.call("held", "send", "{}").await;
    agent.start(0, "streams", "search").await;
    let assignment = worker.assignment().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.elapsed(), seconds(5));
    let words = ["5.0s", "whole batch"];
    let maybe = (true, Effect::Maybe);
    expect(batch.error("runs"), ErrorCode::Timeout, maybe, &words);
    for id in ["waits", "held"] {
        expect(batch.error(id), ErrorCode::Timeout, TRY_AGAIN, &words);
        assert_eq!(batch.error(id).timeout(), TimeoutScope::Batch);
    }
    let words = ["search", "the time of its batch was over"];
    expect(
        batch.error("streams"),
        ErrorCode::Incomplete,
        TRY_AGAIN,
        &words,
    );
    assert_eq!(worker.cancel().await, assignment.lease_id);
    worker.expect_no_assignment().await;
}

#[tokio::test(start_paused = true)]
async fn an_output_of_nothing_is_a_success() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 1, [read_only("search")]).await;
    let agent = broker.agent().await;
    agent.call("a", "search", "{}").await;
    agent.seal().await;
    let assignment = worker.assignment().await;
    let nothing = v1::Outcome {
        lease_id: assignment.lease_id,
        ending: Some(v1::outcome::Ending::Output(v1::Output::default())),
    };
    worker.send(v1::worker_frame::Frame::Outcome(nothing)).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a"]);
}
