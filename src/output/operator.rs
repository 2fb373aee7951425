//! What an operator sees of a broker, for people: workers, leases, tools' lanes, batches and their calls as tables.

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
pub(crate) mod words;

use std::time::Duration;

use toolpool_client::TimeLedger;
use toolpool_proto::v1;
use v1::{
    BatchStatus, CallPhase, CallStatus, Explanation, LaneStatus, LeaseStatus, WorkerState,
    WorkerStatus,
};

use self::words::{block, block_in_full, limit, phase, state, turn_end};
use super::table::Cell;
use super::{Paint, Table, compact, cut, json, one_line};

/// The most columns that a table gives to the names of a worker's tools.
const TOOLS_IN_TABLE: usize = 40;
/// Stands for what is not there.
const NONE: &str = "-";

/// A duration of the protocol; one that is none counts as absent.
pub(crate) fn time(of: Option<prost_types::Duration>) -> Option<Duration> {
    of.and_then(|of| of.try_into().ok())
}

/// The workers.
pub(crate) fn workers(workers: &[WorkerStatus]) -> Table {
    let mut table = Table::new([
        "WORKER",
        "STATE",
        "SLOTS",
        "CALLS",
        "KNOWN FOR",
        "SILENT FOR",
        "VERSION",
        "TOOLS",
    ]);
    for worker in workers {
        table.row([
            name(&worker.worker_id),
            Cell::painted(state(worker), colour(worker.state())),
            slots(worker).into(),
            worker.leases_total.to_string().into(),
            lasted(worker.known_for).into(),
            lasted(worker.silent_for).into(),
            name(&worker.version),
            tools(&worker.tools).into(),
        ]);
    }
    table
}

/// The calls that are with a worker.
pub(crate) fn leases(leases: &[LeaseStatus]) -> Table {
    let mut table = Table::new([
        "LEASE",
        "BATCH",
        "CALL",
        "TOOL",
        "ATTEMPT",
        "TIME LEFT",
        "STATE",
    ]);
    for lease in leases {
        let (state, colour): (_, fn(Paint, &str) -> String) = if lease.fenced {
            (
                "fenced: over for its batch, the slot is still in use",
                Paint::red,
            )
        } else if lease.started {
            ("started", Paint::green)
        } else {
            ("sent", Paint::yellow)
        };
        table.row([
            // As in the log and on spans.
            format!("{:016x}", lease.lease_id).into(),
            name(&lease.batch_id),
            name(&lease.call_id),
            name(&lease.tool),
            lease.attempt.to_string().into(),
            lasted(lease.time_left).into(),
            Cell::painted(state, colour),
        ]);
    }
    table
}

/// The tools' lanes.
pub(crate) fn lanes(lanes: &[LaneStatus]) -> Table {
    let mut table = Table::new([
        "TOOL",
        "WORKERS",
        "IN FLIGHT",
        "QUEUED",
        "SLOTS NEEDED",
        "WAITS FOR",
        "ENDED",
        "FAILED",
        "MEDIAN",
        "P90",
        "LONGEST",
    ]);
    for lane in lanes {
        let recent = lane.recent_runs.unwrap_or_default();
        let workers = lane.entry.as_ref().map_or(0, |entry| entry.workers);
        table.row([
            name(tool(lane)),
            workers.to_string().into(),
            lane.in_flight.to_string().into(),
            lane.queued.to_string().into(),
            lane.slots_needed.to_string().into(),
            Cell::painted(blocked(lane), Paint::yellow),
            lane.calls_ended.to_string().into(),
            lane.calls_failed.to_string().into(),
            lasted(recent.median).into(),
            lasted(recent.p90).into(),
            lasted(recent.longest).into(),
        ]);
    }
    table
}

/// Open batches.
pub(crate) fn batches(batches: &[BatchStatus]) -> Table {
    let mut table = Table::new([
        "BATCH",
        "OPEN FOR",
        "TIME LEFT",
        "TURN",
        "AGENT SILENT",
        "TRACE",
        "CALLS",
    ]);
    for batch in batches {
        table.row([
            name(&batch.batch_id),
            lasted(batch.open_for).into(),
            lasted(batch.time_left).into(),
            turn(batch).into(),
            lasted(batch.agent_silent_for).into(),
            name(batch.trace_id.as_deref().unwrap_or_default()),
            counts(batch).into(),
        ]);
    }
    table
}

/// The calls of a batch.
pub(crate) fn calls(batch: &BatchStatus) -> Table {
    let mut table = Table::new([
        "CALL",
        "TOOL",
        "PHASE",
        "BEGAN",
        "HELD",
        "WAITED",
        "RAN",
        "ATTEMPTS",
        "WORKER",
        "TIME LEFT",
    ]);
    for call in &batch.calls {
        let ledger = ledger(call, batch);
        let began = time(batch.open_for).map(|open| open.saturating_sub(ledger.block_began));
        table.row([
            name(&call.call_id),
            name(&call.tool),
            said_of(call),
            began
                .map_or_else(
                    || NONE.to_owned(),
                    |began| format!("{} ago", compact(began)),
                )
                .into(),
            some(ledger.held).into(),
            waited(&ledger).into(),
            some(ledger.ran).into(),
            ledger.attempts.to_string().into(),
            name(ledger.worker_id.as_deref().unwrap_or_default()),
            lasted(call.time_left).into(),
        ]);
    }
    table
}

/// Why a call has not ended: a line that names it, the reason, and its tool's lane if it is queued.
pub(crate) fn explanation(of: &Explanation, paint: Paint) -> Vec<String> {
    let call = of.call.clone().unwrap_or_default();
    let head = format!(
        "{} {} in batch {}: {}",
        one_line(&call.call_id),
        one_line(&call.tool),
        one_line(&of.batch_id),
        progress(&call)
    );
    let mut lines = vec![paint.bold(&head), format!("  {}", one_line(&of.why))];
    if let Some(lane) = &of.lane {
        lines.push(paint.dim(&format!("  {}", in_a_line(lane))));
    }
    lines
}

/// A tool's lane in one line.
fn in_a_line(lane: &LaneStatus) -> String {
    let workers = lane.entry.as_ref().map_or(0, |entry| entry.workers);
    let mut facts = vec![format!(
        "{}: {} queued, {} in flight, {}, {} needed",
        one_line(tool(lane)),
        lane.queued,
        lane.in_flight,
        counted(workers, "worker"),
        counted(lane.slots_needed, "slot"),
    )];
    if lane.blocked.is_some() {
        let by = block_in_full(lane.blocked());
        let since = time(lane.blocked_for);
        let since = since.map_or_else(String::new, |since| format!(", for {} now", compact(since)));
        facts.push(format!("the first in its queue waits for {by}{since}"));
    }
    if let Some(next) = time(lane.next_look) {
        facts.push(format!("looked at again in {}", compact(next)));
    }
    facts.join("; ")
}

/// How far a call has come; of one that failed, with its error.
fn progress(call: &CallStatus) -> String {
    match call.error {
        Some(_) => format!("{} {}", phase(call.phase()), json::code_name(call.error())),
        None => phase(call.phase()).to_owned(),
    }
}

/// How many calls of the batch are in which phase.
pub(crate) fn counts(batch: &BatchStatus) -> String {
    if batch.delivering {
        return "all over; the agent has not read them".to_owned();
    }
    let phases = batch.phases.iter();
    let phases: Vec<_> = phases
        .map(|count| format!("{} {}", count.calls, phase(count.phase())))
        .collect();
    if phases.is_empty() {
        return "none yet".to_owned();
    }
    phases.join(", ")
}

/// How the batch's turn ended, or that it has not.
pub(crate) fn turn(batch: &BatchStatus) -> &'static str {
    match batch.turn_end {
        _ if batch.delivering => NONE,
        Some(_) => turn_end(batch.turn_end()),
        None => "streaming",
    }
}

/// What holds up the lane's next call, and for how long it has.
pub(crate) fn blocked(lane: &LaneStatus) -> String {
    if lane.blocked.is_none() {
        return NONE.to_owned();
    }
    let by = block(lane.blocked());
    match time(lane.blocked_for) {
        Some(since) => format!("{by} {}", compact(since)),
        None => by.to_owned(),
    }
}

/// The name of a lane's tool.
pub(crate) fn tool(lane: &LaneStatus) -> &str {
    let tool = lane.entry.as_ref().and_then(|entry| entry.tool.as_ref());
    tool.map_or("", |tool| &tool.name)
}

/// Where a call's time went so far. What goes on counts as ending at the time of the look.
pub(crate) fn ledger(call: &CallStatus, batch: &BatchStatus) -> TimeLedger {
    let of = call.ledger.clone().unwrap_or_default();
    let ended = time(of.ended).filter(|_| call.phase() == CallPhase::Ended);
    let limited_by = of.limited_by.map(|_| of.limited_by());
    // Of a call that is not with a worker now, `ran` could only be that of an attempt before.
    let ran = match call.phase() {
        CallPhase::Running | CallPhase::Parked | CallPhase::Ended => time(of.ran),
        _ => None,
    };
    TimeLedger {
        block_began: time(of.block_began).unwrap_or_default(),
        block_complete: time(of.block_complete),
        started_early: time(of.started_early),
        held: time(of.held),
        limit_wait: time(of.limit_wait),
        limited_by,
        slot_wait: time(of.slot_wait),
        ran,
        ended: ended.or_else(|| time(batch.open_for)).unwrap_or_default(),
        attempts: of.attempts,
        worker_id: of.worker_id,
    }
}

/// `1 call`, `2 calls`.
pub(crate) fn counted(count: u32, what: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// `3/4`: of four slots three are in use.
pub(crate) fn slots(worker: &WorkerStatus) -> String {
    format!("{}/{}", used(worker), worker.slots)
}

/// The worker's slots that are in use.
pub(crate) fn used(worker: &WorkerStatus) -> u32 {
    worker.slots.saturating_sub(worker.slots_free)
}

/// A time as tables have it.
pub(crate) fn lasted(of: Option<prost_types::Duration>) -> String {
    some(time(of))
}

fn some(of: Option<Duration>) -> String {
    of.map_or_else(|| NONE.to_owned(), compact)
}

/// A name that somebody else chose.
fn name(of: &str) -> Cell {
    let of = one_line(of);
    if of.is_empty() {
        NONE.into()
    } else {
        of.into()
    }
}

fn tools(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| one_line(name)).collect();
    let joined = names.join(", ");
    let short = cut(&joined, TOOLS_IN_TABLE);
    if short == joined {
        joined
    } else {
        format!("{} ({} in all)", short, names.len())
    }
}

fn colour(state: WorkerState) -> fn(Paint, &str) -> String {
    match state {
        WorkerState::Connected => Paint::green,
        WorkerState::Draining => Paint::yellow,
        WorkerState::Away => Paint::red,
        WorkerState::Unspecified => Paint::dim,
    }
}

fn said_of(call: &CallStatus) -> Cell {
    let colour = match call.phase() {
        _ if call.error.is_some() => Paint::red,
        CallPhase::Running | CallPhase::Parked | CallPhase::Ended => Paint::green,
        CallPhase::Ready | CallPhase::Queued | CallPhase::Backoff => Paint::yellow,
        CallPhase::Streaming | CallPhase::Held | CallPhase::Unspecified => Paint::dim,
    };
    Cell::painted(progress(call), colour)
}

/// For limits and for a slot together, and for which limit the most.
fn waited(ledger: &TimeLedger) -> String {
    let waited = ledger.limit_wait.unwrap_or_default() + ledger.slot_wait.unwrap_or_default();
    if waited.is_zero() {
        return NONE.to_owned();
    }
    match ledger.limited_by {
        Some(by) => format!("{} ({})", compact(waited), limit(by)),
        None => compact(waited),
    }
}
