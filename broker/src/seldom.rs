//! What is done now and then, however often there is reason to.

use std::time::Duration;

use tokio::time::Instant;

/// Something that is done at most once in a time; at first it is due at once.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    /// Whether so much time has gone by since it was due last. Then it counts as done.
    #[must_use]
    pub fn is_due(&mut self, every: Duration, now: Instant) -> bool {
        let is_due = (self.last).is_none_or(|last| now.saturating_duration_since(last) >= every);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_once_and_then_when_the_time_is_over() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let every = Duration::from_secs(10);
        let due: Vec<_> = (0..25)
            .filter(|second| seldom.is_due(every, start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(due, [0, 10, 20]);
    }
}
