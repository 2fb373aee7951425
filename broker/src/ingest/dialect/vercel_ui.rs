//! The UI message stream of the Vercel AI SDK: whole calls in `tool-input-available`.
//!
//! The stream comes from a server that may run tools itself. Ours are the calls that it leaves to its client, those of
//! `dynamic` tools too: the ones that are not `providerExecuted`, and that the same stream neither answers nor puts up
//! for approval.
//!
//! The input of `tool-input-available` is the call, as it is for the SDK's own client. The deltas before it are passed
//! over: the server may have mended or changed what the model wrote.
//!
//! A turn ends with `finish`. A server may leave that out, and then only `finish-step` says that the model was not cut.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls::{Block, Calls, NewCall, clip_id};
use super::json::{Text, typed};
use super::turn::{Owner, Void};
use super::{DONE, Decode, Event};
use crate::ingest::TurnEnd;

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct VercelUi {
    /// The calls of this step by their ids, which another step may use again.
    calls: HashMap<String, Call>,
    /// Calls so far.
    order: u64,
    /// A step has ended, and no other has begun.
    step_finished: bool,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Ours(Block),
    Provider,
}

const KNOWN: &[&str] = &[
    "start-step",
    "tool-input-start",
    "tool-input-available",
    "tool-input-error",
    "tool-output-available",
    "tool-output-error",
    "tool-output-denied",
    "tool-approval-request",
    "finish-step",
    "finish",
    "abort",
    "error",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    tool_call_id: Option<Text<'a>>,
    #[serde(borrow)]
    tool_name: Option<Text<'a>>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    provider_executed: Option<bool>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
    #[serde(borrow)]
    error_text: Option<Text<'a>>,
}

impl Decode for VercelUi {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error> {
        if event.data.trim_ascii() == DONE {
            self.finish(calls);
            calls.fail("the stream ended before the turn did");
            return Ok(());
        }
        if let Some(part) = typed(event.data, KNOWN)? {
            self.part(&part, calls);
        }
        Ok(())
    }

    fn finish(&mut self, calls: &mut Calls) {
        if self.step_finished {
            calls.end(TurnEnd::Complete);
        }
    }
}

impl VercelUi {
    fn part(&mut self, part: &Part<'_>, calls: &mut Calls) {
        match part.kind.as_deref().unwrap_or_default() {
            "start-step" => {
                self.calls.clear();
                self.step_finished = false;
            }
            "finish-step" => self.step_finished = true,
            "tool-input-start" => {
                let before = self.calls.remove(part.id());
                if let Some(Call::Ours(block)) = before {
                    calls.void(block, Void::Superseded);
                }
                self.call(part, calls);
            }
            "tool-input-available" => {
                if let Call::Ours(block) = self.call(part, calls) {
                    calls.append(block, part.input.map_or("", RawValue::get));
                    calls.complete(block);
                }
            }
            "tool-input-error" => {
                if let Call::Ours(block) = self.call(part, calls) {
                    calls.void(block, Void::Withdrawn);
                }
            }
            // The server has run it or refused to, or runs it when somebody has allowed it.
            "tool-output-available"
            | "tool-output-error"
            | "tool-output-denied"
            | "tool-approval-request" => {
                if let Some(&Call::Ours(block)) = self.calls.get(part.id()) {
                    calls.void(block, Void::Withdrawn);
                }
            }
            "finish" => {
                let reason = part.finish_reason.as_deref();
                if let Some(reason) = reason {
                    calls.stop_reason(reason);
                }
                calls.end(match reason {
                    // Before version 6 there was no reason.
                    None | Some("stop" | "tool-calls") => TurnEnd::Complete,
                    // Cut by a limit, a filter or an error, or something new: what is held is not run.
                    Some(_) => TurnEnd::Truncated,
                });
            }
            "abort" => {
                calls.stop_reason("abort");
                calls.end(TurnEnd::Truncated);
            }
            "error" => {
                let why = part.error_text.as_deref().unwrap_or_default();
                calls.fail(format!("the provider broke off: {why}"));
            }
            _ => {}
        }
    }

    /// The call that a part is about; it begins with the first one. That the provider runs it may be said by any.
    fn call(&mut self, part: &Part<'_>, calls: &mut Calls) -> Call {
        let before = self.calls.get(part.id()).copied();
        let call = match (before, part.provider_executed) {
            (Some(call @ Call::Provider), _) | (Some(call), None | Some(false)) => return call,
            (before, Some(true)) => {
                if let Some(Call::Ours(block)) = before {
                    calls.void(block, Void::Withdrawn);
                }
                self.order += 1;
                calls.pass_over(Owner::Provider, Some(part.id()), part.name(), self.order);
                Call::Provider
            }
            (None, None | Some(false)) => {
                self.order += 1;
                Call::Ours(calls.begin(NewCall {
                    id: Some(part.id()),
                    name: part.name(),
                    order: self.order,
                    ..NewCall::default()
                }))
            }
        };
        self.calls.insert(part.id().to_owned(), call);
        call
    }
}

impl Part<'_> {
    fn id(&self) -> &str {
        clip_id(self.tool_call_id.as_deref().unwrap_or_default())
    }

    fn name(&self) -> &str {
        self.tool_name.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
