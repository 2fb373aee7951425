//! An open batch as an operator sees it.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::call::{Entry, Phase};
use super::report::Ledger;
use super::{Batch, Rules};
use crate::call_error::Code;
use crate::id::{BatchId, CallId, LeaseId, WorkerId};
use crate::ingest::{Position, TurnEnd};
use crate::lane::lease::Limit;
use crate::lane::queue::Ticket;

/// Calls that are shown of one batch.
const MOST_CALLS: usize = 1_000;

/// Somebody wants to see a batch.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) wanted: Wanted,
    pub(crate) reply: oneshot::Sender<BatchView>,
}

/// What of a batch is wanted besides its counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nothing,
    Calls,
    /// One call, and why it has not ended.
    Call(CallId),
}

/// A batch at one moment.
#[derive(Debug)]
pub(crate) struct BatchView {
    pub(crate) id: BatchId,
    pub(crate) open_for: Duration,
    pub(crate) time_left: Duration,
    pub(crate) turn_end: Option<TurnEnd>,
    pub(crate) trace_id: Option<String>,
    /// Since the agent was last heard of.
    pub(crate) silent_for: Duration,
    /// Calls in each phase.
    pub(crate) phases: [usize; PhaseName::ALL.len()],
    pub(crate) calls: Vec<CallView>,
}

/// A call at one moment.
#[derive(Debug)]
pub(crate) struct CallView {
    pub(crate) position: Position,
    pub(crate) id: CallId,
    pub(crate) tool: String,
    pub(crate) phase: PhaseName,
    /// So far.
    pub(crate) ledger: Ledger,
    pub(crate) time_left: Option<Duration>,
    pub(crate) lease: Option<LeaseId>,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) error: Option<Code>,
    /// Where it was asked for.
    pub(crate) why: Option<String>,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PhaseName {
    Streaming,
    Held,
    Ready,
    Queued,
    Running,
    Backoff,
    Parked,
    Ended,
}

impl PhaseName {
    pub(crate) const ALL: [Self; 8] = [
        Self::Streaming,
        Self::Held,
        Self::Ready,
        Self::Queued,
        Self::Running,
        Self::Backoff,
        Self::Parked,
        Self::Ended,
    ];

    fn of(phase: &Phase) -> Self {
        match phase {
            Phase::Filling => Self::Streaming,
            Phase::Held => Self::Held,
            Phase::Ready => Self::Ready,
            Phase::Offered | Phase::Queued { .. } | Phase::Leaving(_) => Self::Queued,
            Phase::Running { .. } => Self::Running,
            Phase::Pausing { .. } => Self::Backoff,
            Phase::Parked(_) => Self::Parked,
            Phase::Ended(_) => Self::Ended,
        }
    }
}

impl Batch {
    /// The batch at this moment: its time, its turn's end and its phases, and the calls that are wanted.
    pub(super) fn view(&self, id: &BatchId, wanted: &Wanted, now: Instant) -> BatchView {
        let mut phases = [0; PhaseName::ALL.len()];
        let mut calls = Vec::new();
        for (position, entry) in self.table.iter().enumerate() {
            let Some(entry) = entry else { continue };
            phases[PhaseName::of(&entry.phase) as usize] += 1;
            let is_wanted = match wanted {
                Wanted::Nothing => false,
                Wanted::Calls => calls.len() < MOST_CALLS,
                Wanted::Call(id) => entry.id == *id,
            };
            if is_wanted {
                calls.push(entry.view(position, &self.rules, self.accepted, now));
            }
        }
        BatchView {
            id: id.clone(),
            open_for: now - self.accepted,
            time_left: self.rules.deadline.saturating_duration_since(now),
            turn_end: self.turn_end,
            trace_id: None,
            silent_for: Duration::ZERO,
            phases,
            calls,
        }
    }

    /// Calls that have no result.
    pub(super) fn unended(&self) -> usize {
        self.unended
    }

    /// What is left of its time.
    pub(super) fn time_left(&self, now: Instant) -> Duration {
        self.rules.deadline.saturating_duration_since(now)
    }

    /// Calls that may run at the same time.
    pub(super) fn max_parallel(&self) -> usize {
        self.rules.max_parallel
    }

    /// The attempt that a call is at, and how many it may have.
    pub(super) fn attempt_of(&self, position: Position) -> Option<(u32, u32)> {
        let entry = self.table.get(position)?.as_ref()?;
        Some((entry.attempts, entry.policy.as_ref()?.max_attempts.get()))
    }

    /// How the attempt before it ended: its number, with whom, and why; `None` if it was lost.
    pub(super) fn attempt_before(
        &self,
        position: Position,
    ) -> Option<&(u32, WorkerId, Option<Code>)> {
        self.table.get(position)?.as_ref()?.before.as_ref()
    }

    /// The first call before this one that has no result.
    pub(super) fn unended_before(&self, position: Position) -> Option<&CallId> {
        let before = self.table.iter().take(position).flatten();
        let mut unended = before.filter(|entry| !entry.has_ended());
        unended.next().map(|entry| &entry.id)
    }
}

impl Entry {
    fn view(&self, position: Position, rules: &Rules, accepted: Instant, now: Instant) -> CallView {
        let mut ledger = self.ledger(accepted, self.worker.clone());
        let due = self.due().map(|due| due.min(rules.deadline));
        let mut time_left = due.map(|due| due.saturating_duration_since(now));
        let (mut lease, mut ticket, mut error) = (None, None, None);
        match &self.phase {
            Phase::Held => ledger.held = Some(now - self.since),
            Phase::Ready => {
                ledger.limit_wait = now - self.since;
                ledger.limited_by = Some(Limit::MaxParallel);
            }
            Phase::Queued { ticket: at, .. } => ticket = Some(*at),
            Phase::Running {
                lease: of, since, ..
            } => {
                lease = Some(*of);
                ledger.ran = Some(now - *since);
            }
            Phase::Ended(result) => {
                time_left = None;
                error = result.as_ref().err().map(|error| error.code);
            }
            Phase::Filling
            | Phase::Offered
            | Phase::Leaving(_)
            | Phase::Pausing { .. }
            | Phase::Parked(_) => {}
        }
        CallView {
            position,
            id: self.id.clone(),
            tool: self.tool.clone(),
            phase: PhaseName::of(&self.phase),
            ledger,
            time_left,
            lease,
            ticket,
            error,
            why: None,
        }
    }
}
