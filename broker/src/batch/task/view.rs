//! Shows the batch to an operator, and says why a call of it has not ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Task;
use crate::batch::view::{CallView, Look, PhaseName, Wanted};
use crate::lane::queue::MOST_AHEAD;
use crate::lane::{Cause, LaneView};
use crate::policy::Policy;

impl Task {
    pub(super) fn look(&self, look: Look, now: Instant) {
        let mut view = self.batch.view(&self.id, &look.wanted, now);
        view.silent_for = now - self.heard;
        let trace = self.trace.as_ref().and_then(|trace| trace.id_to_tell());
        view.trace_id = trace.map(|id| id.to_string());
        for call in &mut view.calls {
            self.add_waits(call, now);
            if matches!(look.wanted, Wanted::Call(_)) {
                call.why = Some(self.why(call, now) + &self.before(call));
            }
        }
        // Whoever asked may have lost patience.
        let _ = look.reply.send(view);
    }

    /// What a call waits in its lane's queue is the lane's to know until it leaves it.
    fn add_waits(&self, call: &mut CallView, now: Instant) {
        let route = self.routes.get(call.position).and_then(Option::as_ref);
        let Some((route, ticket)) = route.zip(call.ticket) else {
            return;
        };
        if let Some(waits) = route.lane.waited(ticket, now) {
            if waits.limit > call.ledger.limit_wait {
                call.ledger.limited_by = waits.limited_by;
            }
            call.ledger.limit_wait += waits.limit;
            call.ledger.slot_wait += waits.slot;
        }
    }

    /// For a person: what the call waits for, since when, until when.
    fn why(&self, call: &CallView, now: Instant) -> String {
        let tool = &call.tool;
        let since_accepted = now - self.accepted;
        let (attempt, attempts) = self.batch.attempt_of(call.position).unwrap_or((0, 1));
        let left = call.time_left.unwrap_or_default();
        // Whose time that is.
        let is_batches = self.batch.time_left(now) <= left;
        let times = |own| {
            if is_batches {
                "batch_timeout, or the agent's deadline"
            } else {
                own
            }
        };
        match call.phase {
            PhaseName::Streaming => {
                let began = since_accepted.saturating_sub(call.ledger.block_began);
                let (silence, limit) = (now - self.heard, self.config.agent_silence);
                format!(
                    "Its block is not complete: it began {began:.1?} ago, and the agent was last heard of {silence:.1?} \
                     ago. The turn is cut after {limit:?} of silence (agent_silence)."
                )
            }
            PhaseName::Held => {
                let held = call.ledger.held.unwrap_or_default();
                format!(
                    "It is complete, and {tool} has side effects: it is held until the turn is sealed, {held:.1?} so far."
                )
            }
            PhaseName::Ready if self.batch.max_parallel() == 1 => {
                let before = self.batch.unended_before(call.position);
                let before = before.map_or_else(|| "one".to_owned(), ToString::to_string);
                format!(
                    "The batch runs one call at a time in the model's order (max_parallel is 1), and {before} before it has \
                     not ended."
                )
            }
            PhaseName::Ready => {
                let most = self.batch.max_parallel();
                format!(
                    "The batch runs {most} calls at a time (max_parallel), and as many are under way."
                )
            }
            PhaseName::Queued => match self.lane_of(call, now) {
                Some(lane) => format!(
                    "{} It is given up in {left:.1?} ({}).",
                    held_up(tool, &lane),
                    times("queue_timeout, call_timeout")
                ),
                None => "It is on its way to its tool's queue, or out of it.".to_owned(),
            },
            PhaseName::Running => {
                let ran = call.ledger.ran.unwrap_or_default();
                let nobody = || "a worker".to_owned();
                let worker = (call.ledger.worker.as_ref()).map_or_else(nobody, ToString::to_string);
                format!(
                    "Attempt {attempt} of {attempts} has been with {worker} for {ran:.1?}; its time is over in {left:.1?} \
                     ({}).",
                    times("attempt_timeout, call_timeout")
                )
            }
            PhaseName::Backoff => {
                format!(
                    "Attempt {} of {attempts} begins in {left:.1?} (retry_backoff, or what the tool asked for).",
                    attempt + 1
                )
            }
            PhaseName::Parked => {
                "It was started early and is over; its result counts once its block is complete."
                    .to_owned()
            }
            PhaseName::Ended => {
                let code = call.error.map_or("ok", crate::call_error::Code::name);
                let others = self.batch.unended();
                let waits = match (others, self.ingest.is_sealed()) {
                    (0, true) => "The batch is about to be delivered.".to_owned(),
                    (0, false) => "The turn is not sealed: more calls may come.".to_owned(),
                    (1, _) => {
                        "Results are sent together, and one other call has not ended.".to_owned()
                    }
                    (many, _) => {
                        format!("Results are sent together, and {many} other calls have not ended.")
                    }
                };
                format!("It has ended: {code}. {waits}")
            }
        }
    }

    /// What became of the attempt before this one.
    fn before(&self, call: &CallView) -> String {
        if call.phase == PhaseName::Ended {
            return String::new();
        }
        match self.batch.attempt_before(call.position) {
            None => String::new(),
            Some((attempt, worker, None)) => format!(" Attempt {attempt} was lost with {worker}."),
            Some((attempt, worker, Some(code))) => {
                format!(" Attempt {attempt} failed on {worker}: {}.", code.name())
            }
        }
    }

    fn lane_of(&self, call: &CallView, now: Instant) -> Option<Queue> {
        let ticket = call.ticket?;
        let route = self.routes.get(call.position)?.as_ref()?;
        let (lane, ahead) = route.lane.view_of(ticket, now);
        Some(Queue {
            lane,
            ahead,
            policy: Arc::clone(&route.call.policy),
        })
    }
}

/// The queue that a call waits in.
struct Queue {
    lane: LaneView,
    /// Calls that start before it.
    ahead: Option<usize>,
    policy: Arc<Policy>,
}

/// What holds up a lane.
fn held_up(tool: &str, queue: &Queue) -> String {
    let Queue {
        lane,
        ahead,
        policy,
    } = queue;
    let load = &lane.load;
    let (queued, workers) = (load.queued, load.workers);
    let wait = match (queued, *ahead) {
        (1, _) => "it alone waits".to_owned(),
        (many, None) => format!("{many} calls wait"),
        (many, Some(0)) => format!("{many} calls wait, of which it is the next"),
        (many, Some(MOST_AHEAD)) => format!("{many} calls wait, {MOST_AHEAD} or more before it"),
        (many, Some(ahead)) => format!("{many} calls wait, {ahead} of them before it"),
    };
    let next = lane.next_look.unwrap_or_default();
    match lane.blocked {
        Some((Cause::Rate, _)) => {
            let rate = load.rate.map_or(0.0, |(per_second, _)| per_second);
            let own = match *ahead {
                Some(ahead @ 1..MOST_AHEAD) => {
                    // So few that nothing is lost.
                    let before = f64::from(u32::try_from(ahead).unwrap_or(u32::MAX));
                    let own = Duration::try_from_secs_f64(before / rate).unwrap_or_default();
                    format!(" At that rate its own turn comes in {:.1?}.", next + own)
                }
                _ => String::new(),
            };
            format!(
                "{tool} may start {rate} calls a second (rate): the next can in {next:.1?}, and {wait}.{own}"
            )
        }
        Some((Cause::InFlight, blocked)) => {
            let most = policy.max_in_flight.map_or(0, std::num::NonZeroU32::get);
            format!(
                "{tool} may have {most} calls in flight (max_in_flight), and has as many; {wait}, for {blocked:.1?} by now."
            )
        }
        Some((Cause::Pause, _)) => {
            format!("{tool} asked not to be called for another {next:.1?}; {wait}.")
        }
        Some((Cause::Slot, blocked)) => {
            let of = match workers {
                1 => "its one worker".to_owned(),
                many => format!("its {many} workers"),
            };
            format!("All slots of {of} have been in use for {blocked:.1?}; {wait} for {tool}.")
        }
        Some((Cause::NoWorker, blocked)) => format!(
            "No worker has served {tool} for {blocked:.1?}; {wait}, and all are refused in {next:.1?} (no_worker_wait)."
        ),
        None => format!("Nothing holds {tool} up at this moment; it is about to start."),
    }
}
