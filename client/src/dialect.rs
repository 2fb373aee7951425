//! Providers' formats.

use toolpool_proto::v1;

/// The format that a provider's API speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// Whatever a stream turns out to be. For streams only.
    Auto,
    /// Anthropic Messages; over Vertex AI and Bedrock's `InvokeModelWithResponseStream` too.
    Anthropic,
    /// `OpenAI` Chat Completions, and every server that speaks it.
    OpenAiChat,
    /// `OpenAI` Responses.
    OpenAiResponses,
    /// Gemini `streamGenerateContent`.
    Gemini,
    /// Amazon Bedrock `ConverseStream`.
    Bedrock,
    /// Cohere v2 chat.
    Cohere,
    /// Ollama `/api/chat`.
    Ollama,
    /// The UI message stream of the Vercel AI SDK. For streams only.
    VercelUi,
}

impl From<Dialect> for v1::Dialect {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Auto => Self::Auto,
            Dialect::Anthropic => Self::Anthropic,
            Dialect::OpenAiChat => Self::OpenaiChat,
            Dialect::OpenAiResponses => Self::OpenaiResponses,
            Dialect::Gemini => Self::Gemini,
            Dialect::Bedrock => Self::Bedrock,
            Dialect::Cohere => Self::Cohere,
            Dialect::Ollama => Self::Ollama,
            Dialect::VercelUi => Self::VercelUi,
        }
    }
}
