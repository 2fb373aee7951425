//! Recorded turns that a provider accepted the results of. The recordings are no part of this repository; see
//! `tests/recordings.rs`.

#[path = "../../../tests/support/corpus.rs"]
mod corpus;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use corpus::sidecars;

/// An accepted result in our words: what the recorded agent was free to write otherwise, written as we do.
fn in_our_words(dialect: Dialect, call: &Value, mut result: Value) -> Value {
    let single_text = |content: &Value| match content.as_array().map(Vec::as_slice) {
        Some([part]) if part["type"] == "text" => part["text"].clone(),
        _ => content.clone(),
    };
    match dialect {
        Dialect::Anthropic => {
            result["content"] = single_text(&result["content"]);
            result.as_object_mut().unwrap().remove("cache_control");
        }
        Dialect::Cohere | Dialect::OpenAiChat => {
            result["content"] = single_text(&result["content"]);
        }
        Dialect::Bedrock => {
            let result = result["toolResult"].as_object_mut().unwrap();
            result.remove("status");
        }
        Dialect::Gemini => {
            let response = &mut result["functionResponse"];
            // Ids that the agent made up.
            if call["id"].is_null() {
                response.as_object_mut().unwrap().remove("id");
            }
            for key in ["result", "return_value"] {
                if let Some(value) = response["response"].get(key) {
                    response["response"] = json!({ "output": value });
                }
            }
        }
        Dialect::Ollama => result["tool_call_id"] = call["id"].clone(),
        Dialect::OpenAiResponses | Dialect::VercelUi => {}
    }
    result
}

/// The output that a tool must have given for this result.
fn outcome(dialect: Dialect, result: &Value) -> Output {
    let value = match dialect {
        Dialect::Bedrock => match &result["toolResult"]["content"][0] {
            block if block["json"].is_object() => &block["json"],
            block => &block["text"],
        },
        Dialect::Gemini => {
            let response = &result["functionResponse"]["response"];
            response.get("output").unwrap_or(response)
        }
        Dialect::OpenAiResponses => &result["output"],
        _ => &result["content"],
    };
    let source = &value[0]["source"];
    if source["type"] == "base64" {
        let data = STANDARD.decode(source["data"].as_str().unwrap()).unwrap();
        return output([blob(source["media_type"].as_str().unwrap(), &data)]);
    }
    match value {
        Value::String(said) => output([text(said)]),
        value => output([json(&value.to_string())]),
    }
}

#[test]
fn answers_are_those_that_providers_accepted() {
    let all = sidecars().into_iter();
    for sidecar in all.filter(|sidecar| sidecar.json["accepted_results"].is_array()) {
        let (path, dialect) = (sidecar.path.display(), sidecar.dialect());
        let calls = sidecar.json["calls"].as_array().unwrap();
        let answer = &sidecar.json["accepted_results"];
        let recorded = results(dialect, answer);
        assert_eq!(recorded.len(), calls.len(), "{path}");
        let wanted: Vec<_> = (calls.iter().zip(recorded))
            .map(|(call, result)| in_our_words(dialect, call, result))
            .collect();
        let outcomes: Vec<_> = wanted
            .iter()
            .map(|result| outcome(dialect, result))
            .collect();
        let calls: Vec<_> = (calls.iter().zip(&outcomes))
            .map(|(call, output)| Call {
                id: call["id"].as_str().map_or(Id::Made("made"), Id::Provider),
                name: call["name"].as_str().unwrap(),
                kind: Kind::Function,
                caller: None,
                ending: Ok(output),
            })
            .collect();
        let ours = answered(dialect, &calls);
        assert_eq!(results(dialect, &ours), wanted, "{path}");
        assert_eq!(ours[0]["role"], answer[0]["role"], "{path}");
    }
}
