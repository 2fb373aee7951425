//! What holds for every dialect; each one's own rules are tested beside it and on recordings in `tests/recordings.rs`.

use super::*;

/// The error of a turn that has one event, and the calls that began in it.
fn one_event(dialect: Dialect, event: &str) -> (String, usize) {
    let limits = Limits {
        event_bytes: 1 << 20,
        arguments_bytes: 100,
        calls: 1_000,
    };
    let mut turn = ProviderTurn::new(Some(dialect), Vec::new(), limits, 0);
    turn.event(event.as_bytes(), &mut Vec::new());
    let turn = turn.into_turn();
    (turn.error.unwrap_or_default(), turn.calls.len())
}

#[test]
fn an_event_with_endless_lists_ends_the_turn() {
    for (dialect, event) in [
        (
            Dialect::OpenAiChat,
            r#"{"choices":[{"delta":{"tool_calls":[LIST]}}]}"#,
        ),
        (Dialect::Ollama, r#"{"message":{"tool_calls":[LIST]}}"#),
        (
            Dialect::Gemini,
            r#"{"candidates":[{"content":{"parts":[LIST]}}]}"#,
        ),
        (
            Dialect::Anthropic,
            r#"{"type":"message_start","message":{"content":[LIST]}}"#,
        ),
        (
            Dialect::OpenAiResponses,
            r#"{"type":"response.completed","response":{"output":[LIST]}}"#,
        ),
    ] {
        for (elements, ends) in [(10_000, false), (20_000, true)] {
            let list = vec!["{}"; elements].join(",");
            let (error, _) = one_event(dialect, &event.replace("LIST", &list));
            assert_eq!(error.contains("too long"), ends, "{dialect:?}: {error}");
        }
    }
}

#[test]
fn a_list_is_no_object_though_it_has_the_fields_in_their_order() {
    for (dialect, object, list) in [
        (
            Dialect::Anthropic,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"i","name":"n","input":{},"caller":null}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":["tool_use","i","n",{},null]}"#,
        ),
        (
            Dialect::OpenAiChat,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"i","function":{"name":"n","arguments":""}}]}}]}"#,
            r#"{"choices":[[0,[[[0,"i",["","n",""],null]],null],null]]}"#,
        ),
        (
            Dialect::OpenAiResponses,
            r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"i","name":"n"}}"#,
            r#"{"type":"response.output_item.added","output_index":0,"item":["function_call",null,null,"n",null,null,null,null,null,null]}"#,
        ),
        (
            Dialect::Gemini,
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"n"}}]}}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"functionCall":[null,"n",null,[],null]}]}}]}"#,
        ),
        (
            Dialect::Bedrock,
            r#"{"contentBlockStart":{"contentBlockIndex":0,"start":{"toolUse":{"toolUseId":"i","name":"n"}}}}"#,
            r#"{"contentBlockStart":[0,[["i","n",null]],null,null]}"#,
        ),
        (
            Dialect::Cohere,
            r#"{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"i","function":{"name":"n"}}}}}"#,
            r#"{"type":"tool-call-start","index":0,"delta":[[["i",["n",null]]],null,null]}"#,
        ),
        (
            Dialect::Ollama,
            r#"{"message":{"tool_calls":[{"function":{"name":"n"}}]}}"#,
            r#"{"message":{"tool_calls":[["i",[0,"n",null]]]}}"#,
        ),
        (
            Dialect::VercelUi,
            r#"{"type":"tool-input-start","toolCallId":"i","toolName":"n"}"#,
            r#"["tool-input-start","i","n",null,null,null,null]"#,
        ),
    ] {
        assert_eq!(one_event(dialect, object), (String::new(), 1), "{object}");
        assert_eq!(one_event(dialect, list), (String::new(), 0), "{list}");
    }
}
