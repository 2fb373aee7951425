//! What is known of a turn besides its calls' results: whose each call is, how it is answered, and whether it is one.

use serde_json::value::RawValue;

use super::Dialect;
use crate::ingest::TurnEnd;

/// What sort of call it is: the answer differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A function with JSON arguments.
    #[default]
    Function,
    /// A tool with free text as its input (OpenAI Responses); its arguments are `{"input": text}`.
    Custom,
    /// The deprecated `function_call` of Chat Completions, which has no id.
    LegacyFunction,
}

/// Who runs a call that is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The provider ran it itself.
    Provider,
    /// The agent named its tool as its own.
    Agent,
    /// A tool of the provider's that the agent's side runs: a computer, a shell, an approval.
    Client,
}

/// Why a block that began is no call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Void {
    /// The turn ended before it did, or before its arguments began.
    Incomplete,
    /// Its text is no JSON, or cannot become one JSON object any more.
    NotJson,
    /// The provider says itself that it is not to be run.
    Withdrawn,
    /// The message began anew, or another block took its place.
    Superseded,
    /// An event that may have been a part of it could not be read.
    Unreadable,
}

impl Void {
    /// In metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::NotJson => "not_json",
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
            Self::Unreadable => "unreadable",
        }
    }

    /// For a model to read: goes on from the call's name.
    pub(crate) fn to_text(self) -> &'static str {
        match self {
            Self::Incomplete => "was never complete: the turn was cut before its arguments",
            Self::NotJson => "was never complete: its arguments are not JSON",
            Self::Withdrawn => "was withdrawn by the model's provider",
            Self::Superseded => {
                "is no part of the turn: the model's provider began its message anew"
            }
            Self::Unreadable => {
                "cannot be trusted: a damaged event of the model's stream may have been a part of it"
            }
        }
    }
}

/// A call that the broker does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotOurs {
    pub(crate) owner: Owner,
    /// The provider's id; empty if there was none.
    pub(crate) id: String,
    /// The tool's name, or the type of the provider's item.
    pub(crate) name: String,
    /// Its place among all calls of the turn, from 0.
    pub(crate) position: usize,
    pub(super) order: u64,
    /// It is none: only a call of the agent's own tools is told of before it is whole.
    pub(crate) void: Option<Void>,
}

/// A call that the broker runs, or refuses, and that is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    /// The id that the provider knows it by.
    pub(crate) provider_id: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) caller: Option<Box<RawValue>>,
    pub(crate) signature: Option<String>,
    /// Its place among all calls of the turn, from 0.
    pub(crate) position: usize,
    pub(super) order: u64,
    /// A void block has no place in the answer.
    pub(crate) void: Option<Void>,
}

impl Answered {
    /// About what it is on the wire.
    pub(crate) fn about_bytes(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        of(&self.provider_id) + of(&self.signature)
    }
}

/// What is known of a turn besides its calls' results.
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None`: no event told.
    pub(crate) dialect: Option<Dialect>,
    /// By the position that `ingest` gave them.
    pub(crate) calls: Vec<Answered>,
    /// In the model's order.
    pub(crate) not_ours: Vec<NotOurs>,
    pub(crate) end: TurnEnd,
    /// In the provider's words.
    pub(crate) stop_reason: Option<String>,
    /// What went wrong with the stream.
    pub(crate) error: Option<String>,
}
