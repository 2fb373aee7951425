//! The table from id to result: who is held, who may start, who is tried again, and when all is over.
//!
//! Plain code: no I/O, no clock, no lane. Promise 1 is provable here: a call gets its result in [`Batch::end`] and
//! nowhere else, which does nothing for a call that has one; and the batch is finished when every call that began has
//! one. [`task`] runs a batch: it feeds in what happens and carries out the [`Command`]s.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::call_error::{CallError, Code};
use crate::id::{CallId, LeaseId, SpanId, WorkerId};
use crate::ingest::{self, Header, Position, TurnEnd};
use crate::lane::lease::{Limit, Waits};
use crate::lane::queue::Ticket;
use crate::output::Output;
use crate::policy::{FailureAction, Policy};

mod attempts;
mod call;
mod early;
mod report;
pub(crate) mod task;
#[cfg(test)]
mod tests;
mod tried;
pub(crate) mod view;

pub(crate) use call::Cut;
pub(crate) use report::{CallReport, Duplicate, EndedCall, Ledger, Report};
pub(crate) use tried::{Ended, Tried, first_line};

use call::{Entry, Phase};

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
    /// Whether each attempt is remembered.
    pub(crate) traced: bool,
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
        /// Where the batch is traced.
        span: Option<SpanId>,
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
    /// The call has its result, or none of its own: [`ended_call`](Batch::ended_call) and
    /// [`duplicate_at`](Batch::duplicate_at) say what there is to be counted and logged.
    Count { position: Position },
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
    /// How the turn ended, if somebody said so.
    turn_end: Option<TurnEnd>,
    /// Set when all that is left was cut off: calls that come after it end at once.
    cut: Option<Cut>,
    output_bytes: usize,
    /// Not later than the first moment at which [`tick`](Self::tick) has something to do.
    next_due: Instant,
    commands: VecDeque<Command>,
    random: fastrand::Rng,
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
            turn_end: None,
            cut: None,
            output_bytes: 0,
            next_due: rules.deadline,
            commands: VecDeque::new(),
            random: fastrand::Rng::new(),
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

    /// Whether [`tick`](Self::tick) would end all of it.
    pub(crate) fn is_out_of_time(&self, now: Instant) -> bool {
        now >= self.rules.deadline
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
    pub(crate) fn duplicate(&mut self, header: Header, now: Instant) {
        let error = CallError::duplicate_id(&header.id, &header.tool);
        let position = self.table.len();
        self.duplicates.push(Duplicate {
            id: header.id,
            tool: header.tool,
            position,
            came: now - self.accepted,
            error,
        });
        self.table.push(None);
        self.commands.push_back(Command::Count { position });
    }

    /// A call that has its result. `None`: it has none yet.
    pub(crate) fn ended_call(&self, position: Position) -> Option<EndedCall<'_>> {
        let entry = self.table.get(position)?.as_ref()?;
        let Phase::Ended(result) = &entry.phase else {
            return None;
        };
        Some(EndedCall {
            id: &entry.id,
            tool: &entry.tool,
            error: result.as_ref().err(),
            worker: entry.worker.as_ref(),
            was_complete: entry.complete.is_some(),
            was_started_early: entry.early.is_some(),
            held: entry.held,
            waits: entry.waits,
            ran: entry.ran,
            attempts: entry.attempts,
        })
    }

    /// A call that came under a taken id.
    pub(crate) fn duplicate_at(&self, position: Position) -> Option<&Duplicate> {
        let mut duplicates = self.duplicates.iter().rev();
        duplicates.find(|duplicate| duplicate.position == position)
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
        debug_assert!(!entry.unconfirmed, "an early call is confirmed instead");
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

    /// The call is complete and will not run: its name or its arguments forbid it.
    pub(crate) fn refuse(&mut self, position: Position, error: CallError, now: Instant) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        entry.complete.get_or_insert(now);
        self.end(position, Err(error), now);
        self.release(now);
    }

    /// The block has grown over a limit and will never be a call, even if it was started early.
    pub(crate) fn over_limit(
        &mut self,
        position: Position,
        refusal: ingest::Refusal,
        limit: usize,
        now: Instant,
    ) {
        self.take_back(position, Cut::OverLimit(refusal, limit), now);
    }

    /// No more blocks will come. `unfinished` are those that had begun and not stopped; `why` says so to the model.
    pub(crate) fn seal(
        &mut self,
        end: TurnEnd,
        unfinished: &[Position],
        why: &'static str,
        now: Instant,
    ) {
        self.sealed = true;
        self.turn_end.get_or_insert(end);
        for &position in unfinished {
            self.void(position, why, now);
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
        let open =
            self.positions(|entry| matches!(entry.phase, Phase::Filling) || entry.unconfirmed);
        self.seal(
            TurnEnd::Truncated,
            &open,
            "was never complete: the agent went away before its block was complete",
            now,
        );
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
            turn_end: self.turn_end,
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
                if entry.is_trying() {
                    let ended = (&entry.cut_error(Cut::CallTime, now)).into();
                    entry.attempt_ended(ended, now);
                }
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
        let cut = match cut {
            Cut::BatchTime if entry.unconfirmed || matches!(entry.phase, Phase::Filling) => {
                Cut::Void("was never complete: the time of its batch was over before its block was")
            }
            cut => cut,
        };
        // Only its own time may run out before the block is complete, and still be the result in the end.
        entry.unconfirmed &= cut == Cut::CallTime;
        let error = match entry.phase {
            Phase::Ended(_) => return,
            Phase::Leaving(ref mut before) => {
                if matches!(cut, Cut::Void(_) | Cut::OverLimit(..)) {
                    *before = cut;
                }
                return;
            }
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
            _ => entry.cut_error(cut, now),
        };
        self.end(position, Err(error), now);
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
            entry.active = true;
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
        let span = (self.rules.traced).then(|| SpanId::random(&mut self.random));
        let Some(entry) = self.entry(position) else {
            return;
        };
        let (Some(policy), Some(call_deadline)) = (&entry.policy, entry.call_deadline) else {
            return;
        };
        let wait_until = call_deadline.min(now + policy.queue_timeout);
        entry.phase = Phase::Offered;
        let number = entry.attempts + 1;
        let span = span.inspect(|&span| entry.tried.push(Tried::new(span, number, now)));
        self.commands.push_back(Command::Offer {
            position,
            number,
            wait_until,
            call_deadline,
            span,
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
        self.active -= usize::from(std::mem::take(&mut entry.active));
        self.ready.remove(&position);
        entry.ended.get_or_insert(now);
        if entry.is_trying() {
            entry.attempt_ended((&result).into(), now);
        }
        if entry.unconfirmed {
            entry.phase = Phase::Parked(result);
            return;
        }
        let code = result.as_ref().err().map(|error| error.code);
        let aborts = entry
            .policy
            .as_ref()
            .is_some_and(|policy| policy.on_failure == FailureAction::AbortBatch);
        if matches!(entry.phase, Phase::Held) {
            entry.held = Some(now - entry.since);
        }
        entry.phase = Phase::Ended(result);
        self.unended -= 1;
        self.tell(position, Progress::Ended { error: code });
        self.commands.push_back(Command::Count { position });
        // A block that is no call has not failed.
        if code.is_some_and(|code| code != Code::Incomplete) && aborts && self.cut.is_none() {
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

    fn positions(&self, of: impl Fn(&Entry) -> bool) -> Vec<Position> {
        let matching = |(position, entry): (Position, &Option<Entry>)| {
            entry.as_ref().filter(|entry| of(entry)).map(|_| position)
        };
        self.table.iter().enumerate().filter_map(matching).collect()
    }
}
