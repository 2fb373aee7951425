//! What the providers' formats, of streams and of tools, are called at the prompt and in recordings.

use clap::ValueEnum;
use serde::Deserialize;
use toolpool_broker::decode;

/// A provider's format.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Dialect {
    /// The stream tells by itself
    #[default]
    Auto,
    /// Anthropic Messages, also over Vertex AI and Bedrock's `InvokeModelWithResponseStream`
    Anthropic,
    /// OpenAI Chat Completions, and the servers that speak it
    Openai,
    /// OpenAI Responses
    Responses,
    /// Gemini `generateContent`
    Gemini,
    /// Amazon Bedrock Converse
    Bedrock,
    /// Cohere v2 chat
    Cohere,
    /// Ollama /api/chat
    Ollama,
    /// The UI message stream of the Vercel AI SDK
    Vercel,
}

impl Dialect {
    pub(crate) fn to_wire(self) -> toolpool_client::Dialect {
        use toolpool_client::Dialect as Wire;
        match self {
            Self::Auto => Wire::Auto,
            Self::Anthropic => Wire::Anthropic,
            Self::Openai => Wire::OpenaiChat,
            Self::Responses => Wire::OpenaiResponses,
            Self::Gemini => Wire::Gemini,
            Self::Bedrock => Wire::Bedrock,
            Self::Cohere => Wire::Cohere,
            Self::Ollama => Wire::Ollama,
            Self::Vercel => Wire::VercelUi,
        }
    }

    /// `None`: the stream is to tell.
    pub(super) fn to_decoder(self) -> Option<decode::Dialect> {
        Some(match self {
            Self::Auto => return None,
            Self::Anthropic => decode::Dialect::Anthropic,
            Self::Openai => decode::Dialect::OpenAiChat,
            Self::Responses => decode::Dialect::OpenAiResponses,
            Self::Gemini => decode::Dialect::Gemini,
            Self::Bedrock => decode::Dialect::Bedrock,
            Self::Cohere => decode::Dialect::Cohere,
            Self::Ollama => decode::Dialect::Ollama,
            Self::Vercel => decode::Dialect::VercelUi,
        })
    }
}
