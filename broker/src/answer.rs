//! A turn's results as the conversation's next messages, in the provider's own shape. Plain code.
//!
//! Always a JSON array, to be appended to the conversation as it is. Rules that hold for every format:
//!
//! - every call is answered exactly once, in the order given: a missing or second answer is refused by all of them;
//! - an error is marked as the format marks it; where it has no mark, its text begins with `error: `;
//! - what a tool gave is passed on as it is. JSON goes in unparsed, or as text where the format has no place for it;
//! - what a format cannot carry is said in its place, in words for the model;
//! - a provider refuses a whole request for one bad piece, so whatever is in doubt is left out or said in words.
//!
//! It is written once, straight into the buffer that is sent.

mod anthropic;
mod bedrock;
mod budget;
mod cohere;
mod gemini;
mod ollama;
mod openai_chat;
mod openai_responses;
mod piece;
mod text;
mod vercel_ui;

use std::io;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::call_error::{CallError, Code};
use crate::ingest::dialect::{Dialect, Kind};
use crate::output::Output;
use budget::{Counted, Limited};
use text::Text;

/// The longest string that OpenAI takes, in characters: "Expected a string with maximum length 10485760".
const MOST_OPENAI_CHARACTERS: usize = 10_485_760;

/// The id that the provider joins a result to its call by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id<'a> {
    /// The provider's own.
    Provider(&'a str),
    /// Made here, since the provider gave none; the agent puts it into the assistant's message too. Formats that do
    /// without ids leave it out.
    Made(&'a str),
}

/// A call that is to be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) id: Id<'a>,
    /// The tool, as the model named it.
    pub(crate) name: &'a str,
    pub(crate) kind: Kind,
    /// What made the call, where that was not the model itself. OpenAI Responses wants it back in the answer; Anthropic
    /// wants nothing beside results in the message then, and there never is.
    pub(crate) caller: Option<&'a RawValue>,
    /// How it ended.
    pub(crate) ending: Result<&'a Output, &'a CallError>,
}

impl<'a> Id<'a> {
    fn text(self) -> &'a str {
        match self {
            Self::Provider(id) | Self::Made(id) => id,
        }
    }

    fn providers(self) -> Option<&'a str> {
        match self {
            Self::Provider(id) => Some(id),
            Self::Made(_) => None,
        }
    }
}

/// The answer to `calls`, as a JSON array that is empty if there are none.
///
/// It has at most `most_bytes`, unless the shortest answers to all calls are already more: an output that does not fit
/// into what is left gives way to a short error that says so, and room for those of all later calls is kept.
pub(crate) fn answer(dialect: Dialect, calls: &[Call<'_>], most_bytes: usize) -> Bytes {
    if calls.is_empty() {
        return Bytes::from_static(b"[]");
    }
    let (open, close) = envelope(dialect);
    let shortest: Vec<usize> = calls
        .iter()
        .map(|call| size(dialect, &call.ending_as(&left_out(call))))
        .collect();
    // Each with the comma before it.
    let mut kept: usize = close.len() + shortest.iter().map(|size| size + 1).sum::<usize>();
    let mut out = Vec::with_capacity(about(calls).min(most_bytes.max(kept)));
    out.extend_from_slice(open.as_bytes());
    for (call, shortest) in calls.iter().zip(shortest) {
        kept -= shortest + 1;
        if out.len() > open.len() {
            out.push(b',');
        }
        let begin = out.len();
        let most = most_bytes.saturating_sub(kept).max(begin + shortest);
        let refused = refused(dialect, call);
        let said = (refused.as_ref()).map_or(*call, |error| call.ending_as(error));
        if write(dialect, &said, Limited::new(&mut out, most)).is_err() {
            out.truncate(begin);
            // A vector takes all that is written to it.
            let _ = write(dialect, &call.ending_as(&left_out(call)), &mut out);
        }
    }
    out.extend_from_slice(close.as_bytes());
    Bytes::from(out)
}

/// What stands around the results: one message for all of them, or one each.
fn envelope(dialect: Dialect) -> (&'static str, &'static str) {
    match dialect {
        Dialect::Anthropic | Dialect::Bedrock => (r#"[{"role":"user","content":["#, "]}]"),
        Dialect::Gemini => (r#"[{"role":"user","parts":["#, "]}]"),
        Dialect::OpenAiChat
        | Dialect::OpenAiResponses
        | Dialect::Cohere
        | Dialect::Ollama
        | Dialect::VercelUi => ("[", "]"),
    }
}

fn write(dialect: Dialect, call: &Call<'_>, into: impl io::Write) -> serde_json::Result<()> {
    match dialect {
        Dialect::Anthropic => serde_json::to_writer(into, &anthropic::result(call)),
        Dialect::OpenAiChat => serde_json::to_writer(into, &openai_chat::message(call)),
        Dialect::OpenAiResponses => serde_json::to_writer(into, &openai_responses::item(call)),
        Dialect::Gemini => serde_json::to_writer(into, &gemini::part(call)),
        Dialect::Bedrock => serde_json::to_writer(into, &bedrock::result(call)),
        Dialect::Cohere => serde_json::to_writer(into, &cohere::message(call)),
        Dialect::Ollama => serde_json::to_writer(into, &ollama::message(call)),
        Dialect::VercelUi => serde_json::to_writer(into, &vercel_ui::part(call)),
    }
}

fn size(dialect: Dialect, call: &Call<'_>) -> usize {
    let mut counted = Counted::default();
    // Counting cannot fail.
    let _ = write(dialect, call, &mut counted);
    counted.bytes()
}

/// About what the answer will have, so that its buffer seldom has to grow.
fn about(calls: &[Call<'_>]) -> usize {
    const REST: usize = 192;
    let bytes = |call: &Call<'_>| match call.ending {
        Ok(output) => output.size(),
        Err(error) => error.message.len(),
    };
    calls.iter().map(|call| REST + bytes(call) * 9 / 8).sum()
}

/// An ending that the provider would refuse the whole request for.
fn refused(dialect: Dialect, call: &Call<'_>) -> Option<CallError> {
    if !matches!(dialect, Dialect::OpenAiChat | Dialect::OpenAiResponses) {
        return None;
    }
    let length = Text::marked(call.ending).longer_than(MOST_OPENAI_CHARACTERS)?;
    Some(instead(
        call,
        &format!(
            "of {length} characters was left out: a message takes {MOST_OPENAI_CHARACTERS} at most"
        ),
    ))
}

/// What is said of an ending that does not fit. It must be the same for the same ending: it is measured first.
fn left_out(call: &Call<'_>) -> CallError {
    let bytes = match call.ending {
        Ok(output) => output.size(),
        Err(error) => error.message.len(),
    };
    instead(
        call,
        &format!(
            "of {bytes} bytes was left out, since the answers to this turn's calls are too large together \
             (max_answer_bytes)"
        ),
    )
}

fn instead(call: &Call<'_>, what: &str) -> CallError {
    match call.ending {
        Ok(_) => CallError::new(
            Code::ResultTooLarge,
            format!(
                "The call succeeded, but its output {what}. It is in the batch's result. Ask for less, or for a reference \
                 to the data."
            ),
        ),
        Err(error) => CallError {
            retry_after: error.retry_after,
            ..CallError::new(
                error.code,
                format!("The call failed, and its message {what}. It is in the batch's result."),
            )
        },
    }
}

impl<'a> Call<'a> {
    /// The same call with another ending.
    fn ending_as(&self, error: &'a CallError) -> Self {
        Self {
            ending: Err(error),
            ..*self
        }
    }
}

#[cfg(test)]
mod tests;
