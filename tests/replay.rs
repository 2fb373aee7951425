//! `toolpool replay` with providers' streams: with a broker and workers that are there, and with nothing running.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Output, Stdio};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use serde_json::{Value, json};
use support::{Broker, json, shipped, stderr, stdout, toolpool};

/// Four calls over SSE, and the same turn as it was recorded.
const STREAM: &str = "docs/examples/anthropic.sse";
const RECORDED: &str = "docs/examples/anthropic.ndjson";
const TOOLS: [&str; 4] = [
    "stock_report",
    "look_up_product",
    "look_up_product",
    "calculate",
];

fn replay(arguments: &[&str]) -> Output {
    let mut command = toolpool();
    command.arg("replay").args(arguments).output().unwrap()
}

/// The whole stream, or what there is of it before a text.
fn stream(until: Option<&str>) -> String {
    let whole = std::fs::read_to_string(shipped(STREAM)).unwrap();
    let cut = until.map(|text| whole.find(text).unwrap());
    whole[..cut.unwrap_or(whole.len())].to_owned()
}

fn path(name: &str) -> String {
    shipped(name).to_str().unwrap().to_owned()
}

fn file(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

fn said(path: &Path, arguments: &[&str]) -> Output {
    let path = path.to_str().unwrap();
    replay(&[&[path], arguments].concat())
}

/// The provider's ids of the stream's calls.
fn ids() -> Vec<String> {
    let stream = stream(None);
    let ids = stream.match_indices("\"toolu_");
    ids.map(|(at, _)| stream[at + 1..].split('"').next().unwrap().to_owned())
        .collect()
}

/// A stream of one call and nothing after it.
fn one_call(tool: &str) -> String {
    let events = [
        json!({ "type": "message_start", "message": { "content": [] } }),
        json!({ "type": "content_block_start", "index": 0,
                "content_block": { "type": "tool_use", "id": "toolu_1", "name": tool, "input": {} } }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" } }),
        json!({ "type": "message_stop" }),
    ];
    events.map(|event| format!("{event}\n")).concat()
}

/// A frame of the AWS event stream.
fn aws_frame(name: &str, payload: &Value) -> Vec<u8> {
    let header = |key: &'static str, value: &str| {
        Header::new(key, HeaderValue::String(value.to_owned().into()))
    };
    let message = Message::new(payload.to_string())
        .add_header(header(":message-type", "event"))
        .add_header(header(":event-type", name));
    let mut frame = Vec::new();
    write_message_to(&message, &mut frame).unwrap();
    frame
}

#[test]
fn a_stream_is_answered_by_stubs_with_nothing_running() {
    let run = replay(&[&path(STREAM), "--stub-tools", "--answer"]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    assert_eq!(stderr(&run), "");
    let answer = json(&run);
    let [message] = answer.as_array().unwrap().as_slice() else {
        panic!("one message answers all calls: {answer}");
    };
    assert_eq!(message["role"], "user");
    let results = message["content"].as_array().unwrap();
    for ((result, id), tool) in results.iter().zip(ids()).zip(TOOLS) {
        assert_eq!(result["type"], "tool_result");
        assert_eq!(result["tool_use_id"], Value::from(id));
        let content = result["content"].to_string();
        let expected = format!("stub result of {tool}");
        assert!(content.contains(&expected), "{expected}: {content}");
    }
    assert_eq!(results.len(), TOOLS.len());
}

#[test]
fn chat_completions_are_answered_message_by_message() {
    let run = replay(&[
        &path("docs/examples/openai.sse"),
        "--stub-tools",
        "--answer",
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let answer = json(&run);
    let messages = answer.as_array().unwrap();
    assert_eq!(messages.len(), TOOLS.len());
    for (message, tool) in messages.iter().zip(TOOLS) {
        assert_eq!(message["role"], "tool");
        assert!(message["tool_call_id"].is_string(), "{message}");
        assert_eq!(message["content"], format!("stub result of {tool}"));
    }
}

#[test]
fn a_binary_stream_is_answered() {
    let start = json!({ "contentBlockIndex": 0, "start": { "toolUse": { "toolUseId": "tooluse_1", "name": "weather" } } });
    let delta = json!({ "contentBlockIndex": 0, "delta": { "toolUse": { "input": "{\"city\": \"Rome\"}" } } });
    let events = [
        ("messageStart", json!({ "role": "assistant" })),
        ("contentBlockStart", start),
        ("contentBlockDelta", delta),
        ("contentBlockStop", json!({ "contentBlockIndex": 0 })),
        ("messageStop", json!({ "stopReason": "tool_use" })),
    ];
    let file = file(
        events
            .map(|(name, payload)| aws_frame(name, &payload))
            .concat(),
    );
    let run = said(file.path(), &["--stub-tools", "--answer"]);
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let result = &json(&run)[0]["content"][0]["toolResult"];
    assert_eq!(result["toolUseId"], "tooluse_1");
    assert_eq!(result["content"][0]["text"], "stub result of weather");
}

#[test]
fn a_stream_is_explained_to_people_and_to_machines() {
    let run = replay(&[&path(STREAM), "--stub-tools"]);
    let text = stdout(&run);
    assert_eq!(run.status.code(), Some(0), "{text}");
    for expected in [
        "stub result of calculate",
        "4 of 4 calls succeeded",
        "Anthropic Messages: the turn is complete (tool_use)",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }

    let run = replay(&[&path(STREAM), "--stub-tools", "--json"]);
    let batch = json(&run);
    assert_eq!(batch["succeeded"], 4);
    assert_eq!(
        batch["results"][3]["provider_id"],
        Value::from(ids()[3].clone())
    );
    let turn = &batch["turn"];
    assert_eq!(turn["dialect"], "ANTHROPIC");
    assert_eq!(turn["turn_end"], "COMPLETE");
    assert_eq!(turn["stop_reason"], "tool_use");
    assert!(turn["answer"].is_array(), "{turn}");
    assert_eq!(turn["dropped"], json!([]));
    assert_eq!(turn["error"], Value::Null);
}

#[tokio::test]
async fn a_recorded_stream_is_played_to_real_tools() {
    let broker = Broker::start(&[]);
    let _worker = broker.demo_worker("w-1", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let run = broker.run(&["replay", &path(RECORDED), "--speed", "2"]);
    let text = stdout(&run);
    assert_eq!(run.status.code(), Some(0), "{text}");
    for expected in [
        "block complete, started on worker w-1   (model still writing",
        "4 of 4 calls succeeded",
        "the turn is complete (tool_use)",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[tokio::test]
async fn stubs_stand_in_for_unknown_tools_only_and_leave_with_the_command() {
    let broker = Broker::start(&[]);
    let _worker = broker.demo_worker("w-1", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let stream = stream(None).replace("\"stock_report\"", "\"weather\"");
    let run = broker.run_with_stdin(&["replay", "-", "--stub-tools", "--json"], &stream);
    assert_eq!(run.status.code(), Some(0), "{}", stdout(&run));
    let results = json(&run)["results"].take();
    assert_eq!(results[0]["output"][0]["text"], "stub result of weather");
    assert_eq!(results[3]["ledger"]["worker_id"], "w-1");
    let note = "no stub for calculate: the broker knows this tool";
    assert!(stderr(&run).contains(note), "{}", stderr(&run));
    broker.wait_for_workers("weather", 0).await;
}

#[test]
fn a_stream_can_come_from_stdin() {
    let piped = |text: &str, arguments: &[&str]| {
        let file = file(text);
        let stdin = std::fs::File::open(file.path()).unwrap();
        let mut command = toolpool();
        command
            .args(["replay", "-", "--stub-tools"])
            .args(arguments);
        command.stdin(stdin).output().unwrap()
    };
    let run = piped(&stream(None), &["--dialect", "anthropic", "--json"]);
    assert_eq!(json(&run)["succeeded"], 4, "{}", stderr(&run));
    let recorded = std::fs::read_to_string(shipped(RECORDED)).unwrap();
    let run = piped(&recorded, &["--speed", "max", "--json"]);
    assert_eq!(json(&run)["succeeded"], 4, "{}", stderr(&run));
}

#[tokio::test]
async fn a_stream_from_stdin_is_played_as_it_comes() {
    let broker = Broker::start(&[]);
    let _worker = broker.demo_worker("w-1", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let whole = stream(None);
    let until = "data: {\"type\":\"content_block_stop\",\"index\":2}\n\n";
    let (first, rest) = whole.split_at(whole.find(until).unwrap() + until.len());

    let mut command = broker.command(&["replay", "-"]);
    let mut replay = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = replay.stdin.take().unwrap();
    stdin.write_all(first.as_bytes()).unwrap();
    let mut said = BufReader::new(replay.stdout.take().unwrap()).lines();
    let mut ended = said.by_ref().map(Result::unwrap);
    // The model has not written the rest yet.
    assert!(ended.any(|line| line.contains("succeeded after")));
    stdin.write_all(rest.as_bytes()).unwrap();
    drop(stdin);
    let text: Vec<_> = said.map(Result::unwrap).collect();
    assert!(
        text.iter()
            .any(|line| line.contains("4 of 4 calls succeeded")),
        "{text:?}"
    );
    assert_eq!(replay.wait().unwrap().code(), Some(0));
}

#[test]
fn a_tool_of_the_agents_own_is_passed_over() {
    let local = [
        "--local-tool",
        "look_up_product",
        "--local-tool",
        "calculate",
    ];
    let run = replay(&[&[&*path(STREAM), "--stub-tools"], &local[..]].concat());
    let text = stdout(&run);
    assert_eq!(run.status.code(), Some(0), "{text}");
    assert!(text.contains("1 of 1 calls succeeded"), "{text}");
    assert_eq!(text.matches("  not ours  toolu_").count(), 3, "{text}");
}

#[test]
fn a_stream_without_calls_is_no_error() {
    let text = stream(Some(
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1",
    ));
    let end = concat!(
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
        "data: {\"type\":\"message_stop\"}\n\n",
    );
    let file = file(text + end);
    let run = said(file.path(), &["--stub-tools"]);
    let text = stdout(&run);
    assert_eq!(run.status.code(), Some(0), "{text}");
    let expected = "the turn is complete (end_turn); it has no calls for the broker";
    assert!(text.contains(expected), "{text}");
    let run = said(file.path(), &["--stub-tools", "--answer"]);
    assert_eq!(stdout(&run), "[]\n");
}

#[test]
fn a_stream_that_was_cut_shows_what_must_be_dropped() {
    let file = file(stream(Some(
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":2}",
    )));
    let run = said(file.path(), &["--stub-tools"]);
    let text = stdout(&run);
    assert_eq!(run.status.code(), Some(1), "{text}");
    let dropped = format!(
        "  dropped   {} look_up_product: the turn ended before the call did",
        ids()[1]
    );
    for expected in [
        "1 of 2 calls succeeded",
        "the turn is cut short",
        "the stream ended before the turn did",
        &dropped,
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let run = said(file.path(), &["--stub-tools", "--answer"]);
    let note = "note: the turn is cut short: the stream ended before the turn did\n";
    assert_eq!(stderr(&run), note);
    let run = said(file.path(), &["--stub-tools", "--json"]);
    let turn = json(&run)["turn"].take();
    assert_eq!(turn["turn_end"], "TRUNCATED");
    assert_eq!(turn["dropped"][0]["reason"], "INCOMPLETE");
    assert_eq!(turn["dropped"][0]["position"], 1);
}

#[test]
fn a_name_that_no_tool_can_have_is_said() {
    let file = file(one_call("look up"));
    let run = said(file.path(), &["--stub-tools", "--json"]);
    assert_eq!(run.status.code(), Some(1), "{}", stdout(&run));
    let said = stderr(&run);
    assert!(
        said.starts_with("note: no stub: tool \"look up\": permitted are"),
        "{said}"
    );
    assert_eq!(json(&run)["results"][0]["error"]["code"], "UNKNOWN_TOOL");
}

#[test]
fn what_is_no_providers_stream_is_an_error() {
    for nothing in [
        &b"# A file\n\nof text.\n"[..],
        b"\x00\xff\xfe\x00 binary",
        b"{\"a\": 1}\n",
    ] {
        let file = file(nothing);
        let run = said(file.path(), &["--stub-tools", "--answer"]);
        assert_eq!(run.status.code(), Some(2), "{}", stderr(&run));
        assert_eq!(stdout(&run), "", "what is no turn has no answer");
        assert!(
            stderr(&run).contains("name its format with --dialect"),
            "{}",
            stderr(&run)
        );
    }
    let file = file("\n \n");
    let run = said(file.path(), &["--stub-tools"]);
    assert_eq!(run.status.code(), Some(2));
    assert!(stderr(&run).contains("is empty"), "{}", stderr(&run));
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    let (blocks, recorded) = (path("docs/examples/turn.ndjson"), path(RECORDED));
    let unknown = file("{\"at\": 0, \"open\": {\"dialect\": \"claude\"}}\n");
    let unknown = unknown.path().to_str().unwrap();
    for (arguments, expected) in [
        (
            &[&*path(STREAM), "--dialect", "claude"][..],
            "possible values: auto, anthropic",
        ),
        (
            &[unknown],
            "line 1: unknown variant `claude`, expected one of `auto`",
        ),
        (
            &[&recorded, "--dialect", "anthropic"],
            "leave --dialect out",
        ),
        (
            &[&blocks, "--answer"],
            "--answer is for a provider's stream",
        ),
        (
            &[&blocks, "--local-tool", "a"],
            "--local-tool is for a provider's stream",
        ),
        (&[&recorded, "--answer", "--json"], "cannot be used with"),
    ] {
        let run = replay(arguments);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}");
        assert!(
            stderr(&run).contains(expected),
            "{expected}: {}",
            stderr(&run)
        );
    }
}
