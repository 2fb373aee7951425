//! How a turn ends.

use super::{Chat, calls, chat, check};

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
