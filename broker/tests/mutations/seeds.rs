//! What the damage begins with: the turns of `fixtures/streams`, and small recordings where there are any.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use toolpool_broker::decode::Dialect;

use crate::corpus::{Sidecar, sidecars};
use crate::fixtures::FIXTURES;

/// Larger recordings are left out.
const MOST_BYTES: usize = 8 << 10;

/// Texts: of one dialect, and of all.
pub(crate) struct Seeds {
    pub(crate) own: Vec<Vec<u8>>,
    pub(crate) all: Vec<Vec<u8>>,
}

impl Seeds {
    pub(crate) fn of(dialect: Dialect) -> Self {
        let mut own = Vec::new();
        let mut all = Vec::new();
        let fixtures = FIXTURES.iter();
        let fixtures = fixtures.map(|fixture| (fixture.dialect, fixture.text.to_vec()));
        for (of, text) in fixtures.chain(recordings()) {
            if of == dialect {
                own.push(text.clone());
            }
            all.push(text);
        }
        Self { own, all }
    }
}

/// How a text goes over the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire {
    Plain,
    /// Gemini without SSE.
    JsonArray,
    /// Bedrock, with the events' names in the headers.
    Frames,
    /// Anthropic over Bedrock: each event in base64.
    Chunks,
}

impl Wire {
    pub(crate) fn bytes(self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => text.to_vec(),
            Self::JsonArray => {
                let objects: Vec<&[u8]> = events(text).collect();
                [b"[", &*objects.join(&b",\r\n"[..]), b"\r\n]"].concat()
            }
            Self::Frames => {
                let mut bytes = Vec::new();
                for event in events(text) {
                    let (name, payload) = named(event).unwrap_or(("messageStop", event));
                    frame(name, payload, &mut bytes);
                }
                bytes
            }
            Self::Chunks => {
                let mut bytes = Vec::new();
                for event in events(text) {
                    let chunk = format!(r#"{{"bytes":"{}","p":"abc"}}"#, STANDARD.encode(event));
                    frame("chunk", chunk.as_bytes(), &mut bytes);
                }
                bytes
            }
        }
    }
}

/// What the lines of a text hold, roughly: it may be damaged.
pub(crate) fn events(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b'\n' | b'\r'))
        .filter(|line| !line.is_empty() && !line.starts_with(b"event:"))
        .map(|line| line.strip_prefix(b"data:").unwrap_or(line).trim_ascii())
}

/// The key and the value of an object that has one of each.
fn named(event: &[u8]) -> Option<(&str, &[u8])> {
    let rest = event.strip_prefix(b"{\"")?.strip_suffix(b"}")?;
    let end = memchr::memmem::find(rest, b"\":")?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    (name.len() < 100).then_some((name, &rest[end + 2..]))
}

fn frame(name: &str, payload: &[u8], bytes: &mut Vec<u8>) {
    let kind = if name.ends_with("Exception") {
        "exception"
    } else {
        "event"
    };
    let message = Message::new(payload.to_vec());
    let header =
        |name: String, value: &str| Header::new(name, HeaderValue::String(value.to_owned().into()));
    let message = message
        .add_header(header(":message-type".into(), kind))
        .add_header(header(format!(":{kind}-type"), name));
    write_message_to(&message, bytes).unwrap();
}

/// The small ones that are text, in the same order always.
fn recordings() -> Vec<(Dialect, Vec<u8>)> {
    let recording = |sidecar: Sidecar| {
        let Sidecar { path, json } = &sidecar;
        let file = json["decoded_file"].as_str().or(json["file"].as_str());
        let text = std::fs::read(path.with_file_name(file?)).ok()?;
        (text.len() <= MOST_BYTES && text[0] != 0).then(|| (sidecar.dialect(), text))
    };
    // What was derived is what the damage does too.
    let derived = |sidecar: &Sidecar| !sidecar.json["derived_from"].is_null();
    let recorded = sidecars().into_iter().filter(|sidecar| !derived(sidecar));
    recorded.filter_map(recording).collect()
}
