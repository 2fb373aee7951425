//! Runs a command for one call: arguments in, output out, and nothing left behind.

use std::{
    collections::BTreeMap,
    future::pending,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    pin,
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep_until, timeout},
};

use super::group::Group;
use crate::{Context, Output, ToolError};

/// How much of the end of standard error the model gets to read.
const STDERR_TAIL: usize = 4 * 1024;
const READ_CHUNK: usize = 16 * 1024;
/// The broker calls an attempt off at its deadline. This much later the command is ended without having been told, for
/// the case that the broker cannot be reached.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);
/// What an output needs around its one piece of content.
const ENVELOPE: u64 = 64;

/// How a command is run.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) program: PathBuf,
    pub(super) args: Vec<String>,
    pub(super) cwd: PathBuf,
    pub(super) env: BTreeMap<String, String>,
    /// Bytes. Absent: what the broker takes.
    pub(super) max_output: Option<u64>,
    pub(super) kill_grace: Duration,
}

/// Runs the command to its end. Dropping the future kills it.
pub(super) async fn run(
    spec: &Spec,
    arguments: Bytes,
    context: &Context,
) -> Result<Output, ToolError> {
    let broker_limit = context.max_result_bytes().saturating_sub(ENVELOPE);
    let limit = spec.max_output.unwrap_or(u64::MAX).min(broker_limit);
    let mut child = spawn(spec, context).map_err(|error| {
        let program = spec.program.display();
        ToolError::failed(format!("The command {program} cannot be started: {error}."))
            .effect_not_started()
    })?;
    let mut group = Group::of(&child)?;
    let mut read = Read {
        stdout: Vec::new(),
        stderr: Vec::new(),
        limit,
    };
    let end = supervise(
        &mut child,
        &mut group,
        &mut read,
        arguments,
        context,
        spec.kill_grace,
    )
    .await;
    group.end().await;
    match end? {
        End::Exited(status) if status.success() => Ok(output(read.stdout)),
        End::Exited(status) => Err(failure(status, &read.stderr)),
        End::TooLarge => Err(ToolError::result_too_large(format!(
            "The command's output is larger than {limit} bytes, so it was ended. Ask for less at a time."
        ))),
        End::Cancelled => Err(ToolError::cancelled()),
        End::Overdue => Err(ToolError::failed(
            "The command did not end in time, so it was ended.",
        )),
    }
}

enum End {
    Exited(ExitStatus),
    TooLarge,
    Cancelled,
    Overdue,
}

fn spawn(spec: &Spec, context: &Context) -> io::Result<Child> {
    let left = context.deadline().saturating_duration_since(Instant::now());
    let mut command = Command::new(&spec.program);
    // Not those of the worker's own environment: they would be of another trace.
    command.env_remove("TRACEPARENT").env_remove("TRACESTATE");
    if let Some(parent) = context.traceparent() {
        command.env("TRACEPARENT", parent);
    }
    if let Some(state) = context.tracestate() {
        command.env("TRACESTATE", state);
    }
    command
        .args(&spec.args)
        .current_dir(&spec.cwd)
        .envs(&spec.env)
        .env("TOOLPOOL_CALL_ID", context.call_id())
        .env("TOOLPOOL_BATCH_ID", context.batch_id())
        .env("TOOLPOOL_ATTEMPT", context.attempt().to_string())
        .env("TOOLPOOL_IDEMPOTENCY_KEY", context.idempotency_key())
        .env("TOOLPOOL_TIMEOUT_MS", left.as_millis().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Feeds and reads the child until it has exited and its output is complete, or until there is a reason to end it.
/// When this returns an end, the child has been waited for.
async fn supervise(
    child: &mut Child,
    group: &mut Group,
    read: &mut Read,
    arguments: Bytes,
    context: &Context,
    kill_grace: Duration,
) -> Result<End, ToolError> {
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(ToolError::failed("The command has no pipes."));
    };
    let feeding = feed(stdin, arguments);
    let reading = read.all(stdout, stderr);
    pin!(feeding, reading);
    let (mut fed, mut complete) = (false, false);
    let mut exited = None;
    // When it has exited: how long to wait for the end of its output, since what it left running may hold its pipes.
    let mut linger_until = None;
    let overdue = context.deadline() + DEADLINE_SLACK;

    let end = loop {
        if let Some(status) = exited
            && complete
        {
            return Ok(End::Exited(status));
        }
        tokio::select! {
            () = &mut feeding, if !fed => fed = true,
            result = &mut reading, if !complete => match result? {
                Complete::Yes => complete = true,
                Complete::TooLarge => break End::TooLarge,
            },
            status = child.wait(), if exited.is_none() => {
                exited = Some(status?);
                linger_until = Some(Instant::now() + kill_grace);
            }
            () = at(linger_until) => complete = true,
            () = context.cancelled() => break End::Cancelled,
            () = sleep_until(overdue) => break End::Overdue,
        }
    };

    group.terminate();
    let gone = async {
        let _ = child.wait().await;
        group.is_empty().await;
    };
    // Its last words must not block it, though nobody hears them.
    let hearing_out = async {
        if !complete && !matches!(end, End::TooLarge) {
            let _ = reading.await;
        }
        pending::<()>().await;
    };
    tokio::select! {
        _ = timeout(kill_grace, gone) => {}
        () = hearing_out => {}
    }
    group.kill();
    // In case that the child has moved to another group.
    let _ = child.kill().await;
    Ok(end)
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Writes the arguments. A child that does not read them is none of our business.
async fn feed(mut stdin: ChildStdin, arguments: Bytes) {
    let _ = stdin.write_all(&arguments).await;
    let _ = stdin.shutdown().await;
}

/// What came out of the child.
struct Read {
    stdout: Vec<u8>,
    /// The end of it.
    stderr: Vec<u8>,
    limit: u64,
}

enum Complete {
    Yes,
    TooLarge,
}

impl Read {
    async fn all(
        &mut self,
        stdout: impl AsyncRead + Unpin,
        stderr: impl AsyncRead + Unpin,
    ) -> io::Result<Complete> {
        let (kept, tail, limit) = (&mut self.stdout, &mut self.stderr, self.limit);
        let stdout = async {
            // One byte more than allowed tells that there is more.
            stdout
                .take(limit.saturating_add(1))
                .read_to_end(kept)
                .await?;
            if kept.len() as u64 > limit {
                Err(Stop::TooLarge)
            } else {
                Ok(())
            }
        };
        match tokio::try_join!(stdout, read_tail(stderr, tail)) {
            Ok(_) => Ok(Complete::Yes),
            Err(Stop::TooLarge) => Ok(Complete::TooLarge),
            Err(Stop::Io(error)) => Err(error),
        }
    }
}

enum Stop {
    TooLarge,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads to the end and keeps the last bytes.
async fn read_tail(mut from: impl AsyncRead + Unpin, tail: &mut Vec<u8>) -> Result<(), Stop> {
    let mut chunk = vec![0; READ_CHUNK];
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        tail.extend_from_slice(&chunk[..count]);
        tail.drain(..tail.len().saturating_sub(STDERR_TAIL));
    }
}

fn output(stdout: Vec<u8>) -> Output {
    match String::from_utf8(stdout) {
        Ok(text) if text.is_empty() => Output::empty(),
        Ok(text) if serde_json::from_str::<IgnoredAny>(&text).is_ok() => {
            Output::from_json_text(text.trim_ascii().to_owned().into())
        }
        Ok(text) => Output::text(text),
        Err(error) => Output::blob("application/octet-stream", error.into_bytes()),
    }
}

fn failure(status: ExitStatus, stderr: &[u8]) -> ToolError {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    };
    let stderr = String::from_utf8_lossy(from_boundary(stderr));
    let stderr = stderr.trim();
    if stderr.is_empty() {
        ToolError::failed(format!(
            "The command {how}, and wrote nothing to standard error."
        ))
    } else {
        ToolError::failed(format!(
            "The command {how}. The end of its standard error:\n{stderr}"
        ))
    }
}

/// Without the rest of a character whose beginning was cut off.
fn from_boundary(tail: &[u8]) -> &[u8] {
    if tail.len() < STDERR_TAIL {
        return tail;
    }
    // A character has at most three bytes after its first.
    let rest = tail
        .iter()
        .take(3)
        .take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000)
        .count();
    &tail[rest..]
}

#[cfg(test)]
mod tests;
