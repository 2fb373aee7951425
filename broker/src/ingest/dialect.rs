//! Providers' streams in, the steps of a turn out. Plain code: no I/O, no clock.
//!
//! ```text
//! bytes ─▶ framing ─▶ event ─▶ one dialect's decoder ─▶ calls ─▶ inputs of `ingest`
//! ```
//!
//! A decoder reads its provider's events and tells [`Calls`] what they mean; it knows nothing of framings, limits or
//! the broker's ids. [`ProviderTurn`] puts the three together, and finds out by itself what a stream is if it was not
//! told. Rules that hold for every format:
//!
//! - events, fields and types that are not known are passed over: providers add them all the time;
//! - fragments are joined as text, and nothing is ever repaired;
//! - a block is complete when its dialect's own marker says so, and for no other reason;
//! - a turn that ends without its dialect's marker, or with a reason that is not known to be a good one, is truncated.

mod anthropic;
mod bedrock;
mod calls;
mod closed;
mod cohere;
mod detect;
mod fragment;
mod gemini;
mod json;
mod ollama;
mod openai_chat;
mod openai_responses;
#[cfg(test)]
mod testing;
mod turn;
mod vercel_ui;

use std::hash::{BuildHasher, BuildHasherDefault};

use rustc_hash::FxHasher;

use super::framing::{Event, Framing};
use super::{Input, Position, TurnEnd};

pub(crate) use calls::Limits;
pub use turn::Owner;
pub(crate) use turn::{Answered, Kind, NotOurs, Turn, Void};

use calls::Calls;

/// A provider's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Anthropic Messages, also over Vertex AI and as framed by Bedrock's `InvokeModelWithResponseStream`.
    Anthropic,
    /// OpenAI Chat Completions, and the servers that speak it.
    OpenAiChat,
    /// OpenAI Responses.
    OpenAiResponses,
    /// Gemini `streamGenerateContent`.
    Gemini,
    /// Amazon Bedrock `ConverseStream`.
    Bedrock,
    /// Cohere v2 chat.
    Cohere,
    /// Ollama `/api/chat`.
    Ollama,
    /// The UI message stream of the Vercel AI SDK.
    VercelUi,
}

/// What one dialect makes of its provider's events.
///
/// An error says that the event could not be read; it has then changed nothing.
trait Decode: std::fmt::Debug + Send {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error>;

    /// The stream is at its end, and the turn has not ended yet.
    fn finish(&mut self, calls: &mut Calls);
}

impl Dialect {
    /// In metrics and traces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAiChat => "openai_chat",
            Self::OpenAiResponses => "openai_responses",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
            Self::Cohere => "cohere",
            Self::Ollama => "ollama",
            Self::VercelUi => "vercel_ui",
        }
    }

    fn decoder(self) -> Box<dyn Decode> {
        match self {
            Self::Anthropic => Box::new(anthropic::Anthropic::default()),
            Self::OpenAiChat => Box::new(openai_chat::OpenAiChat::default()),
            Self::OpenAiResponses => Box::new(openai_responses::OpenAiResponses::default()),
            Self::Gemini => Box::new(gemini::Gemini::default()),
            Self::Bedrock => Box::new(bedrock::Bedrock::default()),
            Self::Cohere => Box::new(cohere::Cohere::default()),
            Self::Ollama => Box::new(ollama::Ollama::default()),
            Self::VercelUi => Box::new(vercel_ui::VercelUi::default()),
        }
    }
}

/// One turn of a model as its provider streams it.
#[derive(Debug)]
pub(crate) struct ProviderTurn {
    framing: Framing,
    decoding: Decoding,
    calls: Calls,
}

#[derive(Debug)]
enum Decoding {
    /// The first event that shows it decides.
    Auto,
    As(Dialect, Box<dyn Decode>),
}

/// Marks the end of Chat, Cohere and other streams; it is no JSON.
const DONE: &[u8] = b"[DONE]";

impl ProviderTurn {
    /// A turn of which nothing has come yet. `dialect` is `None` where the stream is to show it; `local_tools` are
    /// those that the agent runs itself; ids that are missing are made from `seed`.
    pub(crate) fn new(
        dialect: Option<Dialect>,
        local_tools: Vec<String>,
        limits: Limits,
        seed: u64,
    ) -> Self {
        Self {
            framing: Framing::new(limits.event_bytes),
            decoding: dialect.map_or(Decoding::Auto, |dialect| {
                Decoding::As(dialect, dialect.decoder())
            }),
            calls: Calls::new(local_tools, limits, seed),
        }
    }

    /// What the stream is, if that is known.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        match &self.decoding {
            Decoding::Auto => None,
            Decoding::As(dialect, _) => Some(*dialect),
        }
    }

    /// Takes the next bytes of the stream, cut anywhere.
    pub(crate) fn bytes(&mut self, bytes: &[u8], inputs: &mut Vec<Input>) {
        if self.calls.ended() {
            // The framing may be what failed.
            return;
        }
        let (decoding, calls) = (&mut self.decoding, &mut self.calls);
        let taken = self
            .framing
            .push(bytes, &mut |event| take(decoding, calls, event));
        if let Err(error) = taken {
            self.calls.fail(error.to_string());
        }
        self.calls.drain(inputs);
    }

    /// Takes one event, without a framing.
    pub(crate) fn event(&mut self, data: &[u8], inputs: &mut Vec<Input>) {
        take(&mut self.decoding, &mut self.calls, Event::of(data));
        self.calls.drain(inputs);
    }

    /// The stream is at its end. Seals the turn if it has not ended by itself.
    pub(crate) fn finish(&mut self, inputs: &mut Vec<Input>) {
        let (decoding, calls) = (&mut self.decoding, &mut self.calls);
        let taken = self.framing.finish(&mut |event| {
            // Half an event is where the stream was cut: whatever was open stays incomplete.
            read(decoding, calls, event);
        });
        if let Err(error) = taken {
            self.calls.fail(error.to_string());
        }
        self.finish_decoder();
        self.calls.fail(match self.decoding {
            Decoding::Auto => {
                "nothing in the stream tells what it is: it has no event of a known provider's format"
            }
            Decoding::As(..) => "the stream ended before the turn did",
        });
        self.calls.drain(inputs);
    }

    /// The agent ends the turn. That it is complete only says that no more will come: whether it is stands in the stream.
    /// Without effect on a turn that had ended before.
    pub(crate) fn end(&mut self, end: TurnEnd, inputs: &mut Vec<Input>) {
        if end == TurnEnd::Complete {
            return self.finish(inputs);
        }
        self.calls.end_as(end);
        self.calls.drain(inputs);
    }

    /// Nothing that still comes counts; whoever reads the turn has ended it.
    pub(crate) fn cut(&mut self, why: &str) {
        self.calls.fail(why);
        self.calls.drain(&mut Vec::new());
    }

    fn finish_decoder(&mut self) {
        if !self.calls.ended()
            && let Decoding::As(_, decoder) = &mut self.decoding
        {
            decoder.finish(&mut self.calls);
        }
    }

    /// The call at this position of the batch has no place in the assistant's message.
    pub(crate) fn drop_call(&mut self, position: Position, why: Void) {
        self.calls.drop_call(position, why);
    }

    /// What is known of the turn besides its calls' results.
    pub(crate) fn into_turn(self) -> Turn {
        let dialect = self.dialect();
        self.calls.into_turn(dialect)
    }
}

/// What the ids that are made for a batch's calls are made from: they must differ from turn to turn, as those of batches
/// do.
pub(crate) fn seed(batch_id: &str) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(batch_id)
}

/// Returns whether the event could be read.
fn read(decoding: &mut Decoding, calls: &mut Calls, event: Event<'_>) -> bool {
    if calls.ended() {
        // Usage, end marks, a finish reason said twice.
        return true;
    }
    if let Decoding::Auto = decoding
        && let Some(dialect) = detect::dialect(event)
    {
        *decoding = Decoding::As(dialect, dialect.decoder());
    }
    if event.exception {
        calls.fail(failure(event));
        return true;
    }
    // An event that does not even tell its dialect carries nothing of a call.
    let Decoding::As(_, decoder) = decoding else {
        if let Some(said) = detect::error(event) {
            calls.fail(format!("the provider broke off: {said}"));
        }
        return true;
    };
    json::make_room();
    decoder.event(event, calls).is_ok()
}

fn take(decoding: &mut Decoding, calls: &mut Calls, event: Event<'_>) {
    if read(decoding, calls, event) {
        return;
    }
    if json::was_too_long() {
        calls.fail("the lists of one event of the provider's stream are too long");
    } else if event.data.trim_ascii_start().starts_with(b"{") {
        // Half an event may have been a part of a call's text. What is no object at all is a keep-alive.
        calls.unreadable();
    }
}

/// What a server says when it breaks off: the same in every dialect whose frames can say so.
fn failure(event: Event<'_>) -> String {
    let name = event.name.unwrap_or("an exception");
    let why = String::from_utf8_lossy(event.data);
    format!("the provider broke off with {name}: {why}")
}

#[cfg(test)]
mod tests;
