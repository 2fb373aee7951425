//! The retry: trying until the broker is reached or the time is over.

use std::error::Error as StdError;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::error::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Stands in for a limit that ends where no clock reaches.
const FOR_EVER: Duration = Duration::from_hours(30 * 365 * 24);

/// What an attempt that did not succeed means.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The broker was not reached, or turned us away for now: worth another attempt.
    NotReached(Box<dyn StdError + Send + Sync>),
    /// Nothing that another attempt can change.
    Final(Error),
}

/// Makes attempts, with a growing and jittered pause between them, until one succeeds, one fails for good or `limit` is over.
/// An attempt that is still under way then is dropped.
pub(crate) async fn reach<T, A, F>(limit: Duration, mut attempt: A) -> Result<T, Error>
where
    A: FnMut(u32) -> F,
    F: Future<Output = Result<T, Failure>>,
{
    let began = Instant::now();
    let deadline = began.checked_add(limit).unwrap_or_else(|| began + FOR_EVER);
    let mut pause = FIRST_PAUSE;
    let mut last: Option<Box<dyn StdError + Send + Sync>> = None;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let source = match timeout_at(deadline, attempt(attempts)).await {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(Failure::Final(error))) => return Err(error),
            Ok(Err(Failure::NotReached(source))) => source,
            // The attempt before says more than that the time is over.
            Err(elapsed) => last.take().unwrap_or_else(|| elapsed.into()),
        };
        // Agents that lost the same broker must not come back in step: between half the pause and all of it.
        let jittered = pause.mul_f64(fastrand::f64().midpoint(1.0));
        if Instant::now() + jittered >= deadline {
            return Err(Error::Connect {
                waited: began.elapsed(),
                attempts,
                source,
            });
        }
        sleep(jittered).await;
        last = Some(source);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
