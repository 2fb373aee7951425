//! Random event lists against a batch, with its lanes and workers played by the test.

use std::collections::HashSet;

use super::*;
use crate::call_error::Effect;
use crate::lane::Cause;
use crate::lane::lease::{Ending, Refusal};
use crate::policy::{Effects, PolicyPatch};
use toolpool_proto::v1;

const LISTS: u64 = 10_000;
const EVENTS: usize = 60;

/// What became of a call, as its lane and its workers saw it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that a test notes, not states"
)]
#[derive(Debug, Default)]
struct Seen {
    effects: Option<Effects>,
    offers: u32,
    starts: u32,
    queued: Option<Ticket>,
    lease: Option<LeaseId>,
    duplicate: bool,
    incomplete: bool,
    early: bool,
    void: bool,
    may_abort: bool,
    counted: u32,
}

struct World {
    rng: fastrand::Rng,
    batch: Batch,
    rules: Rules,
    now: Instant,
    seen: Vec<Seen>,
    sealed: Option<TurnEnd>,
    next: u64,
}

fn rules(max_parallel: usize, now: Instant) -> Rules {
    Rules {
        max_parallel,
        max_output_bytes: 1_000,
        deadline: now + Duration::from_secs(30),
        progress: false,
        traced: true,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let now = Instant::now();
        let rules = rules([1, 2, 5, 256][rng.usize(..4)], now);
        Self {
            rng,
            batch: Batch::new(rules, now),
            rules,
            now,
            seen: Vec::new(),
            sealed: None,
            next: 0,
        }
    }

    fn began(&mut self) {
        let header = Header {
            id: self.seen.len().to_string().into(),
            tool: "tool".to_owned(),
        };
        let duplicate = self.rng.u8(..20) == 0;
        if duplicate {
            self.batch.duplicate(header, self.now);
        } else {
            self.batch.began(header, self.now);
        }
        self.seen.push(Seen {
            duplicate,
            incomplete: true,
            ..Seen::default()
        });
    }

    fn complete(&mut self) {
        let open: Vec<_> = (0..self.seen.len())
            .filter(|&n| self.seen[n].incomplete && !self.seen[n].duplicate)
            .collect();
        if open.is_empty() {
            return;
        }
        let position = open[self.rng.usize(..open.len())];
        if !self.seen[position].early && self.rng.u8(..5) == 0 {
            return self.early(position);
        }
        if self.rng.u8(..10) == 0 {
            return self.void(position);
        }
        self.seen[position].incomplete = false;
        if self.batch.confirm(position, self.now) {
            assert!(self.seen[position].early && self.sealed.is_none());
            return;
        }
        if self.seen[position].early {
            // It was cut off before.
            return;
        }
        if self.rng.u8(..6) == 0 {
            let error = CallError::unknown_tool("tool", Vec::new());
            return self.batch.refuse(position, error, self.now);
        }
        let effects = [
            Effects::ReadOnly,
            Effects::Idempotent,
            Effects::SideEffecting,
        ][self.rng.usize(..3)];
        let abort = self.may_abort(position);
        let patch = PolicyPatch {
            effects: Some(effects),
            max_attempts: Some(self.rng.u32(1..4)),
            attempt_timeout: Some(Duration::from_millis(self.rng.u64(50..3_000))),
            queue_timeout: Some(Duration::from_millis(self.rng.u64(50..3_000))),
            on_failure: abort,
            ..PolicyPatch::default()
        };
        self.seen[position].effects = Some(effects);
        let policy = Arc::new(patch.effective(Duration::from_secs(5)));
        self.batch.complete(position, policy, self.now);
    }

    fn may_abort(&mut self, position: Position) -> Option<FailureAction> {
        let abort = self.rng.u8(..15) == 0;
        self.seen[position].may_abort = abort;
        abort.then_some(FailureAction::AbortBatch)
    }

    /// Its text is a closed object, and it only reads.
    fn early(&mut self, position: Position) {
        let patch = PolicyPatch {
            effects: Some(Effects::ReadOnly),
            max_attempts: Some(self.rng.u32(1..4)),
            attempt_timeout: Some(Duration::from_millis(self.rng.u64(50..3_000))),
            on_failure: self.may_abort(position),
            ..PolicyPatch::default()
        };
        self.seen[position].effects = Some(Effects::ReadOnly);
        self.seen[position].early = true;
        let policy = Arc::new(patch.effective(Duration::from_secs(5)));
        self.batch.start_early(position, policy, self.now);
    }

    /// Something followed, its message was begun anew, or it grew over a limit.
    fn void(&mut self, position: Position) {
        self.seen[position].void = true;
        if self.rng.bool() {
            self.batch.void(position, "test", self.now);
        } else {
            let refusal = [
                ingest::Refusal::ArgumentsTooLarge,
                ingest::Refusal::BatchTooLarge,
            ][self.rng.usize(..2)];
            self.batch.over_limit(position, refusal, 1, self.now);
        }
        self.seen[position].incomplete = false;
    }

    fn seal(&mut self) {
        if self.sealed.is_some() {
            return;
        }
        let end = [
            TurnEnd::Complete,
            TurnEnd::Complete,
            TurnEnd::Truncated,
            TurnEnd::Aborted,
        ][self.rng.usize(..4)];
        self.sealed = Some(end);
        let open: Vec<_> = (0..self.seen.len())
            .filter(|&n| self.seen[n].incomplete && !self.seen[n].duplicate)
            .collect();
        self.batch.seal(end, &open, "cut", self.now);
    }

    /// The agent is gone and wants its batch finished all the same.
    fn abandon(&mut self) {
        self.sealed.get_or_insert(TurnEnd::Truncated);
        self.batch.abandon(self.now);
    }

    /// Plays the lane: carries out what the batch wants.
    fn carry_out(&mut self) {
        while let Some(command) = self.batch.next_command() {
            match command {
                Command::Offer {
                    position, number, ..
                } => self.offer(position, number),
                Command::Withdraw { position, ticket } => {
                    assert_eq!(
                        self.seen[position].queued,
                        Some(ticket),
                        "only what waits is withdrawn"
                    );
                    // Now and then the lane has just dispatched it: the notice is still on its way.
                    if self.rng.u8(..4) == 0 {
                        self.batch.withdrawn(position, None, self.now);
                    } else {
                        self.seen[position].queued = None;
                        self.batch.withdrawn(
                            position,
                            Some((Waits::default(), Some(Cause::Slot))),
                            self.now,
                        );
                    }
                }
                Command::Cancel { position, lease } => {
                    assert_eq!(
                        self.seen[position].lease.take(),
                        Some(lease),
                        "only an open lease is cancelled"
                    );
                }
                Command::Count { position } => {
                    self.seen[position].counted += 1;
                    let is_duplicate = self.batch.duplicate_at(position).is_some();
                    assert_eq!(is_duplicate, self.seen[position].duplicate);
                    assert_ne!(self.batch.ended_call(position).is_some(), is_duplicate);
                }
                Command::Tell { .. } => panic!("nobody wanted progress"),
            }
            let active = self
                .seen
                .iter()
                .filter(|seen| seen.lease.is_some() || seen.queued.is_some())
                .count();
            assert!(
                active <= self.rules.max_parallel,
                "a batch offers no more calls than its fan-out lets it"
            );
        }
    }

    fn offer(&mut self, position: Position, number: u32) {
        let now = self.now;
        let seen = &mut self.seen[position];
        assert!(
            seen.lease.is_none() && seen.queued.is_none(),
            "a call is on two open leases"
        );
        assert!(
            !seen.void && (!seen.incomplete || seen.early),
            "an incomplete call is not run"
        );
        if seen.effects == Some(Effects::SideEffecting) {
            assert_eq!(
                self.sealed,
                Some(TurnEnd::Complete),
                "a side effect before the turn was complete"
            );
            assert_eq!(seen.starts, 0, "a side effect was started twice");
        }
        assert_eq!(
            number,
            seen.starts + 1,
            "attempts that count are those that started"
        );
        seen.offers += 1;
        if self.rules.max_parallel == 1 {
            let before = &self.batch.table[..position];
            let ended = |entry: &Entry| entry.has_ended();
            assert!(
                before.iter().flatten().all(ended),
                "one at a time means in the model's order"
            );
        }
        match self.rng.u8(..10) {
            0 => self
                .batch
                .refused(position, Refusal::QueueFull(1), Waits::default(), now),
            1..=4 => {
                let ticket = crate::lane::queue::tests::ticket(self.next);
                self.next += 1;
                self.seen[position].queued = Some(ticket);
                self.batch
                    .queued(position, ticket, now + Duration::from_millis(500));
            }
            _ => self.start(position),
        }
    }

    fn start(&mut self, position: Position) {
        self.next += 1;
        let lease = LeaseId(self.next);
        let seen = &mut self.seen[position];
        seen.queued = None;
        seen.lease = Some(lease);
        seen.starts += 1;
        let deadline = self.now + Duration::from_secs(1);
        let worker = WorkerId::from("worker");
        self.batch.dispatched(
            position,
            (lease, &worker),
            Waits::default(),
            (self.now, deadline),
        );
    }

    /// A notice about a call that is with its lane or its worker.
    fn notice(&mut self) {
        let with: Vec<_> = (0..self.seen.len())
            .filter(|&n| self.seen[n].queued.is_some() || self.seen[n].lease.is_some())
            .collect();
        if with.is_empty() {
            return;
        }
        let position = with[self.rng.usize(..with.len())];
        let Some(lease) = self.seen[position].lease else {
            if self.rng.u8(..4) == 0 {
                self.seen[position].queued = None;
                return self.batch.refused(
                    position,
                    Refusal::NoWorker(Duration::ZERO),
                    Waits::default(),
                    self.now,
                );
            }
            return self.start(position);
        };
        if self.rng.u8(..8) == 0 {
            // Late news of a lease that was fenced off: changes nothing.
            return self.batch.settled(
                position,
                LeaseId(lease.0 + 1_000_000),
                Ending::Lost,
                self.now,
            );
        }
        self.seen[position].lease = None;
        let ending = match self.rng.u8(..6) {
            0 => Ending::Lost,
            1 => {
                self.seen[position].starts -= 1;
                Ending::NotSent
            }
            2 => Ending::Failed(
                CallError::new(Code::ToolFailed, "no")
                    .retryable()
                    .effect(Effect::Maybe),
            ),
            3 => Ending::Failed(CallError::new(Code::ToolFailed, "no")),
            _ => Ending::Output(output(self.rng.usize(1..200))),
        };
        self.batch.settled(position, lease, ending, self.now);
    }

    fn check_report(self) {
        let ids = self.seen.iter().filter(|seen| !seen.duplicate).count();
        let report = self.batch.into_report(self.now);
        assert_eq!(report.calls.len(), ids, "one result for each id");
        let counted = self.seen.iter().all(|seen| seen.counted == 1);
        assert!(counted, "each is counted once");
        let aborts = |call: &CallReport| {
            let seen = &self.seen[call.position];
            // A block that stays open is no failure of a tool.
            seen.may_abort && call.result.is_err()
        };
        let aborted =
            |call: &CallReport| matches!(&call.result, Err(error) if error.code == Code::Aborted);
        assert!(
            !report.calls.iter().any(aborted)
                || self.sealed == Some(TurnEnd::Aborted)
                || report.calls.iter().any(aborts),
            "calls were aborted for nothing"
        );
        let mut bytes = 0;
        for call in &report.calls {
            let seen = &self.seen[call.position];
            assert!(
                call.result.is_err() || !(seen.void || seen.incomplete),
                "an output of a block that was none"
            );
            assert_eq!(call.id, CallId::from(call.position.to_string()));
            if let Err(error) = &call.result
                && error.code != Code::ToolFailed
            {
                let says_so = error.message.contains("It was not run.");
                assert!(
                    !says_so || error.effect == Effect::NotStarted,
                    "text and effect differ: {error:?}"
                );
                let repeats_effect = error.effect != Effect::NotStarted
                    && seen.effects == Some(Effects::SideEffecting);
                assert!(
                    !(error.retryable && repeats_effect),
                    "{error:?} asks for a second side effect"
                );
            }
            match &call.result {
                Ok(output) => bytes += output.size(),
                Err(error)
                    if error.effect == Effect::NotStarted && error.code != Code::ToolFailed =>
                {
                    assert_eq!(seen.starts, 0, "{error:?} of a call that was started");
                }
                Err(_) => {}
            }
            assert_eq!(call.ledger.attempts, seen.starts);
            check_tried(call, seen);
        }
        assert!(bytes <= 1_000, "outputs over the limit of the batch");
        assert!(report.calls.is_sorted_by_key(|call| call.position));
    }
}

/// What is remembered of a call's attempts adds up with what was seen of them.
fn check_tried(call: &CallReport, seen: &Seen) {
    let counting = call.tried.iter().filter(|tried| tried.counts()).count();
    assert_eq!(counting, seen.starts as usize, "attempts that count");
    assert!(
        call.tried.len() >= seen.offers as usize,
        "an offer that is not remembered"
    );
    let spans: HashSet<_> = call.tried.iter().map(|tried| tried.span).collect();
    assert_eq!(spans.len(), call.tried.len(), "a span's id was used twice");
    for tried in &call.tried {
        let (ended, _) = tried.ended.as_ref().expect("an attempt without an end");
        let sent = tried.sent.as_ref().map_or(tried.offered, |sent| sent.at);
        assert!(tried.offered <= sent && sent <= *ended, "{tried:?}");
    }
    let one_at_a_time = |[a, b]: &[Tried; 2]| {
        let over = a.ended.as_ref().is_some_and(|(at, _)| *at <= b.offered);
        over && a.number <= b.number
    };
    assert!(call.tried.array_windows().all(one_at_a_time));
    let last = call.tried.last().and_then(|tried| tried.ended.as_ref());
    if let Some((_, ended)) = last {
        // A result that was thrown away, since its block was no call in the end, may have been an output.
        assert!(call.result.is_err() || matches!(ended, Ended::Output));
    }
}

fn output(bytes: usize) -> Output {
    let text = v1::content::Kind::Text("x".repeat(bytes));
    Output::from(v1::Output {
        content: vec![v1::Content { kind: Some(text) }],
    })
}

fn run_list(seed: u64) {
    fastrand::seed(seed);
    let mut world = World::new(seed);
    for _ in 0..EVENTS {
        match world.rng.u8(..40) {
            0..=9 if world.sealed.is_none() => world.began(),
            10..=17 => world.complete(),
            18..=30 => world.notice(),
            31 => world.seal(),
            32 if world.rng.u8(..20) == 0 => {
                world.sealed.get_or_insert(TurnEnd::Truncated);
                world.batch.close(Cut::Cancelled("test"), world.now);
            }
            33 if world.rng.u8(..10) == 0 => world.abandon(),
            _ => {
                world.now += Duration::from_millis(world.rng.u64(..200));
                world.batch.tick(world.now);
            }
        }
        world.carry_out();
        assert!(
            !world.batch.forgets_somebody(),
            "a call waits for nothing but its batch"
        );
    }
    // However it went, the deadline ends it.
    world.seal();
    world.carry_out();
    world.now += Duration::from_secs(31);
    world.batch.tick(world.now);
    world.carry_out();
    while !world.batch.is_finished() {
        assert!(
            world.seen.iter().any(|seen| seen.queued.is_some()),
            "only notices on their way are waited for"
        );
        world.notice();
        world.carry_out();
    }
    world.check_report();
}

#[test]
fn random_event_lists_give_one_result_for_each_id_and_keep_every_promise() {
    for seed in 0..LISTS {
        if let Err(panic) = std::panic::catch_unwind(|| run_list(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
