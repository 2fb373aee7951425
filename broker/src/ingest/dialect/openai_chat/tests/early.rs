//! Early starts and what undoes them.

use super::{calls, chat};

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
