//! Gemini `streamGenerateContent`: a call is a part, whole and complete at once, unless its arguments are streamed.
//!
//! Field names are `camelCase` on the wire and `snake_case` in what the Python SDK writes out. Good ends are not taken at
//! once: older models say `STOP` in every chunk, and a call may be in the next one. So a turn that went well ends with
//! its stream.

mod partial_args;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls::{Block, Calls, NewCall};
use super::json::{Few, Object, Text, object, read};
use super::turn::{Owner, Void};
use super::{Decode, Event};
use crate::ingest::TurnEnd;
use partial_args::{Misfit, PartialArg, PartialArgs};

/// Alternatives in one answer: the API gives no more.
const MOST_CANDIDATES: usize = 8;

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct Gemini {
    candidates: Vec<Alternative>,
    /// Calls so far.
    order: u64,
}

/// One of the answers that were asked for; nearly always the only one.
#[derive(Debug)]
struct Alternative {
    index: u32,
    /// The call whose arguments are coming in.
    streamed: Option<Streamed>,
    finish: Option<Finish>,
}

#[derive(Debug)]
struct Streamed {
    block: Block,
    args: PartialArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    Good,
    /// Cut by a limit or a filter, or something new.
    Bad,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    candidates: Few<Object<Candidate<'a>>>,
    #[serde(borrow, default, alias = "promptFeedback", deserialize_with = "object")]
    prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PromptFeedback<'a> {
    #[serde(borrow, alias = "blockReason")]
    block_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Candidate<'a> {
    index: Option<u32>,
    #[serde(borrow, default, deserialize_with = "object")]
    content: Option<Content<'a>>,
    #[serde(borrow, alias = "finishReason")]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Few<Object<Part<'a>>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default, alias = "functionCall", deserialize_with = "object")]
    function_call: Option<FunctionCall<'a>>,
    #[serde(borrow, alias = "thoughtSignature")]
    thought_signature: Option<Text<'a>>,
    #[serde(borrow, default, alias = "executableCode", deserialize_with = "object")]
    executable_code: Option<ProviderCall<'a>>,
    #[serde(borrow, default, alias = "toolCall", deserialize_with = "object")]
    tool_call: Option<ProviderCall<'a>>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "partialArgs")]
    partial_args: Few<Object<PartialArg<'a>>>,
    #[serde(alias = "willContinue")]
    will_continue: Option<bool>,
}

/// A call that the provider runs itself. Its result is a part of its own, which says nothing new.
#[derive(Deserialize)]
struct ProviderCall<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
}

impl Decode for Gemini {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error> {
        if event.data.trim_ascii_start().starts_with(b"[") {
            // The framing without SSE, inside it.
            let chunks: Few<Object<Chunk<'_>>> = serde_json::from_slice(event.data)?;
            for chunk in chunks.iter() {
                self.chunk(chunk, calls);
            }
        } else {
            self.chunk(&read(event.data)?, calls);
        }
        Ok(())
    }

    fn finish(&mut self, calls: &mut Calls) {
        if self.finished() {
            // Otherwise it had ended with the chunk that said so.
            calls.end(TurnEnd::Complete);
        }
    }
}

impl Gemini {
    fn chunk(&mut self, chunk: &Chunk<'_>, calls: &mut Calls) {
        if calls.ended() {
            return;
        }
        for candidate in chunk.candidates.iter() {
            self.candidate(candidate, calls);
        }
        let blocked = (chunk.prompt_feedback.as_ref())
            .and_then(|feedback| word(feedback.block_reason?))
            .filter(|_| chunk.candidates.is_empty());
        if let Some(error) = chunk.error {
            calls.fail(format!("the provider broke off: {}", error.get()));
        } else if let Some(reason) = blocked {
            calls.fail(format!("the provider blocked the prompt: {reason}"));
        } else if self.finished()
            && (self.candidates.iter()).any(|candidate| candidate.finish == Some(Finish::Bad))
        {
            calls.end(TurnEnd::Truncated);
        }
    }

    /// Whether every answer that began has come to its end.
    fn finished(&self) -> bool {
        !self.candidates.is_empty()
            && (self.candidates.iter()).all(|candidate| candidate.finish.is_some())
    }

    fn candidate(&mut self, candidate: &Candidate<'_>, calls: &mut Calls) {
        let Some(at) = self.alternative(candidate.index.unwrap_or_default()) else {
            return;
        };
        let content = candidate.content.as_ref();
        for part in content.map_or(&[][..], |content| &*content.parts) {
            if let Some(call) = &part.function_call {
                self.call(at, call, part.thought_signature.as_deref(), calls);
            }
            let run = (part
                .executable_code
                .as_ref()
                .map(|run| (run, "executableCode")))
            .or(part.tool_call.as_ref().map(|run| (run, "toolCall")));
            if let Some((run, kind)) = run {
                self.order += 1;
                calls.pass_over(Owner::Provider, run.id.as_deref(), kind, self.order);
            }
        }
        if let Some(reason) = candidate.finish_reason.and_then(word) {
            if at == 0 {
                calls.stop_reason(reason);
            }
            self.candidates[at].finish = Some(if reason == "STOP" {
                Finish::Good
            } else {
                Finish::Bad
            });
        }
    }

    fn alternative(&mut self, index: u32) -> Option<usize> {
        let known = (self.candidates.iter()).position(|candidate| candidate.index == index);
        if known.is_none() && self.candidates.len() < MOST_CANDIDATES {
            self.candidates.push(Alternative {
                index,
                streamed: None,
                finish: None,
            });
            return Some(self.candidates.len() - 1);
        }
        known
    }

    /// Every part that has a name is a new call, whatever came before; one without goes on with the call that is open.
    fn call(
        &mut self,
        at: usize,
        call: &FunctionCall<'_>,
        signature: Option<&str>,
        calls: &mut Calls,
    ) {
        let continues = call.will_continue == Some(true);
        let partial_args = &call.partial_args;
        if let Some(name) = call.name.as_deref().filter(|name| !name.is_empty()) {
            if let Some(streamed) = self.candidates[at].streamed.take() {
                complete(&streamed, calls);
            }
            self.order += 1;
            let block = calls.begin(NewCall {
                id: call.id.as_deref(),
                name,
                order: self.order,
                signature,
                ..NewCall::default()
            });
            if !continues && partial_args.is_empty() {
                calls.append(block, call.args.map_or("{}", RawValue::get));
                calls.complete(block);
                return;
            }
            // What is gathered is an object at any time. Its text is not, from now until the end: a call that is cut, or
            // one whose chunk was damaged, is none.
            calls.append(block, OPENING);
            self.candidates[at].streamed = Some(Streamed {
                block,
                args: PartialArgs::default(),
            });
        }
        let Some(mut streamed) = self.candidates[at].streamed.take() else {
            return;
        };
        let most = calls.most_kept();
        let taken = (call
            .args
            .map_or(Ok(()), |args| streamed.args.whole(args, most)))
        .and_then(|()| (partial_args.iter()).try_for_each(|arg| streamed.args.set(arg, most)));
        match taken {
            Ok(()) if continues => self.candidates[at].streamed = Some(streamed),
            Ok(()) => complete(&streamed, calls),
            // Longer than a call may be: what there is shows it, and is refused like any other.
            Err(Misfit::TooLarge) => append(&streamed, calls),
            Err(Misfit::Contradiction) => calls.void(streamed.block, Void::NotJson),
        }
    }
}

/// What every object begins with.
const OPENING: &str = "{";

fn complete(streamed: &Streamed, calls: &mut Calls) {
    if streamed.args.is_unfinished() {
        return calls.void(streamed.block, Void::NotJson);
    }
    append(streamed, calls);
    calls.complete(streamed.block);
}

fn append(streamed: &Streamed, calls: &mut Calls) {
    let text = streamed.args.to_json();
    let text = text.strip_prefix(OPENING).unwrap_or(&text);
    calls.append(streamed.block, text);
}

/// A reason, without the name of its type that some SDKs write before it, and by its number where they write that. The
/// one that means nothing is none.
fn word(value: &RawValue) -> Option<&str> {
    let word = value.get().trim_matches('"').rsplit('.').next()?;
    match word {
        "" | "0" => None,
        "1" => Some("STOP"),
        word if word.ends_with("_UNSPECIFIED") => None,
        word => Some(word),
    }
}

#[cfg(test)]
mod tests;
