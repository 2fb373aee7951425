//! Which call a delta belongs to: ids, names, indexes.

use super::{Chat, calls, chat, check};

#[test]
fn fragments_of_several_calls_may_interleave() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}"#)
        .calls(r#"{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":"{\"y\""}}"#)
        .calls(r#"{"index":0,"function":{"arguments":"{\"x\":1}"}},{"index":1,"function":{"arguments":":2}"}}"#)
        .finish("tool_calls");
    check(&chat, &[r#"a f {"x":1}"#, r#"b g {"y":2}"#]);
}

#[test]
fn a_name_with_another_id_begins_a_call_though_every_index_is_0() {
    let whole = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}},{"index":0,"id":"b","function":{"name":"f","arguments":"{\"x\":2}"}}"#)
        .finish("tool_calls");
    check(&whole, &[r#"a f {"x":1}"#, r#"b f {"x":2}"#]);

    let streamed = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#)
        .calls(r#"{"index":0,"id":"","function":{"arguments":"{\"x\":1}"}}"#)
        .calls(r#"{"index":0,"id":"b","function":{"name":"g","arguments":""}}"#)
        .calls(r#"{"index":0,"id":"","function":{"arguments":"{\"x\":2}"}}"#)
        .finish("tool_calls");
    check(&streamed, &[r#"a f {"x":1}"#, r#"b g {"x":2}"#]);
}

#[test]
fn another_id_without_a_name_is_the_same_call() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"functions.f:0","function":{"name":"f","arguments":"{\"x\""}}"#)
        .calls(r#"{"index":0,"id":"tool-1","function":{"name":null,"arguments":":"}}"#)
        .calls(r#"{"index":0,"id":"tool-2","function":{"name":"","arguments":"1}"}}"#)
        .finish("tool_calls");
    check(&chat, &[r#"functions.f:0 f {"x":1}"#]);
}

#[test]
fn without_any_id_a_name_after_whole_text_begins_a_call() {
    for first in [r#"{\"x\":1}"#, "{}", "null"] {
        let chat = chat()
            .calls(&format!(
                r#"{{"index":0,"function":{{"name":"f","arguments":"{first}"}}}}"#
            ))
            .calls(r#"{"index":0,"function":{"name":"f","arguments":"{\"x\""}}"#)
            .calls(r#"{"index":0,"function":{"name":"f","arguments":":2}"}}"#)
            .calls(r#"{"index":0,"function":{"name":"g","arguments":""}}"#)
            .finish("tool_calls");
        let first = match first {
            "null" => "- f {}".to_owned(),
            text => format!("- f {}", text.replace('\\', "")),
        };
        check(&chat, &[&first, r#"- f {"x":2}"#, "- g {}"]);
    }
}

#[test]
fn a_name_said_again_is_no_call_until_text_follows() {
    let whole = chat().calls(r#"{"index":0,"function":{"name":"f","arguments":"{\"x\":1}"}}"#);
    let again = whole.calls(r#"{"index":0,"function":{"name":"f","arguments":""}}"#);
    let ended = Chat(again.0.clone()).finish("stop");
    check(&ended, &[r#"- f {"x":1}"#]);

    let text = again
        .calls(r#"{"index":0,"function":{"arguments":"{\"x\":2}"}}"#)
        .finish("stop");
    check(&text, &[r#"- f {"x":1}"#, r#"- f {"x":2}"#]);
}

#[test]
fn without_an_index_ids_and_names_tell() {
    let by_id = chat()
        .calls(r#"{"id":"a","function":{"name":"f","arguments":"{\"x\""}},{"id":"b","function":{"name":"f","arguments":"{\"y\""}}"#)
        .calls(r#"{"id":"a","function":{"arguments":":1}"}},{"id":"b","function":{"name":"f","arguments":":2}"}}"#)
        .finish("tool_calls");
    check(&by_id, &[r#"a f {"x":1}"#, r#"b f {"y":2}"#]);

    let by_name = chat()
        .calls(r#"{"id":"","function":{"name":"f","arguments":"{\"x\":1}"}}"#)
        .calls(r#"{"id":"","function":{"name":"f","arguments":"{\"x\":1}"}}"#)
        .finish("stop");
    check(&by_name, &[r#"- f {"x":1}"#, r#"- f {"x":1}"#]);

    let the_last = chat()
        .calls(r#"{"id":"a","function":{"name":"f","arguments":""}}"#)
        .calls(r#"{"id":"b","function":{"name":"g"}}"#)
        .calls(r#"{"function":{"arguments":"{\"y\":2}"}}"#)
        .finish("tool_calls");
    check(&the_last, &["a f {}", r#"b g {"y":2}"#]);
}

#[test]
fn two_calls_with_one_id_are_two_where_the_index_says_so() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#)
        .calls(r#"{"index":1,"id":"a","function":{"name":"f","arguments":"{\"x\":2}"}}"#)
        .finish("tool_calls");
    check(&chat, &[r#"a f {"x":1}"#, r#"a f {"x":2}"#]);
}

#[test]
fn choices_have_calls_of_their_own_even_with_equal_ids() {
    let call = |text: &str| {
        format!(
            r#"{{"tool_calls":[{{"index":0,"id":"a","function":{{"name":"f","arguments":"{text}"}}}}]}}"#
        )
    };
    let both = Chat::default()
        .choice(0, &call(r#"{\"x\""#), "null")
        .choice(1, &call(r#"{\"x\""#), "null")
        .choice(1, &call(":2}"), "null")
        .choice(0, &call(":1}"), "null");
    let one_ended = Chat(both.0.clone()).choice(0, "{}", r#""tool_calls""#);
    let decoded = one_ended.read();
    assert_eq!(calls(&decoded), [r#"a f {"x":1}"#]);
    assert!(!decoded.complete);

    let both = both
        .choice(0, "{}", r#""tool_calls""#)
        .choice(0, "{}", r#""tool_calls""#)
        .choice(1, "{}", r#""stop""#);
    check(&both, &[r#"a f {"x":1}"#, r#"a f {"x":2}"#]);
}

#[test]
fn ids_and_names_on_every_delta_count_once() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}"#)
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":":1}"}}"#)
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#)
        .finish("tool_calls");
    check(&chat, &[r#"a f {"x":1}"#]);
}

#[test]
fn an_empty_id_and_the_text_null_are_none() {
    for none in [r#""""#, "null", r#""null""#] {
        let chat = chat()
            .calls(r#"{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}}"#)
            .calls(&format!(
                r#"{{"index":0,"id":{none},"type":null,"function":{{"name":"","arguments":":1}}"}}}}"#
            ))
            .calls(&format!(
                r#"{{"index":0,"id":{none},"type":"","function":{{"name":null,"arguments":null}}}}"#
            ))
            .finish("tool_calls");
        check(&chat, &[r#"a f {"x":1}"#]);
    }
}

#[test]
fn the_id_may_stand_inside_the_function() {
    let chat = chat()
        .calls(r#"{"index":0,"function":{"id":"a","name":"f","arguments":"{\"x\""}}"#)
        .calls(r#"{"index":0,"function":{"id":"a","name":"f","arguments":":1}"}}"#)
        .calls(r#"{"index":1,"function":{"id":"b","name":"f","arguments":"{}"}}"#)
        .finish("tool_calls");
    check(&chat, &[r#"a f {"x":1}"#, "b f {}"]);
}

#[test]
fn an_id_may_come_after_the_name() {
    let chat = chat()
        .calls(r#"{"index":0,"function":{"name":"f","arguments":"{\"x\""}}"#)
        .calls(r#"{"index":0,"id":"a","function":{"arguments":":1}"}}"#)
        .calls(r#"{"index":0,"id":"b"}"#)
        .finish("tool_calls");
    check(&chat, &[r#"a f {"x":1}"#]);
}

#[test]
fn text_may_come_before_the_name() {
    for (index, id) in [
        (r#""index":0,"#, r#""id":"a","#),
        (r#""index":null,"#, r#""id":"","#),
    ] {
        let chat = chat()
            .calls(&format!(
                r#"{{{index}{id}"function":{{"arguments":"{{\"x\""}}}}"#
            ))
            .calls(&format!(
                r#"{{{index}"function":{{"name":"f","arguments":":1}}"}}}}"#
            ))
            .finish("tool_calls");
        let id = if id.contains('a') { "a" } else { "-" };
        check(&chat, &[&format!(r#"{id} f {{"x":1}}"#)]);
    }
}

#[test]
fn a_call_whose_text_came_first_keeps_its_place() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"a","function":{"arguments":"{}"}}"#)
        .calls(r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}"#)
        .calls(r#"{"index":0,"function":{"name":"f"}}"#)
        .finish("tool_calls");
    check(&chat, &["a f {}", "b g {}"]);
}

#[test]
fn a_call_without_a_name_is_none() {
    let chat = chat()
        .calls(r#"{"index":0,"id":"a","function":{"arguments":"{\"x\":1}"}}"#)
        .calls(r#"{"index":1}"#)
        .calls(r#"{"index":2,"id":"c","type":"custom","custom":{"name":"f","input":"text"}}"#)
        .finish("tool_calls");
    check(&chat, &[]);
}

#[test]
fn a_call_in_both_forms_is_one() {
    let chat = chat()
        .delta(r#"{"function_call":{"name":"f","arguments":"{}"},"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}"#)
        .finish("tool_calls");
    check(&chat, &["a f {}"]);
}
