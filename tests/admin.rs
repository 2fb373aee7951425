//! The admin port of a real broker: probes, metrics, and the log's filter.

#![expect(clippy::expect_used, reason = "tests may fail loudly")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::Signal;
use toolpool_client::{Call, Client};

use support::{Broker, PATIENCE, Process, eventually, http, stderr, stdout, toolpool};

fn get(admin: &str, path: &str) -> (u16, String) {
    http::get(admin, path).expect("it answers")
}

fn put(admin: &str, filter: &str) -> (u16, String) {
    http::request(admin, "PUT /log-filter HTTP/1.0", filter).expect("it answers")
}

/// The value of the series with exactly these labels, as a parser of Prometheus' format reads it.
fn value(admin: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let (status, text) = get(admin, "/metrics");
    assert_eq!(status, 200, "{text}");
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let scrape = prometheus_parse::Scrape::parse(lines).expect("it is Prometheus' format");
    let sample = scrape.samples.iter().find(|sample| {
        let same = |(label, value): &(&str, &str)| sample.labels.get(label) == Some(*value);
        sample.metric == name && labels.iter().all(same)
    })?;
    match sample.value {
        prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) => {
            Some(value)
        }
        _ => None,
    }
}

#[tokio::test]
async fn what_a_batch_did_is_in_the_metrics() {
    let mut broker = Broker::start(&[]);
    let admin = broker.admin_address();
    let _worker = broker.demo_worker("w", &[]);
    broker.wait_for_workers("calculate", 1).await;
    let call = broker.run(&["call", "calculate", r#"{"expression":"6*7"}"#]);
    assert!(call.status.success(), "{}", stderr(&call));
    let ok = [("tool", "calculate"), ("outcome", "ok")];
    assert_eq!(value(&admin, "toolpool_calls_total", &ok), Some(1.0));
    let connected = [("state", "connected")];
    assert_eq!(value(&admin, "toolpool_workers", &connected), Some(1.0));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(value(&admin, "toolpool_build_info", &version), Some(1.0));
    promtool_agrees(&get(&admin, "/metrics").1);
}

/// Prometheus' own tool reads it without a complaint, where it is installed.
fn promtool_agrees(metrics: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    let started = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = started else {
        eprintln!("skipped: promtool is not installed");
        return;
    };
    let mut stdin = promtool.stdin.take().expect("it is a pipe");
    stdin.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(stdin);
    let checked = promtool.wait_with_output().expect("promtool runs");
    assert!(
        checked.status.success(),
        "{}{}",
        stdout(&checked),
        stderr(&checked)
    );
}

#[tokio::test]
async fn readiness_turns_when_the_broker_is_told_to_go() {
    let mut broker = Broker::start(&[]);
    let admin = broker.admin_address();
    let _worker = broker.demo_worker("w", &[]);
    broker.wait_for_workers("sleep", 1).await;
    assert_eq!(get(&admin, "/readyz"), (200, "serving\n".to_owned()));
    // Keeps the broker from going at once.
    let mut call = broker.command(&["call", "sleep", r#"{"seconds":3}"#]);
    let mut call = Process::start(call.stdout(Stdio::null()));
    let open = "toolpool_batches_open";
    eventually("the batch is open", async || {
        value(&admin, open, &[]) == Some(1.0)
    })
    .await;
    broker.process.signal(Signal::TERM);
    eventually("it is not ready any more", async || {
        get(&admin, "/readyz").0 == 503
    })
    .await;
    assert_eq!(get(&admin, "/healthz").0, 200);
    assert_eq!(value(&admin, "toolpool_draining", &[]), Some(1.0));
    assert_eq!(call.exit_code().await, Some(0));
    assert_eq!(broker.process.exit_code().await, Some(0));
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = taken.local_addr().expect("it has an address").to_string();
    let run = toolpool()
        .args([
            "broker",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            &address,
        ])
        .output()
        .expect("the program runs");
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(stdout(&run), "");
    let said = stderr(&run);
    assert!(
        said.contains("admin_listen") && said.contains("--admin-listen off"),
        "{said}"
    );
}

#[test]
fn there_need_not_be_an_admin_port() {
    let mut command = toolpool();
    command.args(["broker", "--listen", "127.0.0.1:0", "--admin-listen", "off"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut broker = Process::start(&mut command);
    let mut lines = BufReader::new(broker.take_stdout()).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    assert!(first.starts_with("listening on "), "{first}");
    broker.signal(Signal::TERM);
    assert!(lines.next().is_none(), "it says no more");
    assert!(broker.wait().success());
}

/// A broker that logs into a pipe which nobody reads yet, and where it listens.
fn unread_broker(filter: &str) -> (Process, [String; 2]) {
    let mut command = toolpool();
    command
        .args([
            "broker",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ])
        .args(["--log", filter])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut broker = Process::start(&mut command);
    let mut said = BufReader::new(broker.take_stdout()).lines();
    let mut line = || said.next().and_then(Result::ok).expect("it says so");
    let addresses = ["listening on ", "admin listening on "].map(|before| {
        let address = line().strip_prefix(before).map(str::to_owned);
        address.expect("first the one, then the other")
    });
    (broker, addresses)
}

/// A broker that logs into a pipe, and its lines.
fn logging_broker(filter: &str) -> (Process, [String; 2], Receiver<serde_json::Value>) {
    let (mut broker, addresses) = unread_broker(filter);
    let log = BufReader::new(broker.take_stderr());
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let line = serde_json::from_str(&line).expect("each line is JSON");
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (broker, addresses, lines)
}

#[test]
fn the_log_is_json_and_its_filter_can_be_changed_while_the_broker_runs() {
    let (broker, [_, admin], lines) = logging_broker("error");
    assert_eq!(get(&admin, "/log-filter"), (200, "error\n".to_owned()));
    assert_eq!(put(&admin, "toolpool_broker=noise").0, 400);
    assert_eq!(put(&admin, "").0, 400);
    let (status, said) = put(&admin, "warning");
    assert_eq!(status, 400);
    assert!(said.contains("error, warn, info"), "{said}");
    assert_eq!(put(&admin, &"x".repeat(10_000)).0, 400);
    let from_a_page = "PUT /log-filter HTTP/1.0\r\norigin: http://evil.example";
    let refused = http::request(&admin, from_a_page, "trace").expect("it answers");
    assert_eq!(refused.0, 403);
    assert_eq!(get(&admin, "/log-filter").1, "error\n");

    let changed = put(&admin, "toolpool_broker=info,warn");
    assert_eq!(changed.0, 200);
    assert_eq!(get(&admin, "/log-filter").1, changed.1);
    let line = lines.recv_timeout(PATIENCE).expect("it is logged");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["fields"]["filter"], "toolpool_broker=info,warn");
    drop(broker);
}

#[test]
fn a_failed_call_can_be_found_in_the_log_by_its_ids() {
    let (broker, [address, _], lines) = logging_broker("toolpool_broker=debug");
    let url = format!("http://{address}");
    let call = toolpool()
        .args(["call", "--broker", &url, "no.such.tool", "{}", "--json"])
        .output()
        .expect("the program runs");
    let batch: serde_json::Value = serde_json::from_slice(&call.stdout).expect("it prints JSON");
    let failed = loop {
        let line = lines.recv_timeout(PATIENCE).expect("it is logged");
        if line["fields"]["message"] == "call failed" {
            break line;
        }
    };
    let fields = &failed["fields"];
    assert_eq!(fields["batch.id"], batch["batch_id"], "{batch}");
    assert_eq!(fields["tool"], "no.such.tool");
    assert!(fields["call.id"].is_string(), "{failed}");
    drop(broker);
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    let (mut broker, [address, _]) = unread_broker("toolpool_broker=debug");
    let client = Client::connect(format!("http://{address}"));
    let client = client.await.expect("it can be dialled");
    // What a pipe takes on Linux; a page may have room left.
    let enough = 60_000;
    let calls: Vec<_> = (0..50)
        .map(|id| Call::new(format!("call_{id}"), "no.such.tool", "{}"))
        .collect();
    for _ in 0..20 {
        let batch = client.execute(calls.clone()).await;
        assert_eq!(batch.expect("it answers").results().len(), calls.len());
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.exit_code().await, Some(0));
    let mut log = String::new();
    let read = broker.take_stderr().read_to_string(&mut log);
    assert!(
        read.expect("it is text") > enough,
        "the pipe was never full"
    );
    assert!(!log.contains("drained\""), "it is not the whole log");
}

#[test]
fn the_last_line_is_written() {
    let (broker, _, lines) = logging_broker("info");
    broker.signal(Signal::TERM);
    // The reader ends with the broker.
    let last = lines.iter().last().expect("it says something");
    assert_eq!(last["fields"]["message"], "drained");
}

#[tokio::test]
async fn lines_that_were_lost_are_counted_in_the_log() {
    let (mut broker, [address, _]) = unread_broker("toolpool_broker=debug,warn");
    let client = Client::connect(format!("http://{address}"));
    let client = client.await.expect("it can be dialled");
    let calls: Vec<_> = (0..250)
        .map(|id| Call::new(format!("call_{id}"), "no.such.tool", "{}"))
        .collect();
    for _ in 0..50 {
        client.execute(calls.clone()).await.expect("it answers");
    }
    let mut lines = BufReader::new(broker.take_stderr()).lines();
    let lost = lines.find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line.ok()?).ok()?;
        line["fields"]["lines.lost"].as_u64()
    });
    assert!(lost.is_some_and(|lost| lost > 0), "{lost:?}");
}

/// The messages of a worker that is sent these signals and then SIGTERM, one after the other as its log says that it heeds them.
async fn worker_log(signals: &[Signal]) -> Vec<String> {
    let broker = Broker::start(&[]);
    let mut command = broker.command(&["worker", "demo", "--id", "w", "--log", "error"]);
    let mut worker = Process::start(command.stderr(Stdio::piped()));
    broker.wait_for_workers("calculate", 1).await;
    let mut lines = BufReader::new(worker.take_stderr()).lines();
    let mut messages = Vec::new();
    let mut next = |messages: &mut Vec<String>| {
        let line = lines.next().and_then(Result::ok)?;
        let line: serde_json::Value = serde_json::from_str(&line).expect("each line is JSON");
        let message = &line["fields"]["message"];
        messages.push(format!("{} {}", line["level"], message).replace('"', ""));
        Some(line)
    };
    for signal in signals {
        worker.signal(*signal);
        let line = next(&mut messages).expect("it says so");
        let filter = line["fields"]["filter"].as_str().expect("it says to what");
        assert_eq!(filter.contains("debug"), *signal == Signal::USR1, "{line}");
    }
    worker.signal(Signal::TERM);
    while next(&mut messages).is_some() {}
    messages
}

#[tokio::test]
async fn signals_change_what_a_worker_logs() {
    let changed = "INFO the log's filter was changed";
    let log = worker_log(&[Signal::USR1]).await;
    assert_eq!(log[0], changed);
    assert!(log.contains(&"DEBUG draining".to_owned()), "{log:?}");
    let log = worker_log(&[Signal::USR1, Signal::USR2]).await;
    assert_eq!(log, [changed, changed], "then it is as quiet as before");
}

#[test]
fn a_filter_that_would_silence_the_log_is_refused() {
    let mut command = toolpool();
    let run = command.args(["broker", "--log", "warning"]).output();
    let run = run.expect("the program runs");
    assert_eq!(run.status.code(), Some(2));
    assert!(
        stderr(&run).contains("error, warn, info"),
        "{}",
        stderr(&run)
    );
}
