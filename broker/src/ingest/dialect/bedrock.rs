//! Amazon Bedrock `ConverseStream`: blocks by `contentBlockIndex`, each closed by `contentBlockStop`.
//!
//! On the wire an event's name is in the frame's headers; SDKs give it as the only key of an object.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::calls::{Block, Calls, NewCall};
use super::fragment::Half;
use super::json::{Object, Text, object, read};
use super::turn::{Owner, Void};
use super::{Decode, Event};
use crate::ingest::TurnEnd;

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct Bedrock {
    began: bool,
    open: HashMap<u32, (Block, Half)>,
    /// The last block, if it was closed and had no text: a call without arguments, unless the turn was cut right there.
    blank: Option<Block>,
    /// Calls so far.
    order: u64,
}

/// The events that matter.
#[derive(Clone, Copy, Debug)]
enum Name {
    MessageStart,
    BlockStart,
    BlockDelta,
    BlockStop,
    MessageStop,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    content_block_index: Option<u32>,
    #[serde(borrow, default, deserialize_with = "object")]
    start: Option<Start<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    stop_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    #[serde(borrow, default, deserialize_with = "object")]
    tool_use: Option<ToolUse<'a>>,
}

#[derive(Deserialize)]
struct ToolUse<'a> {
    #[serde(borrow, rename = "toolUseId")]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta<'a> {
    #[serde(borrow, default, deserialize_with = "object")]
    tool_use: Option<Fragment<'a>>,
}

#[derive(Deserialize)]
struct Fragment<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

/// An event as SDKs give it.
enum Union<'a> {
    Event(Name, Payload<'a>),
    Exception(Text<'a>, &'a RawValue),
    Unknown,
}

impl Decode for Bedrock {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error> {
        let Some(name) = event.name else {
            match serde_json::from_slice(event.data)? {
                Union::Event(name, payload) => self.named(name, payload, calls),
                Union::Exception(name, why) => {
                    calls.fail(format!("the provider broke off with {}: {why}", &*name));
                }
                Union::Unknown => {}
            }
            return Ok(());
        };
        if let Some(name) = Name::of(name) {
            self.named(name, read(event.data)?, calls);
        }
        Ok(())
    }

    /// Nothing but `messageStop` ends a turn well.
    fn finish(&mut self, _calls: &mut Calls) {}
}

impl Bedrock {
    fn named(&mut self, name: Name, payload: Payload<'_>, calls: &mut Calls) {
        if !matches!(name, Name::MessageStart | Name::MessageStop)
            && let Some(block) = self.blank.take()
        {
            calls.complete(block);
        }
        match name {
            Name::MessageStart => self.start(calls),
            Name::BlockStart => self.block_start(&payload, calls),
            Name::BlockDelta => {
                let fragment = payload.delta.and_then(|delta| delta.tool_use?.input);
                let open = payload
                    .content_block_index
                    .and_then(|at| self.open.get_mut(&at));
                if let (Some(fragment), Some((block, half))) = (fragment, open) {
                    match half.join(fragment) {
                        Ok(text) => calls.append(*block, &text),
                        Err(_) => calls.void(*block, Void::NotJson),
                    }
                }
            }
            Name::BlockStop => {
                let closed = (payload.content_block_index).and_then(|at| self.open.remove(&at));
                match closed {
                    Some((block, half)) if half.is_open() => calls.void(block, Void::NotJson),
                    Some((block, _)) if calls.text(block).is_nothing() => self.blank = Some(block),
                    Some((block, _)) => calls.complete(block),
                    None => {}
                }
            }
            Name::MessageStop => self.stop(payload.stop_reason.as_deref(), calls),
        }
    }

    fn start(&mut self, calls: &mut Calls) {
        if self.began {
            // A gateway that tries again inside one stream.
            self.open.clear();
            self.blank = None;
            calls.restart();
        }
        self.began = true;
    }

    fn block_start(&mut self, payload: &Payload<'_>, calls: &mut Calls) {
        self.began = true;
        let Some(index) = payload.content_block_index else {
            return;
        };
        if let Some((before, _)) = self.open.remove(&index) {
            calls.void(before, Void::Superseded);
        }
        let Some(tool) = payload
            .start
            .as_ref()
            .and_then(|start| start.tool_use.as_ref())
        else {
            return;
        };
        self.order += 1;
        let id = tool.id.as_deref();
        let name = tool.name.as_deref().unwrap_or_default();
        if matches!(tool.kind.as_deref(), None | Some("tool_use")) {
            let block = calls.begin(NewCall {
                id,
                name,
                order: self.order,
                ..NewCall::default()
            });
            self.open.insert(index, (block, Half::default()));
        } else {
            // `server_tool_use`, or something new, which nobody has asked us to run.
            calls.pass_over(Owner::Provider, id, name, self.order);
        }
    }

    fn stop(&mut self, reason: Option<&str>, calls: &mut Calls) {
        if let Some(reason) = reason {
            calls.stop_reason(reason);
        }
        let complete = matches!(reason, Some("tool_use" | "end_turn" | "stop_sequence"));
        if let Some(block) = self.blank.take() {
            if complete {
                calls.complete(block);
            } else {
                calls.void(block, Void::Incomplete);
            }
        }
        calls.end(if complete {
            TurnEnd::Complete
        } else {
            // Cut by a limit, a filter or a guardrail, or something new: what is held is not run.
            TurnEnd::Truncated
        });
    }
}

impl Name {
    fn of(name: &str) -> Option<Self> {
        match name {
            "messageStart" => Some(Self::MessageStart),
            "contentBlockStart" => Some(Self::BlockStart),
            "contentBlockDelta" => Some(Self::BlockDelta),
            "contentBlockStop" => Some(Self::BlockStop),
            "messageStop" => Some(Self::MessageStop),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Union<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Union<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event with its name as the key")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Union::Unknown;
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    if let Some(name) = Name::of(&key) {
                        if let Some(payload) = map.next_value::<Option<Object<Payload<'de>>>>()? {
                            found = Union::Event(name, payload.into_inner());
                        }
                    } else if key.ends_with("Exception") {
                        if let Some(why) = map.next_value::<Option<&RawValue>>()? {
                            found = Union::Exception(key, why);
                        }
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests;
