//! What a tool logs has the ids of its attempt. Alone in its file: a process has one log.

// Helpers of tests are tests to clippy only if it is said so.
#[cfg(test)]
mod support;

use std::{
    io::{self, BufRead, BufReader},
    sync::Arc,
};

use serde_json::{Value, json};
use support::{Broker, Running};
use toolpool_proto::v1::{Assignment, pool_frame};
use toolpool_worker::{Output, Tool, Worker};

#[tokio::test(start_paused = true)]
async fn what_a_tool_logs_has_the_ids_of_its_attempt() {
    let (written, log) = io::pipe().unwrap();
    tracing_subscriber::fmt()
        .json()
        .with_writer(Arc::new(log))
        .init();
    let tool = Tool::raw("says", "", json!({"type": "object"}), |_, _| async {
        tracing::info!("at work");
        Ok(Output::text("done"))
    });
    let mut broker = Broker::start();
    let worker = Worker::builder("http://broker").id("w").tool(tool);
    let _worker = Running::start(&broker, worker);
    let mut connection = broker.accept().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let assignment = Assignment {
        lease_id: 255,
        batch_id: "batch-1".to_owned(),
        call_id: "call-1".to_owned(),
        tool: "says".to_owned(),
        arguments: "{}".into(),
        attempt: 2,
        traceparent: Some(format!("00-{trace}-b7ad6b7169203331-01")),
        ..Default::default()
    };
    connection
        .send(pool_frame::Frame::Assignment(assignment))
        .await;
    connection.outcome().await;

    // It is written by now.
    let lines = BufReader::new(written).lines();
    let lines = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    let mut said = lines.filter(|line: &Value| line["fields"]["message"] == "at work");
    let expected = json!({
        "name": "attempt", "tool": "says", "attempt": 2, "lease.id": "00000000000000ff",
        "batch.id": "batch-1", "call.id": "call-1", "trace.id": trace,
    });
    assert_eq!(said.next().unwrap()["span"], expected);
}
