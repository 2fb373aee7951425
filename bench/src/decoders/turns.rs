//! What is read: recordings of each dialect if there are any, else one made-up turn.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use toolpool_broker::decode::Dialect;

/// Turns of one dialect.
pub(super) struct Turns {
    pub(super) dialect: Dialect,
    pub(super) name: &'static str,
    pub(super) source: Source,
    pub(super) texts: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    Recorded,
    Fixture,
}

impl Source {
    pub(crate) fn to_text(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Fixture => "made up",
        }
    }
}

/// Each dialect with its name, and what it is called beside recordings.
const DIALECTS: [(Dialect, &str, &str, &[u8]); 8] = [
    (
        Dialect::Anthropic,
        "Anthropic",
        "anthropic-messages",
        include_bytes!("../../../broker/tests/fixtures/streams/anthropic.sse"),
    ),
    (
        Dialect::OpenAiChat,
        "OpenAI Chat",
        "openai-chat",
        include_bytes!("../../../broker/tests/fixtures/streams/openai_chat.sse"),
    ),
    (
        Dialect::OpenAiResponses,
        "OpenAI Responses",
        "openai-responses",
        include_bytes!("../../../broker/tests/fixtures/streams/openai_responses.sse"),
    ),
    (
        Dialect::Gemini,
        "Gemini",
        "gemini-generate-content",
        include_bytes!("../../../broker/tests/fixtures/streams/gemini.sse"),
    ),
    (
        Dialect::Bedrock,
        "Bedrock",
        "bedrock-converse-stream",
        include_bytes!("../../../broker/tests/fixtures/streams/bedrock.ndjson"),
    ),
    (
        Dialect::Cohere,
        "Cohere",
        "cohere-v2-chat",
        include_bytes!("../../../broker/tests/fixtures/streams/cohere.sse"),
    ),
    (
        Dialect::Ollama,
        "Ollama",
        "ollama-chat",
        include_bytes!("../../../broker/tests/fixtures/streams/ollama.ndjson"),
    ),
    (
        Dialect::VercelUi,
        "Vercel UI",
        "vercel-ui",
        include_bytes!("../../../broker/tests/fixtures/streams/vercel_ui.sse"),
    ),
];

/// What stands beside a recording.
#[derive(Deserialize)]
struct Sidecar {
    wire_format: Option<String>,
    file: Option<String>,
}

pub(super) fn all(corpus: Option<&Path>) -> anyhow::Result<Vec<Turns>> {
    let recorded = corpus.map(recordings).transpose()?.unwrap_or_default();
    let turns = DIALECTS.map(|(dialect, name, format, fixture)| {
        let of_dialect = recorded.iter().filter(|(of, _)| of == format);
        let texts: Vec<Vec<u8>> = of_dialect.map(|(_, text)| text.clone()).collect();
        let (source, texts) = if texts.is_empty() {
            (Source::Fixture, vec![fixture.to_vec()])
        } else {
            (Source::Recorded, texts)
        };
        Turns {
            dialect,
            name,
            source,
            texts,
        }
    });
    Ok(turns.into())
}

/// The bytes that servers sent, each with the name of its format.
fn recordings(corpus: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let folder = corpus.join("streams");
    let entries = std::fs::read_dir(&folder)
        .with_context(|| format!("cannot read the recordings in {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let sidecar: Sidecar = serde_json::from_slice(&std::fs::read(&path)?)
            .with_context(|| format!("{} is no sidecar", path.display()))?;
        if let Sidecar {
            wire_format: Some(format),
            file: Some(file),
        } = sidecar
        {
            found.push((format, std::fs::read(path.with_file_name(file))?));
        }
    }
    Ok(found)
}

/// A text cut behind each of its events.
pub(super) fn events(text: &[u8]) -> Vec<&[u8]> {
    let mut events = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (event, after) = rest.split_at(end(rest).unwrap_or(rest.len()));
        events.push(event);
        rest = after;
    }
    events
}

/// Behind the first event: a frame of AWS by its length, a line that is an object, or lines up to a blank one.
fn end(text: &[u8]) -> Option<usize> {
    if let [0, ..] = text {
        let length = u32::from_be_bytes(*text.first_chunk()?);
        return usize::try_from(length)
            .ok()
            .filter(|end| *end <= text.len());
    }
    let line = |from: usize| {
        let end = text[from..].iter().position(|byte| *byte == b'\n');
        end.map(|end| from + end + 1)
    };
    let mut end = line(0)?;
    if let b'{' | b'[' | b',' = text[0] {
        return Some(end);
    }
    loop {
        let next = line(end)?;
        if text[end..next].trim_ascii().is_empty() {
            return Some(next);
        }
        end = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_behind_its_events() {
        let cut = |text: &'static [u8]| {
            events(text)
                .iter()
                .map(|event| event.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(b"data: 1\n\ndata: 2\r\n\r\ndata: 3"), [9, 11, 7]);
        assert_eq!(cut(b"{}\n{}\n"), [3, 3]);
        assert_eq!(cut(b"\0\0\0\x05a\0\0\0\x04\0\0"), [5, 4, 2]);
    }
}
