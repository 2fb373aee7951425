//! What a handler knows of its call.

use std::sync::Arc;

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use toolpool_proto::v1 as proto;

use crate::{
    assignment::{Assignment, LeaseId},
    text,
    trace::Trace,
};

const MAX_PROGRESS_MESSAGE: usize = 4 * 1024;

/// What a handler knows of its call. Clones are cheap and stand for the same call.
#[derive(Clone, Debug)]
pub struct Context {
    call: Arc<Facts>,
}

#[derive(Debug)]
struct Facts {
    lease: LeaseId,
    batch_id: String,
    call_id: String,
    tool: String,
    deadline: Instant,
    attempt: u32,
    idempotency_key: String,
    max_result_bytes: u64,
    cancel: CancellationToken,
    progress: mpsc::Sender<Progress>,
    trace: Option<Trace>,
}

/// What a tool says of how far it has come.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) lease: LeaseId,
    pub(crate) progress: proto::ToolProgress,
}

/// What a context needs beside the assignment.
pub(crate) struct Links {
    pub(crate) cancel: CancellationToken,
    /// Full: what a tool says of its progress is lost.
    pub(crate) progress: mpsc::Sender<Progress>,
    pub(crate) max_result_bytes: u64,
    pub(crate) trace: Option<Trace>,
}

impl Context {
    /// The context of an attempt, and the arguments that go with it.
    pub(crate) fn of(assignment: Assignment, links: Links) -> (Self, bytes::Bytes) {
        let call = Facts {
            lease: assignment.lease,
            batch_id: assignment.batch_id,
            call_id: assignment.call_id,
            tool: assignment.tool,
            deadline: assignment.deadline,
            attempt: assignment.attempt,
            idempotency_key: assignment.idempotency_key,
            max_result_bytes: links.max_result_bytes,
            cancel: links.cancel,
            progress: links.progress,
            trace: links.trace,
        };
        (
            Self {
                call: Arc::new(call),
            },
            assignment.arguments,
        )
    }

    /// Waits until the call is called off. From then on the handler has the worker's cancel grace (5 s by default) to
    /// clean up; after that its future is dropped. What it returns does not matter any more.
    ///
    /// A handler that does nothing about it is dropped at its next await, which is right for most. One that blocks
    /// its thread keeps its slot until it returns.
    pub async fn cancelled(&self) {
        self.call.cancel.cancelled().await;
    }

    /// Whether the call has been called off.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.call.cancel.is_cancelled()
    }

    /// The token behind [`cancelled`](Self::cancelled), to be handed on.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.call.cancel
    }

    /// When this attempt's time is up. The broker calls the attempt off at that moment, so that a handler need not look.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.call.deadline
    }

    /// The number of this attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.call.attempt
    }

    /// The same for every attempt of the call: pass it on to services that can tell a repeat by it.
    #[must_use]
    pub fn idempotency_key(&self) -> &str {
        &self.call.idempotency_key
    }

    /// The batch that the call belongs to.
    #[must_use]
    pub fn batch_id(&self) -> &str {
        &self.call.batch_id
    }

    /// The call's id as the agent gave it, unique in its batch only.
    #[must_use]
    pub fn call_id(&self) -> &str {
        &self.call.call_id
    }

    /// The lease under which this attempt runs; unique for ever.
    #[must_use]
    pub fn lease(&self) -> u64 {
        self.call.lease.0
    }

    /// The W3C `traceparent` for what the tool calls in its turn: the worker's own span if this process traces, else the
    /// broker's. `None`: there is no trace.
    ///
    /// A handler that uses OpenTelemetry needs it not: the same context is current while it runs.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.call.trace.as_ref().map(Trace::parent)
    }

    /// The `tracestate` that goes with [`traceparent`](Self::traceparent), if there is one.
    #[must_use]
    pub fn tracestate(&self) -> Option<String> {
        self.call.trace.as_ref().and_then(Trace::state)
    }

    /// The tool's name.
    #[must_use]
    pub fn tool(&self) -> &str {
        &self.call.tool
    }

    /// The largest output that the broker takes, in bytes of its encoded form.
    #[must_use]
    pub fn max_result_bytes(&self) -> u64 {
        self.call.max_result_bytes
    }

    /// Says how far the tool has come; `fraction` is from 0 to 1, and absent when the tool does not know.
    ///
    /// Never waits. Only the latest word is kept until the next packet goes out, more than 4 KiB of a message is cut
    /// off, and all of it is lost when nobody listens.
    pub fn progress(&self, message: impl Into<String>, fraction: impl Into<Option<f64>>) {
        let progress = proto::ToolProgress {
            message: text::clipped(message.into(), MAX_PROGRESS_MESSAGE),
            fraction: fraction
                .into()
                .filter(|fraction| !fraction.is_nan())
                .map(|fraction| fraction.clamp(0.0, 1.0)),
        };
        // Full, or the session is gone: progress is the one thing that may get lost.
        let _ = self.call.progress.try_send(Progress {
            lease: self.call.lease,
            progress,
        });
    }
}
