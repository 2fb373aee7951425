//! What the broker tells while a batch runs.

use std::time::Duration;

use toolpool_proto::v1;

use crate::ErrorCode;
use crate::error::ProtocolError;
use crate::result::required;

/// Something about a call that is under way. Never a result, and not complete: a slow reader misses some.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The call's id.
    pub id: String,
    /// When, counted from the batch's acceptance.
    pub at: Duration,
    /// What.
    pub event: ProgressEvent,
}

/// What happened to a call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ProgressEvent {
    /// Complete, and now waiting for a limit or a slot.
    Queued,
    /// An attempt was sent to a worker.
    Started {
        /// The worker.
        worker_id: String,
        /// From 1.
        attempt: u32,
    },
    /// What the tool says of itself.
    Tool {
        /// In its own words.
        message: String,
        /// From 0 to 1. `None`: the tool does not know.
        fraction: Option<f64>,
    },
    /// The call has its result.
    Ended {
        /// `None`: it succeeded.
        error: Option<ErrorCode>,
    },
}

impl Progress {
    /// `None` for an event that is newer than this client.
    pub(crate) fn parse(progress: v1::CallProgress) -> Result<Option<Self>, ProtocolError> {
        use v1::call_progress::Event;
        let Some(event) = progress.event else {
            return Ok(None);
        };
        let event = match event {
            Event::Queued(_) => ProgressEvent::Queued,
            Event::Started(started) => ProgressEvent::Started {
                worker_id: started.worker_id,
                attempt: started.attempt,
            },
            Event::Tool(tool) => ProgressEvent::Tool {
                message: tool.message,
                fraction: tool.fraction,
            },
            Event::Ended(ended) => ProgressEvent::Ended {
                error: ended.error.map(|_| ended.error()),
            },
        };
        Ok(Some(Self {
            id: progress.id,
            at: required("progress.at", progress.at)?,
            event,
        }))
    }
}
