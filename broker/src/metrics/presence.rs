//! Which workers are here, for the gauges: their seats, and whether their streams are up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use dashmap::DashMap;

use crate::lane::seat::{Seat, SeatKey};

/// How a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerState {
    Connected,
    /// Takes no new calls.
    Draining,
    /// Its stream broke; it may come back.
    Away,
}

impl WorkerState {
    pub(super) const ALL: [Self; 3] = [Self::Connected, Self::Draining, Self::Away];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Draining => "draining",
            Self::Away => "away",
        }
    }
}

/// The workers that have a session. An entry leaves when its [`Presence`] is dropped.
#[derive(Debug, Default)]
pub(super) struct Present(DashMap<SeatKey, Arc<Worker>>);

#[derive(Debug)]
struct Worker {
    seat: Arc<Seat>,
    state: AtomicU8,
}

/// A session's entry.
#[derive(Debug)]
pub(crate) struct Presence {
    worker: Arc<Worker>,
    present: Arc<Present>,
}

/// Workers by state, and slots.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) workers: [usize; WorkerState::ALL.len()],
    pub(super) slots_used: usize,
    pub(super) slots_free: usize,
}

impl Present {
    pub(super) fn enter(self: &Arc<Self>, seat: Arc<Seat>) -> Presence {
        let key = seat.key;
        let state = AtomicU8::new(WorkerState::Away as u8);
        let worker = Arc::new(Worker { seat, state });
        self.0.insert(key, Arc::clone(&worker));
        let present = Arc::clone(self);
        Presence { worker, present }
    }

    pub(super) fn count(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.0 {
            let Worker { seat, state } = &**entry.value();
            let state = state.load(Ordering::Relaxed);
            let free = seat.free();
            counts.workers[usize::from(state)] += 1;
            counts.slots_used += seat.total() - free;
            if state == WorkerState::Connected as u8 {
                counts.slots_free += free;
            }
        }
        counts
    }
}

impl Presence {
    pub(crate) fn set(&self, state: WorkerState) {
        self.worker.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> WorkerState {
        WorkerState::ALL[usize::from(self.worker.state.load(Ordering::Relaxed))]
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.present.0.remove(&self.worker.seat.key);
    }
}
