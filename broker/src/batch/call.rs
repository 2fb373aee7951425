//! One call of a batch: how far it has come, what it may still do, and what is said of it when it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::report::{CallReport, Ledger};
use super::tried::{Ended, Sent, Tried};
use crate::call_error::{CallError, Code, Effect, Scope};
use crate::id::{CallId, LeaseId, WorkerId};
use crate::ingest::{Header, Position, Refusal};
use crate::lane::Cause;
use crate::lane::lease::Waits;
use crate::lane::queue::Ticket;
use crate::output::Output;
use crate::policy::Policy;

/// Why calls are ended before they end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The time to wait, or the call's, is over.
    CallTime,
    /// The batch's time is over.
    BatchTime,
    /// Somebody called it off.
    Cancelled(&'static str),
    /// A sibling's failure or the agent's seal.
    Aborted(&'static str),
    /// Its block never became a call.
    Void(&'static str),
    /// Its block went over this limit.
    OverLimit(Refusal, usize),
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Its block is open.
    Filling,
    /// Complete; waits for the seal.
    Held,
    /// May start as soon as the fan-out lets it.
    Ready,
    /// On its way to its lane: a [`Command::Offer`] waits to be carried out.
    Offered,
    /// With its lane.
    Queued { ticket: Ticket, until: Instant },
    /// To be withdrawn from the queue. If it has left that already, a notice is on its way that says how.
    Leaving(Cut),
    /// With a worker.
    Running {
        lease: LeaseId,
        since: Instant,
        deadline: Instant,
    },
    /// Between two attempts.
    Pausing { until: Instant },
    /// Started early and over; counts once its block is complete.
    Parked(Result<Output, CallError>),
    /// Over.
    Ended(Result<Output, CallError>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: CallId,
    pub(super) tool: String,
    pub(super) phase: Phase,
    /// Set when complete.
    pub(super) policy: Option<Arc<Policy>>,
    /// Set when it is first offered.
    pub(super) call_deadline: Option<Instant>,
    /// Counts against the fan-out: from the first offer until it is over.
    pub(super) active: bool,
    /// When it was started although its block was not complete.
    pub(super) early: Option<Instant>,
    /// Its block is still not complete.
    pub(super) unconfirmed: bool,
    /// Attempts that count.
    pub(super) attempts: u32,
    /// Attempts that never left the broker.
    pub(super) not_sent: u32,
    /// When it became `Held` or `Ready`, or was first offered.
    pub(super) since: Instant,
    pub(super) worker: Option<WorkerId>,
    pub(super) began: Instant,
    pub(super) complete: Option<Instant>,
    pub(super) ended: Option<Instant>,
    pub(super) held: Option<Duration>,
    pub(super) waits: Waits,
    pub(super) ran: Option<Duration>,
    /// How the attempt ended after which there is another: its number, with whom, and why; `None` if it was lost.
    pub(super) before: Option<(u32, WorkerId, Option<Code>)>,
    /// Every attempt that was offered, if the batch is traced; else empty.
    pub(super) tried: Vec<Tried>,
}

impl Entry {
    /// A call whose block begins.
    pub(super) fn new(header: Header, now: Instant) -> Self {
        Self {
            id: header.id,
            tool: header.tool,
            phase: Phase::Filling,
            policy: None,
            call_deadline: None,
            active: false,
            early: None,
            unconfirmed: false,
            attempts: 0,
            not_sent: 0,
            since: now,
            worker: None,
            began: now,
            complete: None,
            ended: None,
            held: None,
            waits: Waits::default(),
            ran: None,
            before: None,
            tried: Vec::new(),
        }
    }

    /// The result of a call that was started early, if it is over.
    pub(super) fn take_parked(&mut self) -> Option<Result<Output, CallError>> {
        match std::mem::replace(&mut self.phase, Phase::Filling) {
            Phase::Parked(result) => Some(result),
            other => {
                self.phase = other;
                None
            }
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Queued { until, .. } | Phase::Pausing { until } => until,
            Phase::Running { deadline, .. } => deadline,
            _ => return None,
        };
        Some(self.call_deadline.map_or(own, |deadline| deadline.min(own)))
    }

    pub(super) fn may_try_again(&self) -> bool {
        self.policy
            .as_ref()
            .is_some_and(|policy| self.attempts < policy.max_attempts.get())
    }

    /// Its present attempt has waited so long, and goes to a worker.
    pub(super) fn attempt_sent(&mut self, waits: Waits, sent: impl FnOnce() -> Sent) {
        self.add(waits);
        if let Some(tried) = self.tried.last_mut() {
            tried.waits = waits;
            tried.sent = Some(sent());
        }
    }

    /// Its present attempt has waited so long, and goes nowhere.
    pub(super) fn attempt_left(&mut self, waits: Waits) {
        self.add(waits);
        if let Some(tried) = self.tried.last_mut() {
            tried.waits = waits;
        }
    }

    /// Whether there is a present attempt to be remembered.
    pub(super) fn is_trying(&self) -> bool {
        self.tried.last().is_some_and(|tried| tried.ended.is_none())
    }

    /// Whoever asks why the next attempt takes its time wants to know what became of this one.
    pub(super) fn keep_in_mind(&mut self, code: Option<Code>) {
        let worker = self.worker.clone();
        self.before = worker.map(|worker| (self.attempts, worker, code));
    }

    pub(super) fn attempt_ended(&mut self, ended: Ended, now: Instant) {
        if let Some(tried) = self.tried.last_mut() {
            tried.ended.get_or_insert((now, ended));
        }
    }

    pub(super) fn add(&mut self, waits: Waits) {
        if waits.limit > self.waits.limit {
            self.waits.limited_by = waits.limited_by;
        }
        self.waits.limit += waits.limit;
        self.waits.slot += waits.slot;
    }

    /// What its attempts may have done.
    pub(super) fn effect(&self) -> Effect {
        if self.attempts == 0 {
            Effect::NotStarted
        } else {
            Effect::Maybe
        }
    }

    pub(super) fn lost(&self) -> CallError {
        let nobody = WorkerId::from("(unknown)");
        let worker = self.worker.as_ref().unwrap_or(&nobody);
        CallError::worker_lost(&self.tool, worker, self.is_repeatable(), self.attempts)
    }

    pub(super) fn waited_too_long(&self, cause: Option<Cause>, now: Instant) -> CallError {
        let waited = now - self.since;
        match cause {
            Some(Cause::NoWorker) => CallError::no_worker(&self.tool, waited),
            Some(Cause::Rate) => {
                CallError::queue_timeout(&self.tool, "the tool's rate limit", waited)
            }
            Some(Cause::Pause) => CallError::queue_timeout(
                &self.tool,
                "the end of a pause that the tool asked for",
                waited,
            ),
            Some(Cause::InFlight) => CallError::queue_timeout(
                &self.tool,
                "one of the tool's calls in flight to end",
                waited,
            ),
            Some(Cause::Slot) | None => {
                CallError::queue_timeout(&self.tool, "a free worker slot", waited)
            }
        }
    }

    pub(super) fn cut_error(&self, cut: Cut, now: Instant) -> CallError {
        let effect = self.effect();
        let mut error = match cut {
            Cut::CallTime => {
                let over = self.call_deadline.is_some_and(|deadline| now >= deadline);
                let (scope, spent) = if over {
                    (Scope::Call, now - self.since)
                } else {
                    (Scope::Attempt, self.ran.unwrap_or_default())
                };
                CallError::timeout(&self.tool, scope, spent, effect)
            }
            Cut::BatchTime => {
                CallError::timeout(&self.tool, Scope::Batch, now - self.began, effect)
            }
            Cut::Cancelled(by) => CallError::cancelled(&self.tool, by, effect),
            Cut::Aborted(why) => CallError::aborted(&self.tool, why, effect),
            Cut::Void(what) => {
                CallError::incomplete(&self.tool, what, effect, self.early.is_some())
            }
            Cut::OverLimit(Refusal::ArgumentsTooLarge, limit) => {
                CallError::arguments_too_large(&self.tool, limit, effect)
            }
            Cut::OverLimit(Refusal::BatchTooLarge, limit) => {
                CallError::batch_too_large(&self.tool, limit, effect)
            }
            Cut::OverLimit(Refusal::TooManyCalls, limit) => CallError::too_many_calls(limit),
        };
        // A repeat must not repeat an effect: then it is for the agent to find out first.
        error.retryable &= effect == Effect::NotStarted || self.is_repeatable();
        error
    }

    /// Whether the tool's failure is one that another attempt may mend, and in time.
    pub(super) fn should_try_again(&self, error: &CallError, now: Instant) -> bool {
        let wait = error.retry_after.unwrap_or_default();
        let in_time = self
            .call_deadline
            .is_some_and(|deadline| now + wait < deadline);
        error.retryable && in_time && self.may_try_again()
    }

    fn is_repeatable(&self) -> bool {
        self.policy
            .as_ref()
            .is_some_and(|policy| policy.effects.repeatable())
    }

    /// Where its time went so far.
    pub(super) fn ledger(&self, accepted: Instant, worker: Option<WorkerId>) -> Ledger {
        Ledger {
            block_began: self.began - accepted,
            block_complete: self.complete.map(|at| at - accepted),
            started_early: self.early.map(|at| at - accepted),
            held: self.held,
            limit_wait: self.waits.limit,
            limited_by: self.waits.limited_by,
            slot_wait: self.waits.slot,
            ran: self.ran,
            ended: self.ended.map_or(Duration::ZERO, |at| at - accepted),
            attempts: self.attempts,
            worker,
        }
    }

    pub(super) fn into_report(mut self, position: Position, accepted: Instant) -> CallReport {
        let worker = self.worker.take();
        let ledger = self.ledger(accepted, worker);
        let Phase::Ended(result) = self.phase else {
            unreachable!("the batch is finished, so every call has its result");
        };
        CallReport {
            position,
            id: self.id,
            tool: self.tool,
            result,
            tried: self.tried,
            ledger,
        }
    }
}
