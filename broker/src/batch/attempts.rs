//! What becomes of a call's attempts: queued, dispatched, refused, ended; and whether there is another one.

use std::time::Duration;

use tokio::time::Instant;

use super::call::Phase;
use super::tried::{Ended, Sent};
use super::{Batch, Cut, Progress};
use crate::call_error::{CallError, Effect};
use crate::id::{LeaseId, WorkerId};
use crate::ingest::Position;
use crate::lane::Cause;
use crate::lane::lease::{Ending, Refusal, Waits};
use crate::lane::queue::Ticket;

/// The longest pause between two attempts that doubling leads to.
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Times that a call may fail to reach a worker, and the pause from the second one on.
const MOST_NOT_SENT: u32 = 5;
const NOT_SENT_PAUSE: Duration = Duration::from_millis(20);

impl Batch {
    /// The lane has put the attempt into its queue.
    pub(crate) fn queued(&mut self, position: Position, ticket: Ticket, until: Instant) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        let due = entry
            .call_deadline
            .map_or(until, |deadline| deadline.min(until));
        entry.phase = Phase::Queued { ticket, until };
        self.due(due);
        self.tell(position, Progress::Queued);
    }

    /// The attempt went to a worker.
    pub(crate) fn dispatched(
        &mut self,
        position: Position,
        (lease, worker): (LeaseId, &WorkerId),
        waits: Waits,
        (at, deadline): (Instant, Instant),
    ) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        entry.attempts += 1;
        entry.worker = Some(worker.clone());
        entry.attempt_sent(waits, || Sent {
            at,
            lease,
            worker: worker.clone(),
        });
        let attempt = entry.attempts;
        let leaving = match entry.phase {
            Phase::Leaving(cut) => Some(cut),
            _ => None,
        };
        entry.phase = Phase::Running {
            lease,
            since: at,
            deadline,
        };
        if let Some(cut) = leaving {
            self.cut_off(position, cut, at);
            self.release(at);
            return;
        }
        self.due(deadline);
        if self.rules.progress {
            self.tell(
                position,
                Progress::Started {
                    worker: worker.clone(),
                    attempt,
                },
            );
        }
    }

    /// The lane does not take the attempt, or keeps it no longer.
    pub(crate) fn refused(
        &mut self,
        position: Position,
        refusal: Refusal,
        waits: Waits,
        now: Instant,
    ) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        entry.attempt_left(waits);
        let error = match (&entry.phase, refusal) {
            (&Phase::Leaving(cut), _) => entry.cut_error(cut, now),
            (_, Refusal::QueueFull(limit)) => {
                CallError::queue_full(&entry.tool, limit).telling_effect(entry.effect())
            }
            (_, Refusal::RateLimited(wait)) => {
                CallError::rate_limited(&entry.tool, wait).telling_effect(entry.effect())
            }
            (_, Refusal::NoWorker(without)) => {
                CallError::no_worker(&entry.tool, without).telling_effect(entry.effect())
            }
        };
        self.end(position, Err(error), now);
        self.release(now);
    }

    /// The answer to [`Command::Withdraw`]; `None` if the attempt had left the queue already.
    pub(crate) fn withdrawn(
        &mut self,
        position: Position,
        found: Option<(Waits, Option<Cause>)>,
        now: Instant,
    ) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        let (Phase::Leaving(cut), Some((waits, cause))) = (&entry.phase, found) else {
            return;
        };
        let cut = *cut;
        entry.attempt_left(waits);
        let error = match cut {
            Cut::CallTime => entry
                .waited_too_long(cause, now)
                .telling_effect(entry.effect()),
            _ => entry.cut_error(cut, now),
        };
        self.end(position, Err(error), now);
        self.release(now);
    }

    /// A lease has ended. One that is not the call's present one is fenced off.
    pub(crate) fn settled(
        &mut self,
        position: Position,
        lease: LeaseId,
        ending: Ending,
        now: Instant,
    ) {
        let room = self.rules.max_output_bytes - self.output_bytes;
        let limit = self.rules.max_output_bytes;
        let Some(entry) = self.entry(position) else {
            return;
        };
        let Phase::Running {
            lease: current,
            since,
            ..
        } = entry.phase
        else {
            return;
        };
        if current != lease {
            return;
        }
        entry.ran = Some(now - since);
        match ending {
            Ending::Output(output) if output.size() > room => {
                let error = CallError::result_too_large(
                    &entry.tool,
                    output.size(),
                    limit,
                    "max_batch_bytes, all calls together",
                );
                self.end(position, Err(error), now);
            }
            Ending::Output(output) => {
                self.output_bytes += output.size();
                self.end(position, Ok(output), now);
            }
            Ending::Failed(error) if entry.should_try_again(&error, now) => {
                if entry.is_trying() {
                    entry.attempt_ended((&error).into(), now);
                }
                entry.keep_in_mind(Some(error.code));
                self.pause(position, error.retry_after, now);
            }
            Ending::Failed(mut error) => {
                // The tool speaks of this attempt; an earlier one may have done something all the same.
                if entry.attempts > 1 && error.effect == Effect::NotStarted {
                    error.effect = Effect::Maybe;
                }
                self.end(position, Err(error), now);
            }
            Ending::Lost if entry.may_try_again() => {
                entry.attempt_ended(Ended::Lost, now);
                entry.keep_in_mind(None);
                self.pause(position, Some(Duration::ZERO), now);
            }
            Ending::Lost => {
                entry.attempt_ended(Ended::Lost, now);
                let error = entry.lost();
                self.end(position, Err(error), now);
            }
            Ending::NotSent => self.not_sent(position, now),
        }
        self.release(now);
    }

    /// The attempt never left the broker: it does not count, and the time is not the worker's. The first time the call is
    /// offered again at once; if that goes on, something is wrong with the way, or with the call.
    pub(super) fn not_sent(&mut self, position: Position, now: Instant) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        entry.attempts -= 1;
        entry.attempt_ended(Ended::NotSent, now);
        entry.ran = None;
        entry.not_sent += 1;
        if entry.attempts == 0 {
            entry.worker = None;
        }
        match entry.not_sent {
            1 => self.offer(position, now),
            again @ 2..MOST_NOT_SENT => self.pause(position, Some(NOT_SENT_PAUSE * again), now),
            times => {
                let error =
                    CallError::undeliverable(&entry.tool, times).telling_effect(entry.effect());
                self.end(position, Err(error), now);
            }
        }
    }

    /// The tool said something while it ran.
    pub(crate) fn tool_progress(
        &mut self,
        position: Position,
        lease: LeaseId,
        message: String,
        fraction: Option<f64>,
    ) {
        let current = self.entry(position).is_some_and(
            |entry| matches!(entry.phase, Phase::Running { lease: current, .. } if current == lease),
        );
        if current {
            self.tell(position, Progress::Tool { message, fraction });
        }
    }

    pub(super) fn pause(&mut self, position: Position, wait: Option<Duration>, now: Instant) {
        let jitter = self.random.f64() / 2.0 + 0.5;
        let Some(entry) = self.entry(position) else {
            return;
        };
        let Some(policy) = &entry.policy else { return };
        let doubled = policy
            .retry_backoff
            .saturating_mul(1 << (entry.attempts.saturating_sub(1)).min(16));
        let until = now + wait.unwrap_or_else(|| doubled.min(MAX_BACKOFF).mul_f64(jitter));
        entry.phase = Phase::Pausing { until };
        if wait == Some(Duration::ZERO) {
            self.offer(position, now);
        } else {
            let due = entry.due().unwrap_or(until);
            self.due(due);
        }
    }
}
