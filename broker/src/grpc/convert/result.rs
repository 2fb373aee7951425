//! What an agent is sent: progress, results, the finished batch.

use std::time::Duration;

use toolpool_proto::v1;

use super::{many, to_wire};
use crate::batch::{CallReport, Duplicate, Ledger, Progress, Report};
use crate::call_error::{CallError, Code, Effect, Scope};
use crate::id::{BatchId, CallId};
use crate::ingest::dialect::Answered;
use crate::lane::lease::Limit;
use crate::schema::Violation;

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
    turn: Option<v1::Turn>,
) -> v1::Finished {
    v1::Finished {
        batch_id: batch.to_string(),
        calls: many(report.calls.len()),
        succeeded: many(report.succeeded()),
        accepted_at: Some(accepted_at.into()),
        elapsed: Some(to_wire(report.elapsed)),
        summed_run: Some(to_wire(report.summed_run())),
        duplicates: report.duplicates.iter().map(duplicate).collect(),
        turn,
        trace_id: None,
    }
}

fn duplicate(duplicate: &Duplicate) -> v1::DuplicateCall {
    v1::DuplicateCall {
        id: duplicate.id.to_string(),
        tool: duplicate.tool.clone(),
        position: many(duplicate.position),
        error: Some(call_error(duplicate.error.clone())),
    }
}

/// `of` is what the call's provider said of it, where its stream was piped in.
pub(crate) fn result(report: CallReport, of: Option<&Answered>) -> v1::CallResult {
    let ending = match report.result {
        Ok(output) => v1::call_result::Ending::Output(output.into_message()),
        Err(error) => v1::call_result::Ending::Error(call_error(error)),
    };
    v1::CallResult {
        id: report.id.to_string(),
        tool: report.tool,
        position: many(of.map_or(report.position, |of| of.position)),
        ending: Some(ending),
        ledger: Some(ledger(report.ledger)),
        provider_id: of.and_then(|of| of.provider_id.clone()),
        thought_signature: of.and_then(|of| of.signature.clone()),
    }
}

pub(super) fn ledger(ledger: Ledger) -> v1::TimeLedger {
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
        started_early: ledger.started_early.map(to_wire),
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

pub(super) fn code(code: Code) -> v1::ErrorCode {
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
