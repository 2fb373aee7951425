//! A provider's stream read without a broker: what calls are in it, and how its turn ended.
//!
//! The same decoders, in the same order, as in a batch. For tools around the broker: the replay of recordings, tests on
//! recordings, the benchmark.

use bytes::Bytes;
use serde::de::IgnoredAny;

pub use crate::ingest::dialect::Dialect;
pub use crate::ingest::dialect::Owner;
use crate::ingest::dialect::{Kind, Limits, ProviderTurn, Void, seed};
use crate::ingest::{self, Event, Ingest, Input, TurnEnd};

/// A batch can be set to have no more.
const MOST_CALLS: usize = 10_000;

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
    id: String,
    tool: String,
    arguments: Option<Bytes>,
}

/// A call that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// The batch's id for it; see [`Decoder::of_batch`].
    pub id: &'a str,
    /// The tool, as the model named it.
    pub tool: &'a str,
    /// Whether its block has come to its end.
    pub complete: bool,
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
        Self::of_batch("", dialect, Vec::new(), max_event_bytes)
    }

    /// The same for the stream of a batch: calls have the ids that they have there, where the broker makes them too, and
    /// those of the agent's own tools are not among them.
    #[must_use]
    pub fn of_batch(
        batch_id: &str,
        dialect: Option<Dialect>,
        local_tools: Vec<String>,
        max_event_bytes: usize,
    ) -> Self {
        let ingest = ingest::Limits {
            calls: MOST_CALLS,
            arguments_bytes: max_event_bytes,
            batch_bytes: usize::MAX,
        };
        let limits = Limits {
            event_bytes: max_event_bytes,
            arguments_bytes: max_event_bytes,
            calls: MOST_CALLS,
        };
        Self {
            turn: ProviderTurn::new(dialect, local_tools, limits, seed(batch_id)),
            ingest: Ingest::new(ingest),
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

    /// The calls that have begun so far, in the order in which they did.
    #[must_use]
    pub fn seen(&self) -> impl ExactSizeIterator<Item = Seen<'_>> {
        self.begun.iter().map(|begun| Seen {
            id: &begun.id,
            tool: &begun.tool,
            complete: begun.arguments.is_some(),
        })
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
                    id: call.provider_id,
                    name: begun.tool,
                    arguments,
                    custom: call.kind == Kind::Custom,
                }),
                (_, void) => found.incomplete.push(Incomplete {
                    id: call.provider_id,
                    name: begun.tool,
                    superseded: void == Some(Void::Superseded),
                }),
            }
        }
        let not_ours = turn.not_ours.into_iter().filter(|of| of.void.is_none());
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
                    id: header.id.to_string(),
                    tool: header.tool,
                    arguments: None,
                }),
                Event::Complete(position, call) => {
                    begun[position].arguments = Some(call.into_parts().0);
                }
                Event::Early(..) | Event::Void(..) | Event::Refused(..) | Event::Sealed(..) => {}
            };
            let applied = self.ingest.apply(input, &mut take);
            // The calls are limited before, and a stream's decoder keeps to the order of steps.
            debug_assert!(applied.is_ok(), "{applied:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_seen_as_they_come_under_the_ids_of_their_batch() {
        let start = |index: u32, id: &str, name: &str| {
            format!(
                r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"tool_use","id":"{id}","name":"{name}"}}}}"#
            )
        };
        let read = |batch_id: &str| {
            let local_tools = vec!["screenshot".to_owned()];
            let mut decoder = Decoder::of_batch(batch_id, None, local_tools, 1 << 20);
            decoder.event(start(0, "toolu_1", "search").as_bytes());
            decoder.event(start(1, "toolu_2", "screenshot").as_bytes());
            decoder.event(br#"{"type":"content_block_stop","index":0}"#);
            decoder.event(start(2, "toolu_1", "fetch").as_bytes());
            decoder
        };
        let decoder = read("batch-1");
        let seen: Vec<_> = decoder.seen().collect();
        let search = Seen {
            id: "toolu_1",
            tool: "search",
            complete: true,
        };
        assert_eq!(seen[0], search);
        assert_eq!((seen[1].tool, seen[1].complete), ("fetch", false));
        assert_eq!(seen.len(), 2);
        let made = |decoder: &Decoder| decoder.seen().map(|call| call.id.to_owned()).nth(1);
        assert_ne!(made(&decoder).as_deref(), Some("toolu_1"), "it is taken");
        assert_eq!(made(&decoder), made(&read("batch-1")));
        assert_ne!(made(&decoder), made(&read("batch-2")));
    }
}
