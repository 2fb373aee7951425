//! What an operator sees of a broker, for machines. Durations are milliseconds; what is absent on the wire is absent here.

use serde_json::{Value, json};
use toolpool_client::Tool;
use toolpool_proto::v1;
use v1::{BatchStatus, CallStatus, Explanation, LaneStatus, LeaseStatus, WorkerStatus};

use super::{bare, code_name, millis, present, tool};
use crate::output::operator::time;

/// A worker and the calls that are with it.
pub(crate) fn worker(worker: &WorkerStatus) -> Value {
    present([
        ("worker_id", Some(worker.worker_id.clone().into())),
        ("instance_id", Some(worker.instance_id.clone().into())),
        ("version", Some(worker.version.clone().into())),
        ("labels", Some(json!(worker.labels))),
        (
            "state",
            Some(bare("WORKER_STATE_", worker.state().as_str_name()).into()),
        ),
        ("taken_out", Some(worker.taken_out.into())),
        ("slots", Some(worker.slots.into())),
        ("slots_free", Some(worker.slots_free.into())),
        ("tools", Some(worker.tools.clone().into())),
        ("known_for_ms", span(worker.known_for)),
        ("silent_for_ms", span(worker.silent_for)),
        ("leases", Some(worker.leases.iter().map(lease).collect())),
        ("leases_total", Some(worker.leases_total.into())),
    ])
    .into()
}

/// A page of open batches, or several put together.
pub(crate) fn batches(batches: &[BatchStatus], open: u32) -> Value {
    json!({ "open": open, "batches": batches.iter().map(batch).collect::<Vec<_>>() })
}

/// Why a call has not ended.
pub(crate) fn explanation(of: &Explanation) -> Value {
    present([
        ("batch_id", Some(of.batch_id.clone().into())),
        ("call", of.call.as_ref().map(call)),
        ("why", Some(of.why.clone().into())),
        ("lane", of.lane.as_ref().map(lane)),
    ])
    .into()
}

/// A tool's lane.
pub(crate) fn lane(lane: &LaneStatus) -> Value {
    let entry = lane.entry.clone();
    let recent = lane.recent_runs.as_ref().map(|recent| {
        Value::from(present([
            ("runs", Some(recent.runs.into())),
            ("median_ms", span(recent.median)),
            ("p90_ms", span(recent.p90)),
            ("longest_ms", span(recent.longest)),
        ]))
    });
    let blocked = lane
        .blocked
        .map(|_| bare("LANE_BLOCK_", lane.blocked().as_str_name()).into());
    present([
        (
            "tool",
            entry
                .and_then(|entry| Tool::try_from(entry).ok())
                .as_ref()
                .map(tool),
        ),
        ("queued", Some(lane.queued.into())),
        ("in_flight", Some(lane.in_flight.into())),
        ("slots_needed", Some(lane.slots_needed.into())),
        ("blocked", blocked),
        ("blocked_for_ms", span(lane.blocked_for)),
        ("next_look_ms", span(lane.next_look)),
        ("burst_used", lane.burst_used.map(Value::from)),
        ("calls_ended", Some(lane.calls_ended.into())),
        ("calls_failed", Some(lane.calls_failed.into())),
        ("recent_runs", recent),
    ])
    .into()
}

fn lease(lease: &LeaseStatus) -> Value {
    present([
        ("lease_id", Some(lease_id(lease.lease_id))),
        ("batch_id", Some(lease.batch_id.clone().into())),
        ("call_id", Some(lease.call_id.clone().into())),
        ("tool", Some(lease.tool.clone().into())),
        ("attempt", Some(lease.attempt.into())),
        ("time_left_ms", span(lease.time_left)),
        ("started", Some(lease.started.into())),
        ("fenced", Some(lease.fenced.into())),
    ])
    .into()
}

fn batch(batch: &BatchStatus) -> Value {
    let phases = batch.phases.iter().map(|count| {
        let phase = bare("CALL_PHASE_", count.phase().as_str_name());
        json!({ "phase": phase, "calls": count.calls })
    });
    let turn_end = batch
        .turn_end
        .map(|_| bare("TURN_END_", batch.turn_end().as_str_name()).into());
    present([
        ("batch_id", Some(batch.batch_id.clone().into())),
        ("open_for_ms", span(batch.open_for)),
        ("time_left_ms", span(batch.time_left)),
        ("turn_end", turn_end),
        ("trace_id", batch.trace_id.clone().map(Value::from)),
        ("delivering", Some(batch.delivering.into())),
        ("phases", Some(phases.collect())),
        (
            "calls",
            (!batch.calls.is_empty()).then(|| batch.calls.iter().map(call).collect()),
        ),
        ("agent_silent_for_ms", span(batch.agent_silent_for)),
    ])
    .into()
}

fn call(call: &CallStatus) -> Value {
    present([
        ("call_id", Some(call.call_id.clone().into())),
        ("tool", Some(call.tool.clone().into())),
        ("position", Some(call.position.into())),
        (
            "phase",
            Some(bare("CALL_PHASE_", call.phase().as_str_name()).into()),
        ),
        ("ledger", call.ledger.as_ref().map(ledger)),
        ("time_left_ms", span(call.time_left)),
        ("lease_id", call.lease_id.map(lease_id)),
        ("error", call.error.map(|_| code_name(call.error()).into())),
    ])
    .into()
}

/// As the one of a finished batch, but `ended_ms` may be absent.
fn ledger(ledger: &v1::TimeLedger) -> Value {
    let limited_by = ledger
        .limited_by
        .map(|_| bare("LIMIT_", ledger.limited_by().as_str_name()).into());
    present([
        ("block_began_ms", span(ledger.block_began)),
        ("block_complete_ms", span(ledger.block_complete)),
        ("started_early_ms", span(ledger.started_early)),
        ("held_ms", span(ledger.held)),
        ("limit_wait_ms", span(ledger.limit_wait)),
        ("limited_by", limited_by),
        ("slot_wait_ms", span(ledger.slot_wait)),
        ("ran_ms", span(ledger.ran)),
        ("ended_ms", span(ledger.ended)),
        ("attempts", Some(ledger.attempts.into())),
        ("worker_id", ledger.worker_id.clone().map(Value::from)),
    ])
    .into()
}

fn span(of: Option<prost_types::Duration>) -> Option<Value> {
    time(of).map(millis)
}

/// As in the log and on spans.
fn lease_id(id: u64) -> Value {
    format!("{id:016x}").into()
}
