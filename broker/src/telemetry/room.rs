//! How many spans may wait to be exported: known here, since the SDK's queue drops what it has no room for without a word,
//! a trace's root as well as any other span.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::seldom::Seldom;

/// While spans are dropped, it is said once in this time.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// The room in a queue of spans, and what did not get through it.
///
/// Whoever hands spans over takes room for them first, and whoever exports them gives it back.
#[derive(Debug)]
pub struct SpanRoom {
    size: usize,
    free: AtomicUsize,
    full: AtomicU64,
    unsent: AtomicU64,
    said: Mutex<Seldom>,
}

impl SpanRoom {
    /// For a queue that holds so many spans.
    #[must_use]
    pub fn new(spans: usize) -> Self {
        Self {
            size: spans,
            free: AtomicUsize::new(spans),
            full: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            said: Mutex::default(),
        }
    }

    /// Takes room for all of these. `false`: there is not enough, and they are counted as dropped.
    #[must_use]
    pub fn take(&self, spans: usize) -> bool {
        let less = |free: usize| free.checked_sub(spans);
        let taken = self
            .free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if taken.is_err() {
            let before = add(&self.full, spans);
            let is_due = self.said.lock().is_due(SAY_AGAIN, Instant::now());
            if is_due && spans > self.size {
                tracing::warn!(
                    spans,
                    room = self.size,
                    dropped.before = before,
                    "a batch has more spans than the queue ever holds; its trace is dropped"
                );
            } else if is_due {
                tracing::warn!(
                    spans,
                    dropped.before = before,
                    "the queue of spans is full; traces are dropped until it has room again"
                );
            }
        }
        taken.is_ok()
    }

    /// These have left the queue.
    pub fn give_back(&self, spans: usize) {
        self.free.fetch_add(spans, Ordering::Relaxed);
    }

    /// Spans that wait in the queue.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.size.saturating_sub(self.free.load(Ordering::Relaxed))
    }

    /// These left the queue, and the collector did not take them.
    pub fn unsent(&self, spans: usize) {
        add(&self.unsent, spans);
    }

    /// Spans that were dropped so far, by reason.
    #[must_use]
    pub fn dropped(&self) -> [(&'static str, u64); 2] {
        [("full", &self.full), ("unsent", &self.unsent)]
            .map(|(reason, spans)| (reason, spans.load(Ordering::Relaxed)))
    }
}

fn add(to: &AtomicU64, spans: usize) -> u64 {
    let spans = u64::try_from(spans).unwrap_or(u64::MAX);
    to.fetch_add(spans, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_all_of_them_or_for_none() {
        let room = SpanRoom::new(5);
        assert!(room.take(3) && !room.take(3) && room.take(2) && !room.take(1));
        assert_eq!(room.waiting(), 5);
        room.give_back(3);
        room.unsent(3);
        assert!(!room.take(4) && room.take(3));
        assert_eq!(room.dropped(), [("full", 8), ("unsent", 3)]);
    }
}
