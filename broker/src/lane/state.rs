//! What one lane decides. Plain code: no I/O, no clock, no task; every method is called under the lane's lock.
//!
//! A start needs four things at once: no pause, room among the calls in flight, a token, a slot. They are taken
//! together in [`State::pump`] or not at all, so no crash or race can leave one of them behind (promise 5).

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

mod view;

pub(crate) use view::LaneView;

use super::Lane;
use super::bucket::Bucket;
use super::lease::{Attempt, Limit, Refusal, Waits};
use super::queue::{FairQueue, Ticket};
use super::seat::{NoSlot, Seat, SeatKey};
use crate::policy::{Policy, Rate};

/// Of so many workers, drawn at random, the least busy gets the call. Up to so many the choice is exact; beyond, this
/// many choices are as good as all in practice, and the time is constant.
const CHOICES: usize = 4;

/// One tool's queue, limits and workers.
#[derive(Debug)]
pub(crate) struct State {
    /// Given to seats, so that they can offer a slot.
    me: Weak<Lane>,
    queue: FairQueue<Waiting>,
    max_queued: usize,
    bucket: Option<Bucket>,
    /// The rate of `bucket`.
    per_second: f64,
    max_in_flight: Option<NonZeroU32>,
    in_flight: u32,
    paused_until: Option<Instant>,
    /// Workers that had a slot when last seen.
    ready: Vec<Member>,
    /// Workers that had none; each has this lane in its turns.
    full: FxHashMap<SeatKey, Member>,
    /// Since when there is no worker. At first: since the tool became known.
    no_worker_since: Option<Instant>,
    no_worker_wait: Duration,
    blocked: Blocked,
    /// When to look again, if nobody calls before.
    pub(super) wake_at: Option<Instant>,
    /// What the lane's timekeeper waits for, while there is one.
    pub(super) timer: Option<Instant>,
}

#[derive(Debug)]
struct Member {
    seat: Arc<Seat>,
    /// Whether this lane stands in the seat's turns.
    queued: bool,
}

#[derive(Debug)]
struct Waiting {
    attempt: Attempt,
    /// The lane's blocked times when it came.
    came: [Duration; CAUSES],
}

/// A slot that a rate lets nobody use for longer than this is not needed now.
const NEEDED_WITHIN: Duration = Duration::from_secs(15);

/// All that a start needs, taken.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(super) attempt: Attempt,
    pub(super) seat: Arc<Seat>,
    pub(super) slot: OwnedSemaphorePermit,
    pub(super) waits: Waits,
    /// Whether the attempt was in the queue, so that its batch must be told.
    pub(super) queued: bool,
}

/// What to do once the lock is free.
#[derive(Debug, Default)]
pub(crate) struct Todo {
    pub(super) grants: SmallVec<[Grant; 2]>,
    pub(super) refused: Vec<(Attempt, Waits, Refusal)>,
}

/// How busy a lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Load {
    pub(crate) queued: usize,
    pub(crate) in_flight: usize,
    /// Slots that would be used now if there were as many as one could wish.
    pub(crate) slots_needed: usize,
    pub(crate) workers: usize,
    /// Calls that may be in flight, if that is limited.
    pub(crate) in_flight_limit: Option<usize>,
    /// With a rate: starts a second that it permits, and the share of its burst that is used up.
    pub(crate) rate: Option<(f64, f64)>,
}

impl Load {
    /// Takes another lane's in; of their bursts the one counts that is used up the most.
    pub(crate) fn add(&mut self, other: &Self) {
        self.queued += other.queued;
        self.in_flight += other.in_flight;
        self.slots_needed += other.slots_needed;
        self.workers += other.workers;
        self.in_flight_limit = match (self.in_flight_limit, other.in_flight_limit) {
            (Some(a), Some(b)) => Some(a + b),
            (one, other) => one.or(other),
        };
        self.rate = match (self.rate, other.rate) {
            (Some((a, used_of_a)), Some((b, used_of_b))) => Some((a + b, used_of_a.max(used_of_b))),
            (one, other) => one.or(other),
        };
    }
}

fn usize_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// What becomes of an offered attempt.
#[derive(Debug)]
pub(crate) enum Offered {
    /// It has all it needs.
    Granted(Grant),
    /// It waits.
    Queued(Ticket),
    /// It will not start.
    Refused(Refusal),
}

/// Why the head of the queue does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Rate,
    InFlight,
    Pause,
    Slot,
    NoWorker,
}

const CAUSES: usize = 5;

/// For how long the lane has been held up, by cause. What an attempt waited is the difference of two readings.
#[derive(Debug)]
struct Blocked {
    totals: [Duration; CAUSES],
    now: Option<(Cause, Instant)>,
}

impl Blocked {
    fn set(&mut self, cause: Option<Cause>, now: Instant) {
        if self.now.map(|(cause, _)| cause) != cause {
            self.totals = self.read(now);
            self.now = cause.map(|cause| (cause, now));
        }
    }

    fn read(&self, now: Instant) -> [Duration; CAUSES] {
        let mut totals = self.totals;
        if let Some((cause, since)) = self.now {
            totals[cause as usize] += now.saturating_duration_since(since);
        }
        totals
    }
}

impl Waiting {
    fn waits(&self, blocked: &Blocked, now: Instant) -> Waits {
        let totals = blocked.read(now);
        let spent = |cause: Cause| totals[cause as usize].saturating_sub(self.came[cause as usize]);
        let limits = [
            (Limit::Rate, spent(Cause::Rate)),
            (Limit::InFlight, spent(Cause::InFlight)),
            (Limit::Pause, spent(Cause::Pause)),
        ];
        let most = limits
            .into_iter()
            .max_by_key(|(_, spent)| *spent)
            .filter(|(_, spent)| !spent.is_zero());
        Waits {
            limit: limits.iter().map(|(_, spent)| *spent).sum(),
            limited_by: most.map(|(limit, _)| limit),
            slot: spent(Cause::Slot) + spent(Cause::NoWorker),
        }
    }
}

impl State {
    pub(super) fn new(
        me: Weak<Lane>,
        max_queued: usize,
        no_worker_wait: Duration,
        now: Instant,
    ) -> Self {
        Self {
            me,
            queue: FairQueue::new(),
            max_queued,
            bucket: None,
            per_second: 0.0,
            max_in_flight: None,
            in_flight: 0,
            paused_until: None,
            ready: Vec::new(),
            full: FxHashMap::default(),
            no_worker_since: Some(now),
            no_worker_wait,
            blocked: Blocked {
                totals: [Duration::ZERO; CAUSES],
                now: None,
            },
            wake_at: None,
            timer: None,
        }
    }

    /// The limits of a new revision of the tool.
    pub(super) fn set_limits(&mut self, policy: &Policy, rate_before: Option<Rate>, now: Instant) {
        self.max_in_flight = policy.max_in_flight;
        self.per_second = policy.rate.map_or(0.0, |rate| rate.per_second);
        match (&mut self.bucket, policy.rate) {
            (_, None) => self.bucket = None,
            (Some(bucket), Some(rate)) if rate_before != Some(rate) => bucket.change(rate, now),
            (Some(_), Some(_)) => {}
            (none @ None, Some(rate)) => *none = Some(Bucket::new(rate, now)),
        }
    }

    /// A worker serves the tool from now on.
    pub(super) fn join(&mut self, seat: Arc<Seat>) {
        self.leave(seat.key, None);
        self.no_worker_since = None;
        self.ready.push(Member {
            seat,
            queued: false,
        });
    }

    /// A worker gets no more calls from here. `now` starts the clock of `no_worker_wait` if it was the last.
    pub(super) fn leave(&mut self, key: SeatKey, now: Option<Instant>) {
        self.full.remove(&key);
        if let Some(index) = self.ready.iter().position(|member| member.seat.key == key) {
            self.ready.swap_remove(index);
        }
        if self.workers() == 0 && self.no_worker_since.is_none() {
            self.no_worker_since = now;
        }
    }

    pub(super) fn workers(&self) -> usize {
        self.ready.len() + self.full.len()
    }

    /// Whether nothing would be lost with this lane.
    pub(super) fn is_idle(&self) -> bool {
        self.workers() == 0 && self.queue.is_empty() && self.in_flight == 0
    }

    /// How busy the lane is. Those who wait count as in need of a slot if a slot is what the first of them waits for.
    pub(super) fn load(&self, now: Instant) -> Load {
        let in_flight = usize_of(self.in_flight);
        let limit = self.max_in_flight.map(|most| usize_of(most.get()));
        let room = limit.unwrap_or(usize::MAX);
        let in_need = match self.blocked.now {
            Some((Cause::Slot | Cause::NoWorker, _)) => {
                let starts = |bucket: &Bucket| bucket.starts_within(NEEDED_WITHIN, now);
                let starts = self.bucket.as_ref().map_or(usize::MAX, starts);
                self.queue.len().min(starts)
            }
            Some((Cause::Rate | Cause::InFlight | Cause::Pause, _)) | None => 0,
        };
        let rate = |bucket: &Bucket| (self.per_second, bucket.used(now));
        Load {
            queued: self.queue.len(),
            in_flight,
            slots_needed: in_flight + in_need.min(room.saturating_sub(in_flight)),
            workers: self.workers(),
            in_flight_limit: limit,
            rate: self.bucket.as_ref().map(rate),
        }
    }

    pub(super) fn somebody_waits(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
    }

    pub(super) fn lease_ended(&mut self) {
        debug_assert!(self.in_flight > 0, "a lease ends once");
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The seat has taken this lane out of its turns to offer a slot.
    pub(super) fn slot_offered(&mut self, key: SeatKey) {
        if let Some(mut member) = self.full.remove(&key) {
            member.queued = false;
            self.ready.push(member);
        } else if let Some(member) = self.ready.iter_mut().find(|member| member.seat.key == key) {
            member.queued = false;
        }
    }

    /// Starts the attempt if nobody waits and all is there; else it takes its place in the queue.
    pub(super) fn offer(&mut self, attempt: Attempt, now: Instant) -> Offered {
        if self.queue.is_empty() {
            match self.take_all(now) {
                Ok((seat, slot)) => {
                    self.blocked.set(None, now);
                    return Offered::Granted(Grant {
                        attempt,
                        seat,
                        slot,
                        waits: Waits::default(),
                        queued: false,
                    });
                }
                Err((cause, wake_at)) => {
                    self.blocked.set(Some(cause), now);
                    self.wake_at = wake_at;
                }
            }
        }
        if let Some(refusal) = self.refusal(&attempt, now) {
            if self.queue.is_empty() {
                self.blocked.set(None, now);
                self.wake_at = None;
            }
            return Offered::Refused(refusal);
        }
        let came = self.blocked.read(now);
        Offered::Queued(
            self.queue
                .push(attempt.call.batch_key, Waiting { attempt, came }),
        )
    }

    fn refusal(&self, attempt: &Attempt, now: Instant) -> Option<Refusal> {
        if self.queue.len() >= self.max_queued {
            return Some(Refusal::QueueFull(self.max_queued));
        }
        if let Some(without) = self.without_worker(now)
            && without >= self.no_worker_wait
        {
            return Some(Refusal::NoWorker(without));
        }
        if let Some(until) = self.paused_until
            && until > attempt.wait_until
        {
            return Some(Refusal::RateLimited(until.saturating_duration_since(now)));
        }
        let wait = self.bucket.as_ref()?.wait(self.queue.len(), now);
        (now + wait > attempt.wait_until).then_some(Refusal::RateLimited(wait))
    }

    fn without_worker(&self, now: Instant) -> Option<Duration> {
        self.no_worker_since
            .map(|since| now.saturating_duration_since(since))
    }

    /// Starts everything that can start now, and sets `wake_at` for the rest.
    pub(super) fn pump(&mut self, now: Instant, todo: &mut Todo) {
        self.wake_at = None;
        let mut cause = None;
        while !self.queue.is_empty() {
            match self.take_all(now) {
                Ok((seat, slot)) => {
                    let Some(waiting) = self.queue.pop() else {
                        break;
                    };
                    let waits = waiting.waits(&self.blocked, now);
                    let attempt = waiting.attempt;
                    todo.grants.push(Grant {
                        attempt,
                        seat,
                        slot,
                        waits,
                        queued: true,
                    });
                }
                Err((why, wake_at)) => {
                    if why == Cause::NoWorker && wake_at.is_none() {
                        self.refuse_all(now, todo);
                        break;
                    }
                    cause = Some(why);
                    self.wake_at = wake_at;
                    break;
                }
            }
        }
        self.blocked.set(cause, now);
    }

    fn refuse_all(&mut self, now: Instant, todo: &mut Todo) {
        let refusal = Refusal::NoWorker(self.without_worker(now).unwrap_or_default());
        for waiting in self.queue.drain() {
            let waits = waiting.waits(&self.blocked, now);
            todo.refused.push((waiting.attempt, waits, refusal));
        }
    }

    /// Gives up a place in the queue: what it waited, and what for. `None` if it has left the queue already.
    pub(super) fn withdraw(
        &mut self,
        ticket: Ticket,
        now: Instant,
    ) -> Option<(Waits, Option<Cause>)> {
        let waiting = self.queue.remove(ticket)?;
        let found = (
            waiting.waits(&self.blocked, now),
            self.blocked.now.map(|(cause, _)| cause),
        );
        if self.queue.is_empty() {
            self.blocked.set(None, now);
            self.wake_at = None;
        }
        Some(found)
    }

    /// Everything that one start needs, or why not and when to look again (none: somebody will call).
    fn take_all(
        &mut self,
        now: Instant,
    ) -> Result<(Arc<Seat>, OwnedSemaphorePermit), (Cause, Option<Instant>)> {
        if let Some(since) = self.no_worker_since {
            let until = since + self.no_worker_wait;
            return Err((Cause::NoWorker, (now < until).then_some(until)));
        }
        if let Some(until) = self.paused_until {
            if now < until {
                return Err((Cause::Pause, Some(until)));
            }
            self.paused_until = None;
        }
        if self
            .max_in_flight
            .is_some_and(|most| self.in_flight >= most.get())
        {
            return Err((Cause::InFlight, None));
        }
        if let Some(Err(at)) = self.bucket.as_ref().map(|bucket| bucket.ready(now)) {
            return Err((Cause::Rate, Some(at)));
        }
        let Some(taken) = self.take_slot() else {
            return Err((Cause::Slot, None));
        };
        if let Some(bucket) = &mut self.bucket {
            bucket.take(now);
        }
        self.in_flight += 1;
        Ok(taken)
    }

    fn take_slot(&mut self) -> Option<(Arc<Seat>, OwnedSemaphorePermit)> {
        while !self.ready.is_empty() {
            let index = self.choose();
            let seat = Arc::clone(&self.ready[index].seat);
            match seat.try_take() {
                Ok(slot) => return Some((seat, slot)),
                Err(NoSlot::Closed) => {
                    self.ready.swap_remove(index);
                }
                Err(NoSlot::Full) => {
                    if !std::mem::replace(&mut self.ready[index].queued, true) {
                        seat.queue_for_turn(self.me.clone());
                    }
                    // Once more: a slot that came free before we stood in the turns was offered to nobody.
                    if let Ok(slot) = seat.try_take() {
                        return Some((seat, slot));
                    }
                    let member = self.ready.swap_remove(index);
                    self.full.insert(seat.key, member);
                }
            }
        }
        None
    }

    /// The least busy of a few; `ready` must not be empty.
    fn choose(&self) -> usize {
        let many = self.ready.len();
        if many == 1 {
            return 0;
        }
        // A random start also spreads calls over workers that are equally free.
        let start = fastrand::usize(..many);
        let mut best = start;
        for step in 1..many.min(CHOICES) {
            let index = if many <= CHOICES {
                (start + step) % many
            } else {
                fastrand::usize(..many)
            };
            if self.ready[index].seat.is_freer_than(&self.ready[best].seat) {
                best = index;
            }
        }
        best
    }
}
