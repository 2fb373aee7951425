//! What the damage begins with: the turns of `fixtures/streams`, and small recordings where there are any.

use std::path::Path;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use toolpool_broker::decode::Dialect;

/// Larger recordings are left out.
const MOST_BYTES: usize = 8 << 10;

/// The fixture of each dialect, with its number of calls.
pub(crate) const FIXTURES: [(Dialect, usize, &[u8]); 8] = [
    (
        Dialect::Anthropic,
        3,
        include_bytes!("../fixtures/streams/anthropic.sse"),
    ),
    (
        Dialect::OpenAiChat,
        3,
        include_bytes!("../fixtures/streams/openai_chat.sse"),
    ),
    (
        Dialect::OpenAiResponses,
        3,
        include_bytes!("../fixtures/streams/openai_responses.sse"),
    ),
    (
        Dialect::Gemini,
        4,
        include_bytes!("../fixtures/streams/gemini.sse"),
    ),
    (
        Dialect::Bedrock,
        3,
        include_bytes!("../fixtures/streams/bedrock.ndjson"),
    ),
    (
        Dialect::Cohere,
        3,
        include_bytes!("../fixtures/streams/cohere.sse"),
    ),
    (
        Dialect::Ollama,
        4,
        include_bytes!("../fixtures/streams/ollama.ndjson"),
    ),
    (
        Dialect::VercelUi,
        3,
        include_bytes!("../fixtures/streams/vercel_ui.sse"),
    ),
];

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
        let fixtures = fixtures.map(|(dialect, _, text)| (*dialect, text.to_vec()));
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
    let Some(corpus) = std::env::var_os("TOOLPOOL_CORPUS") else {
        return Vec::new();
    };
    let mut paths = Vec::new();
    let streams = Path::new(&corpus).join("streams");
    for folder in [streams.join("synthetic"), streams] {
        let entries = std::fs::read_dir(&folder).unwrap();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.sort();
    let recording = |path: &Path| {
        let sidecar: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        let dialect = dialect(sidecar["wire_format"].as_str()?)?;
        let file = sidecar["decoded_file"]
            .as_str()
            .or(sidecar["file"].as_str());
        let text = std::fs::read(path.with_file_name(file?)).ok()?;
        (text.len() <= MOST_BYTES && text[0] != 0).then_some((dialect, text))
    };
    let sidecars = paths
        .iter()
        .filter(|path| path.extension() == Some("json".as_ref()));
    sidecars.filter_map(|path| recording(path)).collect()
}

/// By the name that sidecars have for it.
fn dialect(wire_format: &str) -> Option<Dialect> {
    Some(match wire_format {
        "anthropic-messages" => Dialect::Anthropic,
        "openai-chat" => Dialect::OpenAiChat,
        "openai-responses" => Dialect::OpenAiResponses,
        "gemini-generate-content" => Dialect::Gemini,
        "bedrock-converse-stream" => Dialect::Bedrock,
        "cohere-v2-chat" => Dialect::Cohere,
        "ollama-chat" => Dialect::Ollama,
        _ => return None,
    })
}
