//! The protocol's names in an operator's words.

use toolpool_client::Limit;
use toolpool_proto::v1::{CallPhase, LaneBlock, TurnEnd, WorkerState, WorkerStatus};

/// How a worker is doing.
pub(crate) fn state(worker: &WorkerStatus) -> &'static str {
    match worker.state() {
        WorkerState::Connected => "connected",
        WorkerState::Away if worker.taken_out => "away, taken out",
        WorkerState::Draining => "draining",
        WorkerState::Away => "away",
        WorkerState::Unspecified => "unknown",
    }
}

/// How far a call has come.
pub(crate) fn phase(phase: CallPhase) -> &'static str {
    match phase {
        CallPhase::Streaming => "streaming",
        CallPhase::Held => "held",
        CallPhase::Ready => "ready",
        CallPhase::Queued => "queued",
        CallPhase::Running => "running",
        CallPhase::Backoff => "in backoff",
        CallPhase::Parked => "parked",
        CallPhase::Ended => "ended",
        CallPhase::Unspecified => "unknown",
    }
}

/// What a lane's next call waits for.
pub(crate) fn block(by: LaneBlock) -> &'static str {
    match by {
        LaneBlock::Rate => "rate",
        LaneBlock::InFlight => "in flight",
        LaneBlock::Pause => "pause",
        LaneBlock::Slot => "slot",
        LaneBlock::NoWorker => "worker",
        LaneBlock::Unspecified => "unknown",
    }
}

/// The same in a sentence.
pub(super) fn block_in_full(by: LaneBlock) -> &'static str {
    match by {
        LaneBlock::Rate => "the tool's rate",
        LaneBlock::InFlight => "the tool's limit of calls in flight",
        LaneBlock::Pause => "the end of a pause that the tool asked for",
        LaneBlock::Slot => "a free slot",
        LaneBlock::NoWorker => "a worker that serves the tool",
        LaneBlock::Unspecified => "something that is newer than this program",
    }
}

/// What a call had to wait for.
pub(super) fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Rate => "rate",
        Limit::InFlight => "in flight",
        Limit::Pause => "pause",
        Limit::MaxParallel => "max parallel",
        Limit::Unspecified => "unknown",
    }
}

/// How a turn ended.
pub(super) fn turn_end(end: TurnEnd) -> &'static str {
    match end {
        TurnEnd::Complete => "complete",
        TurnEnd::Truncated => "cut short",
        TurnEnd::Aborted => "given up",
        TurnEnd::Unspecified => "unknown",
    }
}
