//! What a worker sends, and what it is sent.

use std::time::Duration;

use toolpool_proto::v1;

use super::tool::definition;
use super::{Malformed, malformed, printable, to_wire};
use crate::call_error::{CallError, Code, Effect};
use crate::catalogue::Definition;
use crate::id::{InstanceId, LeaseId, WorkerId};
use crate::lane::lease::{Ending, Lease};
use crate::output::Output;
use crate::schema::Violation;

/// Outcomes that a worker may keep beside those of its slots.
const MAX_UNACKNOWLEDGED: usize = 4_096;
const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 256;
/// Of what a worker says for people and models, this much is kept.
const MAX_ERROR_BYTES: usize = 64 * 1024;
const MAX_PROGRESS_BYTES: usize = 1024;

/// A worker's introduction.
#[derive(Debug)]
pub(crate) struct Register {
    pub(crate) worker: WorkerId,
    pub(crate) instance: InstanceId,
    pub(crate) tools: Vec<Definition>,
    pub(crate) slots: usize,
    pub(crate) version: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) running: Vec<LeaseId>,
}

/// What a worker says after that.
#[derive(Debug)]
pub(crate) enum FromWorker {
    Started(LeaseId),
    Progress {
        lease: LeaseId,
        message: String,
        fraction: Option<f64>,
    },
    Outcome {
        lease: LeaseId,
        ending: Ending,
    },
    Beat,
    Drain,
}

pub(crate) fn register(
    register: v1::Register,
    max_tools: usize,
    max_slots: usize,
) -> Result<Register, Malformed> {
    let slots = register.slots as usize;
    if !(1..=max_slots).contains(&slots) {
        return malformed(format!(
            "register.slots is {slots}; permitted are 1 to {max_slots} (max_slots_per_worker)"
        ));
    }
    let many = register.tools.len();
    if !(1..=max_tools).contains(&many) {
        return malformed(format!(
            "register.tools has {many}; permitted are 1 to {max_tools} (max_tools_per_worker)"
        ));
    }
    let label_bytes = register
        .labels
        .iter()
        .flat_map(|(key, value)| [key.len(), value.len()])
        .max();
    if register.labels.len() > MAX_LABELS
        || label_bytes.is_some_and(|bytes| bytes > MAX_LABEL_BYTES)
    {
        return malformed(format!(
            "register.labels: permitted are {MAX_LABELS} of at most {MAX_LABEL_BYTES} bytes each"
        ));
    }
    if register.version.len() > MAX_LABEL_BYTES {
        return malformed(format!(
            "register.version: permitted are {MAX_LABEL_BYTES} bytes"
        ));
    }
    let running = register.running_leases.len();
    if running > slots + MAX_UNACKNOWLEDGED {
        return malformed(format!(
            "register.running_leases has {running}; permitted are slots + {MAX_UNACKNOWLEDGED}"
        ));
    }
    let tools: Vec<Definition> = register
        .tools
        .into_iter()
        .map(definition)
        .collect::<Result<_, _>>()?;
    let mut names: Vec<_> = tools.iter().map(|tool| &tool.name).collect();
    names.sort_unstable();
    if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
        return malformed(format!("register.tools names {name} twice"));
    }
    Ok(Register {
        worker: WorkerId::from(printable("register.worker_id", register.worker_id)?),
        instance: InstanceId::from(printable("register.instance_id", register.instance_id)?),
        tools,
        slots,
        version: register.version,
        labels: register.labels.into_iter().collect(),
        running: register.running_leases.into_iter().map(LeaseId).collect(),
    })
}

/// A frame after the first.
pub(crate) fn worker_frame(frame: v1::WorkerFrame) -> Result<FromWorker, Malformed> {
    use v1::worker_frame::Frame;
    Ok(match frame.frame {
        Some(Frame::Register(_)) => {
            return malformed("register came twice; it must be the first frame and only the first");
        }
        Some(Frame::Started(started)) => FromWorker::Started(LeaseId(started.lease_id)),
        Some(Frame::Progress(v1::LeaseProgress { lease_id, progress })) => {
            let v1::ToolProgress { message, fraction } = progress.unwrap_or_default();
            FromWorker::Progress {
                lease: LeaseId(lease_id),
                message: clip(message, MAX_PROGRESS_BYTES),
                fraction,
            }
        }
        Some(Frame::Outcome(outcome)) => {
            let lease = LeaseId(outcome.lease_id);
            FromWorker::Outcome {
                lease,
                ending: ending(outcome)?,
            }
        }
        // None: of a newer worker, which says something that may be passed over, and that it lives.
        Some(Frame::Beat(_)) | None => FromWorker::Beat,
        Some(Frame::Drain(_)) => FromWorker::Drain,
    })
}

fn ending(outcome: v1::Outcome) -> Result<Ending, Malformed> {
    match outcome.ending {
        None => malformed("outcome.ending is absent; it must be an output or an error"),
        Some(v1::outcome::Ending::Output(output)) => Ok(Ending::Output(Output::from(output))),
        Some(v1::outcome::Ending::Error(error)) => Ok(Ending::Failed(tool_error(error))),
    }
}

/// What a worker may say of a failure; anything else counts as `TOOL_FAILED`.
fn tool_error(error: v1::CallError) -> CallError {
    use v1::ErrorCode;
    let code = match error.code() {
        ErrorCode::InvalidArguments => Code::InvalidArguments,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::RateLimited => Code::RateLimited,
        ErrorCode::ResultTooLarge => Code::ResultTooLarge,
        ErrorCode::Cancelled => Code::Cancelled,
        _ => Code::ToolFailed,
    };
    let effect = match error.effect() {
        v1::Effect::NotStarted => Effect::NotStarted,
        v1::Effect::Unspecified | v1::Effect::Maybe => Effect::Maybe,
        v1::Effect::Done => Effect::Done,
    };
    let retry_after = error
        .retry_after
        .and_then(|time| Duration::try_from(time).ok());
    let violation = |of: v1::Violation| Violation {
        path: clip(of.path, MAX_PROGRESS_BYTES),
        message: clip(of.message, MAX_PROGRESS_BYTES),
    };
    CallError {
        code,
        message: clip(error.message, MAX_ERROR_BYTES),
        retryable: match code {
            // Final by the protocol: the same call would give the same output.
            Code::ResultTooLarge => false,
            Code::RateLimited => error.retryable || retry_after.is_some(),
            _ => error.retryable,
        },
        effect,
        retry_after,
        violations: error
            .violations
            .into_iter()
            .take(64)
            .map(violation)
            .collect(),
        near_names: Vec::new(),
    }
}

fn clip(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// What sends a lease to its worker; `time_left` for the attempt.
pub(crate) fn assignment(lease: &Lease, time_left: Duration) -> v1::Assignment {
    let call = lease.call();
    let key = call
        .idempotency_key
        .clone()
        .unwrap_or_else(|| format!("{} {}", call.batch, call.id));
    let trace = call.trace.as_deref();
    v1::Assignment {
        lease_id: lease.id.0,
        batch_id: call.batch.to_string(),
        call_id: call.id.to_string(),
        tool: String::from(&*call.tool),
        arguments: call.arguments.clone(),
        timeout: Some(to_wire(time_left)),
        attempt: lease.attempt.number,
        idempotency_key: key,
        traceparent: trace.map(|trace| trace.traceparent(lease.attempt.span)),
        tracestate: trace.and_then(|trace| trace.state().map(str::to_owned)),
    }
}

pub(crate) fn pool_frame(frame: v1::pool_frame::Frame) -> v1::PoolFrame {
    v1::PoolFrame { frame: Some(frame) }
}
