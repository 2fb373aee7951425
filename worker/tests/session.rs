//! A worker and a broker over a connection in memory, on a paused clock.

// Helpers of tests are tests to clippy only if it is said so.
#[cfg(test)]
mod support;

use std::{io, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use support::{Broker, Connection, Running, error, json};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tonic::Status;
use toolpool_proto::v1::{self as proto, ErrorCode, pool_frame, worker_frame::Frame};
use toolpool_worker::{Context, Effects, Error, Output, Shutdown, Tool, ToolError, Worker};

#[derive(Deserialize, JsonSchema)]
struct Add {
    a: i64,
    b: i64,
}

fn add() -> Tool {
    Tool::typed(
        "add",
        "Adds.",
        |args: Add, _| async move { Ok(args.a + args.b) },
    )
    .effects(Effects::ReadOnly)
}

fn raw<H, F>(name: &str, handler: H) -> Tool
where
    H: Fn(Context) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Output, ToolError>> + Send + 'static,
{
    Tool::raw(name, "", json!({"type": "object"}), move |_, context| {
        handler(context)
    })
}

/// A tool that ends when the test lets it, and its latch.
fn latched() -> (Tool, Arc<Notify>) {
    let latch = Arc::new(Notify::new());
    let inner = Arc::clone(&latch);
    let tool = raw("latched", move |_| {
        let latch = Arc::clone(&inner);
        async move {
            latch.notified().await;
            Ok(Output::json(json!("done")))
        }
    });
    (tool, latch)
}

fn stuck() -> Tool {
    raw("stuck", |_| std::future::pending())
}

fn run(broker: &Broker, tools: impl IntoIterator<Item = Tool>) -> Running {
    Running::start(
        broker,
        Worker::builder("http://broker")
            .id("w")
            .slots(4)
            .tools(tools),
    )
}

#[track_caller]
fn assert_half_closed(frame: &Result<Option<Frame>, Status>) {
    assert!(matches!(frame, Ok(None)), "{frame:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_registers_what_it_serves_and_answers() {
    let mut broker = Broker::start();
    let builder = Worker::builder("http://broker")
        .id("w")
        .slots(3)
        .label("zone", "a")
        .version("1.2")
        .tool(add());
    let _worker = Running::start(&broker, builder);
    let mut connection = broker.accept().await;
    let register = &connection.register;
    assert_eq!((register.worker_id.as_str(), register.slots), ("w", 3));
    assert_eq!(
        (register.labels["zone"].as_str(), register.version.as_str()),
        ("a", "1.2")
    );
    assert_eq!(register.tools[0].name, "add");
    assert_eq!(
        register.tools[0].policy.unwrap().effects(),
        proto::Effects::ReadOnly
    );
    assert!(register.running_leases.is_empty() && !register.instance_id.is_empty());

    connection.assign(7, "add", r#"{"a": 1, "b": 2}"#).await;
    let outcome = connection.outcome().await;
    assert_eq!((outcome.lease_id, json(&outcome)), (7, json!(3)));
}

#[tokio::test(start_paused = true)]
async fn a_handler_knows_its_call() {
    let mut broker = Broker::start();
    let tool = raw("know", |context| async move {
        let left = context.deadline() - Instant::now();
        Ok(Output::json(json!([
            context.tool(),
            context.batch_id(),
            context.call_id(),
            context.idempotency_key(),
            context.attempt(),
            context.lease(),
            left.as_secs(),
        ])))
    });
    let _worker = run(&broker, [tool]);
    let mut connection = broker.accept().await;
    connection.assign(7, "know", "{}").await;
    let known = json!(["know", "batch", "call-7", "batch/call-7", 1, 7, 60]);
    assert_eq!(json(&connection.outcome().await), known);
}

#[tokio::test(start_paused = true)]
async fn arguments_that_do_not_fit_are_told_with_their_place() {
    let mut broker = Broker::start();
    let _worker = run(&broker, [add()]);
    let mut connection = broker.accept().await;
    connection.assign(1, "add", r#"{"a": 1, "b": "two"}"#).await;
    let outcome = connection.outcome().await;
    assert_eq!(error(&outcome).code(), ErrorCode::InvalidArguments);
    assert_eq!(error(&outcome).violations[0].path, "/b");
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_its_own_call_only() {
    let mut broker = Broker::start();
    let early = raw("early", |_| -> std::future::Ready<_> {
        panic!("before the future")
    });
    let late = raw("late", |_| async { panic!("number {}", 13) });
    let _worker = run(&broker, [early, late, add()]);
    let mut connection = broker.accept().await;
    for (lease, tool, message) in [(1, "early", "before the future"), (2, "late", "number 13")] {
        connection.assign(lease, tool, "{}").await;
        let outcome = connection.outcome().await;
        assert_eq!(error(&outcome).code(), ErrorCode::ToolFailed);
        assert!(error(&outcome).message.contains(message), "{outcome:?}");
    }
    connection.assign(3, "add", r#"{"a": 1, "b": 1}"#).await;
    assert_eq!(json(&connection.outcome().await), json!(2));
}

#[tokio::test(start_paused = true)]
async fn an_oversize_output_is_told_with_size_and_limit() {
    let mut broker = Broker::start();
    let _worker = run(
        &broker,
        [raw("big", |_| async { Ok(Output::text("a".repeat(2000))) })],
    );
    let mut connection = broker.joining().await.accept(1000).await;
    connection.assign(1, "big", "{}").await;
    let outcome = connection.outcome().await;
    assert_eq!(error(&outcome).code(), ErrorCode::ResultTooLarge);
    assert!(error(&outcome).message.contains("1000"));
}

#[tokio::test(start_paused = true)]
async fn progress_comes_before_the_outcome() {
    let mut broker = Broker::start();
    let tool = raw("walk", |context| async move {
        context.progress("half way", 0.5);
        Ok(Output::empty())
    });
    let _worker = run(&broker, [tool]);
    let mut connection = broker.accept().await;
    connection.assign(1, "walk", "{}").await;
    let Some(Frame::Progress(progress)) = connection.news().await.unwrap() else {
        panic!("no progress")
    };
    let progress = progress.progress.unwrap();
    assert_eq!(
        (progress.message.as_str(), progress.fraction),
        ("half way", Some(0.5))
    );
    assert!(matches!(
        connection.news().await,
        Ok(Some(Frame::Outcome(_)))
    ));
}

#[tokio::test(start_paused = true)]
async fn after_a_reconnect_leases_are_named_and_outcomes_come_again() {
    let mut broker = Broker::start();
    let (tool, latch) = latched();
    let _worker = run(&broker, [add(), tool, stuck()]);
    let mut connection = broker.accept().await;
    let instance = connection.register.instance_id.clone();
    for lease in [1, 2] {
        connection.assign(lease, "add", r#"{"a": 1, "b": 1}"#).await;
        connection.outcome().await;
    }
    connection.acknowledge(1).await;
    connection.assign(3, "latched", "{}").await;
    connection.assign(4, "stuck", "{}").await;
    connection.break_off().await;

    let joining = broker.joining().await;
    // While the worker has no stream, its tools run on.
    latch.notify_one();
    let mut connection = joining.accept(1000).await;
    assert_eq!(connection.register.instance_id, instance);
    let mut leases = connection.register.running_leases.clone();
    leases.sort_unstable();
    assert_eq!(leases, [2, 3, 4]);
    assert_eq!(connection.outcome().await.lease_id, 2);
    assert_eq!(connection.outcome().await.lease_id, 3);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_ignores_the_cancel_is_dropped_after_the_grace() {
    let mut broker = Broker::start();
    let _worker = run(&broker, [stuck()]);
    let mut connection = broker.accept().await;
    connection.assign(1, "stuck", "{}").await;
    connection.cancel(1).await;
    let start = Instant::now();
    assert_eq!(
        error(&connection.outcome().await).code(),
        ErrorCode::Cancelled
    );
    assert!(start.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_hears_the_cancel_may_clean_up() {
    let mut broker = Broker::start();
    let (cleaned, mut was_cleaned) = mpsc::channel(1);
    let tool = raw("tidy", move |context| {
        let cleaned = cleaned.clone();
        async move {
            context.cancelled().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            cleaned.send(()).await?;
            Ok(Output::empty())
        }
    });
    let _worker = run(&broker, [tool]);
    let mut connection = broker.accept().await;
    connection.assign(1, "tidy", "{}").await;
    connection.cancel(1).await;
    assert_eq!(
        error(&connection.outcome().await).code(),
        ErrorCode::Cancelled
    );
    assert_eq!(was_cleaned.try_recv(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn of_a_revoked_lease_nothing_more_is_heard() {
    let mut broker = Broker::start();
    let (tool, latch) = latched();
    let _worker = run(&broker, [tool, add()]);
    let mut connection = broker.accept().await;
    connection.assign(1, "latched", "{}").await;
    connection.revoke(1).await;
    connection.assign(2, "add", r#"{"a": 1, "b": 1}"#).await;
    assert_eq!(connection.outcome().await.lease_id, 2);
    latch.notify_one();
    connection.assign(3, "add", r#"{"a": 1, "b": 1}"#).await;
    assert_eq!(connection.outcome().await.lease_id, 3);
}

#[tokio::test(start_paused = true)]
async fn many_outcomes_that_are_ready_share_a_packet_and_none_is_lost() {
    let mut broker = Broker::start();
    let _worker = Running::start(
        &broker,
        Worker::builder("http://broker").slots(500).tool(add()),
    );
    let mut connection = broker.accept().await;
    let assign = |lease| support::assignment(lease, "add", r#"{"a": 1, "b": 1}"#);
    connection.send_all((0..500).map(assign)).await;
    let mut leases = Vec::new();
    for _ in 0..500 {
        leases.push(connection.outcome().await.lease_id);
    }
    leases.sort_unstable();
    assert_eq!(leases, (0..500).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_are_sent_at_the_interval() {
    let mut broker = Broker::start();
    let _worker = run(&broker, [add()]);
    let mut connection = broker.accept().await;
    let start = Instant::now();
    for beat in 1..=3 {
        assert!(matches!(connection.frame().await, Ok(Some(Frame::Beat(_)))));
        let since = start.elapsed();
        let expected = Duration::from_secs(5 * beat);
        assert!(
            since >= expected && since < expected + Duration::from_secs(1),
            "{since:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_broker_is_given_up_without_a_half_close() {
    let mut broker = Broker::start();
    let _worker = run(&broker, [stuck()]);
    let mut connection = broker.accept().await;
    connection.assign(1, "stuck", "{}").await;
    let start = Instant::now();
    let ended = loop {
        match connection.news().await {
            Ok(Some(_)) => {}
            ended => break ended,
        }
    };
    assert!(ended.is_err(), "{ended:?}");
    assert!(
        start.elapsed() >= Duration::from_secs(19),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(broker.accept().await.register.running_leases, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_waits_for_a_broker_that_is_not_there_yet() {
    let mut broker = Broker::start();
    let connect = broker.connector();
    let tries = std::sync::atomic::AtomicU32::new(0);
    let connect = move || -> support::Connecting {
        if tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 20 {
            return Box::pin(async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) });
        }
        connect()
    };
    let worker = Worker::builder("http://broker")
        .tool(add())
        .build()
        .unwrap();
    let _worker = tokio::spawn(worker.run_over(connect, Shutdown::new()));
    let joining = tokio::time::timeout(Duration::from_mins(10), broker.joining.recv()).await;
    joining.unwrap().unwrap().accept(1000).await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_registration_is_the_end() {
    let mut broker = Broker::start();
    let worker = run(&broker, [add()]);
    broker
        .joining()
        .await
        .refuse(Status::invalid_argument("tool \"add\": bad schema"));
    match worker.ended().await {
        Err(Error::Refused { message }) => assert_eq!(message, "tool \"add\": bad schema"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_id_that_is_taken_is_tried_again() {
    let mut broker = Broker::start();
    let _worker = run(&broker, [add()]);
    for status in [
        Status::already_exists("w"),
        Status::unavailable("draining"),
        Status::resource_exhausted("full"),
    ] {
        broker.joining().await.refuse(status);
    }
    broker.accept().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_answers_is_dialled_again() {
    let mut broker = Broker::start();
    let _worker = run(&broker, [add()]);
    let _never_answered = broker.joining().await;
    broker.accept().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_runs_and_for_its_acknowledgement() {
    // Its own process wants it, or the broker's operator.
    for from_operator in [false, true] {
        let mut broker = Broker::start();
        let (tool, latch) = latched();
        let worker = run(&broker, [tool]);
        let mut connection = broker.accept().await;
        connection.assign(1, "latched", "{}").await;
        let leave = || pool_frame::Frame::Drain(proto::Drain { leave: true });
        if from_operator {
            connection.send(leave()).await;
        } else {
            worker.shutdown.drain.cancel();
        }
        assert!(matches!(connection.news().await, Ok(Some(Frame::Drain(_)))));
        // Said again, it changes nothing.
        connection.send(leave()).await;
        connection.acknowledge_drain().await;
        latch.notify_one();
        assert_eq!(connection.outcome().await.lease_id, 1);
        // Without the acknowledgement the worker stays: it goes on giving signs of life.
        assert!(matches!(connection.frame().await, Ok(Some(Frame::Beat(_)))));
        assert!(!worker.task.is_finished());
        connection.acknowledge(1).await;
        assert_half_closed(&connection.news().await);
        drop(connection);
        worker.ended().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_crosses_the_drain_is_run() {
    let mut broker = Broker::start();
    let worker = run(&broker, [add()]);
    let mut connection = broker.accept().await;
    worker.shutdown.drain.cancel();
    assert!(matches!(connection.news().await, Ok(Some(Frame::Drain(_)))));
    connection.assign(1, "add", r#"{"a": 1, "b": 1}"#).await;
    connection.acknowledge_drain().await;
    assert_eq!(connection.outcome().await.lease_id, 1);
    connection.acknowledge(1).await;
    assert_half_closed(&connection.news().await);
    drop(connection);
    worker.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_drains_by_itself() {
    let mut broker = Broker::start();
    let worker = run(&broker, [add()]);
    let mut connection = broker.accept().await;
    worker.shutdown.drain.cancel();
    assert!(matches!(connection.news().await, Ok(Some(Frame::Drain(_)))));
    connection.acknowledge_drain().await;
    assert_half_closed(&connection.news().await);
    drop(connection);
    worker.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_a_broker_drains_at_once() {
    let worker = Worker::builder("http://broker")
        .tool(add())
        .build()
        .unwrap();
    let unreachable = || std::future::pending::<io::Result<tokio::io::DuplexStream>>();
    let shutdown = Shutdown::new();
    shutdown.drain.cancel();
    worker.run_over(unreachable, shutdown).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_outlasts_a_reconnect() {
    let mut broker = Broker::start();
    let (tool, latch) = latched();
    let worker = run(&broker, [tool]);
    let mut connection = broker.accept().await;
    connection.assign(1, "latched", "{}").await;
    worker.shutdown.drain.cancel();
    assert!(matches!(connection.news().await, Ok(Some(Frame::Drain(_)))));
    connection.break_off().await;
    let mut connection = broker.accept().await;
    assert_eq!(connection.register.running_leases, [1]);
    assert!(matches!(connection.news().await, Ok(Some(Frame::Drain(_)))));
    connection.acknowledge_drain().await;
    latch.notify_one();
    assert_eq!(connection.outcome().await.lease_id, 1);
    connection.acknowledge(1).await;
    assert_half_closed(&connection.news().await);
    drop(connection);
    worker.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_drain_grace_is_cancelled_and_told() {
    let mut broker = Broker::start();
    let builder = Worker::builder("http://broker")
        .drain_grace(Duration::from_secs(10))
        .tool(stuck());
    let worker = Running::start(&broker, builder);
    let mut connection = broker.accept().await;
    connection.assign(1, "stuck", "{}").await;
    worker.shutdown.drain.cancel();
    let start = Instant::now();
    assert_eq!(
        error(&connection.outcome().await).code(),
        ErrorCode::Cancelled
    );
    assert!(start.elapsed() >= Duration::from_secs(15));
    connection.acknowledge(1).await;
    assert_half_closed(&connection.news().await);
    drop(connection);
    worker.ended().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_now_drops_what_runs_and_half_closes() {
    struct Dropped(mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.try_send(());
        }
    }
    let (dropped, mut was_dropped) = mpsc::channel(1);
    let tool = raw("stuck", move |_| {
        let dropped = Dropped(dropped.clone());
        async move {
            let _dropped = dropped;
            std::future::pending().await
        }
    });
    let mut broker = Broker::start();
    let worker = run(&broker, [tool, add()]);
    let mut connection = broker.accept().await;
    connection.assign(1, "stuck", "{}").await;
    connection.assign(2, "add", r#"{"a": 1, "b": 1}"#).await;
    connection.outcome().await;
    worker.shutdown.now.cancel();
    assert_half_closed(&connection.news().await);
    drop(connection);
    worker.ended().await.unwrap();
    assert_eq!(was_dropped.try_recv(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_drains_is_served_on_and_dialled_again() {
    let mut broker = Broker::start();
    let _worker = run(&broker, [add()]);
    let mut connection = broker.accept().await;
    connection
        .send(pool_frame::Frame::Drain(proto::Drain { leave: false }))
        .await;
    connection.assign(1, "add", r#"{"a": 1, "b": 1}"#).await;
    assert_eq!(connection.outcome().await.lease_id, 1);
    drop::<Connection>(connection);
    assert_eq!(broker.accept().await.register.running_leases, [1]);
}

#[tokio::test(start_paused = true)]
async fn unknown_tools_and_too_many_assignments_are_answered() {
    let mut broker = Broker::start();
    let _worker = Running::start(
        &broker,
        Worker::builder("http://broker").slots(1).tool(stuck()),
    );
    let mut connection = broker.accept().await;
    connection.assign(1, "stuck", "{}").await;
    connection.assign(2, "stuck", "{}").await;
    connection.assign(3, "other", "{}").await;
    for lease in [2, 3] {
        let outcome = connection.outcome().await;
        assert_eq!(outcome.lease_id, lease);
        assert_eq!(error(&outcome).effect(), proto::Effect::NotStarted);
    }
}
