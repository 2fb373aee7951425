//! The UI message stream of the Vercel AI SDK: the stream's next parts, one for each call.
//!
//! `output` is any JSON. What an SDK shows the model of it is its text, so bytes are noted and not encoded.

use serde::Serialize;

use super::Call;
use super::piece::{Value, pieces};
use super::text::Text;

#[derive(Serialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub(super) enum Part<'a> {
    ToolOutputAvailable {
        tool_call_id: &'a str,
        output: Value<'a>,
    },
    ToolOutputError {
        tool_call_id: &'a str,
        error_text: Text<'a>,
    },
}

pub(super) fn part<'a>(call: &Call<'a>) -> Part<'a> {
    let tool_call_id = call.id.text();
    match call.ending {
        Ok(output) => Part::ToolOutputAvailable {
            tool_call_id,
            output: pieces(output).map(Value::from).collect(),
        },
        Err(error) => Part::ToolOutputError {
            tool_call_id,
            error_text: Text::of_error(error),
        },
    }
}
