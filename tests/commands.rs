//! The commands against a broker and a worker, each a process.

mod support;

use std::process::Stdio;

use rustix::process::Signal;
use toolpool_client::{BatchOptions, ProgressEvent};

use support::workshop::Workshop;
use support::{Broker, Process, json, shipped, stderr, stdout, toolpool};

/// A broker and a worker with the demo's tools.
async fn pool() -> (Broker, Process) {
    let broker = Broker::start(&[]);
    let worker = broker.demo_worker("w-1", &[]);
    broker.wait_for_workers("calculate", 1).await;
    (broker, worker)
}

#[tokio::test]
async fn tools_are_listed() {
    let (broker, _worker) = pool().await;
    let table = stdout(&broker.run(&["tools"]));
    assert!(table.starts_with("NAME "), "{table}");
    let order = table
        .lines()
        .find(|line| line.starts_with("place_order"))
        .unwrap();
    assert!(order.contains("side effecting"), "{order}");
    assert!(
        !table.contains('\x1b'),
        "no colours where there is no terminal"
    );

    let tools = json(&broker.run(&["tools", "--json"]));
    let hash = tools
        .as_array()
        .unwrap()
        .iter()
        .find(|tool| tool["name"] == "hash")
        .unwrap();
    assert_eq!(hash["workers"], 1);
    assert_eq!(hash["policy"]["effects"], "READ_ONLY");
    assert_eq!(hash["input_schema"]["type"], "object");
}

#[tokio::test]
async fn tools_are_printed_for_a_provider() {
    let broker = Broker::start(&[]);
    let workshop = Workshop::with(
        r#"
        [[tool]]
        name = "fs.read"
        description = "Reads a file."
        command = ["sh", "work"]
        input_schema = { type = "object", properties = { path = { type = "string" }, "@type" = { type = "string" } } }

        [[tool]]
        name = "look"
        command = ["sh", "work"]
        "#,
    );
    let _worker = broker.exec_worker("w-1", &workshop.tools(), &[]);
    broker.wait_for_workers("look", 1).await;

    let run = broker.run(&["tools", "--format", "anthropic"]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let tools = json(&run);
    let name = tools[0]["name"].as_str().unwrap();
    assert!(name.starts_with("fs_read_"), "{name}");
    let properties = serde_json::json!({"path": {"type": "string"}});
    assert_eq!(tools[0]["input_schema"]["properties"], properties);
    assert_eq!(tools[1]["name"], "look");
    let text = stdout(&run);
    assert!(
        text.starts_with("[\n  {\n    \"name\": \"fs_read_"),
        "{text}"
    );
    let notes = stderr(&run);
    assert_eq!(
        notes,
        format!(
            "fs.read: the model knows it as {name}\nfs.read: /properties/@type: left out, since its name is not permitted\n"
        )
    );

    let gemini = broker.run(&["tools", "--format", "gemini", "look", "nobody"]);
    assert_eq!(gemini.status.code(), Some(1), "one of them is not there");
    assert_eq!(stderr(&gemini), "no tool named `nobody` can be given\n");
    assert_eq!(json(&gemini)[0]["functionDeclarations"][0]["name"], "look");
    for format in ["openai", "responses", "bedrock", "cohere", "ollama"] {
        let run = broker.run(&["tools", "--format", format, "look"]);
        assert_eq!(run.status.code(), Some(0), "{format}: {}", stderr(&run));
        assert_eq!(json(&run).as_array().unwrap().len(), 1, "{format}");
    }
}

#[tokio::test]
async fn a_tool_that_cannot_be_given_is_missing_and_notes_obey_no_worker() {
    let broker = Broker::start(&[]);
    let taken = Workshop::with(
        r#"
        [[tool]]
        name = "fs_read_4f70ea29"
        command = ["sh", "work"]

        [[tool]]
        name = "look"
        command = ["sh", "work"]
        input_schema = { type = "object", properties = { "a\u001b[2J\nb" = { type = "string" } } }
        "#,
    );
    let _first = broker.exec_worker("w-1", &taken.tools(), &[]);
    broker.wait_for_workers("look", 1).await;
    // Models would know it by the name that is taken.
    let late = Workshop::with(
        r#"
        [[tool]]
        name = "fs.read"
        command = ["sh", "work"]
        "#,
    );
    let _second = broker.exec_worker("w-2", &late.tools(), &[]);
    broker.wait_for_workers("fs.read", 1).await;

    let run = broker.run(&["tools", "--format", "anthropic", "fs.read"]);
    assert_eq!(run.status.code(), Some(1), "{}", stdout(&run));
    let notes = stderr(&run);
    assert!(
        notes.contains("fs.read: name: the tool is left out"),
        "{notes}"
    );
    assert!(
        notes.ends_with("no tool named `fs.read` can be given\n"),
        "{notes}"
    );
    assert_eq!(json(&run), serde_json::json!([]));

    let run = broker.run(&["tools", "--format", "anthropic", "look"]);
    assert_eq!(
        stderr(&run),
        "look: /properties/a [2J b: left out, since its name is not permitted\n"
    );
}

#[tokio::test]
async fn tools_of_a_worker_that_was_just_started_are_waited_for() {
    // This broker itself waits for no worker.
    let broker = Broker::start(&["--no-worker-wait", "0ms"]);
    let early = [
        &["call", "--json", "calculate", r#"{"expression": "6 * 7"}"#][..],
        &["tools", "--json"],
        &["tools", "--format", "openai", "calculate"],
    ]
    .map(|arguments| {
        let mut command = broker.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    let _worker = broker.demo_worker("w-1", &[]);
    let [call, tools, named] = early.map(|command| command.wait_with_output().unwrap());
    assert_eq!(call.status.code(), Some(0), "{}", stdout(&call));
    assert_eq!(json(&call)["succeeded"], 1);
    assert_eq!(json(&tools).as_array().unwrap().len(), 11);
    assert_eq!(named.status.code(), Some(0), "{}", stderr(&named));
    assert_eq!(json(&named)[0]["function"]["name"], "calculate");
}

#[test]
fn a_pool_without_tools_says_so() {
    let broker = Broker::start(&[]);
    let (people, machine) = (broker.run(&["tools"]), broker.run(&["tools", "--json"]));
    assert!(
        stdout(&people).starts_with("no tools yet"),
        "{}",
        stdout(&people)
    );
    assert_eq!(stdout(&machine), "[]\n");
}

#[tokio::test]
async fn calls_run_as_one_batch() {
    let (broker, _worker) = pool().await;
    let run = broker.run(&[
        "call",
        "--json",
        "calculate",
        r#"{"expression": "6 * 7"}"#,
        "look_up_product",
        r#"{"product": "p-101"}"#,
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let batch = json(&run);
    assert_eq!(batch["succeeded"], 2);
    assert_eq!(batch["results"][0]["id"], "call_1");
    assert_eq!(batch["results"][1]["output"][0]["json"]["supplier"], "s-2");
    assert_eq!(batch["results"][1]["ledger"]["worker_id"], "w-1");
}

#[tokio::test]
async fn a_failing_call_shows_in_the_exit_code_and_costs_its_siblings_nothing() {
    // For that long after its start a broker takes an unknown tool for one whose workers are still to come.
    let broker = Broker::start(&["--no-worker-wait", "0ms"]);
    let _worker = broker.demo_worker("w-1", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let run = broker.run(&[
        "call",
        "look_up_product",
        r#"{"product": 7}"#,
        "no_such_tool",
        "{}",
        "calculate",
        r#"{"expression": "1 + 1"}"#,
    ]);
    let text = stdout(&run);
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(
        text.contains("✗ call_1 INVALID_ARGUMENTS  effect NOT_STARTED"),
        "{text}"
    );
    let violation = "    - /product: 7 is not of type \"string\"\n";
    assert!(text.contains(violation), "{text}");
    assert_eq!(
        text.matches("/product: ").count(),
        1,
        "once is enough: {text}"
    );
    assert!(text.contains("UNKNOWN_TOOL"), "{text}");
    assert!(text.contains("1 of 3 calls succeeded"), "{text}");
}

#[tokio::test]
async fn arguments_come_from_files_and_from_stdin_too() {
    let (broker, _worker) = pool().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"expression": "2 + 2"}"#).unwrap();
    let from_file = format!("@{}", file.path().display());
    let arguments = ["call", "--json", "calculate", &from_file, "calculate", "-"];
    let run = broker.run_with_stdin(&arguments, r#"{"expression": "3 + 3"}"#);
    assert_eq!(json(&run)["succeeded"], 2, "{}", stdout(&run));
}

#[tokio::test]
async fn a_deadline_gives_a_batch_and_not_an_error() {
    let (broker, _worker) = pool().await;
    let run = broker.run(&[
        "call",
        "--json",
        "--deadline",
        "200ms",
        "sleep",
        r#"{"seconds": 30}"#,
    ]);
    assert_eq!(run.status.code(), Some(1), "{}", stderr(&run));
    assert_eq!(json(&run)["results"][0]["error"]["code"], "TIMEOUT");
    assert_eq!(json(&run)["results"][0]["error"]["timeout"], "BATCH");
}

#[tokio::test]
async fn a_recorded_turn_is_replayed() {
    let (broker, _worker) = pool().await;
    let example = shipped("docs/examples/turn.ndjson");
    let run = broker.run(&["replay", example.to_str().unwrap(), "--speed", "max"]);
    let text = stdout(&run);
    assert_eq!(
        run.status.code(),
        Some(1),
        "one call of the example fails: {text}"
    );
    assert!(text.contains("started on worker w-1"), "{text}");
    assert!(text.contains("4 of 5 calls succeeded"), "{text}");

    let run = broker.run(&["replay", example.to_str().unwrap(), "--json"]);
    assert_eq!(json(&run)["results"][3]["error"]["code"], "TOOL_FAILED");
}

#[tokio::test]
async fn a_broken_recording_is_refused_with_its_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "{\"at\": 0, \"seal\": {}}\n{\"at\": 1, \"seal\": {}}\n",
    )
    .unwrap();
    let run = toolpool().arg("replay").arg(file.path()).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(
        stderr(&run).contains("line 2: nothing can follow the seal"),
        "{}",
        stderr(&run)
    );
}

#[test]
fn a_broker_that_is_not_there_is_said_with_what_to_do() {
    // A low port that nobody listens on: the system gives it to no one who asks for any.
    let url = "http://127.0.0.1:1";
    let run = toolpool()
        .args(["tools", "--broker", url])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(
        stderr(&run).contains("start one with `toolpool broker`"),
        "{}",
        stderr(&run)
    );
    assert_eq!(stderr(&run).matches("refused").count(), 1);
    assert_eq!(stderr(&run).matches("tcp connect error").count(), 1);
}

#[test]
fn usage_is_explained() {
    for arguments in [
        &["call", "calculate"][..],
        &["call", "calculate", "{}", "hash"],
        &["call", "a", "-", "b", "-"],
        &["replay", "/no/such/file"],
        &["replay", "turn.ndjson", "--speed", "0"],
        &["call", "a", "{}", "--deadline", "soon"],
        &["worker", "demo", "--label", "zone"],
        &["tools", "--broker", "https://broker"],
        &["tools", "--format", "vercel"],
        &["tools", "--format", "gemini", "--json"],
        &["tools", "look"],
        &["tools", "--log", "a=b=c"],
    ] {
        let run = toolpool().args(arguments).output().unwrap();
        assert_eq!(
            run.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&run)
        );
        assert!(
            stderr(&run).starts_with("error: "),
            "{arguments:?}: {}",
            stderr(&run)
        );
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_error() {
    let (broker, _worker) = pool().await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    for arguments in [
        &["tools"][..],
        &["tools", "--json"],
        &["tools", "--format", "gemini"],
    ] {
        let mut command = broker.command(arguments);
        let run = command
            .stdout(writer.try_clone().unwrap())
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
        assert_eq!(stderr(&run), "");
    }
}

#[tokio::test]
async fn an_idle_service_drains_on_the_first_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut broker, mut worker) = pool().await;
        worker.signal(signal);
        assert_eq!(worker.wait().code(), Some(0));
        broker.process.signal(signal);
        assert_eq!(broker.process.wait().code(), Some(0));
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_service_that_still_works() {
    let (mut broker, mut worker) = pool().await;
    let options = BatchOptions::default().progress(true);
    let mut batch = broker.client().batch(options).await.unwrap();
    batch
        .call("a", "sleep", r#"{"seconds": 60}"#)
        .await
        .unwrap();
    while let Some(progress) = batch.next_progress().await.unwrap() {
        if matches!(progress.event, ProgressEvent::Started { .. }) {
            break;
        }
    }
    for process in [&mut worker, &mut broker.process] {
        // Two of a kind that come together are one to the kernel. Which of these two is second is its choice too.
        process.signal(Signal::TERM);
        process.signal(Signal::INT);
        let code = process.wait().code().unwrap();
        assert!([128 + 15, 128 + 2].contains(&code), "{code}");
    }
}
