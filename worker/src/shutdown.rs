//! The two ways in which a worker is asked to go.

use tokio_util::sync::CancellationToken;

/// Asks a worker to go: in good order, or at once.
///
/// Clones share the same two tokens.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take no new call, finish those that run, wait until the broker has their outcomes, then leave.
    pub drain: CancellationToken,
    /// Leave now: what runs is dropped, and the broker is told that the worker is gone.
    pub now: CancellationToken,
}

impl Shutdown {
    /// Two tokens, neither of which has fired.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}
