use std::{fs, path::Path, sync::Arc};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use toolpool_proto::v1::{self as proto, ErrorCode, content::Kind};

use super::*;
use crate::{assignment::Assignment, context::Links, trace::Trace};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const MAX_RESULT: u64 = 16 * 1024 * 1024;

/// Only ever passes when a test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A call of a shell script, in a folder of its own.
struct Script {
    folder: TempDir,
    spec: Spec,
    arguments: Bytes,
    timeout: i64,
    cancel: CancellationToken,
}

type Result = std::result::Result<proto::Output, proto::CallError>;

fn script(text: &str) -> Script {
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec {
        program: "sh".into(),
        args: vec!["-c".to_owned(), text.to_owned()],
        cwd: folder.path().to_owned(),
        env: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        max_output: None,
        kill_grace: PATIENCE,
    };
    Script {
        folder,
        spec,
        arguments: Bytes::from_static(b"{}"),
        timeout: 60,
        cancel: CancellationToken::new(),
    }
}

impl Script {
    fn kill_grace(mut self, millis: u64) -> Self {
        self.spec.kill_grace = Duration::from_millis(millis);
        self
    }

    fn arguments(mut self, arguments: impl Into<Bytes>) -> Self {
        self.arguments = arguments.into();
        self
    }

    fn start(&self) -> JoinHandle<Result> {
        let assignment = proto::Assignment {
            lease_id: 1,
            batch_id: "batch".to_owned(),
            call_id: "call".to_owned(),
            tool: "t".to_owned(),
            arguments: self.arguments.clone(),
            timeout: Some(prost_types::Duration {
                seconds: self.timeout,
                nanos: 0,
            }),
            attempt: 2,
            idempotency_key: "key".to_owned(),
            traceparent: Some(TRACEPARENT.to_owned()),
            tracestate: Some("vendor=1".to_owned()),
        };
        let (progress, _) = mpsc::channel(1);
        let assignment = Assignment::from_proto(assignment, Instant::now());
        let links = Links {
            cancel: self.cancel.clone(),
            progress,
            max_result_bytes: MAX_RESULT,
            trace: Trace::begin(&assignment),
        };
        let (context, arguments) = Context::of(assignment, links);
        let spec = Arc::new(self.spec.clone());
        tokio::spawn(async move {
            let result = run(&spec, arguments, &context).await;
            result
                .map(Output::into_proto)
                .map_err(ToolError::into_proto)
        })
    }

    async fn run(&self) -> Result {
        ended(self.start()).await
    }

    /// The process ids in a file that the script writes in one go.
    async fn pids(&self, file: &str) -> Vec<i32> {
        let path = self.folder.path().join(file);
        eventually(|| path.exists()).await;
        let text = fs::read_to_string(path).unwrap();
        text.split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }
}

async fn ended(call: JoinHandle<Result>) -> Result {
    timeout(PATIENCE, call)
        .await
        .expect("the call hangs")
        .unwrap()
}

async fn eventually(condition: impl Fn() -> bool) {
    let looked_for = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, looked_for).await.expect("it never came");
}

/// Whether the process runs. A zombie does not: its parent has yet to hear of its end.
fn is_alive(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The state is the first field behind the name, which stands in brackets.
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X'))
}

#[track_caller]
fn content(result: Result) -> Kind {
    let mut output = result.expect("the script failed");
    output.content.remove(0).kind.unwrap()
}

#[track_caller]
fn text(result: Result) -> String {
    match content(result) {
        Kind::Text(text) => text,
        other => panic!("no text: {other:?}"),
    }
}

#[tokio::test]
async fn arguments_go_in_and_output_comes_out() {
    let arguments = json!({"a": "ü"}).to_string();
    let result = script("cat").arguments(arguments.clone()).run().await;
    assert_eq!(content(result), Kind::Json(arguments.into()));
}

#[tokio::test]
async fn output_is_json_only_if_all_of_it_is() {
    assert_eq!(
        content(script("echo; echo ' [1, 2]'").run().await),
        Kind::Json("[1, 2]".into())
    );
    assert_eq!(text(script("echo '{} {}'").run().await), "{} {}\n");
    assert_eq!(
        text(script("echo '{\"a\": 1,}'").run().await),
        "{\"a\": 1,}\n"
    );
    let blob = proto::Blob {
        media_type: "application/octet-stream".to_owned(),
        data: Bytes::from_static(b"\xff\x00"),
    };
    assert_eq!(
        content(script(r"printf '\377\000'").run().await),
        Kind::Blob(blob)
    );
    assert!(script("true").run().await.unwrap().content.is_empty());
}

#[tokio::test]
async fn a_script_knows_its_call() {
    let names = "$TOOLPOOL_BATCH_ID $TOOLPOOL_CALL_ID $TOOLPOOL_ATTEMPT $TOOLPOOL_IDEMPOTENCY_KEY $GREETING";
    let said = text(
        script(&format!("echo {names} ${{TOOLPOOL_TIMEOUT_MS%???}} $PWD"))
            .run()
            .await,
    );
    assert!(said.starts_with("batch call 2 key hello 59 /"), "{said}");
}

#[tokio::test]
async fn a_script_knows_its_trace() {
    let said = text(script("echo $TRACEPARENT $TRACESTATE").run().await);
    assert_eq!(said.trim(), format!("{TRACEPARENT} vendor=1"));
}

#[tokio::test]
async fn a_failure_is_told_with_its_code_and_the_end_of_what_it_said() {
    let error =
        script("i=0; while [ $i -lt 3000 ]; do echo \"line $i ü\" >&2; i=$((i+1)); done; exit 3");
    let error = error.run().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ToolFailed);
    assert!(error.message.contains("exited with code 3") && error.message.ends_with("line 2999 ü"));
    assert!(error.message.len() < STDERR_TAIL + 200 && !error.message.contains("line 0 "));
}

#[tokio::test]
async fn a_signal_is_told_too() {
    let error = script("kill -9 $$").run().await.unwrap_err();
    assert!(error.message.contains("signal 9"), "{}", error.message);
}

#[tokio::test]
async fn a_command_that_is_not_there_was_not_started() {
    let mut script = script("");
    script.spec.program = "/no/such/program".into();
    let error = script.run().await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::ToolFailed, proto::Effect::NotStarted)
    );
    assert!(error.message.contains("/no/such/program"));
}

#[tokio::test]
async fn a_script_that_never_reads_is_fine() {
    let large = vec![b' '; 4 * 1024 * 1024];
    assert_eq!(
        text(script("echo done").arguments(large).run().await),
        "done\n"
    );
}

#[tokio::test]
async fn large_arguments_and_a_large_output_do_not_block_each_other() {
    let large = vec![b'a'; 8 * 1024 * 1024];
    let result = script("cat").arguments(large).run().await;
    assert_eq!(text(result).len(), 8 * 1024 * 1024);
}

#[tokio::test]
async fn output_over_the_limit_ends_the_script() {
    let mut script = script("echo $$ > pid.new; mv pid.new pid; exec yes");
    script.spec.max_output = Some(64 * 1024);
    let error = script.run().await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ResultTooLarge);
    assert!(error.message.contains("65536"));
    assert!(!is_alive(script.pids("pid").await[0]));
}

#[tokio::test]
async fn output_at_the_limit_is_taken() {
    let mut script = script("printf 12345");
    script.spec.max_output = Some(5);
    assert!(script.run().await.is_ok());
    script.spec.max_output = Some(4);
    assert!(script.run().await.is_err());
}

#[tokio::test]
async fn a_cancel_ends_the_whole_group() {
    let script =
        script("sleep 1000 & (sleep 1000; true) & echo $$ $! > pids.new; mv pids.new pids; wait");
    let call = script.start();
    let pids = script.pids("pids").await;
    assert!(pids.len() == 2 && pids.iter().all(|pid| is_alive(*pid)));
    script.cancel.cancel();
    assert_eq!(ended(call).await.unwrap_err().code(), ErrorCode::Cancelled);
    for pid in pids {
        eventually(|| !is_alive(pid)).await;
    }
}

#[tokio::test]
async fn a_cancel_lets_a_script_clean_up() {
    let script = script(
        "trap 'echo bye > last; exit' TERM; sleep 1000 & echo $$ > pid.new; mv pid.new pid; wait",
    );
    let call = script.start();
    script.pids("pid").await;
    script.cancel.cancel();
    ended(call).await.unwrap_err();
    assert_eq!(
        fs::read_to_string(script.folder.path().join("last")).unwrap(),
        "bye\n"
    );
}

#[tokio::test]
async fn a_script_that_ignores_sigterm_is_killed() {
    let script =
        script("trap '' TERM; echo $$ > pid.new; mv pid.new pid; while :; do sleep 1000; done")
            .kill_grace(50);
    let call = script.start();
    let pids = script.pids("pid").await;
    script.cancel.cancel();
    ended(call).await.unwrap_err();
    // Reaped, too: not even a zombie is left.
    assert!(!Path::new(&format!("/proc/{}", pids[0])).exists());
}

#[tokio::test]
async fn a_script_that_overruns_its_deadline_is_ended_without_a_cancel() {
    let mut script = script("sleep 1000");
    script.timeout = 0;
    let error = script.run().await.unwrap_err();
    assert!(error.message.contains("in time"), "{}", error.message);
}

#[tokio::test]
async fn dropping_the_call_kills_the_group() {
    let script = script("trap '' TERM; sleep 1000 & echo $$ $! > pids.new; mv pids.new pids; wait");
    let call = script.start();
    let pids = script.pids("pids").await;
    call.abort();
    for pid in pids {
        eventually(|| !is_alive(pid)).await;
    }
}

#[tokio::test]
async fn what_a_script_leaves_running_is_killed() {
    let result = script("sleep 1000 > /dev/null 2>&1 & echo pid $!")
        .run()
        .await;
    let pid = text(result)
        .trim()
        .strip_prefix("pid ")
        .unwrap()
        .parse()
        .unwrap();
    eventually(|| !is_alive(pid)).await;
}

#[tokio::test]
async fn a_daemon_that_holds_the_pipes_does_not_hold_up_the_call() {
    let daemon = "setsid sh -c 'echo $$ > pid.new; mv pid.new pid; exec sleep 1000' &";
    let script = script(&format!(
        "{daemon} while [ ! -e pid ]; do :; done; echo done"
    ))
    .kill_grace(50);
    assert_eq!(text(script.run().await), "done\n");
    let pid = script.pids("pid").await[0];
    assert!(is_alive(pid));
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}
