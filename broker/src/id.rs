//! The names of things: batches, calls, workers, leases, spans.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Cloning copies a pointer.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) struct $name(Arc<str>);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// One model turn; unique among the open batches of a broker.
    BatchId
}
text_id! {
    /// A call as the agent names it; unique in its batch.
    CallId
}
text_id! {
    /// A worker as it names itself; unique among live workers.
    WorkerId
}
text_id! {
    /// One life of a worker's process: tells a reconnect from a restart.
    InstanceId
}

impl BatchId {
    /// An id for an agent that gave none: a `UUIDv7`, so that ids sort by time in a log.
    #[must_use]
    pub(crate) fn generate() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        Self(Arc::from(
            &*uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text),
        ))
    }
}

/// The right to run one attempt of one call. Never used again, by a later life of the broker either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(pub(crate) u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A span of a trace. None at all takes up no more room than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpanId(NonZeroU64);

impl SpanId {
    /// A new one. Unique in its trace, as far as chance goes.
    pub(crate) fn random(random: &mut fastrand::Rng) -> Self {
        Self(NonZeroU64::new(random.u64(1..)).unwrap_or(NonZeroU64::MIN))
    }
}

impl From<SpanId> for opentelemetry::trace::SpanId {
    fn from(id: SpanId) -> Self {
        Self::from(id.0.get())
    }
}

/// Where lease ids come from.
#[derive(Debug)]
pub(crate) struct LeaseIds(AtomicU64);

impl LeaseIds {
    /// A source whose ids no other life of a broker makes, so that a worker which outlived its broker is fenced off by the
    /// next one: it counts from the microseconds of the wall clock at the start, and a broker makes fewer than a million
    /// leases a second. So they are below 2^53 until the year 2255.
    #[must_use]
    pub(crate) fn new() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let micros = since_epoch.map_or(1, |time| u64::try_from(time.as_micros()).unwrap_or(1));
        Self(AtomicU64::new(micros))
    }

    /// The next id.
    pub(crate) fn next(&self) -> LeaseId {
        LeaseId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for LeaseIds {
    fn default() -> Self {
        Self::new()
    }
}
