//! What else a chunk may hold, and in which words.

use super::{Chat, calls, chat, check};
use crate::ingest::dialect::Kind;

#[test]
fn arguments_may_be_an_object_and_come_without_change() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":{"n": 12345678901234567890, "d":1.0,"d":2}}}"#)
        .finish("tool_calls");
    check(
        &chat,
        &[r#"a f {"n": 12345678901234567890, "d":1.0,"d":2}"#],
    );
}

#[test]
fn no_arguments_in_any_words_are_an_empty_object() {
    for arguments in [
        r#""function":{"name":"f"}"#,
        r#""function":{"name":"f","arguments":null}"#,
        r#""function":{"name":"f","arguments":""}"#,
        r#""function":{"name":"f","arguments":" \n"}"#,
        r#""function":{"name":"f","arguments":"null"}"#,
        r#""function":{"name":"f","arguments":"{}"}"#,
    ] {
        let chat = chat()
            .calls(&format!(r#"{{"index":0,"id":"a",{arguments}}}"#))
            .finish("tool_calls");
        check(&chat, &["a f {}"]);
    }
}

#[test]
fn a_character_may_be_cut_in_two_between_fragments() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":\"\ud83d"}}"#)
        .calls(r#"{"index":0,"function":{"arguments":"\ude00\"}"}}"#)
        .calls(r#"{"index":1,"id":"b","function":{"arguments":"{\"x\":\"\ud83d"}}"#)
        .calls(r#"{"index":1,"function":{"name":"f","arguments":"\ude01\"}"}}"#)
        .finish("tool_calls");
    check(&chat, &[r#"a f {"x":"😀"}"#, r#"b f {"x":"😁"}"#]);

    let half = self::chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":\"\ud83d"}}"#)
        .calls(r#"{"index":0,"function":{"arguments":"\"}"}}"#)
        .finish("tool_calls");
    assert_eq!(calls(&half.read()), [""; 0]);
}

#[test]
fn a_thought_signature_goes_with_its_call() {
    let chat = chat()
        .calls(r#"{"id":"","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}},{"function":{"name":"g","arguments":"{}"},"extra_content":"other"}"#)
        .finish("stop");
    let (_, turn) = chat.steps();
    let signatures: Vec<_> = (turn.calls.iter())
        .map(|call| call.signature.as_deref())
        .collect();
    assert_eq!(signatures, [Some("c2ln"), None]);
}

#[test]
fn the_deprecated_function_call_has_no_id() {
    let chat = chat()
        .delta(r#"{"function_call":{"name":"f","arguments":""}}"#)
        .delta(r#"{"function_call":{"name":"f","arguments":"{\"x\":1}"}}"#)
        .delta(r#"{"function_call":{"arguments":" "}}"#)
        .finish("function_call");
    let (_, turn) = chat.steps();
    assert_eq!(turn.calls[0].kind, Kind::LegacyFunction);
    check(&chat, &[r#"- f {"x":1} "#]);
}

#[test]
fn what_has_no_calls_is_passed_over() {
    let chat = Chat::default()
        .raw(r#"{"choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#)
        .raw(r#"{"choices":null,"error":null}"#)
        .raw(r#"{"id":"x"}"#)
        .raw(r#"{"choices":[null,{"index":0,"delta":null}]}"#)
        .delta(r#"{"content":[{"type":"text","text":"a \ud83d b"}],"tool_calls":null,"function_call":null}"#)
        .delta(r#"{"tool_calls":[],"reasoning_details":[{"type":"x"}],"index":0}"#)
        .calls(r#"null,{"index":0,"id":"a","function":null},{"index":0,"function":{"name":"f"}}"#)
        .raw(r#"{"choices":[{"delta":{"content":"x"},"stop_reason":154}]}"#)
        .choice(0, "{}", r#""""#)
        .finish("tool_calls")
        .raw(r#"{"choices":[],"usage":{"total_tokens":9}}"#)
        .done();
    check(&chat, &["a f {}"]);
}

#[test]
fn a_whole_message_is_read_like_a_delta() {
    let whole = r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},"finish_reason":"tool_calls"}]}"#;
    check(&Chat::default().raw(whole), &[r#"a f {"x":1}"#]);
}

#[test]
fn a_keep_alive_that_is_no_json_harms_nothing() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}"#)
        .raw("ping")
        .calls(r#"{"index":0,"function":{"arguments":":1}"}}"#)
        .finish("tool_calls");
    check(&chat, &[r#"a f {"x":1}"#]);
}
