//! A provider's stream read without a broker: what calls are in it, and how its turn ended.
//!
//! The same decoders, in the same order, as in a batch. For tools around the broker: the replay of recordings, tests on
//! recordings, the benchmark.

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::id::CallId;
pub use crate::ingest::dialect::Dialect;
pub use crate::ingest::dialect::Owner;
use crate::ingest::dialect::{Kind, Limits, ProviderTurn, Void};
use crate::ingest::{self, Event, Ingest, Input, TurnEnd};

/// Reads one turn.
#[derive(Debug)]
pub struct Decoder {
    turn: ProviderTurn,
    ingest: Ingest,
    inputs: Vec<Input>,
    steps: usize,
    begun: Vec<Begun>,
}

#[derive(Debug)]
struct Begun {
    key: CallId,
    tool: String,
    arguments: Option<Bytes>,
}

/// A turn as it was read. Lists are in the model's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// `None`: nothing in the stream told.
    pub dialect: Option<Dialect>,
    /// The calls that are to be executed.
    pub calls: Vec<Call>,
    /// Those that began and never became calls.
    pub incomplete: Vec<Incomplete>,
    /// Those that somebody else runs.
    pub not_ours: Vec<NotOurs>,
    /// In the provider's words.
    pub stop_reason: Option<String>,
    /// Whether the turn came to a good end; otherwise it was cut by a limit, a filter or an error.
    pub complete: bool,
    /// What went wrong with the stream.
    pub error: Option<String>,
}

/// A complete call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What the broker knows it by: the provider's id where that is fit, and unique in the turn.
    pub key: String,
    /// The provider's; `None` if it gave none.
    pub id: Option<String>,
    /// The tool, as the model named it.
    pub name: String,
    /// JSON text as the model wrote it.
    pub arguments: Bytes,
    /// The input is free text: `arguments` is `{"input": text}`.
    pub custom: bool,
}

/// A call that began and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// What the broker knows it by.
    pub key: String,
    /// The provider's; `None` if it gave none.
    pub id: Option<String>,
    /// The tool, as the model named it.
    pub name: String,
    /// The provider began its message anew, so the call is no part of it.
    pub superseded: bool,
}

/// A call that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotOurs {
    /// Who.
    pub owner: Owner,
    /// The provider's; empty if it gave none.
    pub id: String,
    /// The tool's name, or the type of the provider's item.
    pub name: String,
}

impl Decoder {
    /// `dialect` is `None` where the stream is to tell by itself. One event has at most `max_event_bytes`.
    #[must_use]
    pub fn new(dialect: Option<Dialect>, max_event_bytes: usize) -> Self {
        let limits = Limits {
            event_bytes: max_event_bytes,
            arguments_bytes: max_event_bytes,
        };
        Self {
            turn: ProviderTurn::new(dialect, Vec::new(), limits, 0),
            ingest: Ingest::new(ingest::Limits {
                calls: 10_000,
                arguments_bytes: max_event_bytes,
                batch_bytes: usize::MAX,
            }),
            inputs: Vec::new(),
            steps: 0,
            begun: Vec::new(),
        }
    }

    /// The next bytes of the stream, cut anywhere.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.turn.bytes(bytes, &mut self.inputs);
        self.apply();
    }

    /// One event, as JSON without a framing.
    pub fn event(&mut self, json: &[u8]) {
        self.turn.event(json, &mut self.inputs);
        self.apply();
    }

    /// The steps that the stream so far came to: what it costs a batch.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The end of the stream.
    #[must_use]
    pub fn finish(mut self) -> Decoded {
        self.turn.finish(&mut self.inputs);
        self.apply();
        let turn = self.turn.into_turn();
        let mut found = Decoded {
            dialect: turn.dialect,
            stop_reason: turn.stop_reason,
            complete: turn.end == TurnEnd::Complete,
            error: turn.error,
            ..Decoded::default()
        };
        let mut calls: Vec<_> = turn.calls.into_iter().zip(self.begun).collect();
        calls.sort_by_key(|(call, _)| call.position);
        for (call, begun) in calls {
            let whole = |text: &Bytes| serde_json::from_slice::<IgnoredAny>(text).is_ok();
            let arguments = begun.arguments.filter(whole);
            match (arguments, call.void) {
                (Some(arguments), None) => found.calls.push(Call {
                    key: begun.key.to_string(),
                    id: call.provider_id,
                    name: begun.tool,
                    arguments,
                    custom: call.kind == Kind::Custom,
                }),
                (_, void) => found.incomplete.push(Incomplete {
                    key: begun.key.to_string(),
                    id: call.provider_id,
                    name: begun.tool,
                    superseded: void == Some(Void::Superseded),
                }),
            }
        }
        let not_ours = turn.not_ours.into_iter();
        found.not_ours = not_ours
            .map(|of| NotOurs {
                owner: of.owner,
                id: of.id,
                name: of.name,
            })
            .collect();
        found
    }

    fn apply(&mut self) {
        let begun = &mut self.begun;
        self.steps += self.inputs.len();
        for input in self.inputs.drain(..) {
            let mut take = |event| match event {
                Event::Began(header) | Event::Duplicate(header) => begun.push(Begun {
                    key: header.id,
                    tool: header.tool,
                    arguments: None,
                }),
                Event::Complete(position, call) => {
                    begun[position].arguments = Some(call.into_parts().0);
                }
                Event::Early(..) | Event::Void(..) | Event::Refused(..) | Event::Sealed(..) => {}
            };
            // Far too many calls: the rest has no place.
            let _ = self.ingest.apply(input, &mut take);
        }
    }
}
