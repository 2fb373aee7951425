//! What a tool and the loss of its worker may make of a call.

use toolpool_proto::v1::{self, Effect, ErrorCode};

use super::NOT_STARTED;
use crate::support::Broker;
use crate::support::batch::expect;
use crate::support::worker::{attempts, error, read_only, side_effecting, tool};

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
