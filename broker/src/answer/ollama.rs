//! Ollama `/api/chat`: one `tool` message for each call, joined by the tool's name and the order.
//!
//! Newer servers give ids and take them back; to others they mean nothing. There is no mark for an error.

use serde::Serialize;

use super::Call;
use super::text::Text;

#[derive(Serialize)]
#[serde(tag = "role", rename = "tool")]
pub(super) struct Message<'a> {
    tool_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
    content: Text<'a>,
}

pub(super) fn message<'a>(call: &Call<'a>) -> Message<'a> {
    Message {
        tool_name: call.name,
        tool_call_id: call.id.providers(),
        content: Text::marked(call.ending),
    }
}
