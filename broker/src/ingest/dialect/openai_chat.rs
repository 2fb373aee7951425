//! OpenAI Chat Completions, and the many servers that speak it more or less.
//!
//! No marker closes a call: all calls of a choice are complete at its finish reason. Until then a closed object is only an
//! early signal. The turn ends with the stream (`[DONE]`, or no more bytes): after a finish reason another choice may still
//! come, or an error. `[DONE]` without a finish reason completes the calls, but says nothing of how the turn ended.

mod chunk;
mod join;

use serde_json::value::RawValue;

use super::calls::Calls;
use super::json::read;
use super::{DONE, Decode, Event};
use crate::ingest::TurnEnd;
use chunk::{Choice, Chunk};
use join::{Joined, Shared};

/// OpenAI gives no more.
const MOST_CHOICES: usize = 128;

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct OpenAiChat {
    choices: Vec<Message>,
    shared: Shared,
    /// A choice has ended for a reason that cuts it.
    cut: bool,
}

/// One choice. With `n` over 1 there are several messages in a stream, each with calls of its own.
#[derive(Debug)]
struct Message {
    index: u64,
    calls: Joined,
    end: Option<TurnEnd>,
}

/// There is more of something than any server makes.
#[derive(Debug)]
struct TooMany(&'static str);

impl Decode for OpenAiChat {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error> {
        let data = event.data.trim_ascii();
        if data == DONE {
            self.done(calls);
            return Ok(());
        }
        let chunk = read(data).inspect_err(|_| {
            if data.starts_with(b"{") {
                self.tear();
            }
        })?;
        if let Err(TooMany(what)) = self.chunk(&chunk, calls) {
            calls.fail(format!("the provider's stream has far too many {what}"));
        }
        Ok(())
    }

    /// The end of the stream is the end of the turn, if every choice has come to its own.
    fn finish(&mut self, calls: &mut Calls) {
        let mut ends = self.choices.iter().map(|message| message.end);
        if self.choices.is_empty() || ends.clone().any(|end| end.is_none()) {
            return;
        }
        let cut = ends.any(|end| end == Some(TurnEnd::Truncated));
        calls.end(if cut {
            TurnEnd::Truncated
        } else {
            TurnEnd::Complete
        });
    }
}

impl OpenAiChat {
    fn chunk(&mut self, chunk: &Chunk<'_>, calls: &mut Calls) -> Result<(), TooMany> {
        for choice in chunk.choices.iter() {
            self.choice(choice, chunk.error.is_some(), calls)?;
        }
        if let Some(error) = chunk.error.map(RawValue::get) {
            calls.fail(format!("the provider broke off: {error}"));
            return Ok(());
        }
        // A choice that has not begun by now is not waited for: servers begin all of them together.
        Ok(())
    }

    fn choice(
        &mut self,
        choice: &Choice<'_>,
        failed: bool,
        calls: &mut Calls,
    ) -> Result<(), TooMany> {
        let at = self.message(choice.index.unwrap_or_default())?;
        let message = &mut self.choices[at];
        if message.end.is_some() {
            // Its finish reason said again, with the usage.
            return Ok(());
        }
        if let Some(delta) = choice.delta() {
            for call in delta.tool_calls.iter() {
                message.calls.tool_call(call, &mut self.shared, calls)?;
            }
            if let Some(call) = &delta.function_call {
                message.calls.function_call(call, &mut self.shared, calls)?;
            }
        }
        let Some(reason) = choice.finish_reason() else {
            return Ok(());
        };
        let end = end_by(reason);
        if !failed {
            let cut = end != TurnEnd::Complete;
            let closed = message.calls.end(cut, &mut self.shared, calls);
            // Servers give a good reason for calls that a limit has cut too.
            message.end = Some(if closed { end } else { TurnEnd::Truncated });
        }
        // Of several the one that cuts the turn tells more.
        self.cut |= end == TurnEnd::Truncated;
        if end == TurnEnd::Truncated || !self.cut {
            calls.stop_reason(reason);
        }
        Ok(())
    }

    fn message(&mut self, index: u64) -> Result<usize, TooMany> {
        let at = self
            .choices
            .iter()
            .position(|message| message.index == index);
        if let Some(at) = at {
            return Ok(at);
        }
        if self.choices.len() >= MOST_CHOICES {
            return Err(TooMany("choices"));
        }
        self.choices.push(Message {
            index,
            calls: Joined::default(),
            end: None,
        });
        Ok(self.choices.len() - 1)
    }

    fn done(&mut self, calls: &mut Calls) {
        self.finish(calls);
        for message in &mut self.choices {
            if message.end.is_none() {
                // Whether its arguments had begun is not known of a call without any.
                message.calls.end(true, &mut self.shared, calls);
            }
        }
        calls.end(TurnEnd::Truncated);
    }

    fn tear(&mut self) {
        for message in &mut self.choices {
            message.calls.tear();
        }
    }
}

/// The good reasons of OpenAI, and those that other servers have or pass on from other formats. A limit, a filter, an
/// error and what is new cut the turn.
fn end_by(reason: &str) -> TurnEnd {
    match reason {
        "tool_calls" | "stop" | "function_call" | "eos" | "eos_token" | "stop_sequence"
        | "tool_use" | "end_turn" => TurnEnd::Complete,
        _ => TurnEnd::Truncated,
    }
}

#[cfg(test)]
mod tests;
