//! Hand-made answers of a broker for tests.

use std::collections::HashMap;
use std::time::Duration;

use prost_types::Duration as Span;
use toolpool_proto::v1;
use v1::{
    BatchStatus, CallPhase, CallStatus, CatalogueEntry, ErrorCode, LaneBlock, LaneStatus,
    LeaseStatus, Limit, PhaseCount, RecentRuns, TimeLedger, TurnEnd, WorkerState, WorkerStatus,
};

/// So many milliseconds, as they are on the wire.
pub(crate) fn ms(millis: u64) -> Option<Span> {
    Duration::from_millis(millis).try_into().ok()
}

/// A worker that is here, with four slots, one of them in use.
pub(crate) fn worker(id: &str) -> WorkerStatus {
    WorkerStatus {
        worker_id: id.to_owned(),
        instance_id: format!("{id}-1"),
        version: "1.2".to_owned(),
        labels: HashMap::from([("zone".to_owned(), "a".to_owned())]),
        state: WorkerState::Connected.into(),
        slots: 4,
        slots_free: 3,
        tools: vec!["fetch".to_owned(), "search".to_owned()],
        known_for: ms(7_260_000),
        silent_for: ms(1_200),
        leases: vec![LeaseStatus {
            lease_id: 7,
            batch_id: "b-1".to_owned(),
            call_id: "call_1".to_owned(),
            tool: "search".to_owned(),
            attempt: 2,
            time_left: ms(28_000),
            started: true,
            fenced: false,
        }],
        leases_total: 1,
        taken_out: false,
    }
}

/// A lane that nobody waits in.
pub(crate) fn lane(tool: &str, ended: u64, failed: u64) -> LaneStatus {
    LaneStatus {
        entry: Some(CatalogueEntry {
            tool: Some(v1::Tool {
                name: tool.to_owned(),
                ..v1::Tool::default()
            }),
            workers: 2,
            ..CatalogueEntry::default()
        }),
        calls_ended: ended,
        calls_failed: failed,
        ..LaneStatus::default()
    }
}

/// A lane whose rate keeps three calls waiting.
pub(crate) fn busy_lane(tool: &str, ended: u64, failed: u64) -> LaneStatus {
    LaneStatus {
        queued: 3,
        in_flight: 2,
        slots_needed: 4,
        blocked: Some(LaneBlock::Rate.into()),
        blocked_for: ms(3_000),
        next_look: ms(250),
        burst_used: Some(1.0),
        recent_runs: Some(RecentRuns {
            runs: 128,
            median: ms(120),
            p90: ms(1_500),
            longest: ms(62_000),
        }),
        ..lane(tool, ended, failed)
    }
}

/// A batch of five calls, ten seconds old, whose turn goes on.
pub(crate) fn batch(id: &str) -> BatchStatus {
    let written = TimeLedger {
        block_began: ms(0),
        block_complete: ms(2_000),
        ..TimeLedger::default()
    };
    let ended = CallStatus {
        phase: CallPhase::Ended.into(),
        error: Some(ErrorCode::ToolFailed.into()),
        ledger: Some(TimeLedger {
            ran: ms(4_000),
            ended: ms(6_000),
            attempts: 1,
            worker_id: Some("w-1".to_owned()),
            ..written.clone()
        }),
        ..call("call_1", "fetch", 0)
    };
    let running = CallStatus {
        phase: CallPhase::Running.into(),
        lease_id: Some(7),
        time_left: ms(28_000),
        ledger: Some(TimeLedger {
            limit_wait: ms(3_000),
            limited_by: Some(Limit::Rate.into()),
            slot_wait: ms(1_000),
            ran: ms(4_000),
            attempts: 2,
            worker_id: Some("w-1".to_owned()),
            ..written.clone()
        }),
        ..call("call_2", "search", 1)
    };
    let queued = CallStatus {
        phase: CallPhase::Queued.into(),
        time_left: ms(52_000),
        ledger: Some(TimeLedger {
            limit_wait: ms(8_000),
            limited_by: Some(Limit::Rate.into()),
            ..written.clone()
        }),
        ..call("call_3", "search", 2)
    };
    let held = CallStatus {
        phase: CallPhase::Held.into(),
        ledger: Some(TimeLedger {
            held: ms(8_000),
            ..written
        }),
        ..call("call_4", "order", 3)
    };
    let streaming = CallStatus {
        phase: CallPhase::Streaming.into(),
        ledger: Some(TimeLedger {
            block_began: ms(9_000),
            ..TimeLedger::default()
        }),
        ..call("call_5", "fetch", 4)
    };
    let phases = [
        CallPhase::Streaming,
        CallPhase::Held,
        CallPhase::Queued,
        CallPhase::Running,
        CallPhase::Ended,
    ];
    let phases = phases.map(|phase| PhaseCount {
        phase: phase.into(),
        calls: 1,
    });
    BatchStatus {
        batch_id: id.to_owned(),
        open_for: ms(10_000),
        time_left: ms(590_000),
        turn_end: None,
        trace_id: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
        delivering: false,
        phases: phases.into(),
        calls: vec![ended, running, queued, held, streaming],
        agent_silent_for: ms(400),
    }
}

/// A batch whose turn is over and whose one call runs.
pub(crate) fn sealed_batch(id: &str) -> BatchStatus {
    BatchStatus {
        turn_end: Some(TurnEnd::Complete.into()),
        trace_id: None,
        phases: vec![PhaseCount {
            phase: CallPhase::Running.into(),
            calls: 1,
        }],
        calls: vec![CallStatus {
            phase: CallPhase::Running.into(),
            ledger: Some(TimeLedger {
                block_began: ms(0),
                block_complete: ms(1_000),
                ran: ms(9_000),
                attempts: 1,
                worker_id: Some("w-1".to_owned()),
                ..TimeLedger::default()
            }),
            ..call("call_1", "search", 0)
        }],
        ..batch(id)
    }
}

fn call(id: &str, tool: &str, position: u32) -> CallStatus {
    CallStatus {
        call_id: id.to_owned(),
        tool: tool.to_owned(),
        position,
        ..CallStatus::default()
    }
}
