//! A call on its way: what is to run, the right to run it, and what the batch is told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Lane;
use super::queue::BatchKey;
use super::seat::Seat;
use crate::batch::view::Look;
use crate::call_error::CallError;
use crate::id::{BatchId, CallId, LeaseId, SpanId};
use crate::ingest::Position;
use crate::mailbox::{Address, Undelivered};
use crate::output::Output;
use crate::policy::Policy;
use crate::telemetry::Trace;

/// A complete and valid call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) position: Position,
    pub(crate) batch: BatchId,
    pub(crate) batch_key: BatchKey,
    pub(crate) id: CallId,
    pub(crate) tool: Arc<str>,
    pub(crate) arguments: Bytes,
    /// The agent's own, if it gave one.
    pub(crate) idempotency_key: Option<String>,
    pub(crate) policy: Arc<Policy>,
    /// The batch's mailbox. Its bound leaves room for every notice that can be under way.
    pub(crate) notices: Address<Notice>,
    /// For the worker.
    pub(crate) trace: Option<Arc<Trace>>,
}

impl Call {
    pub(in crate::lane) fn notify(&self, notice: Notice) {
        if let Err(Undelivered::Full(_)) = self.notices.post(notice) {
            tracing::error!(batch.id = %self.batch, call.id = %self.id, "the batch's mailbox is full, which its bound rules out");
        }
    }
}

/// One try of a call, not yet with a worker.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) call: Arc<Call>,
    /// From 1.
    pub(crate) number: u32,
    /// When it stops waiting for a limit or a slot.
    pub(crate) wait_until: Instant,
    /// When the call must have ended.
    pub(crate) call_deadline: Instant,
    /// Where the batch is traced.
    pub(crate) span: Option<SpanId>,
}

/// Where an attempt's waiting went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waits {
    /// For a limit.
    pub(crate) limit: Duration,
    /// The limit that cost the most.
    pub(crate) limited_by: Option<Limit>,
    /// For a slot, or for a worker at all.
    pub(crate) slot: Duration,
}

/// What a call may have to wait for besides a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The tool's rate.
    Rate,
    /// The tool's calls in flight.
    InFlight,
    /// The tool's own wish.
    Pause,
    /// The batch's fan-out.
    MaxParallel,
}

impl Limit {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    /// As telemetry has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::InFlight => "in_flight",
            Self::Pause => "pause",
            Self::MaxParallel => "max_parallel",
        }
    }
}

/// An attempt went to a worker.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    pub(crate) position: Position,
    pub(crate) lease: LeaseId,
    pub(crate) seat: Arc<Seat>,
    pub(crate) waits: Waits,
    pub(crate) at: Instant,
    /// When the attempt must have ended.
    pub(crate) deadline: Instant,
}

/// What a lane or a session tells a batch.
#[derive(Debug)]
pub(crate) enum Notice {
    /// A queued attempt went to a worker.
    Dispatched(Dispatch),
    /// A queued attempt will not start.
    Refused {
        position: Position,
        waits: Waits,
        refusal: Refusal,
    },
    /// The tool says how far it has come.
    Progress {
        position: Position,
        lease: LeaseId,
        message: String,
        fraction: Option<f64>,
    },
    /// A lease has ended.
    Settled {
        position: Position,
        lease: LeaseId,
        ending: Ending,
    },
    /// From neither: an operator wants to see the batch.
    Look(Box<Look>),
}

/// Why a lane does not take or keep an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As many wait as may.
    QueueFull(usize),
    /// The rate would let it start only after this time.
    RateLimited(Duration),
    /// Nobody has served the tool for this time.
    NoWorker(Duration),
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// With an output.
    Output(Output),
    /// With an error of the tool or the worker.
    Failed(CallError),
    /// Its worker was lost; it may have run.
    Lost,
    /// It never reached a worker: it did not run, and does not count.
    NotSent,
}

/// The right to run one attempt. It holds a slot and a place among the tool's calls in flight; dropping it gives both
/// back and, if nobody settled it, tells the batch that it was lost. So no path can leak a slot or forget a call.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) attempt: Attempt,
    /// When the attempt must have ended.
    pub(crate) deadline: Instant,
    seat: Arc<Seat>,
    lane: Arc<Lane>,
    slot: Option<OwnedSemaphorePermit>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The worker has not heard of it.
    Unsent,
    /// It may have.
    Sent,
    /// It has: it said so.
    Started,
    /// The batch knows how it ended, or has ended it by itself; only the slot is still in use.
    Ended,
}

impl Lease {
    pub(super) fn new(
        id: LeaseId,
        grant: super::state::Grant,
        lane: Arc<Lane>,
        deadline: Instant,
    ) -> Self {
        let super::state::Grant {
            attempt,
            seat,
            slot,
            ..
        } = grant;
        Self {
            id,
            attempt,
            deadline,
            seat,
            lane,
            slot: Some(slot),
            state: State::Unsent,
        }
    }

    pub(crate) fn call(&self) -> &Call {
        &self.attempt.call
    }

    /// Whether the call may be given to another worker if this one is lost.
    pub(crate) fn may_run_again(&self) -> bool {
        self.attempt.number < self.attempt.call.policy.max_attempts.get()
    }

    /// From now on the worker may know of it.
    pub(crate) fn mark_sent(&mut self) {
        if self.state == State::Unsent {
            self.state = State::Sent;
        }
    }

    /// The worker has said that it runs it.
    pub(crate) fn mark_started(&mut self) {
        if self.state == State::Sent {
            self.state = State::Started;
        }
    }

    /// Whether the worker has said so.
    pub(crate) fn has_started(&self) -> bool {
        self.state == State::Started
    }

    /// Whether the batch has ended it already.
    pub(crate) fn is_fenced(&self) -> bool {
        self.state == State::Ended
    }

    /// The batch has ended the lease by itself and wants to hear no more of it. The slot stays taken until the worker
    /// says that the tool has stopped.
    pub(crate) fn fence(&mut self) {
        if self.state != State::Ended {
            self.lane.series().lease_fenced();
        }
        self.state = State::Ended;
    }

    /// Tells the batch what the tool says of itself; dropped when the batch is busy.
    pub(crate) fn progress(&self, message: String, fraction: Option<f64>) {
        // The other half of the mailbox is kept for what must arrive.
        if self.state == State::Ended {
            return;
        }
        if self.call().notices.is_quiet() {
            let position = self.call().position;
            self.call().notify(Notice::Progress {
                position,
                lease: self.id,
                message,
                fraction,
            });
        } else {
            self.lane.context.metrics.progress_dropped_at_batch();
        }
    }

    /// Its worker is out of reach: the batch is told that it was lost, and may run the call elsewhere. The slot stays
    /// taken until the worker says that the tool has stopped, or is gone for good.
    pub(crate) fn give_up(&mut self) {
        if self.state != State::Ended {
            self.lane.series().lease_fenced();
        }
        self.tell(Ending::Lost);
    }

    /// Ends the lease. What comes after the batch ended it is thrown away.
    pub(crate) fn settle(mut self, ending: Ending) {
        self.tell(ending);
    }

    /// The tool asks not to be called for so long.
    pub(crate) fn pause_tool(&self, wait: Duration) {
        self.lane.pause(wait);
    }

    fn tell(&mut self, ending: Ending) {
        if self.state != State::Ended {
            self.state = State::Ended;
            let position = self.call().position;
            self.call().notify(Notice::Settled {
                position,
                lease: self.id,
                ending,
            });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tell(if self.state == State::Unsent {
            Ending::NotSent
        } else {
            Ending::Lost
        });
        self.slot = None;
        // The others first: the lane whose call has just ended must not keep the slot to itself.
        self.seat.offer_turns();
        self.lane.lease_ended();
    }
}
