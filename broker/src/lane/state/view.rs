//! A lane as an operator sees it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Cause, Load, State};
use crate::lane::lease::Waits;
use crate::lane::queue::Ticket;

/// How a lane is doing at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LaneView {
    pub(crate) load: Load,
    /// What the first of those that wait waits for, and since when the lane has been held up by that.
    pub(crate) blocked: Option<(Cause, Duration)>,
    /// Until it is looked at again, if nothing happens before.
    pub(crate) next_look: Option<Duration>,
}

impl State {
    pub(in crate::lane) fn view(&self, now: Instant) -> LaneView {
        let since =
            |(cause, since): (Cause, Instant)| (cause, now.saturating_duration_since(since));
        LaneView {
            load: self.load(now),
            blocked: self.blocked.now.map(since),
            next_look: (self.wake_at).map(|at| at.saturating_duration_since(now)),
        }
    }

    /// How many start before one who waits: [`FairQueue::ahead`](crate::lane::queue::FairQueue::ahead).
    pub(in crate::lane) fn ahead(&self, ticket: Ticket) -> Option<usize> {
        let waiting = self.queue.get(ticket)?;
        self.queue.ahead(waiting.attempt.call.batch_key, ticket)
    }

    /// What one who waits has waited so far. `None` if it is not in the queue any more.
    pub(in crate::lane) fn waited(&self, ticket: Ticket, now: Instant) -> Option<Waits> {
        Some(self.queue.get(ticket)?.waits(&self.blocked, now))
    }
}
