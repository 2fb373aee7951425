//! A worker as its lanes see it: its slots, and the mailbox of its session.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::Lane;
use super::lease::Lease;
use crate::id::{LeaseId, WorkerId};
use crate::mailbox::{Address, Mailbox, Undelivered, mailbox};

/// Which session a seat belongs to; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeatKey(pub(crate) u64);

/// What a session is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Send this to the worker.
    Assign(Lease),
    /// Stop it; the batch has ended the lease already.
    Cancel(LeaseId),
}

/// Room on one worker, shared by the lanes of all its tools.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) key: SeatKey,
    pub(crate) worker: WorkerId,
    slots: Arc<Semaphore>,
    total: usize,
    /// Lanes that found no slot free, in the order in which they are offered the next one. Each is here at most once.
    turns: Mutex<VecDeque<Weak<Lane>>>,
    orders: Address<Order>,
}

/// No slot to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// All are taken.
    Full,
    /// The worker takes no new calls.
    Closed,
}

impl Seat {
    /// The seat of a session with so many slots, and the session's end of its mailbox.
    pub(crate) fn new(key: SeatKey, worker: WorkerId, total: usize) -> (Arc<Self>, Mailbox<Order>) {
        // An assignment needs a slot, and a lease is cancelled at most once: two orders a slot are all there can be
        // before the session has read the first. The rest covers slots that are freed and taken again meanwhile.
        let (orders, inbox) = mailbox(4 * total + 16);
        let slots = Arc::new(Semaphore::new(total));
        (
            Arc::new(Self {
                key,
                worker,
                slots,
                total,
                turns: Mutex::default(),
                orders,
            }),
            inbox,
        )
    }

    /// Takes a slot if one is free; never waits.
    pub(crate) fn try_take(&self) -> Result<OwnedSemaphorePermit, NoSlot> {
        Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|error| match error {
                TryAcquireError::NoPermits => NoSlot::Full,
                TryAcquireError::Closed => NoSlot::Closed,
            })
    }

    /// Slots that are free.
    pub(crate) fn free(&self) -> usize {
        self.slots.available_permits()
    }

    /// Slots in all.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Whether `self` is less busy than `other`, by the share of slots that are free.
    pub(crate) fn is_freer_than(&self, other: &Self) -> bool {
        self.free() * other.total > other.free() * self.total
    }

    /// No slot will be given any more; those that are taken stay so until their leases end.
    pub(crate) fn close(&self) {
        self.slots.close();
    }

    /// Asks for the next slot. The caller must look for a slot once more afterwards: one may have come free in between.
    pub(crate) fn queue_for_turn(&self, lane: Weak<Lane>) {
        self.turns.lock().push_back(lane);
    }

    /// Offers free slots to the lanes that wait for one, in turn. Call it without any lane's lock.
    pub(crate) fn offer_turns(&self) {
        while self.free() > 0 {
            // Its own statement: the lock must be free again before the lane is asked.
            let next = self.turns.lock().pop_front();
            let Some(lane) = next else { return };
            if let Some(lane) = lane.upgrade() {
                lane.slot_offered(self.key);
            }
        }
    }

    /// Hands an order to the session; gives it back when the session is gone.
    pub(crate) fn order(&self, order: Order) -> Result<(), Order> {
        self.orders.post(order).map_err(|undelivered| match undelivered {
            Undelivered::Closed(order) => order,
            Undelivered::Full(order) => {
                tracing::error!(worker.id = %self.worker, "the session's mailbox is full, which its bound rules out");
                order
            }
        })
    }
}
