//! A user's own command as a tool, from the prompt and from an agent that goes away.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::fs;

use tempfile::TempDir;
use toolpool_client::BatchOptions;

use support::{Broker, Process, json, stderr};

/// A worker whose one tool leaves a line in a file, and has side effects.
async fn notary(broker: &Broker) -> (Process, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let tools = folder.path().join("tools.toml");
    let description = r#"
        slots = 2

        [[tool]]
        name = "note"
        description = "Writes a line."
        command = ["sh", "-c", "cat >> notes && echo >> notes && echo noted"]
        effects = "side_effecting"
    "#;
    fs::write(&tools, description).unwrap();
    let worker = broker.exec_worker("notary", &tools, &["--label", "kind=test"]);
    broker.wait_for_workers("note", 1).await;
    (worker, folder)
}

#[tokio::test]
async fn a_command_is_a_tool() {
    let broker = Broker::start(&[]);
    let (_worker, folder) = notary(&broker).await;
    let run = broker.run(&["call", "--json", "note", r#"{"line": 1}"#]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let output = &json(&run)["results"][0]["output"][0]["text"];
    assert_eq!(output.as_str().unwrap().trim(), "noted");
    let notes = fs::read_to_string(folder.path().join("notes")).unwrap();
    assert_eq!(notes, "{\"line\": 1}\n");
}

#[tokio::test]
async fn a_turn_that_is_dropped_has_no_side_effects() {
    let broker = Broker::start(&[]);
    let (_worker, folder) = notary(&broker).await;
    let client = broker.client();
    for _ in 0..20 {
        let mut batch = client.batch(BatchOptions::default()).await.unwrap();
        batch
            .call("a", "note", r#"{"line": "dropped"}"#)
            .await
            .unwrap();
        drop(batch);
    }
    // On the same connection, and so after them.
    let mut batch = client.batch(BatchOptions::default()).await.unwrap();
    batch
        .call("a", "note", r#"{"line": "kept"}"#)
        .await
        .unwrap();
    assert!(batch.finish().await.unwrap().all_succeeded());
    let notes = fs::read_to_string(folder.path().join("notes")).unwrap();
    assert_eq!(notes, "{\"line\": \"kept\"}\n");
}

#[test]
fn a_file_of_tools_that_is_wrong_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tools = folder.path().join("tools.toml");
    for wrong in ["", "[[tool]]\nname = \"x\"", "slots = 0", "["] {
        fs::write(&tools, wrong).unwrap();
        let mut command = support::toolpool();
        let run = command
            .args(["worker", "exec", "--tools"])
            .arg(&tools)
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(2), "{wrong:?}: {}", stderr(&run));
        assert!(
            stderr(&run).starts_with("error: "),
            "{wrong:?}: {}",
            stderr(&run)
        );
    }
}
