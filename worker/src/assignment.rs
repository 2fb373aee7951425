//! One attempt of one call, as the broker assigned it.

use std::{fmt, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;
use toolpool_proto::v1 as proto;

/// Stands in for a timeout that the broker did not send. It enforces its own timeouts, by `cancel`.
const NO_TIMEOUT: Duration = Duration::from_hours(24);

/// The right to run one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LeaseId(pub(crate) u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As the broker writes it.
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) lease: LeaseId,
    pub(crate) batch_id: String,
    pub(crate) call_id: String,
    pub(crate) tool: String,
    pub(crate) arguments: Bytes,
    pub(crate) deadline: Instant,
    pub(crate) attempt: u32,
    pub(crate) idempotency_key: String,
    /// The broker's span for the attempt.
    pub(crate) traceparent: Option<String>,
    pub(crate) tracestate: Option<String>,
}

impl Assignment {
    /// The id in its `traceparent`.
    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref()?.split('-').nth(1)
    }

    /// `received`: when the message came, from which its timeout counts.
    pub(crate) fn from_proto(assignment: proto::Assignment, received: Instant) -> Self {
        let timeout = assignment
            .timeout
            .and_then(|timeout| Duration::try_from(timeout).ok());
        Self {
            lease: LeaseId(assignment.lease_id),
            batch_id: assignment.batch_id,
            call_id: assignment.call_id,
            tool: assignment.tool,
            arguments: assignment.arguments,
            deadline: received + timeout.unwrap_or(NO_TIMEOUT).min(NO_TIMEOUT),
            attempt: assignment.attempt,
            idempotency_key: assignment.idempotency_key,
            traceparent: assignment.traceparent,
            tracestate: assignment.tracestate,
        }
    }
}
