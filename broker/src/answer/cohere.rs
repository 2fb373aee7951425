//! Cohere v2 chat: one `tool` message for each call, its content a string. There is no mark for an error.

use serde::Serialize;

use super::Call;
use super::text::Text;

#[derive(Serialize)]
#[serde(tag = "role", rename = "tool")]
pub(super) struct Message<'a> {
    tool_call_id: &'a str,
    content: Text<'a>,
}

pub(super) fn message<'a>(call: &Call<'a>) -> Message<'a> {
    Message {
        tool_call_id: call.id.text(),
        content: Text::marked(call.ending),
    }
}
