//! One tool behind one short lock: its queue, its limits, its workers.
//!
//! [`state`] decides under the lock; this file takes the lock, and acts once it is free: no send, no wake and no drop
//! of a lease happens under it, and no two lanes are ever locked at once. Offering a call to an idle lane dispatches
//! it at once, on the caller's task.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::id::LeaseIds;
use crate::metrics::{Metrics, ToolSeries};
use crate::policy::{Policy, Rate};

mod bucket;
pub(crate) mod lease;
pub(crate) mod queue;
pub(crate) mod seat;
mod state;
#[cfg(test)]
pub(crate) mod tests;

use lease::{Attempt, Dispatch, Lease, Notice, Refusal, Waits};
use queue::Ticket;
use seat::{Order, Seat, SeatKey};
pub(crate) use state::{Cause, LaneView, Load};
use state::{Grant, Offered, State, Todo};

/// One tool's lane.
#[derive(Debug)]
pub(crate) struct Lane {
    tool: Arc<str>,
    state: Mutex<State>,
    /// Wakes the timekeeper when its timer moves to an earlier moment.
    sooner: Notify,
    series: Arc<ToolSeries>,
    context: LaneContext,
}

/// What all lanes of a broker share.
#[derive(Clone, Debug)]
pub(crate) struct LaneContext {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) leases: Arc<LeaseIds>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) max_queued: usize,
    pub(crate) no_worker_wait: Duration,
}

/// What became of an offered attempt.
#[derive(Debug)]
pub(crate) enum Offer {
    /// It is with a worker; its `Notice::Settled` will follow.
    Dispatched(Dispatch),
    /// It waits; `Notice::Dispatched` or `Notice::Refused` will follow unless it is withdrawn.
    Queued(Ticket),
    /// It will not start.
    Refused(Refusal),
}

impl Lane {
    pub(crate) fn new(tool: Arc<str>, context: LaneContext) -> Arc<Self> {
        let now = Instant::now();
        let series = context.metrics.tool(&tool);
        Arc::new_cyclic(|me| Self {
            tool,
            state: Mutex::new(State::new(
                me.clone(),
                context.max_queued,
                context.no_worker_wait,
                now,
            )),
            sooner: Notify::new(),
            series,
            context,
        })
    }

    /// The name of the tool.
    pub(crate) fn tool(&self) -> &Arc<str> {
        &self.tool
    }

    /// Where the tool's calls are counted.
    pub(crate) fn series(&self) -> &Arc<ToolSeries> {
        &self.series
    }

    /// How busy the lane is.
    pub(crate) fn load(&self) -> Load {
        self.state.lock().load(Instant::now())
    }

    /// How it is doing, for operators.
    pub(crate) fn view(&self, now: Instant) -> LaneView {
        self.state.lock().view(now)
    }

    /// The same, and how many start before one who waits, counted to [`queue::MOST_AHEAD`]. `None`: it has left the queue.
    pub(crate) fn view_of(&self, ticket: Ticket, now: Instant) -> (LaneView, Option<usize>) {
        let state = self.state.lock();
        (state.view(now), state.ahead(ticket))
    }

    /// What one who waits has waited so far. `None`: it has left the queue.
    pub(crate) fn waited(&self, ticket: Ticket, now: Instant) -> Option<Waits> {
        self.state.lock().waited(ticket, now)
    }

    /// Workers that serve the tool.
    pub(crate) fn workers(&self) -> usize {
        self.state.lock().workers()
    }

    /// Whether nobody serves the tool, waits for it or runs it.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().is_idle()
    }

    /// Dispatches the attempt, queues it or refuses it; never waits.
    pub(crate) fn offer(self: &Arc<Self>, attempt: Attempt, now: Instant) -> Offer {
        let offered = {
            let mut state = self.state.lock();
            let offered = state.offer(attempt, now);
            self.set_timer(&mut state);
            offered
        };
        match offered {
            Offered::Granted(grant) => Offer::Dispatched(self.dispatch(grant, now)),
            Offered::Queued(ticket) => Offer::Queued(ticket),
            Offered::Refused(refusal) => Offer::Refused(refusal),
        }
    }

    /// Takes an attempt out of the queue. `None`: it has left already, and a notice says how.
    pub(crate) fn withdraw(&self, ticket: Ticket, now: Instant) -> Option<(Waits, Option<Cause>)> {
        self.state.lock().withdraw(ticket, now)
    }

    /// The limits of a new revision.
    pub(crate) fn set_limits(self: &Arc<Self>, policy: &Policy, rate_before: Option<Rate>) {
        self.change(|state, now| state.set_limits(policy, rate_before, now));
    }

    /// A worker serves the tool from now on.
    pub(crate) fn join(self: &Arc<Self>, seat: Arc<Seat>) {
        self.change(|state, _| state.join(seat));
    }

    /// A worker gets no more calls from here.
    pub(crate) fn leave(self: &Arc<Self>, key: SeatKey) {
        self.change(|state, now| state.leave(key, Some(now)));
    }

    /// Nothing starts for so long.
    pub(crate) fn pause(self: &Arc<Self>, wait: Duration) {
        self.change(|state, now| state.pause(now + wait));
    }

    pub(in crate::lane) fn lease_ended(self: &Arc<Self>) {
        self.make_room(State::lease_ended);
    }

    pub(in crate::lane) fn slot_offered(self: &Arc<Self>, key: SeatKey) {
        self.make_room(|state| state.slot_offered(key));
    }

    /// Makes a change that gives room to one who waits. Mostly nobody does, and then this is all there is to do.
    fn make_room(self: &Arc<Self>, change: impl FnOnce(&mut State)) {
        let somebody_waits = {
            let mut state = self.state.lock();
            change(&mut state);
            state.somebody_waits()
        };
        if somebody_waits {
            self.change(|_, _| ());
        }
    }

    /// Makes a change, then starts all that it lets start.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut State, Instant)) {
        let now = Instant::now();
        let mut todo = Todo::default();
        {
            let mut state = self.state.lock();
            change(&mut state, now);
            state.pump(now, &mut todo);
            self.set_timer(&mut state);
        }
        for grant in todo.grants {
            self.dispatch(grant, now);
        }
        for (attempt, waits, refusal) in todo.refused {
            let notice = Notice::Refused {
                position: attempt.call.position,
                waits,
                refusal,
            };
            attempt.call.notify(notice);
        }
    }

    fn dispatch(self: &Arc<Self>, grant: Grant, now: Instant) -> Dispatch {
        let attempt = &grant.attempt;
        let deadline = attempt
            .call_deadline
            .min(now + attempt.call.policy.attempt_timeout);
        let dispatch = Dispatch {
            position: attempt.call.position,
            lease: self.context.leases.next(),
            seat: Arc::clone(&grant.seat),
            waits: grant.waits,
            at: now,
            deadline,
        };
        if grant.queued {
            // Before the lease is handed over: its end must not be heard of before its beginning.
            attempt.call.notify(Notice::Dispatched(dispatch.clone()));
        }
        let lease = Lease::new(dispatch.lease, grant, Arc::clone(self), deadline);
        // If the session has just left, dropping the lease tells the batch that it was never sent.
        drop(dispatch.seat.order(Order::Assign(lease)));
        dispatch
    }

    /// Sees to it that somebody looks again at `state.wake_at`: one timer a lane.
    fn set_timer(self: &Arc<Self>, state: &mut State) {
        let Some(at) = state.wake_at else { return };
        match state.timer {
            Some(timer) if timer <= at => {}
            Some(_) => {
                state.timer = Some(at);
                self.sooner.notify_one();
            }
            None => {
                state.timer = Some(at);
                self.context.tasks.spawn(Arc::clone(self).keep_time());
            }
        }
    }

    /// Runs while there is a moment to wait for.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let at = {
                let mut state = self.state.lock();
                state.timer = state.wake_at;
                let Some(at) = state.wake_at else { return };
                at
            };
            tokio::select! {
                () = tokio::time::sleep_until(at) => self.change(|_, _| ()),
                () = self.sooner.notified() => {}
                () = self.context.shutdown.cancelled() => return,
            }
        }
    }
}
