use super::super::{Dialect, Kind, Limits, ProviderTurn, Turn};
use crate::decode::{Decoded, Decoder};
use crate::ingest::Input;

const MOST: usize = 4096;

/// A stream of one choice, unless it is told otherwise.
#[derive(Default)]
struct Chat(Vec<String>);

impl Chat {
    fn raw(mut self, event: &str) -> Self {
        self.0.push(event.to_owned());
        self
    }

    fn choice(self, index: usize, delta: &str, reason: &str) -> Self {
        self.raw(&format!(
            r#"{{"id":"c","object":"chat.completion.chunk","choices":[{{"index":{index},"delta":{delta},"finish_reason":{reason}}}],"usage":null}}"#
        ))
    }

    fn delta(self, delta: &str) -> Self {
        self.choice(0, delta, "null")
    }

    /// The entries of a `tool_calls` list.
    fn calls(self, entries: &str) -> Self {
        self.delta(&format!(r#"{{"tool_calls":[{entries}]}}"#))
    }

    fn finish(self, reason: &str) -> Self {
        self.choice(0, "{}", &format!(r#""{reason}""#))
    }

    fn done(self) -> Self {
        self.raw("[DONE]")
    }

    fn read(&self) -> Decoded {
        let mut decoder = Decoder::new(Some(Dialect::OpenAiChat), MOST);
        for event in &self.0 {
            decoder.event(event.as_bytes());
        }
        decoder.finish()
    }

    /// The steps that a batch takes.
    fn steps(&self) -> (Vec<String>, Turn) {
        let limits = Limits {
            event_bytes: MOST,
            arguments_bytes: 64,
            calls: 100_000,
        };
        let mut turn = ProviderTurn::new(Some(Dialect::OpenAiChat), Vec::new(), limits, 7);
        let mut inputs = Vec::new();
        for event in &self.0 {
            turn.event(event.as_bytes(), &mut inputs);
        }
        turn.finish(&mut inputs);
        (inputs.iter().map(step).collect(), turn.into_turn())
    }
}

fn step(input: &Input) -> String {
    match input {
        Input::Start { index, header, .. } => format!("{index} {}", header.tool),
        Input::Delta { index, fragment } => {
            format!("{index} + {}", std::str::from_utf8(fragment).unwrap())
        }
        Input::Stop { index } => format!("{index} stop"),
        Input::Early { index } => format!("{index} early"),
        Input::Void { index, why } => format!("{index} void {why:?}"),
        Input::Seal(end) => format!("seal {end:?}"),
        Input::Whole { .. } => "whole".to_owned(),
    }
}

/// One call each line: id, name, arguments.
fn calls(decoded: &Decoded) -> Vec<String> {
    let mut lines = Vec::new();
    for call in &decoded.calls {
        let id = call.id.as_deref().unwrap_or("-");
        let text = std::str::from_utf8(&call.arguments).unwrap();
        lines.push(format!("{id} {} {text}", call.name));
    }
    lines
}

#[track_caller]
fn check(chat: &Chat, wanted: &[&str]) {
    let decoded = chat.read();
    assert_eq!(calls(&decoded), wanted);
    assert!(decoded.complete, "{decoded:?}");
    assert_eq!(decoded.incomplete, [], "{decoded:?}");
}

fn chat() -> Chat {
    Chat::default().delta(r#"{"role":"assistant","content":""}"#)
}

// Which call a delta belongs to.

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
fn one_choice_that_was_cut_cuts_the_turn() {
    let decoded = Chat::default()
        .choice(0, "{}", r#""length""#)
        .choice(1, "{}", "null")
        .choice(1, "{}", r#""stop""#)
        .read();
    // A choice that had not begun when all others had ended is not waited for.
    assert_eq!(decoded.stop_reason.as_deref(), Some("length"));
    let decoded = Chat::default()
        .choice(0, "{}", "null")
        .choice(1, "{}", "null")
        .choice(0, "{}", r#""length""#)
        .choice(1, "{}", r#""stop""#)
        .read();
    assert_eq!(decoded.stop_reason.as_deref(), Some("length"));
    assert!(!decoded.complete && decoded.error.is_none(), "{decoded:?}");
}

// Ids, names and arguments.

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
fn signatures_of_calls_that_have_not_begun_are_limited() {
    let nameless = |index: u32| {
        format!(
            r#"{{"index":{index},"id":"{index}","extra_content":{{"google":{{"thought_signature":"{}"}}}}}}"#,
            "s".repeat(40)
        )
    };
    let named = r#"{"index":0,"id":"0","function":{"name":"f","arguments":"{}"}}"#;
    let one = chat().calls(&nameless(0)).calls(named).finish("stop");
    assert_eq!(one.steps().1.error, None);
    let two = chat()
        .calls(&nameless(0))
        .calls(&nameless(1))
        .finish("stop");
    let error = two.steps().1.error.unwrap();
    assert!(error.contains("max_arguments_bytes"), "{error}");
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
fn a_call_in_both_forms_is_one() {
    let chat = chat()
        .delta(r#"{"function_call":{"name":"f","arguments":"{}"},"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}"#)
        .finish("tool_calls");
    check(&chat, &["a f {}"]);
}

// What else is in a chunk.

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
fn calls_may_come_with_the_finish_reason_which_may_come_twice() {
    let chat = chat()
        .choice(
            0,
            r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}]}"#,
            r#""tool_calls""#,
        )
        .raw(r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"tool_calls"}],"usage":{}}"#);
    check(&chat, &[r#"a f {"x":1}"#]);
}

#[test]
fn an_error_ends_the_turn_and_completes_nothing() {
    let begun =
        || chat().calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#);
    for error in [
        r#"{"error":{"code":"tool_use_failed","failed_generation":"<f>"}}"#,
        r#"{"error":{"code":502},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#,
        r#"{"error":{"code":502},"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    ] {
        let decoded = begun().raw(error).finish("tool_calls").done().read();
        assert_eq!(calls(&decoded), [""; 0], "{error}");
        assert!(decoded.error.is_some() && !decoded.complete, "{error}");
    }
}

// How it ends.

#[test]
fn good_reasons_complete_the_turn_and_all_others_cut_it() {
    let call =
        || chat().calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#);
    for reason in ["tool_calls", "stop", "function_call", "eos"] {
        check(&call().finish(reason), &[r#"a f {"x":1}"#]);
    }
    for reason in [
        "length",
        "content_filter",
        "error",
        "insufficient_system_resource",
        "new",
    ] {
        let decoded = call().finish(reason).read();
        assert_eq!(calls(&decoded), [r#"a f {"x":1}"#], "{reason}");
        assert_eq!(decoded.stop_reason.as_deref(), Some(reason));
        assert!(!decoded.complete, "{reason}");
    }
}

#[test]
fn a_cut_call_is_none_whatever_the_finish_reason() {
    for reason in ["tool_calls", "length"] {
        let decoded = chat()
            .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1"}}"#)
            .finish(reason)
            .read();
        assert_eq!(calls(&decoded), [""; 0], "{reason}");
        assert_eq!(decoded.incomplete.len(), 1, "{reason}");
    }
}

#[test]
fn arguments_that_a_cut_turn_had_not_begun_are_not_empty() {
    for text in ["", " ", "null"] {
        let (steps, _) = chat()
            .calls(&format!(
                r#"{{"index":0,"id":"a","function":{{"name":"f","arguments":"{text}"}}}}"#
            ))
            .finish("length")
            .steps();
        assert_eq!(
            steps[steps.len() - 2..],
            ["0 void Incomplete", "seal Truncated"]
        );
    }
}

#[test]
fn nothing_is_complete_without_an_end() {
    let decoded = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#)
        .read();
    assert_eq!(calls(&decoded), [""; 0]);
    assert!(!decoded.complete && decoded.error.is_some());
}

#[test]
fn done_without_a_finish_reason_ends_closed_objects_only() {
    let closed =
        || chat().calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#);
    // Nothing says whether the turn was cut: what is held is not run.
    let decoded = closed().done().read();
    assert_eq!(calls(&decoded), [r#"a f {"x":1}"#]);
    assert!(!decoded.complete && decoded.error.is_none());

    for second in ["", "null", r#"{\"y\":"#] {
        let decoded = closed()
            .calls(&format!(
                r#"{{"index":1,"id":"b","function":{{"name":"g","arguments":"{second}"}}}}"#
            ))
            .done()
            .read();
        assert_eq!(calls(&decoded), [r#"a f {"x":1}"#], "{second}");
        assert!(!decoded.complete, "{second}");
    }

    let torn = closed().raw(r#"{"choices":[{"#).done().read();
    assert!(!torn.complete, "{torn:?}");
    assert!(!Chat::default().done().read().complete);
}

// Early starts and what undoes them.

#[test]
fn a_closed_object_is_told_early_and_once() {
    let (steps, _) = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1"}}"#)
        .calls(r#"{"index":0,"function":{"arguments":"}"}}"#)
        .calls(r#"{"index":0,"function":{"arguments":"\n"}}"#)
        .calls(r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}"#)
        .finish("tool_calls")
        .steps();
    let wanted = [
        "0 f",
        "0 + {\"x\":1",
        "0 + }",
        "0 early",
        "0 + \n",
        "1 g",
        "1 + {}",
        "0 stop",
        "1 stop",
        "seal Complete",
    ];
    assert_eq!(steps, wanted);
}

#[test]
fn text_after_a_closed_object_undoes_the_early_start_at_once() {
    let (steps, _) = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#)
        .calls(r#"{"index":0,"function":{"arguments":"{\"x\":2}"}}"#)
        .calls(r#"{"index":0,"function":{"arguments":"!"}}"#)
        .finish("tool_calls")
        .steps();
    let wanted = [
        "0 f",
        "0 + {\"x\":1}",
        "0 early",
        "0 + {\"x\":2}",
        "0 void NotJson",
        "seal Truncated",
    ];
    assert_eq!(steps, wanted);
}

#[test]
fn a_placeholder_is_never_run_in_place_of_the_arguments() {
    let decoded = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}"#)
        .calls(r#"{"index":0,"function":{"arguments":"{\"x\":1}"}}"#)
        .finish("tool_calls")
        .read();
    assert_eq!(calls(&decoded), [""; 0]);
    assert_eq!(decoded.incomplete.len(), 1);
}

#[test]
fn a_good_reason_does_not_make_a_cut_call_whole_or_its_turn() {
    let decoded = chat()
        .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#)
        .calls(r#"{"index":1,"id":"b","function":{"name":"f","arguments":"{\"x\":"}}"#)
        .finish("tool_calls")
        .read();
    assert_eq!(calls(&decoded), [r#"a f {"x":1}"#]);
    assert!(!decoded.complete);
}

#[test]
fn a_choice_or_an_error_may_come_after_another_choices_reason() {
    let one = r#"{"choices":[{"index":1,"delta":{"tool_calls":[{"index":0,"id":"b","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#;
    let first = || {
        chat()
            .calls(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#)
            .finish("tool_calls")
    };
    check(&first().raw(one), &[r#"a f {"x":1}"#, "b g {}"]);
    let failed = first().raw(r#"{"error":{"message":"overloaded"}}"#).read();
    assert!(!failed.complete && failed.error.is_some());
}

#[test]
fn a_whole_message_is_read_like_a_delta() {
    let whole = r#"{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},"finish_reason":"tool_calls"}]}"#;
    check(&Chat::default().raw(whole), &[r#"a f {"x":1}"#]);
}

// Damage and excess.

#[test]
fn a_damaged_event_may_have_been_any_part_of_an_open_call() {
    let damaged = r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index"#;
    for text in ["", "{}", r#"{\"x\""#] {
        let decoded = chat()
            .calls(&format!(
                r#"{{"index":0,"id":"a","function":{{"name":"f","arguments":"{text}"}}}}"#
            ))
            .raw(damaged)
            .finish("tool_calls")
            .read();
        assert_eq!(calls(&decoded), [""; 0], "{text}");
    }
    let (steps, _) = chat()
        .calls(r#"{"index":0,"id":"a","function":{"arguments":"{\"x\":"}}"#)
        .raw(damaged)
        .calls(r#"{"index":0,"function":{"name":"f","arguments":"1}"}}"#)
        .finish("tool_calls")
        .steps();
    assert_eq!(steps, ["0 f", "0 void Unreadable", "seal Truncated"]);
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

#[test]
fn what_waits_for_a_name_is_bounded() {
    let piece = "x".repeat(40);
    let one = format!(r#"{{"index":0,"function":{{"arguments":"{piece}"}}}}"#);
    let (steps, _) = chat()
        .calls(&one)
        .calls(&one)
        .calls(r#"{"index":0,"function":{"name":"f"}}"#)
        .finish("tool_calls")
        .steps();
    assert_eq!(steps, ["0 f", "0 void Unreadable", "seal Complete"]);

    let many = (0..100).fold(chat(), |chat, index| {
        chat.calls(&format!(
            r#"{{"index":{index},"function":{{"arguments":"1"}}}}"#
        ))
    });
    assert!(many.finish("tool_calls").read().error.is_some());
    let many = (0..200).fold(chat(), |chat, index| chat.choice(index, "{}", "null"));
    assert!(
        many.read()
            .error
            .is_some_and(|error| error.contains("choices"))
    );
}

#[test]
fn whatever_comes_every_call_ends_once() {
    let pick =
        |random: &mut fastrand::Rng, from: &[&str]| from[random.usize(..from.len())].to_owned();
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut chat = Chat::default();
        for _ in 0..random.usize(1..12) {
            let index = pick(
                &mut random,
                &["", r#""index":0,"#, r#""index":1,"#, r#""index":null,"#],
            );
            let id = pick(
                &mut random,
                &["", r#""id":"a","#, r#""id":"b","#, r#""id":"","#],
            );
            let name = pick(
                &mut random,
                &["", r#""name":"f","#, r#""name":"g","#, r#""name":"","#],
            );
            let text = pick(
                &mut random,
                &[
                    "null",
                    r#""""#,
                    r#""{\"x\"""#,
                    r#"":1}""#,
                    r#""{}""#,
                    r#""null""#,
                    "{}",
                    "7",
                    r#""\ud83d""#,
                    r#""\ude00""#,
                ],
            );
            let entry = format!(r#"{{{index}{id}"function":{{{name}"arguments":{text}}}}}"#);
            let delta = match random.u8(..12) {
                0 => format!(r#"{{"function_call":{{{name}"arguments":{text}}}}}"#),
                1 => "{}".to_owned(),
                _ => format!(r#"{{"tool_calls":[{entry}]}}"#),
            };
            let reason = match random.u8(..20) {
                0 => r#""length""#,
                1 => r#""stop""#,
                _ => "null",
            };
            chat = match random.u8(..20) {
                0 => chat.raw(r#"{"choices":[{"#),
                1 => chat.done(),
                _ => chat.choice(random.usize(..2), &delta, reason),
            };
        }
        let (steps, turn) = chat.steps();
        let (seal, steps) = steps.split_last().unwrap();
        assert!(seal.starts_with("seal "), "{seed}: {steps:?}");
        for position in 0..turn.calls.len() {
            let mine: Vec<&str> = (steps.iter())
                .filter_map(|step| step.strip_prefix(&format!("{position} ")))
                .collect();
            let ends = |step: &&str| *step == "stop" || step.starts_with("void");
            let end = mine.iter().position(ends).unwrap_or(mine.len());
            assert!(end + 1 >= mine.len(), "{seed}: after its end: {mine:?}");
            assert!(["f", "g"].contains(&mine[0]), "{seed}: {mine:?}");
            assert!(!mine[1..].iter().any(|step| ["f", "g"].contains(step)));
            assert!(
                mine.iter().filter(|step| **step == "early").count() < 2,
                "{seed}: {mine:?}"
            );
            let complete = mine.last() == Some(&"stop");
            assert!(
                !complete || turn.calls[position].void.is_none(),
                "{seed}: {mine:?}"
            );
        }
    }
}
