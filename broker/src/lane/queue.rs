//! The waiting attempts of one tool, fair between batches: batches take turns, and a batch's own calls keep their order.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// Which batch a place belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BatchKey(pub(crate) u64);

/// Places that were given up may outnumber those that wait by so many before the lists are cleaned.
const SLACK: usize = 1_024;

/// As far as [`FairQueue::ahead`] counts.
pub(crate) const MOST_AHEAD: usize = 10_000;

/// The queue. Everything but [`drain`](Self::drain) and [`ahead`](Self::ahead) is constant in time, on average.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    waiting: FxHashMap<Ticket, T>,
    /// The tickets of each batch that has a turn. Some may have been given up: they are in `waiting` no more.
    batches: FxHashMap<BatchKey, VecDeque<Ticket>>,
    /// Whose turn it is; has exactly the keys of `batches`.
    turns: VecDeque<BatchKey>,
    /// Tickets in `batches`, those given up included.
    tickets: usize,
    next: u64,
}

impl<T> FairQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: FxHashMap::default(),
            batches: FxHashMap::default(),
            turns: VecDeque::new(),
            tickets: 0,
            next: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Who has a place; `None` if it was given up or its turn has come.
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&T> {
        self.waiting.get(&ticket)
    }

    /// How many turns come before this place's, if nobody comes or goes: [`MOST_AHEAD`] stands for as many or more, and
    /// counting ends there. `None` as for [`get`](Self::get).
    pub(crate) fn ahead(&self, batch: BatchKey, ticket: Ticket) -> Option<usize> {
        self.get(ticket)?;
        let live = |batch| {
            let tickets = self.batches.get(batch).into_iter().flatten();
            tickets.filter(|ticket| self.waiting.contains_key(ticket))
        };
        let own = live(&batch).take(MOST_AHEAD);
        let own = own.take_while(|&&of| of != ticket).count();
        // Whose turn is before the batch's has one more, if as many wait.
        let (mut ahead, mut each) = (own, own + 1);
        for other in &self.turns {
            if *other == batch {
                each = own;
            } else {
                ahead += live(other).take(each.min(MOST_AHEAD)).count();
            }
            if ahead >= MOST_AHEAD {
                return Some(MOST_AHEAD);
            }
        }
        Some(ahead)
    }

    /// Takes a place behind the batch's others; a batch that had none gets its turn after all who wait now.
    pub(crate) fn push(&mut self, batch: BatchKey, item: T) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.insert(ticket, item);
        self.tickets += 1;
        self.batches
            .entry(batch)
            .or_insert_with(|| {
                self.turns.push_back(batch);
                VecDeque::new()
            })
            .push_back(ticket);
        ticket
    }

    /// The next in turn.
    pub(crate) fn pop(&mut self) -> Option<T> {
        while let Some(batch) = self.turns.pop_front() {
            let Some(tickets) = self.batches.get_mut(&batch) else {
                continue;
            };
            let mut taken = None;
            while let Some(ticket) = tickets.pop_front() {
                self.tickets -= 1;
                taken = self.waiting.remove(&ticket);
                if taken.is_some() {
                    break;
                }
            }
            if tickets.is_empty() {
                self.batches.remove(&batch);
            } else {
                self.turns.push_back(batch);
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    /// Gives a place up. `None` if it was not there any more.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let item = self.waiting.remove(&ticket);
        if self.tickets > 2 * self.waiting.len() + SLACK {
            self.clean();
        }
        item
    }

    /// Takes out everybody, in no order.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.batches.clear();
        self.turns.clear();
        self.tickets = 0;
        self.waiting.drain().map(|(_, item)| item).collect()
    }

    fn clean(&mut self) {
        let waiting = &self.waiting;
        self.batches.retain(|_, tickets| {
            tickets.retain(|ticket| waiting.contains_key(ticket));
            !tickets.is_empty()
        });
        self.turns.retain(|batch| self.batches.contains_key(batch));
        self.tickets = waiting.len();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A ticket for tests that play a lane.
    pub(crate) fn ticket(number: u64) -> Ticket {
        Ticket(number)
    }

    fn all(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn a_large_batch_does_not_stall_a_small_one() {
        let mut queue = FairQueue::new();
        for item in ["a1", "a2", "a3", "a4"] {
            queue.push(BatchKey(1), item);
        }
        queue.push(BatchKey(2), "b1");
        queue.push(BatchKey(3), "c1");
        assert_eq!(all(&mut queue), ["a1", "b1", "c1", "a2", "a3", "a4"]);
    }

    #[test]
    fn as_many_are_ahead_as_are_popped_before() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut queue = FairQueue::new();
            let mut places = Vec::new();
            for item in 0..rng.usize(1..30) {
                let batch = BatchKey(rng.u64(..4));
                places.push((batch, queue.push(batch, item)));
                if rng.u8(..4) == 0 {
                    queue.remove(places[rng.usize(..places.len())].1);
                }
                if rng.u8(..6) == 0 {
                    queue.pop();
                }
            }
            let ahead = |(batch, ticket)| queue.ahead(batch, ticket);
            let told: Vec<_> = places.into_iter().map(ahead).collect();
            let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            let is: Vec<_> = (0..told.len())
                .map(|item| order.iter().position(|of| *of == item))
                .collect();
            assert_eq!(told, is);
        }
    }

    #[test]
    fn so_many_are_not_counted_to_the_last() {
        let mut queue = FairQueue::new();
        for n in 0..MOST_AHEAD as u64 + 5 {
            queue.push(BatchKey(n), n);
        }
        let last = queue.push(BatchKey(9), 0);
        assert_eq!(queue.ahead(BatchKey(9), last), Some(MOST_AHEAD));
    }

    #[test]
    fn a_place_that_is_given_up_is_passed_over() {
        let mut queue = FairQueue::new();
        let first = queue.push(BatchKey(1), "a1");
        queue.push(BatchKey(1), "a2");
        let only = queue.push(BatchKey(2), "b1");
        assert_eq!(
            (queue.remove(first), queue.remove(only), queue.remove(only)),
            (Some("a1"), Some("b1"), None)
        );
        assert_eq!((queue.len(), all(&mut queue)), (1, vec!["a2"]));
        assert!(queue.is_empty() && queue.batches.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn places_given_up_do_not_pile_up_in_a_queue_that_does_not_move() {
        let mut queue = FairQueue::new();
        for n in 0..100_000 {
            let ticket = queue.push(BatchKey(n), "x");
            queue.remove(ticket);
        }
        assert!(
            queue.tickets <= SLACK && queue.batches.len() <= SLACK && queue.turns.len() <= SLACK
        );
    }
}
