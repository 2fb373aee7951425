//! Protobuf to our types and back. Behind this file every value is valid.

use std::sync::Arc;
use std::time::Duration;

use toolpool_proto::v1;

use crate::batch::{CallReport, Duplicate, Ledger, Progress, Report};
use crate::call_error::{CallError, Code, Effect, Scope};
use crate::catalogue::{Definition, Tool};
use crate::id::{BatchId, CallId, InstanceId, LeaseId, WorkerId};
use crate::ingest::{Header, Input, TurnEnd};
use crate::lane::lease::{Ending, Lease, Limit};
use crate::output::Output;
use crate::policy::{Effects, FailureAction, Policy, PolicyPatch};
use crate::schema::Violation;

const MAX_ID_BYTES: usize = 256;
const MAX_NAME_BYTES: usize = 128;
const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 256;
/// Of an unknown tool's name and of a worker's message, what is kept.
const MAX_TOOL_NAME_BYTES: usize = 256;
const MAX_ERROR_BYTES: usize = 64 * 1024;
const MAX_PROGRESS_BYTES: usize = 1024;

/// A message that breaks the protocol; says which field and what is permitted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct Malformed(String);

fn malformed<T>(text: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(text.into()))
}

/// The agent's wishes for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) batch: BatchId,
    pub(crate) deadline: Option<Duration>,
    pub(crate) max_parallel: Option<usize>,
    pub(crate) finish_on_disconnect: bool,
    pub(crate) progress: bool,
}

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

pub(crate) fn open(open: v1::Open) -> Result<Open, Malformed> {
    let batch = match open.batch_id {
        None => BatchId::generate(),
        Some(id) => BatchId::from(printable("open.batch_id", id)?),
    };
    let max_parallel = match open.max_parallel {
        Some(0) => {
            return malformed("open.max_parallel is 0; permitted is 1 or more, or leave it out");
        }
        other => other.map(|most| most as usize),
    };
    let finish_on_disconnect = match open.on_disconnect.map(v1::OnDisconnect::try_from) {
        None | Some(Ok(v1::OnDisconnect::Cancel)) => false,
        Some(Ok(v1::OnDisconnect::Finish)) => true,
        Some(_) => {
            return malformed(
                "open.on_disconnect is not one of its values; leave it out for the default",
            );
        }
    };
    let deadline = open
        .deadline
        .map(|time| duration("open.deadline", time))
        .transpose()?;
    Ok(Open {
        batch,
        deadline,
        max_parallel,
        finish_on_disconnect,
        progress: open.progress,
    })
}

/// A frame after the first.
pub(crate) fn agent_frame(frame: v1::AgentFrame) -> Result<Input, Malformed> {
    use v1::agent_frame::Frame;
    Ok(match frame.frame {
        None => return malformed("a frame is empty or of a kind that this broker does not know"),
        Some(Frame::Open(_)) => {
            return malformed("open came twice; it must be the first frame and only the first");
        }
        Some(Frame::BlockStart(start)) => {
            let header = header("block_start", start.id, start.tool)?;
            let idempotency_key = key("block_start", start.idempotency_key)?;
            Input::Start {
                index: start.index,
                header,
                idempotency_key,
            }
        }
        Some(Frame::BlockDelta(delta)) => Input::Delta {
            index: delta.index,
            fragment: delta.fragment,
        },
        Some(Frame::BlockStop(stop)) => Input::Stop { index: stop.index },
        Some(Frame::Call(whole)) => call(whole)?,
        Some(Frame::Seal(end)) => Input::Seal(seal(end)?),
    })
}

pub(crate) fn call(call: v1::Call) -> Result<Input, Malformed> {
    let header = header("call", call.id, call.tool)?;
    let idempotency_key = key("call", call.idempotency_key)?;
    Ok(Input::Whole {
        header,
        idempotency_key,
        arguments: call.arguments,
    })
}

pub(crate) fn seal(seal: v1::Seal) -> Result<TurnEnd, Malformed> {
    match seal.turn_end.map(v1::TurnEnd::try_from) {
        None | Some(Ok(v1::TurnEnd::Complete)) => Ok(TurnEnd::Complete),
        Some(Ok(v1::TurnEnd::Truncated)) => Ok(TurnEnd::Truncated),
        Some(Ok(v1::TurnEnd::Aborted)) => Ok(TurnEnd::Aborted),
        Some(_) => {
            malformed("seal.turn_end is not one of its values; leave it out for the default")
        }
    }
}

fn header(field: &str, id: String, tool: String) -> Result<Header, Malformed> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return malformed(format!(
            "{field}.id has {} bytes; permitted are 1 to {MAX_ID_BYTES}",
            id.len()
        ));
    }
    if tool.len() > MAX_TOOL_NAME_BYTES {
        return malformed(format!(
            "{field}.tool has {} bytes; permitted are {MAX_TOOL_NAME_BYTES}",
            tool.len()
        ));
    }
    Ok(Header {
        id: CallId::from(id),
        tool,
    })
}

fn key(field: &str, key: Option<String>) -> Result<Option<String>, Malformed> {
    match key {
        Some(key) if key.is_empty() || key.len() > MAX_ID_BYTES => malformed(format!(
            "{field}.idempotency_key has {} bytes; permitted are 1 to {MAX_ID_BYTES}, or leave it out",
            key.len()
        )),
        other => Ok(other),
    }
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

fn definition(tool: v1::Tool) -> Result<Definition, Malformed> {
    let policy = tool
        .policy
        .map(|policy| patch(&tool.name, policy))
        .transpose()?
        .unwrap_or_default();
    let name = Arc::from(tool.name);
    Ok(Definition {
        name,
        description: tool.description,
        input_schema: tool.input_schema,
        policy,
    })
}

fn patch(tool: &str, policy: v1::Policy) -> Result<PolicyPatch, Malformed> {
    let field = |name: &str| format!("register.tools[{tool}].policy.{name}");
    let time = |name: &str, time: Option<prost_types::Duration>| {
        time.map(|time| duration(&field(name), time)).transpose()
    };
    let effects = match policy.effects.map(v1::Effects::try_from) {
        None => None,
        Some(Ok(v1::Effects::ReadOnly)) => Some(Effects::ReadOnly),
        Some(Ok(v1::Effects::Idempotent)) => Some(Effects::Idempotent),
        Some(Ok(v1::Effects::SideEffecting)) => Some(Effects::SideEffecting),
        Some(_) => return malformed(format!("{} is not one of its values", field("effects"))),
    };
    let on_failure = match policy.on_failure.map(v1::FailureAction::try_from) {
        None => None,
        Some(Ok(v1::FailureAction::Return)) => Some(FailureAction::Return),
        Some(Ok(v1::FailureAction::AbortBatch)) => Some(FailureAction::AbortBatch),
        Some(_) => return malformed(format!("{} is not one of its values", field("on_failure"))),
    };
    Ok(PolicyPatch {
        effects,
        attempt_timeout: time("attempt_timeout", policy.attempt_timeout)?,
        call_timeout: time("call_timeout", policy.call_timeout)?,
        queue_timeout: time("queue_timeout", policy.queue_timeout)?,
        max_attempts: policy.max_attempts,
        retry_backoff: time("retry_backoff", policy.retry_backoff)?,
        rate: policy.rate,
        burst: policy.burst,
        max_in_flight: policy.max_in_flight,
        on_failure,
    })
}

/// A frame after the first.
pub(crate) fn worker_frame(frame: v1::WorkerFrame) -> Result<FromWorker, Malformed> {
    use v1::worker_frame::Frame;
    Ok(match frame.frame {
        None => return malformed("a frame is empty or of a kind that this broker does not know"),
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
        Some(Frame::Beat(_)) => FromWorker::Beat,
        Some(Frame::Drain(_)) => FromWorker::Drain,
    })
}

fn ending(outcome: v1::Outcome) -> Result<Ending, Malformed> {
    match outcome.ending {
        None => malformed("outcome.ending is absent; it must be an output or an error"),
        Some(v1::outcome::Ending::Output(output)) => Ok(Ending::Output(Output(output))),
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
    let violation = |v1::Violation { path, message }| Violation { path, message };
    CallError {
        code,
        message: clip(error.message, MAX_ERROR_BYTES),
        // Final by the protocol: the same call would give the same output.
        retryable: error.retryable && code != Code::ResultTooLarge,
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

fn printable(field: &str, id: String) -> Result<String, Malformed> {
    if id.is_empty() || id.len() > MAX_NAME_BYTES || !id.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return malformed(format!(
            "{field}: permitted are 1 to {MAX_NAME_BYTES} printable ASCII characters"
        ));
    }
    Ok(id)
}

fn duration(field: &str, time: prost_types::Duration) -> Result<Duration, Malformed> {
    let wrong = |_| Malformed(format!("{field} is negative or out of range"));
    Duration::try_from(time).map_err(wrong)
}

/// A duration on the wire; ours are far below its range.
pub(crate) fn to_wire(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: time.subsec_nanos().cast_signed(),
    }
}

/// The frame that sends a lease to its worker; `time_left` for the attempt.
pub(crate) fn assignment(lease: &Lease, time_left: Duration) -> v1::PoolFrame {
    let call = lease.call();
    let key = call
        .idempotency_key
        .clone()
        .unwrap_or_else(|| format!("{}/{}", call.batch, call.id));
    pool_frame(v1::pool_frame::Frame::Assignment(v1::Assignment {
        lease_id: lease.id.0,
        batch_id: call.batch.to_string(),
        call_id: call.id.to_string(),
        tool: String::from(&*call.tool),
        arguments: call.arguments.clone(),
        timeout: Some(to_wire(time_left)),
        attempt: lease.attempt.number,
        idempotency_key: key,
    }))
}

pub(crate) fn pool_frame(frame: v1::pool_frame::Frame) -> v1::PoolFrame {
    v1::PoolFrame { frame: Some(frame) }
}

pub(crate) fn batch_frame(frame: v1::batch_frame::Frame) -> v1::BatchFrame {
    v1::BatchFrame { frame: Some(frame) }
}

pub(crate) fn progress(id: &CallId, at: Duration, progress: Progress) -> v1::BatchFrame {
    use v1::call_progress::{Ended, Event, Queued, Started};
    let event = match progress {
        Progress::Queued => Event::Queued(Queued {}),
        Progress::Started { worker, attempt } => Event::Started(Started {
            worker_id: worker.to_string(),
            attempt,
        }),
        Progress::Tool { message, fraction } => Event::Tool(v1::ToolProgress { message, fraction }),
        Progress::Ended { error } => Event::Ended(Ended {
            error: error.map(|error| code(error).into()),
        }),
    };
    let progress = v1::CallProgress {
        id: id.to_string(),
        event: Some(event),
        at: Some(to_wire(at)),
    };
    batch_frame(v1::batch_frame::Frame::Progress(progress))
}

/// The last frame of a batch.
pub(crate) fn finished(
    batch: &BatchId,
    accepted_at: std::time::SystemTime,
    report: &Report,
) -> v1::Finished {
    let many = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    v1::Finished {
        batch_id: batch.to_string(),
        calls: many(report.calls.len()),
        succeeded: many(report.succeeded()),
        accepted_at: Some(accepted_at.into()),
        elapsed: Some(to_wire(report.elapsed)),
        summed_run: Some(to_wire(report.summed_run())),
        duplicates: report.duplicates.iter().map(duplicate).collect(),
    }
}

fn duplicate(duplicate: &Duplicate) -> v1::DuplicateCall {
    v1::DuplicateCall {
        id: duplicate.id.to_string(),
        tool: duplicate.tool.clone(),
        position: u32::try_from(duplicate.position).unwrap_or(u32::MAX),
        error: Some(call_error(duplicate.error.clone())),
    }
}

pub(crate) fn result(report: CallReport) -> v1::CallResult {
    let ending = match report.result {
        Ok(output) => v1::call_result::Ending::Output(output.0),
        Err(error) => v1::call_result::Ending::Error(call_error(error)),
    };
    v1::CallResult {
        id: report.id.to_string(),
        tool: report.tool,
        position: u32::try_from(report.position).unwrap_or(u32::MAX),
        ending: Some(ending),
        ledger: Some(ledger(report.ledger)),
    }
}

fn ledger(ledger: Ledger) -> v1::TimeLedger {
    let unless_zero = |time: Duration| (!time.is_zero()).then(|| to_wire(time));
    let limit = |limit| match limit {
        Limit::Rate => v1::Limit::Rate,
        Limit::InFlight => v1::Limit::InFlight,
        Limit::Pause => v1::Limit::Pause,
        Limit::MaxParallel => v1::Limit::MaxParallel,
    };
    v1::TimeLedger {
        block_began: Some(to_wire(ledger.block_began)),
        block_complete: ledger.block_complete.map(to_wire),
        held: ledger.held.map(to_wire),
        limit_wait: unless_zero(ledger.limit_wait),
        limited_by: ledger.limited_by.map(|by| limit(by).into()),
        slot_wait: unless_zero(ledger.slot_wait),
        ran: ledger.ran.map(to_wire),
        ended: Some(to_wire(ledger.ended)),
        attempts: ledger.attempts,
        worker_id: ledger.worker.map(|worker| worker.to_string()),
    }
}

fn call_error(error: CallError) -> v1::CallError {
    let timeout = match error.code {
        Code::Timeout(Scope::Queue) => Some(v1::TimeoutScope::Queue),
        Code::Timeout(Scope::Attempt) => Some(v1::TimeoutScope::Attempt),
        Code::Timeout(Scope::Call) => Some(v1::TimeoutScope::Call),
        Code::Timeout(Scope::Batch) => Some(v1::TimeoutScope::Batch),
        _ => None,
    };
    let effect = match error.effect {
        Effect::NotStarted => v1::Effect::NotStarted,
        Effect::Maybe => v1::Effect::Maybe,
        Effect::Done => v1::Effect::Done,
    };
    let violation = |Violation { path, message }| v1::Violation { path, message };
    v1::CallError {
        code: code(error.code).into(),
        message: error.message,
        retryable: error.retryable,
        effect: effect.into(),
        retry_after: error.retry_after.map(to_wire),
        timeout: timeout.map(Into::into),
        violations: error.violations.into_iter().map(violation).collect(),
        near_names: error.near_names,
    }
}

fn code(code: Code) -> v1::ErrorCode {
    use v1::ErrorCode;
    match code {
        Code::InvalidArguments => ErrorCode::InvalidArguments,
        Code::UnknownTool => ErrorCode::UnknownTool,
        Code::NoWorker => ErrorCode::NoWorker,
        Code::Overloaded => ErrorCode::Overloaded,
        Code::RateLimited => ErrorCode::RateLimited,
        Code::Timeout(_) => ErrorCode::Timeout,
        Code::ToolFailed => ErrorCode::ToolFailed,
        Code::WorkerLost => ErrorCode::WorkerLost,
        Code::OutcomeUnknown => ErrorCode::OutcomeUnknown,
        Code::ResultTooLarge => ErrorCode::ResultTooLarge,
        Code::Cancelled => ErrorCode::Cancelled,
        Code::Aborted => ErrorCode::Aborted,
        Code::Incomplete => ErrorCode::Incomplete,
        Code::TruncatedTurn => ErrorCode::TruncatedTurn,
        Code::DuplicateId => ErrorCode::DuplicateId,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::Internal => ErrorCode::Internal,
    }
}

/// A tool as the catalogue lists it.
pub(crate) fn catalogue_entry(tool: &Tool) -> v1::CatalogueEntry {
    let revision = tool.revision();
    let definition = &revision.definition;
    v1::CatalogueEntry {
        tool: Some(v1::Tool {
            name: definition.name.to_string(),
            description: definition.description.clone(),
            input_schema: definition.input_schema.clone(),
            policy: Some(effective_policy(&revision.policy)),
        }),
        registered_policy: Some(registered_policy(&definition.policy)),
        workers: u32::try_from(tool.lane.workers()).unwrap_or(u32::MAX),
    }
}

fn effective_policy(policy: &Policy) -> v1::Policy {
    v1::Policy {
        effects: Some(effects(policy.effects).into()),
        attempt_timeout: Some(to_wire(policy.attempt_timeout)),
        call_timeout: Some(to_wire(policy.call_timeout)),
        queue_timeout: Some(to_wire(policy.queue_timeout)),
        max_attempts: Some(policy.max_attempts.get()),
        retry_backoff: Some(to_wire(policy.retry_backoff)),
        rate: policy.rate.map(|rate| rate.per_second),
        burst: policy.rate.map(|rate| rate.burst.get()),
        max_in_flight: policy.max_in_flight.map(std::num::NonZeroU32::get),
        on_failure: Some(failure_action(policy.on_failure).into()),
    }
}

fn registered_policy(policy: &PolicyPatch) -> v1::Policy {
    v1::Policy {
        effects: policy.effects.map(|value| effects(value).into()),
        attempt_timeout: policy.attempt_timeout.map(to_wire),
        call_timeout: policy.call_timeout.map(to_wire),
        queue_timeout: policy.queue_timeout.map(to_wire),
        max_attempts: policy.max_attempts,
        retry_backoff: policy.retry_backoff.map(to_wire),
        rate: policy.rate,
        burst: policy.burst,
        max_in_flight: policy.max_in_flight,
        on_failure: policy.on_failure.map(|value| failure_action(value).into()),
    }
}

fn effects(effects: Effects) -> v1::Effects {
    match effects {
        Effects::ReadOnly => v1::Effects::ReadOnly,
        Effects::Idempotent => v1::Effects::Idempotent,
        Effects::SideEffecting => v1::Effects::SideEffecting,
    }
}

fn failure_action(action: FailureAction) -> v1::FailureAction {
    match action {
        FailureAction::Return => v1::FailureAction::Return,
        FailureAction::AbortBatch => v1::FailureAction::AbortBatch,
    }
}
