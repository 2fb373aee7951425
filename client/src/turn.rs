//! A turn whose provider's stream was piped in, as its provider sees it.

use bytes::Bytes;
use toolpool_proto::v1;

use crate::error::ProtocolError;
use crate::options::TurnEnd;
use crate::{Dialect, DropReason, Owner};

/// What the finished batch says of the provider's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Turn {
    /// What the stream was taken for. `None`: nothing in it told.
    pub dialect: Option<Dialect>,
    /// How the turn ended.
    pub end: TurnEnd,
    /// Why, in the provider's words. `None`: the stream does not say.
    pub stop_reason: Option<String>,
    /// What went wrong with the stream.
    pub error: Option<String>,
    /// A JSON array: the messages to be appended to the conversation after the assistant's. Empty array: nothing is due.
    pub answer: Bytes,
    /// Calls that must be dropped from the assistant's message, in the model's order.
    pub dropped: Vec<DroppedCall>,
    /// Calls that the broker did not run, in the model's order.
    pub not_ours: Vec<PassedOverCall>,
}

/// A call that began and never became one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedCall {
    /// As in its result.
    pub id: String,
    /// The provider's own id. `None`: it gave none.
    pub provider_id: Option<String>,
    /// The tool, as the model named it.
    pub tool: String,
    /// Its place among all calls of the turn.
    pub position: u32,
    /// Why.
    pub reason: DropReason,
}

/// A call that is not the broker's to run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedOverCall {
    /// The provider's own id. `None`: it gave none.
    pub provider_id: Option<String>,
    /// The tool's name, or the type of the provider's item.
    pub tool: String,
    /// Its place among all calls of the turn.
    pub position: u32,
    /// Who runs it.
    pub owner: Owner,
}

impl TryFrom<v1::Turn> for Turn {
    type Error = ProtocolError;

    fn try_from(turn: v1::Turn) -> Result<Self, ProtocolError> {
        let end = match turn.turn_end() {
            v1::TurnEnd::Complete => TurnEnd::Complete,
            v1::TurnEnd::Truncated => TurnEnd::Truncated,
            v1::TurnEnd::Aborted => TurnEnd::Aborted,
            v1::TurnEnd::Unspecified => return Err(ProtocolError::Missing("turn.turn_end")),
        };
        let dropped = turn.dropped.into_iter().map(|call| DroppedCall {
            reason: call.reason(),
            id: call.id,
            provider_id: call.provider_id,
            tool: call.tool,
            position: call.position,
        });
        let not_ours = turn.not_ours.into_iter().map(|call| PassedOverCall {
            owner: call.owner(),
            provider_id: call.provider_id,
            tool: call.tool,
            position: call.position,
        });
        Ok(Self {
            end,
            dropped: dropped.collect(),
            not_ours: not_ours.collect(),
            dialect: turn
                .dialect
                .map(|dialect| Dialect::try_from(dialect).unwrap_or_default()),
            stop_reason: turn.stop_reason,
            error: turn.error,
            answer: turn.answer,
        })
    }
}
