//! The turns of `fixtures/streams`, one of each dialect.

use toolpool_broker::decode::Dialect;

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
