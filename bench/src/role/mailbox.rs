//! Items for one reader that takes all there are at once, so that they travel as one packet.

use std::mem;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Unbounded, unlike any queue of the product: what is in it never exceeds what the closed loop has open.
pub(super) struct Mailbox<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    items: Vec<T>,
    /// Present while the reader sleeps.
    reader: Option<Waker>,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        let state = Mutex::new(State {
            items: Vec::new(),
            reader: None,
        });
        Self { state }
    }
}

impl<T> Mailbox<T> {
    pub(super) fn push(&self, item: T) {
        self.extend([item]);
    }

    pub(super) fn extend(&self, items: impl IntoIterator<Item = T>) {
        let reader = {
            let mut state = self.state.lock();
            state.items.extend(items);
            state.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// All items, of which there is at least one.
    pub(super) fn poll_take(&self, context: &Context<'_>) -> Poll<Vec<T>> {
        let mut state = self.state.lock();
        if state.items.is_empty() {
            state.reader = Some(context.waker().clone());
            Poll::Pending
        } else {
            Poll::Ready(mem::take(&mut state.items))
        }
    }
}
