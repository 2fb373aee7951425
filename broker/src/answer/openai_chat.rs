//! OpenAI Chat Completions: one `tool` message for each call.
//!
//! The content is a string and not a list of parts: every server that speaks this format takes a string. It carries
//! nothing but text and has no mark for an error.

use serde::Serialize;

use super::Call;
use super::text::Text;
use crate::ingest::dialect::Kind;

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub(super) enum Message<'a> {
    Tool {
        tool_call_id: &'a str,
        content: Text<'a>,
    },
    /// The answer to the deprecated `function_call`, which has no id.
    Function { name: &'a str, content: Text<'a> },
}

pub(super) fn message<'a>(call: &Call<'a>) -> Message<'a> {
    let content = Text::marked(call.ending);
    match call.kind {
        Kind::Function | Kind::Custom => Message::Tool {
            tool_call_id: call.id.text(),
            content,
        },
        Kind::LegacyFunction => Message::Function {
            name: call.name,
            content,
        },
    }
}
