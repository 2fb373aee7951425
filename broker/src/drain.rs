//! Going down: first nothing new, then what is open within a grace time, then the workers, then the server.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How a broker is told to go down.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take no new batches; open ones may finish within `drain_grace`.
    pub drain: CancellationToken,
    /// End at once.
    pub now: CancellationToken,
}

/// The steps of going down, each a token that parts of the broker wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    /// No new batches.
    pub(crate) draining: CancellationToken,
    /// Open batches end with what they have.
    pub(crate) expire: CancellationToken,
    /// Sessions and lanes end.
    pub(crate) sessions: CancellationToken,
}

impl Steps {
    /// Goes through all steps at once when the guards are dropped.
    pub(crate) fn drop_guards(self) -> [DropGuard; 3] {
        [self.draining, self.expire, self.sessions].map(CancellationToken::drop_guard)
    }

    /// Goes through the steps once `drain` is asked for; returns when batches and sessions are gone.
    pub(crate) async fn run(
        &self,
        drain: CancellationToken,
        grace: Duration,
        batches: &TaskTracker,
        sessions: &TaskTracker,
    ) {
        drain.cancelled().await;
        tracing::info!(
            batches.open = batches.len(),
            ?grace,
            "draining: no new batches"
        );
        self.draining.cancel();
        batches.close();
        if tokio::time::timeout(grace, batches.wait()).await.is_err() {
            tracing::warn!(
                batches.open = batches.len(),
                "the grace time is over: open batches are ended"
            );
            self.expire.cancel();
            // Bounded: an expired batch waits for nothing but its delivery, which has a time limit.
            batches.wait().await;
        }
        self.sessions.cancel();
        sessions.close();
        sessions.wait().await;
        tracing::info!("drained");
    }
}
