//! A worker on threads and a port of its own, on the real clock.

// Helpers of tests are tests to clippy only if it is said so.
#[cfg(test)]
mod support;

use std::{
    sync::{Mutex, mpsc},
    time::Duration,
};

use serde_json::json;
use support::{Broker, error, soon};
use toolpool_proto::v1::{ErrorCode, worker_frame::Frame};
use toolpool_worker::{Output, Shutdown, Tool, Worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_blocks_its_thread_keeps_its_slot_but_stops_no_beat() {
    let (mut broker, endpoint) = Broker::listen().await;
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let (started, mut has_started) = tokio::sync::mpsc::channel(1);
    let tool = Tool::raw("blocked", "", json!({"type": "object"}), move |_, _| {
        started.try_send(()).unwrap();
        released.lock().unwrap().recv().unwrap();
        async { Ok(Output::empty()) }
    });
    let worker = Worker::builder(endpoint)
        .slots(1)
        .cancel_grace(Duration::ZERO)
        .tool(tool)
        .build()
        .unwrap();
    let shutdown = Shutdown::new();
    // A runtime with one thread, which the handler blocks.
    let tools = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let running = tools.spawn(worker.run(shutdown.clone()));

    let mut connection = broker
        .joining()
        .await
        .accept_with_beats(Duration::from_millis(20))
        .await;
    connection.assign(1, "blocked", "{}").await;
    soon(has_started.recv()).await.unwrap();
    connection.cancel(1).await;
    for _ in 0..5 {
        let frame = connection.frame().await.unwrap().unwrap();
        assert!(
            matches!(frame, Frame::Beat(_) | Frame::Started(_)),
            "{frame:?}"
        );
    }
    release.send(()).unwrap();
    assert_eq!(
        error(&connection.outcome().await).code(),
        ErrorCode::Cancelled
    );
    connection.acknowledge(1).await;

    shutdown.drain.cancel();
    while let Some(frame) = connection.frame().await.unwrap() {
        if matches!(frame, Frame::Drain(_)) {
            connection.acknowledge_drain().await;
        }
    }
    drop(connection);
    soon(running).await.unwrap().unwrap();
    tools.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_run_ends_the_worker() {
    let (mut broker, endpoint) = Broker::listen().await;
    let (started, mut has_started) = tokio::sync::mpsc::channel(1);
    let stuck = Tool::raw("stuck", "", json!({}), move |_, _| {
        let started = started.clone();
        async move {
            started.send(()).await?;
            std::future::pending().await
        }
    });
    let worker = Worker::builder(endpoint).tool(stuck).build().unwrap();
    let running = tokio::spawn(worker.run(Shutdown::new()));
    let mut connection = broker.accept().await;
    connection.assign(1, "stuck", "{}").await;
    soon(has_started.recv()).await.unwrap();
    running.abort();
    while connection.frame().await.unwrap().is_some() {}
}
