//! Names to handles: the workers that are here, the batches that are open.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::id::{BatchId, WorkerId};
use crate::lane::seat::SeatKey;
use crate::session::Joining;

/// Workers by id. An entry leaves when its session does.
#[derive(Debug)]
pub(crate) struct Workers {
    by_id: DashMap<WorkerId, Handle>,
    most: usize,
}

#[derive(Clone, Debug)]
struct Handle {
    key: SeatKey,
    joins: mpsc::Sender<Joining>,
}

/// What to do with a worker that dials in.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Nobody has its id: start a session that reads further dial-ins here.
    New(Box<Joining>, mpsc::Receiver<Joining>),
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
        }
    }

    /// Finds the worker's session, or makes room for a new one under `key`.
    pub(crate) fn admit(&self, worker: &WorkerId, key: SeatKey, joining: Joining) -> Admission {
        let full = self.by_id.len() >= self.most;
        match self.by_id.entry(worker.clone()) {
            Entry::Occupied(mut entry) => match entry.get().joins.try_send(joining) {
                Ok(()) => Admission::Passed,
                Err(mpsc::error::TrySendError::Full(_)) => Admission::Busy,
                // It has just left; the place is this one's.
                Err(mpsc::error::TrySendError::Closed(joining)) => {
                    let (joins, inbox) = mpsc::channel(2);
                    entry.insert(Handle { key, joins });
                    Admission::New(Box::new(joining), inbox)
                }
            },
            Entry::Vacant(_) if full => Admission::Full,
            Entry::Vacant(entry) => {
                let (joins, inbox) = mpsc::channel(2);
                entry.insert(Handle { key, joins });
                Admission::New(Box::new(joining), inbox)
            }
        }
    }

    /// The session under `key` is over.
    pub(crate) fn remove(&self, worker: &WorkerId, key: SeatKey) {
        self.by_id.remove_if(worker, |_, handle| handle.key == key);
    }
}

/// Open batches by id. An entry leaves when its [`Place`] is dropped.
#[derive(Debug)]
pub(crate) struct Batches {
    open: DashMap<BatchId, ()>,
    room: Arc<Semaphore>,
    most: usize,
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
    pub(crate) fn open(self, id: &BatchId) -> Result<Place, NoPlace> {
        match self.batches.open.entry(id.clone()) {
            Entry::Occupied(_) => return Err(NoPlace::Taken),
            Entry::Vacant(entry) => entry.insert(()),
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

    #[test]
    fn an_id_is_taken_while_its_batch_is_open_and_no_longer() {
        let batches = Batches::new(2);
        let open = |id: &str| batches.room().and_then(|room| room.open(&id.into()));
        let place = open("a").unwrap();
        assert_eq!(open("a").unwrap_err(), NoPlace::Taken);
        let _other = open("b").unwrap();
        assert_eq!(open("c").unwrap_err(), NoPlace::Full(2));
        drop(place);
        assert!(open("a").is_ok());
    }
}
