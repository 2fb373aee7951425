//! What a traced batch keeps of each attempt, beyond the sums that a ledger holds.

use tokio::time::Instant;

use crate::call_error::{CallError, Code};
use crate::id::{LeaseId, SpanId, WorkerId};
use crate::lane::lease::Waits;
use crate::output::Output;

/// As much of an attempt's error as is kept.
const MAX_MESSAGE_BYTES: usize = 256;

/// One attempt as it went. It may never have left the broker.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) span: SpanId,
    /// From 1; an attempt that was not sent leaves its number to the next.
    pub(crate) number: u32,
    /// When its lane was asked.
    pub(crate) offered: Instant,
    pub(crate) waits: Waits,
    /// With a worker, or on its way to one.
    pub(crate) sent: Option<Sent>,
    /// Set when it is over.
    pub(crate) ended: Option<(Instant, Ended)>,
}

/// Where an attempt went.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) lease: LeaseId,
    pub(crate) worker: WorkerId,
}

/// What an attempt ended with.
#[derive(Debug)]
pub(crate) enum Ended {
    Output,
    /// Also by a deadline, or called off.
    Failed {
        code: Code,
        message: Box<str>,
    },
    /// With its worker.
    Lost,
    /// It never reached a worker, and does not count.
    NotSent,
}

impl Tried {
    pub(super) fn new(span: SpanId, number: u32, offered: Instant) -> Self {
        Self {
            span,
            number,
            offered,
            waits: Waits::default(),
            sent: None,
            ended: None,
        }
    }

    /// Whether it is one of those that count.
    #[cfg(test)]
    pub(super) fn counts(&self) -> bool {
        self.sent.is_some() && !matches!(self.ended, Some((_, Ended::NotSent)))
    }
}

impl From<&Result<Output, CallError>> for Ended {
    fn from(result: &Result<Output, CallError>) -> Self {
        match result {
            Ok(_) => Self::Output,
            Err(error) => error.into(),
        }
    }
}

impl From<&CallError> for Ended {
    fn from(error: &CallError) -> Self {
        Self::Failed {
            code: error.code,
            message: first_line(&error.message).into(),
        }
    }
}

/// The beginning of an error's text, as the status of a span.
pub(crate) fn first_line(message: &str) -> &str {
    let line = message.lines().next().unwrap_or_default();
    &line[..line.floor_char_boundary(MAX_MESSAGE_BYTES)]
}
