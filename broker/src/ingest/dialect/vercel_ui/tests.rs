//! Parts of a UI message stream.

use crate::decode::{Decoded, Decoder, Dialect, Owner};

const BEGIN: &str = r#"{"type":"start"}"#;
const STEP: &str = r#"{"type":"start-step"}"#;
const CALL: &str =
    r#"{"type":"tool-input-available","toolCallId":"c","toolName":"f","input":{"a": 1}}"#;
const STEP_END: &str = r#"{"type":"finish-step"}"#;
const FINISH: &str = r#"{"type":"finish","finishReason":"tool-calls"}"#;

fn decode(parts: &[&str]) -> Decoded {
    let mut decoder = Decoder::new(None, 1 << 16);
    for part in parts {
        decoder.bytes(format!("data: {part}\n\n").as_bytes());
    }
    decoder.finish()
}

#[test]
fn a_call_is_what_is_available() {
    let decoded = decode(&[
        BEGIN,
        STEP,
        r#"{"type":"tool-input-start","toolCallId":"c","toolName":"f","dynamic":true}"#,
        r#"{"type":"tool-input-delta","toolCallId":"c","inputTextDelta":"{\"a\":"}"#,
        r#"{"type":"something-new","toolCallId":[7]}"#,
        CALL,
        CALL,
        r#"{"type":"tool-input-available","toolCallId":"d","toolName":"g"}"#,
        STEP_END,
        FINISH,
        "[DONE]",
    ]);
    assert_eq!(decoded.dialect, Some(Dialect::VercelUi));
    let calls = decoded.calls.iter();
    let calls: Vec<_> = calls
        .map(|call| (&*call.name, &call.arguments[..]))
        .collect();
    assert_eq!(calls, [("f", &br#"{"a": 1}"#[..]), ("g", b"{}")]);
    assert!(decoded.complete && decoded.error.is_none());
}

#[test]
fn what_the_provider_runs_is_not_ours() {
    let start =
        r#"{"type":"tool-input-start","toolCallId":"c","toolName":"f","providerExecuted":true}"#;
    let late = r#"{"type":"tool-input-available","toolCallId":"c","toolName":"f","input":{},"providerExecuted":true}"#;
    let unmarked = r#"{"type":"tool-input-start","toolCallId":"c","toolName":"f"}"#;
    for parts in [[start, CALL], [unmarked, late]] {
        let decoded = decode(&[BEGIN, parts[0], parts[1], FINISH]);
        assert!(decoded.calls.is_empty(), "{parts:?}");
        assert_eq!(decoded.not_ours[0].owner, Owner::Provider, "{parts:?}");
    }
}

#[test]
fn what_the_server_answers_or_asks_about_is_not_to_be_run() {
    for part in [
        r#"{"type":"tool-input-error","toolCallId":"c","toolName":"f","input":"{","errorText":"no"}"#,
        r#"{"type":"tool-output-available","toolCallId":"c","output":5}"#,
        r#"{"type":"tool-output-error","toolCallId":"c","errorText":"no"}"#,
        r#"{"type":"tool-output-denied","toolCallId":"c"}"#,
        r#"{"type":"tool-approval-request","approvalId":"a","toolCallId":"c"}"#,
    ] {
        let decoded = decode(&[BEGIN, CALL, part, FINISH]);
        assert_eq!(
            (decoded.calls.len(), decoded.incomplete.len()),
            (0, 1),
            "{part}"
        );
        // An id counts in its own step only.
        let decoded = decode(&[BEGIN, CALL, part, STEP_END, STEP, CALL, STEP_END, FINISH]);
        assert_eq!(
            (decoded.calls.len(), decoded.incomplete.len()),
            (1, 1),
            "{part}"
        );
    }
}

#[test]
fn a_turn_ends_well_with_its_finish_or_its_last_step() {
    for (ends, complete) in [
        (&[FINISH][..], true),
        (&[r#"{"type":"finish"}"#], true),
        (&[r#"{"type":"finish","finishReason":"length"}"#], false),
        (&[STEP_END, "[DONE]"], true),
        (&[STEP_END], true),
        (&[STEP_END, STEP], false),
        (&[STEP_END, STEP, "[DONE]"], false),
        (&["[DONE]"], false),
        (&[STEP_END, r#"{"type":"abort","reason":"enough"}"#], false),
        (
            &[
                STEP_END,
                r#"{"type":"error","errorText":"overloaded"}"#,
                "[DONE]",
            ],
            false,
        ),
        (&[], false),
    ] {
        let mut parts = vec![BEGIN, STEP, CALL];
        parts.extend(ends);
        let decoded = decode(&parts);
        assert_eq!(decoded.complete, complete, "{ends:?}");
        assert_eq!(decoded.calls.len(), 1, "{ends:?}");
        let told = decoded
            .error
            .is_some_and(|error| error.contains("overloaded"));
        assert_eq!(told, parts.concat().contains("overloaded"), "{ends:?}");
    }
}
