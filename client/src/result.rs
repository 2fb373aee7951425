//! How one call ended.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use toolpool_proto::v1;

use crate::error::ProtocolError;
use crate::{Effect, ErrorCode, Limit, TimeoutScope};

/// How a call ended: what the tool gave back, or why there is nothing.
pub type Outcome = Result<Output, CallError>;

/// How one call ended, and where its time went. A finished batch has exactly one for each call id.
#[derive(Debug, Clone, PartialEq)]
pub struct CallResult {
    /// The id that the agent gave the call.
    pub id: String,
    /// The tool's name as the agent gave it.
    pub tool: String,
    /// The call's place in the model's order, from 0.
    pub position: u32,
    /// Output or error.
    pub outcome: Outcome,
    /// Where its time went.
    pub ledger: TimeLedger,
    /// Where the provider's stream was piped in: its own id for the call, which need not be unique.
    pub provider_id: Option<String>,
    /// Gemini: the thought signature that stood beside the call, and has to go back with it unchanged.
    pub thought_signature: Option<String>,
}

/// What a call gave back. No content at all is a legal output. Displays as its text and JSON, a blob as its type and size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output {
    /// In the tool's order.
    pub content: Vec<Content>,
}

/// One piece of a tool's output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Plain text.
    Text(String),
    /// One JSON value, as JSON text.
    Json(Bytes),
    /// Bytes that are neither.
    Blob {
        /// An IANA media type, such as image/png.
        media_type: String,
        /// The bytes themselves.
        data: Bytes,
    },
}

/// How a call failed, for the model to read and for an agent to act on. Displays as its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What kind of failure it is.
    pub code: ErrorCode,
    /// Plain sentences for a model: what happened, and what to do about it.
    pub message: String,
    /// Whether the same call, made again, can succeed.
    pub retryable: bool,
    /// Whether the call may have changed something.
    pub effect: Effect,
    /// How long to wait before trying again. `None`: not known.
    pub retry_after: Option<Duration>,
    /// Which clock ran out, with [`ErrorCode::Timeout`] only.
    pub timeout: Option<TimeoutScope>,
    /// With [`ErrorCode::InvalidArguments`]: all violations found, up to 64.
    pub violations: Vec<Violation>,
    /// With [`ErrorCode::UnknownTool`]: known names that are close, best first.
    pub near_names: Vec<String>,
}

/// One way in which arguments break the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer into the arguments; empty for the arguments as a whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// Where a call's time went. Moments are counted from the batch's acceptance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeLedger {
    /// When the block began.
    pub block_began: Duration,
    /// When the block was complete. `None`: it never was.
    pub block_complete: Option<Duration>,
    /// When the call was let start although its block was not complete. `None`: it was not.
    pub started_early: Option<Duration>,
    /// How long the complete call was held for the seal. `None`: it was not held.
    pub held: Option<Duration>,
    /// How long it waited for a limit, over all attempts. `None`: not at all.
    pub limit_wait: Option<Duration>,
    /// The limit that cost the most of `limit_wait`.
    pub limited_by: Option<Limit>,
    /// How long it waited for a worker's slot, over all attempts. `None`: not at all.
    pub slot_wait: Option<Duration>,
    /// How long the last attempt was with its worker. `None`: it never was with one.
    pub ran: Option<Duration>,
    /// When the call ended.
    pub ended: Duration,
    /// Attempts that reached a worker.
    pub attempts: u32,
    /// The worker of the last attempt. `None`: there was none.
    pub worker_id: Option<String>,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, content) in self.content.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match content {
                Content::Text(text) => f.write_str(text)?,
                Content::Json(json) => f.write_str(&String::from_utf8_lossy(json))?,
                Content::Blob { media_type, data } => {
                    write!(f, "[{media_type}, {} bytes]", data.len())?;
                }
            }
        }
        Ok(())
    }
}

impl TryFrom<v1::CallResult> for CallResult {
    type Error = ProtocolError;

    fn try_from(result: v1::CallResult) -> Result<Self, ProtocolError> {
        let ending = result
            .ending
            .ok_or(ProtocolError::Missing("result.ending"))?;
        Ok(Self {
            id: result.id,
            tool: result.tool,
            position: result.position,
            outcome: match ending {
                v1::call_result::Ending::Output(output) => Ok(output.try_into()?),
                v1::call_result::Ending::Error(error) => Err(error.try_into()?),
            },
            ledger: result
                .ledger
                .ok_or(ProtocolError::Missing("result.ledger"))?
                .try_into()?,
            provider_id: result.provider_id,
            thought_signature: result.thought_signature,
        })
    }
}

impl TryFrom<v1::Output> for Output {
    type Error = ProtocolError;

    fn try_from(output: v1::Output) -> Result<Self, ProtocolError> {
        let content = output.content.into_iter().map(|content| {
            let kind = content.kind.ok_or(ProtocolError::Missing("content.kind"))?;
            Ok(match kind {
                v1::content::Kind::Text(text) => Content::Text(text),
                v1::content::Kind::Json(json) => Content::Json(json),
                v1::content::Kind::Blob(v1::Blob { media_type, data }) => {
                    Content::Blob { media_type, data }
                }
            })
        });
        Ok(Self {
            content: content.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<v1::CallError> for CallError {
    type Error = ProtocolError;

    fn try_from(error: v1::CallError) -> Result<Self, ProtocolError> {
        Ok(Self {
            code: error.code(),
            retryable: error.retryable,
            effect: error.effect(),
            retry_after: optional("error.retry_after", error.retry_after)?,
            timeout: error.timeout.map(|_| error.timeout()),
            violations: error
                .violations
                .into_iter()
                .map(|violation| Violation {
                    path: violation.path,
                    message: violation.message,
                })
                .collect(),
            near_names: error.near_names,
            message: error.message,
        })
    }
}

impl TryFrom<v1::TimeLedger> for TimeLedger {
    type Error = ProtocolError;

    fn try_from(ledger: v1::TimeLedger) -> Result<Self, ProtocolError> {
        Ok(Self {
            limited_by: ledger.limited_by.map(|_| ledger.limited_by()),
            block_began: required("ledger.block_began", ledger.block_began)?,
            block_complete: optional("ledger.block_complete", ledger.block_complete)?,
            started_early: optional("ledger.started_early", ledger.started_early)?,
            held: optional("ledger.held", ledger.held)?,
            limit_wait: optional("ledger.limit_wait", ledger.limit_wait)?,
            slot_wait: optional("ledger.slot_wait", ledger.slot_wait)?,
            ran: optional("ledger.ran", ledger.ran)?,
            ended: required("ledger.ended", ledger.ended)?,
            attempts: ledger.attempts,
            worker_id: ledger.worker_id,
        })
    }
}

pub(crate) fn required(
    name: &'static str,
    value: Option<prost_types::Duration>,
) -> Result<Duration, ProtocolError> {
    optional(name, value)?.ok_or(ProtocolError::Missing(name))
}

pub(crate) fn optional(
    name: &'static str,
    value: Option<prost_types::Duration>,
) -> Result<Option<Duration>, ProtocolError> {
    value
        .map(|value| Duration::try_from(value).map_err(|_| ProtocolError::Duration(name)))
        .transpose()
}
