//! The token bucket of one tool: one instant, after the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! Starts are spaced by `interval`; a quiet time saves up to `burst` of them. Nothing is reserved for a waiter, so a
//! waiter that goes away wastes no token: the moment of the n-th waiter follows from the state alone. Strict: in any
//! window of `t` seconds at most `burst + rate * t` calls start. The lane's timer is at most about a millisecond late;
//! with a burst of 2 or more that is made up for, with a burst of 1 it is lost, since spacing may not shrink.

use std::time::Duration;

use tokio::time::Instant;

use crate::policy::Rate;

/// The state of one bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Between two starts at the permitted rate.
    interval: Duration,
    /// How far ahead of now the theoretical time may be: `burst - 1` intervals.
    tolerance: Duration,
    /// When the bucket would be full again ("theoretical arrival time").
    full_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        // Up, not down: a rounding error must not add to the rate.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1e3 and 1e18"
        )]
        let interval = Duration::from_nanos((1e9 / rate.per_second).ceil().min(1e18) as u64);
        let tolerance = interval.saturating_mul(rate.burst.get() - 1);
        Self {
            interval,
            tolerance,
            full_at: now,
        }
    }

    /// Goes on at another rate; tokens that were taken stay taken.
    pub(crate) fn change(&mut self, rate: Rate, now: Instant) {
        let mut bucket = Self::new(rate, now);
        let latest = now + bucket.tolerance + bucket.interval;
        bucket.full_at = self.full_at.clamp(now, latest);
        *self = bucket;
    }

    /// Now, or the moment from which a call may start.
    pub(crate) fn ready(&self, now: Instant) -> Result<(), Instant> {
        if now + self.tolerance >= self.full_at {
            Ok(())
        } else {
            Err(self.full_at - self.tolerance)
        }
    }

    /// Takes a token; [`ready`](Self::ready) must have said that there is one.
    pub(crate) fn take(&mut self, now: Instant) {
        debug_assert!(
            self.ready(now).is_ok(),
            "a token is taken only when there is one"
        );
        self.full_at = self.full_at.max(now) + self.interval;
    }

    /// The share of the burst that is used up, from 0 to 1, in whole tokens: 1 exactly while the next call must wait.
    pub(crate) fn used(&self, now: Instant) -> f64 {
        let debt = self.full_at.saturating_duration_since(now);
        let room = self.tolerance.saturating_add(self.interval);
        let free = room.saturating_sub(debt).as_nanos() / self.interval.as_nanos().max(1);
        let burst = room.as_nanos() / self.interval.as_nanos().max(1);
        #[expect(clippy::cast_precision_loss, reason = "a burst is 32 bits")]
        let free = free as f64 / burst.max(1) as f64;
        1.0 - free
    }

    /// How many calls may start until then, if the rate is all that holds them.
    pub(crate) fn starts_within(&self, time: Duration, now: Instant) -> usize {
        let debt = self.full_at.saturating_duration_since(now);
        match (time + self.tolerance).checked_sub(debt) {
            // At most a rate times some seconds, or a burst.
            Some(left) => usize::try_from(left.as_nanos() / self.interval.as_nanos().max(1))
                .map_or(usize::MAX, |starts| starts.saturating_add(1)),
            None => 0,
        }
    }

    /// How long a call must wait that has `ahead` others before it, if the rate is all that holds them.
    pub(crate) fn wait(&self, ahead: usize, now: Instant) -> Duration {
        let ahead = self
            .interval
            .saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX));
        let debt = self.full_at.saturating_duration_since(now);
        debt.saturating_add(ahead).saturating_sub(self.tolerance)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(per_second: f64, burst: u32) -> Rate {
        Rate {
            per_second,
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    #[test]
    fn as_many_start_within_a_time_as_are_let_start() {
        let start = Instant::now();
        for (per_second, burst) in [(0.2, 1), (2.0, 3), (50.0, 10)] {
            let mut bucket = Bucket::new(rate(per_second, burst), start);
            for taken in 0..5 {
                let told = bucket.starts_within(Duration::from_secs(15), start);
                let is = (0..10_000).find(|&n| bucket.wait(n, start) > Duration::from_secs(15));
                assert_eq!(Some(told), is, "{per_second}, {taken} taken");
                bucket.take(bucket.ready(start).err().unwrap_or(start));
            }
        }
    }

    #[test]
    fn used_is_one_exactly_while_the_next_must_wait() {
        let start = Instant::now();
        for burst in [1, 2, 5, 10] {
            let mut bucket = Bucket::new(rate(2.0, burst), start);
            assert!(bucket.used(start).abs() < 1e-9);
            for taken in 1..=burst {
                bucket.take(start);
                let share = f64::from(taken) / f64::from(burst);
                assert!(
                    (bucket.used(start) - share).abs() < 1e-9,
                    "{taken} of {burst}"
                );
            }
            for millis in 0..3_000 {
                let now = start + Duration::from_millis(millis);
                let waits = bucket.ready(now).is_err();
                assert_eq!(bucket.used(now) >= 1.0, waits, "{burst}, {millis} ms");
                if !waits && millis % 7 == 0 {
                    bucket.take(now);
                }
            }
        }
    }

    /// Starts in `seconds` when there is always a waiter and the timer is `late`.
    fn starts(bucket: &mut Bucket, from: Instant, seconds: u64, late: Duration) -> Vec<Instant> {
        let (mut now, mut starts) = (from, Vec::new());
        while now < from + Duration::from_secs(seconds) {
            match bucket.ready(now) {
                Ok(()) => {
                    bucket.take(now);
                    starts.push(now);
                }
                Err(at) => now = at + late,
            }
        }
        starts
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(100.0, 10), now);
        assert_eq!(starts(&mut bucket, now, 10, Duration::ZERO).len(), 10 + 999);
    }

    #[test]
    fn a_late_timer_costs_nothing_when_there_is_a_burst() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(100.0, 10), now);
        let count = starts(&mut bucket, now, 10, Duration::from_millis(2)).len();
        assert!((1_000..=1_010).contains(&count), "{count}");
    }

    #[test]
    fn no_window_has_more_than_burst_and_rate() {
        for burst in [1, 2, 7] {
            let now = Instant::now();
            let mut bucket = Bucket::new(rate(50.0, burst), now);
            let starts = starts(&mut bucket, now, 5, Duration::from_micros(700));
            for (n, from) in starts.iter().enumerate() {
                for (m, to) in starts.iter().enumerate().skip(n) {
                    let permitted = f64::from(burst) + 50.0 * (*to - *from).as_secs_f64();
                    assert!(
                        f64::from(u32::try_from(m - n + 1).unwrap()) <= permitted + 1e-6,
                        "burst {burst}: {} starts",
                        m - n + 1
                    );
                }
            }
        }
    }

    #[test]
    fn the_wait_of_the_nth_waiter_is_foretold() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(10.0, 2), now);
        assert_eq!(bucket.wait(0, now), Duration::ZERO);
        bucket.take(now);
        bucket.take(now);
        assert_eq!(bucket.ready(now), Err(now + bucket.wait(0, now)));
        assert_eq!(
            bucket.wait(3, now),
            bucket.wait(0, now) + Duration::from_millis(300)
        );
    }

    #[test]
    fn a_changed_rate_gives_no_tokens_away() {
        let now = Instant::now();
        let mut bucket = Bucket::new(rate(1.0, 5), now);
        (0..5).for_each(|_| bucket.take(now));
        bucket.change(rate(10.0, 1), now);
        assert_eq!(bucket.ready(now), Err(now + Duration::from_millis(100)));
    }
}
