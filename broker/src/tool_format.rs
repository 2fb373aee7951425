//! The catalogue as a provider's `tools` value. Plain code.
//!
//! What a provider does not permit in a name, a description or a schema is changed, since one bad tool has the whole
//! request refused. A tool is declared from its own definition alone: whatever else is in the catalogue, its text stays
//! the same, and with it the provider's prompt cache.

mod description;
mod json;
mod name;
mod schema;

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use crate::catalogue::Definition;
use crate::ingest::dialect::Dialect;
use json::Json;

pub(crate) use name::aliases;

/// A provider's format for tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Anthropic Messages.
    Anthropic,
    /// `OpenAI` Chat Completions.
    OpenAiChat,
    /// `OpenAI` Responses.
    OpenAiResponses,
    /// Gemini `generateContent`.
    Gemini,
    /// Amazon Bedrock Converse: the value of `toolConfig.tools`.
    Bedrock,
    /// Cohere v2 chat.
    Cohere,
    /// Ollama `/api/chat`.
    Ollama,
}

/// A tool as it is declared to a model.
#[derive(Debug)]
pub(crate) struct Declared {
    /// What the model knows it by.
    pub(crate) name: String,
    /// What was left out or changed, as `path: what`.
    pub(crate) changes: Vec<String>,
    /// One element of the list.
    json: Vec<u8>,
}

impl Declared {
    /// About what it has on the wire.
    pub(crate) fn about_bytes(&self) -> usize {
        let changes = self.changes.iter().map(String::len);
        self.json.len() + self.name.len() + changes.sum::<usize>()
    }
}

impl Format {
    /// The format of the tools that such a stream's calls are of.
    pub(crate) fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Anthropic => Self::Anthropic,
            // Any provider may be behind a UI: what all of them permit.
            Dialect::OpenAiChat | Dialect::VercelUi => Self::OpenAiChat,
            Dialect::OpenAiResponses => Self::OpenAiResponses,
            Dialect::Gemini => Self::Gemini,
            Dialect::Bedrock => Self::Bedrock,
            Dialect::Cohere => Self::Cohere,
            Dialect::Ollama => Self::Ollama,
        }
    }

    /// The tool in this format.
    pub(crate) fn declare(self, tool: &Definition) -> Declared {
        let name = self.name_of(&tool.name);
        let (parameters, mut changes) = schema::adapt(self, &tool.input_schema);
        let mut description = Some(&*tool.description).filter(|text| !text.trim().is_empty());
        let clipped = description.and_then(|text| description::clip(self, text));
        if let Some(clipped) = &clipped {
            description = Some(&clipped.text);
            changes.insert(0, clipped.change.clone());
        }
        let function = Function {
            name: &name,
            description,
            parameters: &parameters,
        };
        // A vector takes all that is written to it, and every key is a string.
        let json = self.element(function).unwrap_or_default();
        Declared {
            name: name.into_owned(),
            changes,
            json,
        }
    }

    /// What a model knows a tool of this name by.
    pub(crate) fn name_of(self, tool: &str) -> Cow<'_, str> {
        name::Rule::of(self).apply(tool)
    }

    /// The whole value.
    pub(crate) fn list(self, tools: &[Declared]) -> Bytes {
        if tools.is_empty() {
            return Bytes::from_static(b"[]");
        }
        let (open, close) = match self {
            // All functions in one tool: several are refused (`Multiple tools are supported only when they are all search
            // tools`), or all but one are passed over.
            Self::Gemini => (r#"[{"functionDeclarations":["#, "]}]"),
            _ => ("[", "]"),
        };
        let bytes: usize = tools.iter().map(|tool| tool.json.len() + 1).sum();
        let mut out = Vec::with_capacity(open.len() + bytes + close.len());
        out.extend_from_slice(open.as_bytes());
        for (at, tool) in tools.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&tool.json);
        }
        out.extend_from_slice(close.as_bytes());
        Bytes::from(out)
    }

    fn element(self, function: Function<'_>) -> serde_json::Result<Vec<u8>> {
        let Function {
            name,
            description,
            parameters,
        } = function;
        match self {
            Self::Anthropic => serde_json::to_vec(&Anthropic {
                name,
                description,
                input_schema: parameters,
            }),
            Self::OpenAiChat | Self::Cohere | Self::Ollama => serde_json::to_vec(&Chat {
                kind: "function",
                function,
            }),
            Self::OpenAiResponses => serde_json::to_vec(&Responses {
                kind: "function",
                function,
                strict: false,
            }),
            Self::Gemini => serde_json::to_vec(&Gemini {
                name,
                description,
                parameters_json_schema: parameters,
            }),
            Self::Bedrock => serde_json::to_vec(&Bedrock {
                tool_spec: ToolSpec {
                    name,
                    description,
                    input_schema: InputSchema { json: parameters },
                },
            }),
        }
    }
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    /// Bedrock refuses an empty one; nobody asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters: &'a Json,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: &'a Json,
}

#[derive(Serialize)]
struct Chat<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Responses<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    function: Function<'a>,
    /// Absent is taken for true here, which permits far less of JSON Schema.
    strict: bool,
}

/// `parametersJsonSchema` takes JSON Schema; the older `parameters` takes a part of what `OpenAPI` has, and refuses what
/// it does not know (`Unknown name "const": Cannot find field`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gemini<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    parameters_json_schema: &'a Json,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bedrock<'a> {
    tool_spec: ToolSpec<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolSpec<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    input_schema: InputSchema<'a>,
}

#[derive(Serialize)]
struct InputSchema<'a> {
    json: &'a Json,
}

#[cfg(test)]
mod tests;
