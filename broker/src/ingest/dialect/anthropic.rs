//! Anthropic Messages: blocks by `index`, each closed by `content_block_stop`.
//!
//! Also over Vertex AI, and over Bedrock's `InvokeModelWithResponseStream`, where the event is base64 inside a `chunk`.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls::{Block, Calls, NewCall};
use super::fragment::Half;
use super::json::{Few, Object, Text, object, typed};
use super::turn::{Owner, Void};
use super::{Decode, Event};
use crate::ingest::TurnEnd;

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct Anthropic {
    began: bool,
    open: HashMap<u32, Open>,
    /// The last block, if it was closed without any text: a call without arguments, unless the turn was cut right there.
    blank: Option<Block>,
    /// Blocks so far.
    order: u64,
    /// How the turn ends, by its stop reason.
    end: Option<TurnEnd>,
}

/// A block of a tool that is not the provider's.
#[derive(Debug)]
struct Open {
    block: Block,
    /// The input of the start event, if there is something in it: all of it, if no delta follows.
    input: Option<Box<RawValue>>,
    half: Half,
}

const KNOWN: &[&str] = &[
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "error",
];

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    index: Option<u32>,
    #[serde(borrow, default, rename = "message", deserialize_with = "object")]
    start: Option<Start<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    content_block: Option<Content<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    /// An event inside a chunk of `InvokeModelWithResponseStream`.
    #[serde(borrow)]
    bytes: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Start<'a> {
    /// Not empty in the turns that follow a programmatic tool call: they have no block events.
    #[serde(borrow, default)]
    content: Few<Object<Content<'a>>>,
    #[serde(borrow)]
    stop_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    caller: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    partial_json: Option<&'a RawValue>,
    #[serde(borrow)]
    stop_reason: Option<Text<'a>>,
}

impl Decode for Anthropic {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error> {
        let Some(message) = typed::<Message<'_>>(event.data, KNOWN)? else {
            return Ok(());
        };
        if let (None, Some(chunk)) = (&message.kind, &message.bytes) {
            let Ok(inner) = STANDARD.decode(chunk.as_bytes()) else {
                calls.fail("a chunk of the provider's stream is not base64");
                return Ok(());
            };
            return match typed(&inner, KNOWN)? {
                Some(message) => {
                    self.message(message, calls);
                    Ok(())
                }
                None => Ok(()),
            };
        }
        self.message(message, calls);
        Ok(())
    }

    /// Nothing but `message_stop` ends a turn well.
    fn finish(&mut self, _calls: &mut Calls) {}
}

impl Anthropic {
    fn message(&mut self, message: Message<'_>, calls: &mut Calls) {
        let kind = message.kind.as_deref().unwrap_or_default();
        if let ("content_block_start" | "content_block_delta" | "content_block_stop", Some(block)) =
            (kind, self.blank)
        {
            // More came, so its end was no cut.
            calls.complete(block);
            self.blank = None;
        }
        match kind {
            "message_start" => self.start(message.start, calls),
            "content_block_start" => {
                if let (Some(index), Some(content)) = (message.index, message.content_block) {
                    self.block_start(index, &content, calls);
                }
            }
            "content_block_delta" => {
                let fragment = message.delta.and_then(|delta| delta.partial_json);
                if let (Some(fragment), Some(open)) = (fragment, self.open_at(message.index)) {
                    open.append(fragment, calls);
                }
            }
            "content_block_stop" => {
                if let Some(open) = message.index.and_then(|index| self.open.remove(&index)) {
                    self.blank = open.close(calls);
                }
            }
            "message_delta" => {
                if let Some(reason) = message.delta.and_then(|delta| delta.stop_reason) {
                    self.stopped(&reason, calls);
                }
            }
            "message_stop" => self.end(calls),
            "error" => calls.fail(format!(
                "the provider broke off: {}",
                message.error.map_or("", RawValue::get)
            )),
            _ => {}
        }
    }

    fn start(&mut self, message: Option<Start<'_>>, calls: &mut Calls) {
        if self.began {
            // A gateway that tries again inside one stream.
            self.open.clear();
            self.blank = None;
            self.end = None;
            calls.restart();
        }
        self.began = true;
        let Some(message) = message else { return };
        for content in message.content.iter() {
            if let Some(block) = self
                .begin(content, calls)
                .and_then(|open| open.close(calls))
            {
                calls.complete(block);
            }
        }
        if let Some(reason) = message.stop_reason {
            self.stopped(&reason, calls);
        }
    }

    fn block_start(&mut self, index: u32, content: &Content<'_>, calls: &mut Calls) {
        self.began = true;
        if let Some(before) = self.open.remove(&index) {
            calls.void(before.block, Void::Superseded);
        }
        if let Some(open) = self.begin(content, calls) {
            self.open.insert(index, open);
        }
    }

    fn begin(&mut self, content: &Content<'_>, calls: &mut Calls) -> Option<Open> {
        self.order += 1;
        let name = content.name.as_deref().unwrap_or_default();
        match content.kind.as_deref()? {
            "tool_use" => {
                let block = calls.begin(NewCall {
                    id: content.id.as_deref(),
                    name,
                    order: self.order,
                    caller: content.caller,
                    ..NewCall::default()
                });
                let input = content.input.filter(|input| input.get() != "{}");
                calls.keep(input.map_or(0, |input| input.get().len()));
                let input = input.map(ToOwned::to_owned);
                Some(Open {
                    block,
                    input,
                    half: Half::default(),
                })
            }
            "server_tool_use" | "mcp_tool_use" => {
                calls.pass_over(Owner::Provider, content.id.as_deref(), name, self.order);
                None
            }
            _ => None,
        }
    }

    fn stopped(&mut self, reason: &str, calls: &mut Calls) {
        self.end = Some(match reason {
            "tool_use" | "end_turn" | "stop_sequence" => TurnEnd::Complete,
            // Cut by a limit or a refusal, paused, or something new: what is held is not run.
            _ => TurnEnd::Truncated,
        });
        calls.stop_reason(reason);
    }

    fn end(&mut self, calls: &mut Calls) {
        let end = self.end.unwrap_or(TurnEnd::Truncated);
        match self.blank.take() {
            Some(block) if end == TurnEnd::Complete => calls.complete(block),
            Some(block) => calls.void(block, Void::Incomplete),
            None => {}
        }
        calls.end(end);
    }

    fn open_at(&mut self, index: Option<u32>) -> Option<&mut Open> {
        self.open.get_mut(&index?)
    }
}

impl Open {
    fn append(&mut self, fragment: &RawValue, calls: &mut Calls) {
        match self.half.join(fragment) {
            Ok(text) => {
                if !text.is_empty()
                    && let Some(input) = self.input.take()
                {
                    calls.give_back(input.get().len());
                }
                calls.append(self.block, &text);
            }
            Err(_) => calls.void(self.block, Void::NotJson),
        }
    }

    /// The block's own end. Returns it if there was nothing in it.
    fn close(self, calls: &mut Calls) -> Option<Block> {
        let said = self.input.as_deref().map_or("", RawValue::get);
        calls.give_back(said.len());
        if self.half.is_open() {
            calls.void(self.block, Void::NotJson);
        } else {
            calls.append(self.block, said);
            if calls.text(self.block).is_nothing() {
                return Some(self.block);
            }
            calls.complete(self.block);
        }
        None
    }
}

#[cfg(test)]
mod tests;
