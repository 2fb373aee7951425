//! The table from id to result: who is held, who may start, who is tried again, and when all is over.
//!
//! Plain code: no I/O, no clock, no lane. Promise 1 is provable here: a call gets its result in [`Batch::end`] and
//! nowhere else, which does nothing for a call that has one; and the batch is finished when every call that began has
//! one. [`task`] runs a batch: it feeds in what happens and carries out the [`Command`]s.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call_error::{CallError, Code, Effect};
use crate::id::{CallId, LeaseId, WorkerId};
use crate::ingest::{Header, Position, TurnEnd};
use crate::lane::Cause;
use crate::lane::lease::{Ending, Limit, Refusal, Waits};
use crate::lane::queue::Ticket;
use crate::output::Output;
use crate::policy::{FailureAction, Policy};

mod call;
mod report;
pub(crate) mod task;
#[cfg(test)]
mod tests;

pub(crate) use call::Cut;
pub(crate) use report::{CallReport, Duplicate, Ledger, Report};

use call::{Entry, Phase};

/// The longest pause between two attempts that doubling leads to.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Times that a call may fail to reach a worker, and the pause from the second one on.
const MOST_NOT_SENT: u32 = 5;
const NOT_SENT_PAUSE: Duration = Duration::from_millis(20);

/// How a batch is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Calls that may run at the same time; 1 is strictly in the model's order.
    pub(crate) max_parallel: usize,
    /// Outputs of all calls together, in bytes.
    pub(crate) max_output_bytes: usize,
    /// When the batch must have ended.
    pub(crate) deadline: Instant,
    /// Whether [`Command::Tell`] is wanted.
    pub(crate) progress: bool,
}

/// What a batch wants done. The first three must be carried out, and answered, before anything else is fed in.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Offer the call to its lane; answer with `queued`, `dispatched` or `refused`.
    Offer {
        position: Position,
        number: u32,
        wait_until: Instant,
        call_deadline: Instant,
    },
    /// Take it out of its lane's queue; answer with `withdrawn`.
    Withdraw { position: Position, ticket: Ticket },
    /// The lease has ended for us; stop the attempt.
    Cancel { position: Position, lease: LeaseId },
    /// Tell the agent, if it keeps up.
    Tell {
        position: Position,
        progress: Progress,
    },
}

/// What an agent may be told before the end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Progress {
    Queued,
    Started {
        worker: WorkerId,
        attempt: u32,
    },
    Tool {
        message: String,
        fraction: Option<f64>,
    },
    Ended {
        error: Option<Code>,
    },
}

/// One turn's calls and their results.
#[derive(Debug)]
pub(crate) struct Batch {
    rules: Rules,
    accepted: Instant,
    /// By position; `None` where a duplicate stood.
    table: Vec<Option<Entry>>,
    duplicates: Vec<Duplicate>,
    /// Calls without a result.
    unended: usize,
    /// Calls that have been offered and have no result.
    active: usize,
    ready: BTreeSet<Position>,
    /// Every call before it has its result. Used for strict order only.
    cursor: Position,
    sealed: bool,
    /// Set when all that is left was cut off: calls that come after it end at once.
    cut: Option<Cut>,
    output_bytes: usize,
    /// Not later than the first moment at which [`tick`](Self::tick) has something to do.
    next_due: Instant,
    commands: VecDeque<Command>,
    jitter: fastrand::Rng,
}

impl Batch {
    pub(crate) fn new(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            accepted: now,
            table: Vec::new(),
            duplicates: Vec::new(),
            unended: 0,
            active: 0,
            ready: BTreeSet::new(),
            cursor: 0,
            sealed: false,
            cut: None,
            output_bytes: 0,
            next_due: rules.deadline,
            commands: VecDeque::new(),
            jitter: fastrand::Rng::new(),
        }
    }

    /// Nothing will come any more, and every call has its result.
    pub(crate) fn is_finished(&self) -> bool {
        self.sealed && self.unended == 0
    }

    /// When [`tick`](Self::tick) is due at the latest.
    pub(crate) fn next_due(&self) -> Instant {
        self.next_due
    }

    /// Whether a call waits for nothing but this batch: it never may.
    #[cfg(test)]
    fn forgets_somebody(&mut self) -> bool {
        let Some(&first) = self.ready.first() else {
            return false;
        };
        self.active < self.rules.max_parallel
            && (self.rules.max_parallel > 1 || self.all_ended_before(first))
    }

    /// What is to be done next.
    pub(crate) fn next_command(&mut self) -> Option<Command> {
        while let Some(command) = self.commands.pop_front() {
            // An offer is void if its call was cut off since.
            match command {
                Command::Offer { position, .. } if !self.is_offered(position) => {}
                command => return Some(command),
            }
        }
        None
    }

    fn is_offered(&self, position: Position) -> bool {
        let entry = self.table.get(position).and_then(Option::as_ref);
        entry.is_some_and(|entry| matches!(entry.phase, Phase::Offered))
    }

    /// A block began at the next position.
    pub(crate) fn began(&mut self, header: Header, now: Instant) {
        self.table.push(Some(Entry::new(header, now)));
        self.unended += 1;
        if let Some(cut) = self.cut {
            self.cut_off(self.table.len() - 1, cut, now);
        }
    }

    /// A block began under a taken id; it takes up a position and nothing else.
    pub(crate) fn duplicate(&mut self, header: Header) {
        let error = CallError::duplicate_id(&header.id, &header.tool);
        let position = self.table.len();
        self.duplicates.push(Duplicate {
            id: header.id,
            tool: header.tool,
            position,
            error,
        });
        self.table.push(None);
    }

    /// The name of a call's tool. `None` if it needs none any more.
    pub(crate) fn tool_of(&self, position: Position) -> Option<&str> {
        let entry = self.table.get(position)?.as_ref()?;
        matches!(entry.phase, Phase::Filling).then_some(&*entry.tool)
    }

    /// The id of a call.
    pub(crate) fn id_of(&self, position: Position) -> Option<&CallId> {
        Some(&self.table.get(position)?.as_ref()?.id)
    }

    /// The call has all its arguments, and they are valid.
    pub(crate) fn complete(&mut self, position: Position, policy: Arc<Policy>, now: Instant) {
        let sealed = self.sealed;
        let Some(entry) = self.entry(position) else {
            return;
        };
        if !matches!(entry.phase, Phase::Filling) {
            return;
        }
        let early = policy.effects.repeatable() || sealed;
        entry.policy = Some(policy);
        entry.complete = Some(now);
        entry.since = now;
        if early {
            self.make_ready(position);
            self.release(now);
        } else {
            entry.phase = Phase::Held;
        }
    }

    /// The call's tool is known, and with it what a failure means for its siblings.
    pub(crate) fn known(&mut self, position: Position, policy: Arc<Policy>) {
        if let Some(entry) = self.entry(position) {
            entry.policy = Some(policy);
        }
    }

    /// The call will not run: what its block or its arguments are like forbids it.
    pub(crate) fn refuse(
        &mut self,
        position: Position,
        complete: bool,
        error: CallError,
        now: Instant,
    ) {
        if let Some(entry) = self.entry(position)
            && complete
            && entry.complete.is_none()
        {
            entry.complete = Some(now);
        }
        self.end(position, Err(error), now);
        self.release(now);
    }

    /// No more blocks will come. `unfinished` are those that had begun and not stopped; `why` says so to the model.
    pub(crate) fn seal(&mut self, end: TurnEnd, unfinished: &[Position], why: &str, now: Instant) {
        self.sealed = true;
        for &position in unfinished {
            let Some(tool) = self.tool_of(position) else {
                continue;
            };
            let error = CallError::incomplete(tool, why);
            self.end(position, Err(error), now);
        }
        if end == TurnEnd::Aborted {
            self.cut_all(Cut::Aborted("the agent gave the turn up"), now);
        }
        for position in 0..self.table.len() {
            let Some(entry) = self.entry(position) else {
                continue;
            };
            if !matches!(entry.phase, Phase::Held) {
                continue;
            }
            entry.held = Some(now - entry.since);
            entry.since = now;
            if end == TurnEnd::Complete {
                self.make_ready(position);
            } else {
                let error = CallError::truncated_turn(&entry.tool);
                self.end(position, Err(error), now);
            }
        }
        self.release(now);
    }

    /// Ends everything that has not ended, and everything that may still come.
    pub(crate) fn cut_all(&mut self, cut: Cut, now: Instant) {
        self.cut = Some(cut);
        for position in 0..self.table.len() {
            self.cut_off(position, cut, now);
        }
    }

    /// Ends the turn with all that is in it: nothing is waited for any more but notices that are on their way.
    pub(crate) fn close(&mut self, cut: Cut, now: Instant) {
        self.sealed = true;
        self.cut_all(cut, now);
    }

    /// The agent is gone and wanted its batch finished all the same: what is held or incomplete will not run.
    pub(crate) fn abandon(&mut self, now: Instant) {
        let open = self.positions(|phase| matches!(phase, Phase::Filling));
        self.seal(
            TurnEnd::Truncated,
            &open,
            "the agent went away before its block was complete",
            now,
        );
    }

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
        entry.add(waits);
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
        entry.add(waits);
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
        entry.add(waits);
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
                self.pause(position, Some(Duration::ZERO), now);
            }
            Ending::Lost => {
                let error = entry.lost();
                self.end(position, Err(error), now);
            }
            Ending::NotSent => self.not_sent(position, now),
        }
        self.release(now);
    }

    /// The attempt never left the broker: it does not count, and the time is not the worker's. The first time the call is
    /// offered again at once; if that goes on, something is wrong with the way, or with the call.
    fn not_sent(&mut self, position: Position, now: Instant) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        entry.attempts -= 1;
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

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        if now >= self.rules.deadline {
            self.close(Cut::BatchTime, now);
            self.next_due = now + Duration::from_hours(1);
            return;
        }
        if now < self.next_due {
            return;
        }
        for position in 0..self.table.len() {
            self.tick_call(position, now);
        }
        self.release(now);
        let due = self.table.iter().flatten().filter_map(Entry::due).min();
        self.next_due = due.map_or(self.rules.deadline, |due| due.min(self.rules.deadline));
    }

    /// The finished batch.
    pub(crate) fn into_report(self, now: Instant) -> Report {
        debug_assert!(
            self.is_finished(),
            "a report is made once every call has its result"
        );
        let accepted = self.accepted;
        let report = |(position, entry): (Position, Option<Entry>)| {
            Some(entry?.into_report(position, accepted))
        };
        let calls = self
            .table
            .into_iter()
            .enumerate()
            .filter_map(report)
            .collect();
        Report {
            calls,
            duplicates: self.duplicates,
            elapsed: now - accepted,
        }
    }

    fn tick_call(&mut self, position: Position, now: Instant) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        if entry.due().is_none_or(|due| now < due) {
            return;
        }
        let over = entry.call_deadline.is_some_and(|deadline| now >= deadline);
        match entry.phase {
            Phase::Running { lease, since, .. } if !over && entry.may_try_again() => {
                entry.ran = Some(now - since);
                self.commands.push_back(Command::Cancel { position, lease });
                self.pause(position, None, now);
            }
            Phase::Pausing { .. } if !over => self.offer(position, now),
            _ => self.cut_off(position, Cut::CallTime, now),
        }
    }

    fn cut_off(&mut self, position: Position, cut: Cut, now: Instant) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        let error = match entry.phase {
            Phase::Ended(_) | Phase::Leaving(_) => return,
            Phase::Queued { ticket, .. } => {
                // Whether it has started is for the lane to say.
                entry.phase = Phase::Leaving(cut);
                self.commands
                    .push_back(Command::Withdraw { position, ticket });
                return;
            }
            Phase::Running { lease, since, .. } => {
                entry.ran = Some(now - since);
                let error = entry.cut_error(cut, now);
                self.commands.push_back(Command::Cancel { position, lease });
                error
            }
            Phase::Filling if cut == Cut::BatchTime => CallError::incomplete(
                &entry.tool,
                "the time of its batch was over before its block was",
            ),
            _ => entry.cut_error(cut, now),
        };
        self.end(position, Err(error), now);
    }

    fn pause(&mut self, position: Position, wait: Option<Duration>, now: Instant) {
        let jitter = self.jitter.f64() / 2.0 + 0.5;
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

    fn make_ready(&mut self, position: Position) {
        if let Some(entry) = self.entry(position) {
            entry.phase = Phase::Ready;
            self.ready.insert(position);
        }
    }

    /// Lets as many calls start as the fan-out has room for.
    fn release(&mut self, now: Instant) {
        while self.active < self.rules.max_parallel {
            let Some(&position) = self.ready.first() else {
                return;
            };
            if self.rules.max_parallel == 1 && !self.all_ended_before(position) {
                return;
            }
            self.ready.remove(&position);
            let Some(entry) = self.entry(position) else {
                continue;
            };
            let Some(policy) = &entry.policy else {
                continue;
            };
            entry.call_deadline = Some(now + policy.call_timeout);
            let waited = now - entry.since;
            if !waited.is_zero() {
                entry.add(Waits {
                    limit: waited,
                    limited_by: Some(Limit::MaxParallel),
                    slot: Duration::ZERO,
                });
            }
            entry.since = now;
            self.active += 1;
            self.offer(position, now);
        }
    }

    fn all_ended_before(&mut self, position: Position) -> bool {
        let ended = |entry: &Option<Entry>| entry.as_ref().is_none_or(Entry::has_ended);
        while self.cursor < position && ended(&self.table[self.cursor]) {
            self.cursor += 1;
        }
        self.cursor == position
    }

    fn offer(&mut self, position: Position, now: Instant) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        let (Some(policy), Some(call_deadline)) = (&entry.policy, entry.call_deadline) else {
            return;
        };
        let wait_until = call_deadline.min(now + policy.queue_timeout);
        entry.phase = Phase::Offered;
        let number = entry.attempts + 1;
        self.commands.push_back(Command::Offer {
            position,
            number,
            wait_until,
            call_deadline,
        });
    }

    /// The one place where a call gets its result.
    fn end(&mut self, position: Position, result: Result<Output, CallError>, now: Instant) {
        let Some(entry) = self.table.get_mut(position).and_then(Option::as_mut) else {
            return;
        };
        if entry.has_ended() {
            return;
        }
        let code = result.as_ref().err().map(|error| error.code);
        let aborts = entry
            .policy
            .as_ref()
            .is_some_and(|policy| policy.on_failure == FailureAction::AbortBatch);
        let offered = entry.call_deadline.is_some();
        if matches!(entry.phase, Phase::Held) {
            entry.held = Some(now - entry.since);
        }
        entry.ended = Some(now);
        entry.phase = Phase::Ended(result);
        self.unended -= 1;
        self.active -= usize::from(offered);
        self.ready.remove(&position);
        self.tell(position, Progress::Ended { error: code });
        if code.is_some() && aborts && self.cut.is_none() {
            self.cut_all(
                Cut::Aborted("a call failed whose tool ends the whole turn's calls when it fails"),
                now,
            );
        }
    }

    fn tell(&mut self, position: Position, progress: Progress) {
        if self.rules.progress {
            self.commands
                .push_back(Command::Tell { position, progress });
        }
    }

    fn due(&mut self, at: Instant) {
        self.next_due = self.next_due.min(at);
    }

    fn entry(&mut self, position: Position) -> Option<&mut Entry> {
        self.table.get_mut(position)?.as_mut()
    }

    fn positions(&self, of: impl Fn(&Phase) -> bool) -> Vec<Position> {
        let matching = |(position, entry): (Position, &Option<Entry>)| {
            entry
                .as_ref()
                .filter(|entry| of(&entry.phase))
                .map(|_| position)
        };
        self.table.iter().enumerate().filter_map(matching).collect()
    }
}
