//! An agent that pipes its provider's own stream: how it opens, and events as providers write them.

use serde_json::{Value, json};
use toolpool_proto::v1;
use v1::{Dialect, DropReason, Owner};

/// A batch of a provider's stream.
pub(crate) fn piped(dialect: Dialect) -> v1::Open {
    v1::Open {
        dialect: Some(dialect.into()),
        ..Default::default()
    }
}

/// Events of Anthropic Messages.
pub(crate) mod anthropic {
    use super::{Value, json};

    pub(crate) fn message_start() -> Value {
        json!({"type": "message_start", "message": {"role": "assistant", "content": []}})
    }

    pub(crate) fn start(index: u32, id: &str, name: &str) -> Value {
        let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        json!({"type": "content_block_start", "index": index, "content_block": block})
    }

    pub(crate) fn delta(index: u32, text: &str) -> Value {
        let delta = json!({"type": "input_json_delta", "partial_json": text});
        json!({"type": "content_block_delta", "index": index, "delta": delta})
    }

    pub(crate) fn stop(index: u32) -> Value {
        json!({"type": "content_block_stop", "index": index})
    }

    /// A call whose block is still open.
    pub(crate) fn begun(index: u32, id: &str, name: &str, text: &str) -> [Value; 2] {
        [start(index, id, name), delta(index, text)]
    }

    pub(crate) fn call(index: u32, id: &str, name: &str) -> [Value; 3] {
        call_with(index, id, name, r#"{"q": 1}"#)
    }

    pub(crate) fn call_with(index: u32, id: &str, name: &str, text: &str) -> [Value; 3] {
        [start(index, id, name), delta(index, text), stop(index)]
    }

    pub(crate) fn end(reason: &str) -> [Value; 2] {
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": reason}});
        [delta, json!({"type": "message_stop"})]
    }
}

/// Chunks of OpenAI Chat Completions.
pub(crate) mod chat {
    use super::{Value, json};

    pub(crate) fn start(index: u32, id: &str, name: &str) -> Value {
        let call = json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}});
        chunk(&json!({"tool_calls": [call]}), None)
    }

    pub(crate) fn delta(index: u32, text: &str) -> Value {
        let call = json!({"index": index, "function": {"arguments": text}});
        chunk(&json!({"tool_calls": [call]}), None)
    }

    /// A call whose text is so far.
    pub(crate) fn begun(index: u32, id: &str, name: &str, text: &str) -> [Value; 2] {
        [start(index, id, name), delta(index, text)]
    }

    pub(crate) fn finish(reason: &str) -> Value {
        chunk(&json!({}), Some(reason))
    }

    fn chunk(delta: &Value, reason: Option<&str>) -> Value {
        json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    }
}

/// Events as the body of a response.
pub(crate) fn sse(events: &[Value]) -> String {
    let mut text = String::new();
    for event in events {
        text.extend(["data: ", &event.to_string(), "\n\n"]);
    }
    text
}

/// The calls that are not the broker's: the provider's id, the tool's name, the place, and whose it is.
pub(crate) fn not_ours(turn: &v1::Turn) -> Vec<(&str, &str, u32, Owner)> {
    turn.not_ours
        .iter()
        .map(|call| (call.provider_id(), &*call.tool, call.position, call.owner()))
        .collect()
}

/// The ids in an answer, wherever its format has them; empty where a result has none.
pub(crate) fn answered_ids(answer: &Value) -> Vec<&str> {
    let message = &answer[0];
    let results = [&message["content"], &message["parts"], answer];
    let results = results.iter().find_map(|list| list.as_array()).unwrap();
    results.iter().map(id_of).collect()
}

fn id_of(result: &Value) -> &str {
    let bedrock = &result["toolResult"]["toolUseId"];
    let gemini = &result["functionResponse"]["id"];
    let names = ["tool_use_id", "tool_call_id", "call_id", "toolCallId"];
    let ids = names.iter().map(|name| &result[*name]);
    let mut ids = ids.chain([bedrock, gemini]);
    ids.find_map(Value::as_str).unwrap_or_default()
}

/// The calls that were dropped, and why.
pub(crate) fn dropped(turn: &v1::Turn) -> Vec<(&str, DropReason)> {
    turn.dropped
        .iter()
        .map(|call| (&*call.id, call.reason()))
        .collect()
}
