//! Names to handles: the workers that are here, the batches that are open.

use std::collections::VecDeque;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::id::{BatchId, InstanceId, WorkerId};
use crate::lane::lease::Notice;
use crate::lane::queue::BatchKey;
use crate::lane::seat::SeatKey;
use crate::mailbox::Address;
use crate::session::{Joining, Visit};

/// Visits that may wait for a session.
const VISITS: usize = 4;

/// Workers by id. An entry leaves when its session does.
#[derive(Debug)]
pub(crate) struct Workers {
    by_id: DashMap<WorkerId, Handle>,
    most: usize,
    taken_out: TakenOut,
}

/// Processes that operators have taken out, which may come back: the latest [`TakenOut::MOST`].
#[derive(Clone, Debug, Default)]
pub(crate) struct TakenOut(Arc<Mutex<VecDeque<InstanceId>>>);

impl TakenOut {
    const MOST: usize = 1_000;

    pub(crate) fn add(&self, instance: InstanceId) {
        let mut all = self.0.lock();
        all.truncate(Self::MOST - 1);
        all.push_front(instance);
    }

    pub(crate) fn has(&self, instance: &InstanceId) -> bool {
        self.0.lock().contains(instance)
    }
}

#[derive(Clone, Debug)]
struct Handle {
    key: SeatKey,
    visits: mpsc::Sender<Visit>,
}

/// What to do with a worker that dials in.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Nobody has its id: start a session that reads what else comes for it here.
    New(Box<Joining>, mpsc::Receiver<Visit>),
    /// The session of its id has it now.
    Passed,
    /// There are as many workers as there may be.
    Full,
    /// The session of its id has no room for one more dial-in just now.
    Busy,
}

impl Workers {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            by_id: DashMap::new(),
            most,
            taken_out: TakenOut::default(),
        }
    }

    /// Finds the worker's session, or makes room for a new one under `key`.
    pub(crate) fn admit(
        &self,
        worker: &WorkerId,
        key: SeatKey,
        joining: Box<Joining>,
    ) -> Admission {
        let full = self.by_id.len() >= self.most;
        match self.by_id.entry(worker.clone()) {
            Entry::Occupied(mut entry) => match entry.get().visits.clone().try_reserve_owned() {
                Ok(room) => {
                    let _ = room.send(Visit::Joining(joining));
                    Admission::Passed
                }
                Err(mpsc::error::TrySendError::Full(_)) => Admission::Busy,
                // It has just left; the place is this one's.
                Err(mpsc::error::TrySendError::Closed(_)) => {
                    let (visits, inbox) = mpsc::channel(VISITS);
                    entry.insert(Handle { key, visits });
                    Admission::New(joining, inbox)
                }
            },
            Entry::Vacant(_) if full => Admission::Full,
            Entry::Vacant(entry) => {
                let (visits, inbox) = mpsc::channel(VISITS);
                entry.insert(Handle { key, visits });
                Admission::New(joining, inbox)
            }
        }
    }

    /// Who was taken out, for sessions to look at and to add to.
    pub(crate) fn taken_out(&self) -> TakenOut {
        self.taken_out.clone()
    }

    /// The ways to all sessions, sorted by their workers' ids.
    pub(crate) fn sessions(&self) -> Vec<(WorkerId, mpsc::Sender<Visit>)> {
        let all = self.by_id.iter();
        let mut all: Vec<_> = all
            .map(|entry| (entry.key().clone(), entry.visits.clone()))
            .collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// The way to a worker's session, if it has one.
    pub(crate) fn session(&self, worker: &str) -> Option<mpsc::Sender<Visit>> {
        Some(self.by_id.get(worker)?.visits.clone())
    }

    /// The session under `key` is over.
    pub(crate) fn remove(&self, worker: &WorkerId, key: SeatKey) {
        self.by_id.remove_if(worker, |_, handle| handle.key == key);
    }
}

/// Open batches by id. An entry leaves when its [`Place`] is dropped.
#[derive(Debug)]
pub(crate) struct Batches {
    open: DashMap<BatchId, OpenBatch>,
    room: Arc<Semaphore>,
    most: usize,
}

/// An open batch: when it came, and the way to its task.
#[derive(Clone, Debug)]
pub(crate) struct OpenBatch {
    /// A batch that came later has a larger one.
    pub(crate) key: BatchKey,
    pub(crate) notices: Address<Notice>,
}

/// A batch's place among the open ones; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    id: BatchId,
    batches: Arc<Batches>,
    _room: OwnedSemaphorePermit,
}

/// Why a batch cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlace {
    #[error("{0} batches are open, which is max_open_batches; try again later")]
    Full(usize),
    #[error("open.batch_id is the id of a batch that is open")]
    Taken,
}

impl Batches {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            open: DashMap::new(),
            room: Arc::new(Semaphore::new(most)),
            most,
        })
    }

    /// Batches that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// The open batches, the oldest first.
    pub(crate) fn by_age(&self) -> Vec<(BatchId, OpenBatch)> {
        let open = self.open.iter();
        let mut open: Vec<_> = open
            .map(|entry| (entry.key().clone(), entry.value().clone()))
            .collect();
        open.sort_unstable_by_key(|(_, batch)| batch.key.0);
        open
    }

    /// Whether the batch is open.
    pub(crate) fn has(&self, id: &BatchId) -> bool {
        self.open.contains_key(id)
    }

    /// The open batch of this id.
    pub(crate) fn find(&self, id: &str) -> Option<(BatchId, OpenBatch)> {
        let entry = self.open.get(id)?;
        Some((entry.key().clone(), entry.value().clone()))
    }

    /// Room for one more batch, before it is known which.
    pub(crate) fn room(self: &Arc<Self>) -> Result<Room, NoPlace> {
        let room = Arc::clone(&self.room).try_acquire_owned();
        let permit = room.map_err(|_| NoPlace::Full(self.most))?;
        Ok(Room {
            batches: Arc::clone(self),
            permit,
        })
    }
}

/// Room for a batch; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Room {
    batches: Arc<Batches>,
    permit: OwnedSemaphorePermit,
}

impl Room {
    /// Opens the batch.
    pub(crate) fn open(self, id: &BatchId, batch: OpenBatch) -> Result<Place, NoPlace> {
        match self.batches.open.entry(id.clone()) {
            Entry::Occupied(_) => return Err(NoPlace::Taken),
            Entry::Vacant(entry) => entry.insert(batch),
        };
        Ok(Place {
            id: id.clone(),
            batches: self.batches,
            _room: self.permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.batches.open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::mailbox;

    #[test]
    fn an_id_is_taken_while_its_batch_is_open_and_no_longer() {
        let batches = Batches::new(2);
        let open = |id: &str| {
            let (notices, _) = mailbox(1);
            let batch = OpenBatch {
                key: BatchKey(0),
                notices,
            };
            batches.room().and_then(|room| room.open(&id.into(), batch))
        };
        let place = open("a").unwrap();
        assert_eq!(open("a").unwrap_err(), NoPlace::Taken);
        let _other = open("b").unwrap();
        assert_eq!(open("c").unwrap_err(), NoPlace::Full(2));
        drop(place);
        assert!(open("a").is_ok());
    }
}
