//! What an operator is shown.

use toolpool_proto::v1;

use super::result::{code, ledger};
use super::{catalogue_entry, many, to_wire, turn_end};
use crate::batch::view::{BatchView, CallView, PhaseName};
use crate::catalogue::Tool;
use crate::id::BatchId;
use crate::lane::{Cause, LaneView};
use crate::metrics::{RecentCalls, WorkerState};
use crate::session::{LeaseView, WorkerView};

pub(crate) fn worker_status(view: WorkerView) -> v1::WorkerStatus {
    let state = match view.state {
        WorkerState::Connected => v1::WorkerState::Connected,
        WorkerState::Draining => v1::WorkerState::Draining,
        WorkerState::Away => v1::WorkerState::Away,
    };
    v1::WorkerStatus {
        worker_id: view.worker.to_string(),
        instance_id: view.instance.to_string(),
        version: view.version,
        labels: view.labels.into_iter().collect(),
        state: state.into(),
        slots: many(view.slots),
        slots_free: many(view.slots_free),
        tools: view.tools.iter().map(ToString::to_string).collect(),
        known_for: Some(to_wire(view.known_for)),
        silent_for: Some(to_wire(view.silent_for)),
        leases: view.leases.iter().map(lease_status).collect(),
        leases_total: many(view.leases_total),
        taken_out: view.taken_out,
    }
}

fn lease_status(view: &LeaseView) -> v1::LeaseStatus {
    v1::LeaseStatus {
        lease_id: view.id.0,
        batch_id: view.batch.to_string(),
        call_id: view.call.to_string(),
        tool: view.tool.to_string(),
        attempt: view.attempt,
        time_left: Some(to_wire(view.time_left)),
        started: view.started,
        fenced: view.fenced,
    }
}

pub(crate) fn lane_status(tool: &Tool, view: LaneView) -> v1::LaneStatus {
    let block = |cause| match cause {
        Cause::Rate => v1::LaneBlock::Rate,
        Cause::InFlight => v1::LaneBlock::InFlight,
        Cause::Pause => v1::LaneBlock::Pause,
        Cause::Slot => v1::LaneBlock::Slot,
        Cause::NoWorker => v1::LaneBlock::NoWorker,
    };
    let LaneView {
        load,
        blocked,
        next_look,
    } = view;
    let RecentCalls {
        ended,
        failed,
        runs,
    } = tool.lane.series().recent();
    let mut entry = catalogue_entry(tool);
    if let Some(tool) = &mut entry.tool {
        // They are in `ListTools`, and may be long.
        tool.description.clear();
        tool.input_schema.clear();
    }
    v1::LaneStatus {
        entry: Some(entry),
        queued: many(load.queued),
        in_flight: many(load.in_flight),
        slots_needed: many(load.slots_needed),
        blocked: blocked.map(|(cause, _)| block(cause).into()),
        blocked_for: blocked.map(|(_, time)| to_wire(time)),
        next_look: next_look.map(to_wire),
        burst_used: load.rate.map(|(_, used)| used),
        calls_ended: ended,
        calls_failed: failed,
        recent_runs: runs.map(|runs| v1::RecentRuns {
            runs: many(runs.runs),
            median: Some(to_wire(runs.median)),
            p90: Some(to_wire(runs.p90)),
            longest: Some(to_wire(runs.longest)),
        }),
    }
}

pub(crate) fn batch_status(view: BatchView) -> v1::BatchStatus {
    let counts = PhaseName::ALL.into_iter().zip(view.phases);
    let phases = counts.filter(|(_, calls)| *calls > 0);
    v1::BatchStatus {
        batch_id: view.id.to_string(),
        open_for: Some(to_wire(view.open_for)),
        time_left: Some(to_wire(view.time_left)),
        turn_end: view.turn_end.map(|end| turn_end(end).into()),
        trace_id: view.trace_id,
        delivering: false,
        phases: phases
            .map(|(of, calls)| v1::PhaseCount {
                phase: phase(of).into(),
                calls: many(calls),
            })
            .collect(),
        calls: view.calls.into_iter().map(call_status).collect(),
        agent_silent_for: Some(to_wire(view.silent_for)),
    }
}

/// A batch that only its agent's reading holds open.
pub(crate) fn batch_delivering(id: &BatchId) -> v1::BatchStatus {
    v1::BatchStatus {
        batch_id: id.to_string(),
        delivering: true,
        ..Default::default()
    }
}

pub(crate) fn explanation(
    batch: &BatchId,
    mut call: CallView,
    lane: Option<v1::LaneStatus>,
) -> v1::Explanation {
    v1::Explanation {
        batch_id: batch.to_string(),
        why: call.why.take().unwrap_or_default(),
        call: Some(call_status(call)),
        lane,
    }
}

fn call_status(view: CallView) -> v1::CallStatus {
    let ledger = v1::TimeLedger {
        ended: (view.phase == PhaseName::Ended).then(|| to_wire(view.ledger.ended)),
        ..ledger(view.ledger)
    };
    v1::CallStatus {
        call_id: view.id.to_string(),
        tool: view.tool,
        position: many(view.position),
        phase: phase(view.phase).into(),
        ledger: Some(ledger),
        time_left: view.time_left.map(to_wire),
        lease_id: view.lease.map(|lease| lease.0),
        error: view.error.map(|error| code(error).into()),
    }
}

fn phase(name: PhaseName) -> v1::CallPhase {
    match name {
        PhaseName::Streaming => v1::CallPhase::Streaming,
        PhaseName::Held => v1::CallPhase::Held,
        PhaseName::Ready => v1::CallPhase::Ready,
        PhaseName::Queued => v1::CallPhase::Queued,
        PhaseName::Running => v1::CallPhase::Running,
        PhaseName::Backoff => v1::CallPhase::Backoff,
        PhaseName::Parked => v1::CallPhase::Parked,
        PhaseName::Ended => v1::CallPhase::Ended,
    }
}
