//! A bounded mailbox, from many to one, that is emptied in one go: what came together is read together, under one lock
//! and after one wake-up.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Where letters are posted. Cloning copies a pointer.
pub(crate) struct Address<T>(Arc<Shared<T>>);

/// Where they are read. Dropping it closes it and drops what nobody read.
pub(crate) struct Mailbox<T>(Arc<Shared<T>>);

struct Shared<T> {
    letters: Mutex<Letters<T>>,
    arrived: Notify,
    bound: usize,
}

struct Letters<T> {
    waiting: Vec<T>,
    closed: bool,
}

/// A letter that could not be posted.
#[derive(Debug)]
pub(crate) enum Undelivered<T> {
    /// Nobody will read it.
    Closed(T),
    /// As many wait as may.
    Full(T),
}

/// A mailbox for at most `bound` letters.
pub(crate) fn mailbox<T>(bound: usize) -> (Address<T>, Mailbox<T>) {
    let letters = Mutex::new(Letters {
        waiting: Vec::new(),
        closed: false,
    });
    let shared = Arc::new(Shared {
        letters,
        arrived: Notify::new(),
        bound,
    });
    (Address(Arc::clone(&shared)), Mailbox(shared))
}

impl<T> Address<T> {
    /// Posts a letter; never waits.
    pub(crate) fn post(&self, letter: T) -> Result<(), Undelivered<T>> {
        let first = {
            let mut letters = self.0.letters.lock();
            if letters.closed {
                return Err(Undelivered::Closed(letter));
            }
            if letters.waiting.len() >= self.0.bound {
                return Err(Undelivered::Full(letter));
            }
            letters.waiting.push(letter);
            letters.waiting.len() == 1
        };
        if first {
            self.0.arrived.notify_one();
        }
        Ok(())
    }

    /// Whether less than half of the bound is in use: what may be dropped is posted only then.
    pub(crate) fn is_quiet(&self) -> bool {
        self.0.letters.lock().waiting.len() < self.0.bound / 2
    }
}

impl<T> Mailbox<T> {
    /// Waits for letters and moves all of them into `into`, which must be empty. Cancel safe.
    pub(crate) async fn collect(&mut self, into: &mut Vec<T>) {
        loop {
            self.collect_ready(into);
            if !into.is_empty() {
                return;
            }
            self.0.arrived.notified().await;
        }
    }

    /// The same without waiting.
    pub(crate) fn collect_ready(&mut self, into: &mut Vec<T>) {
        debug_assert!(into.is_empty(), "letters are read before more are fetched");
        std::mem::swap(into, &mut self.0.letters.lock().waiting);
    }

    /// Takes no more letters; gives those that wait.
    pub(crate) fn close(&mut self) -> Vec<T> {
        let mut letters = self.0.letters.lock();
        letters.closed = true;
        std::mem::take(&mut letters.waiting)
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        // Not under the lock: a letter may do much when it is dropped.
        let unread = self.close();
        drop(unread);
    }
}

impl<T> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Address<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("bound", &self.0.bound)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("bound", &self.0.bound)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(mailbox: &mut Mailbox<u32>, into: &mut Vec<u32>) -> Poll<()> {
        pin!(mailbox.collect(into)).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_came_together_is_read_together_and_in_order() {
        let (address, mut mailbox) = mailbox(8);
        let mut letters = Vec::new();
        assert!(poll(&mut mailbox, &mut letters).is_pending());
        address.post(1).unwrap();
        address.clone().post(2).unwrap();
        assert!(poll(&mut mailbox, &mut letters).is_ready());
        assert_eq!(letters, [1, 2]);
        letters.clear();
        assert!(poll(&mut mailbox, &mut letters).is_pending());
    }

    #[test]
    fn a_full_or_a_closed_mailbox_gives_the_letter_back() {
        let (address, mut mailbox) = mailbox(2);
        assert!(address.is_quiet());
        address.post(1).unwrap();
        assert!(!address.is_quiet());
        address.post(2).unwrap();
        assert!(matches!(address.post(3), Err(Undelivered::Full(3))));
        assert_eq!(mailbox.close(), [1, 2]);
        assert!(matches!(address.post(4), Err(Undelivered::Closed(4))));
    }

    #[tokio::test]
    async fn no_letter_is_missed_between_a_look_and_a_wait() {
        let (address, mut mailbox) = mailbox(64);
        let poster = tokio::task::spawn_blocking(move || {
            for n in 0..10_000 {
                while address.post(n).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        let (mut all, mut letters) = (Vec::new(), Vec::new());
        while all.len() < 10_000 {
            mailbox.collect(&mut letters).await;
            all.append(&mut letters);
        }
        assert!(all.is_sorted());
        poster.await.unwrap();
    }
}
