//! `toolpool demo`, and that it leaves no process behind.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal};
use support::{Process, children_of, eventually, is_alive, stderr, stdout, toolpool};

/// A demo whose broker and workers are all there, and its children.
fn running_demo() -> (Process, BufReader<ChildStdout>, Vec<Pid>) {
    let mut command = toolpool();
    let mut demo = Process::start(demo_command(&mut command));
    let mut lines = BufReader::new(demo.take_stdout());
    let mut line = String::new();
    assert!(lines.read_line(&mut line).is_ok());
    assert!(line.contains("run as processes of their own"), "{line}");
    let children = children_of(demo.pid());
    assert_eq!(children.len(), 3, "a broker and two workers");
    (demo, lines, children)
}

fn demo_command(command: &mut Command) -> &mut Command {
    command
        .arg("demo")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
}

async fn all_gone(children: &[Pid]) {
    eventually("no process is left", async || {
        children.iter().all(|pid| !is_alive(*pid))
    })
    .await;
}

#[tokio::test]
async fn the_demo_shows_two_turns_and_leaves_nothing_behind() {
    let (mut demo, lines, children) = running_demo();
    let text: Vec<String> = lines.lines().map(Result::unwrap).collect();
    let text = text.join("\n");
    assert_eq!(demo.wait().code(), Some(0), "{text}");
    all_gone(&children).await;
    for expected in [
        "(model still writing call_2)",
        "held until the turn is sealed",
        "✗ call_4 TOOL_FAILED",
        "✗ call_5 INVALID_ARGUMENTS",
        "the supplier is s-2",
        "4 of 6 calls succeeded",
        "1 of 1 calls succeeded",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn the_demo_can_speak_to_machines() {
    let run = toolpool().args(["demo", "--json"]).output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let turns: serde_json::Value = serde_json::from_str(&stdout(&run)).unwrap();
    assert_eq!(turns["turns"][0]["calls"], 6);
    assert_eq!(
        turns["turns"][1]["results"][0]["output"][0]["json"]["supplier"],
        "s-2"
    );
}

#[tokio::test]
async fn a_demo_that_is_interrupted_leaves_nothing_behind() {
    let (mut demo, _lines, children) = running_demo();
    demo.signal(Signal::INT);
    assert_eq!(demo.wait().code(), Some(130));
    all_gone(&children).await;
}

#[tokio::test]
async fn a_demo_that_is_killed_leaves_nothing_behind() {
    let (mut demo, _lines, children) = running_demo();
    demo.signal(Signal::KILL);
    demo.wait();
    all_gone(&children).await;
}

#[tokio::test]
async fn a_demo_whose_reader_goes_away_leaves_nothing_behind() {
    let (mut demo, lines, children) = running_demo();
    drop(lines);
    assert_eq!(demo.wait().code(), Some(0));
    all_gone(&children).await;
}
