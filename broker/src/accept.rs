//! Connections as they are accepted: each must say in time what it is, and failures are told now and then.

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_stream::{Stream, StreamExt};

use crate::ACCEPT_PAUSE;
use crate::grpc::first_bytes::FirstBytes;
use crate::seldom::Seldom;

/// Failures come many a second for as long as file descriptors are short; so often they are told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What to serve of `incoming`.
pub(crate) fn connections<C, E>(
    incoming: impl Stream<Item = Result<C, E>>,
) -> impl Stream<Item = Result<FirstBytes<C>, Box<dyn Error + Send + Sync>>>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut failures = Failures::default();
    incoming.then(move |accepted| {
        let accepted = accepted.map(FirstBytes::of).map_err(Into::into);
        if let Err(error) = &accepted
            && let Some(failures) = failures.one_more(Instant::now())
        {
            tracing::warn!(%error, failures, "a connection could not be accepted");
        }
        async {
            if accepted.is_err() {
                sleep(ACCEPT_PAUSE).await;
            }
            accepted
        }
    })
}

/// Connections that could not be accepted.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    untold: u64,
    told: Seldom,
}

impl Failures {
    /// One more; how many there were, if it is time to tell.
    pub(crate) fn one_more(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        (self.told.is_due(TELL_EVERY, now)).then(|| std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_at_once_and_then_now_and_then() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let told: Vec<_> = (0..120)
            .filter_map(|n| failures.one_more(start + n * ACCEPT_PAUSE))
            .collect();
        assert_eq!(told, [1, 50, 50]);
        assert_eq!(failures.one_more(start + Duration::from_mins(1)), Some(20));
    }
}
