//! How a batch can fail as a whole. A call that fails is no error here: it is that call's result.

use std::error::Error as StdError;
use std::time::Duration;

use tonic::{Code, Status};

/// Why there is no finished batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be dialled, now or later.
    #[error("`{endpoint}` is not the address of a broker: {reason}")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No broker took the batch within [`ConnectOptions::connect_timeout`](crate::ConnectOptions::connect_timeout).
    /// No call was sent.
    #[error("no broker could be reached in {waited:.1?} ({attempts} attempts)")]
    Connect {
        /// How long it was tried.
        waited: Duration,
        /// How often.
        attempts: u32,
        /// What the last attempt came to.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The broker said no before it accepted the batch. No call was sent.
    #[error("the broker refused: {message} ({code:?})")]
    Refused {
        /// See `BrokerService` in the protocol for what each means.
        code: Code,
        /// The broker's own words.
        message: String,
    },
    /// The broker ended the accepted batch with a status. Calls that had started are cancelled, and there are no results.
    #[error("the broker ended batch `{batch_id}`: {message} ({code:?})")]
    Ended {
        /// The batch's id.
        batch_id: String,
        /// See `BrokerService` in the protocol for what each means.
        code: Code,
        /// The broker's own words.
        message: String,
    },
    /// The connection broke after the batch was accepted. How its calls ended is not known.
    #[error(
        "the connection was lost after batch `{batch_id}` was accepted; how its calls ended is not known"
    )]
    Disconnected {
        /// The batch's id.
        batch_id: String,
        /// What the transport said.
        #[source]
        source: Box<Status>,
    },
    /// The broker answered something that this client cannot take.
    #[error("the broker's answer breaks the protocol")]
    Protocol(#[from] ProtocolError),
}

impl Error {
    /// Whether calls of this batch may have run. If not, the same batch can be opened again with no risk.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Endpoint { .. } | Self::Connect { .. } | Self::Refused { .. } => false,
            Self::Ended { .. } | Self::Disconnected { .. } | Self::Protocol(_) => true,
        }
    }

    /// For a stream that ended before the broker accepted the batch.
    pub(crate) fn refused(status: &Status) -> Self {
        Self::Refused {
            code: status.code(),
            message: status.message().to_owned(),
        }
    }

    /// For a stream that ended after the broker accepted the batch.
    pub(crate) fn ended(batch_id: &str, status: Status) -> Self {
        let batch_id = batch_id.to_owned();
        if is_transport(&status) {
            return Self::Disconnected {
                batch_id,
                source: Box::new(status),
            };
        }
        Self::Ended {
            batch_id,
            code: status.code(),
            message: status.message().to_owned(),
        }
    }
}

/// Whether the transport made this status, as opposed to the broker: what comes off the wire has no source.
pub(crate) fn is_transport(status: &Status) -> bool {
    status.source().is_some()
}

/// In which way an answer breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The stream began with something else than `accepted`.
    #[error("the stream does not begin with `accepted`")]
    NotAccepted,
    /// The stream came to its end before `finished`.
    #[error("the stream ended before `finished`")]
    Unfinished,
    /// A message lacks a field that is always set.
    #[error("`{0}` is not set")]
    Missing(&'static str),
    /// A duration is negative or too long.
    #[error("`{0}` is not a duration")]
    Duration(&'static str),
    /// Two results under one id.
    #[error("two results came for call `{0}`")]
    SecondResult(String),
    /// JSON of another shape than its format has.
    #[error("`{0}` is not JSON of its format")]
    Json(&'static str),
    /// The catalogue goes on with a page that was there before.
    #[error("the catalogue's page `{0}` follows itself")]
    PageAgain(String),
    /// `finished` counts other results than came.
    #[error("{came} results came, and `finished` counts {counted}")]
    Count {
        /// Results that came.
        came: usize,
        /// Results that were announced.
        counted: u32,
    },
}
