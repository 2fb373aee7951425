//! Events of `ConverseStream`, bare and in frames.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};

use crate::decode::{Decoded, Decoder, Dialect, Owner};
use crate::ingest::dialect::testing;

const START: &str = r#"{"contentBlockStart":{"contentBlockIndex":1,"start":{"toolUse":{"toolUseId":"t1","name":"f"}},"p":"abc"}}"#;
const STOP: &str = r#"{"contentBlockStop":{"contentBlockIndex":1}}"#;
const GOOD: &str = r#"{"messageStop":{"stopReason":"tool_use"}}"#;
const CUT: &str = r#"{"messageStop":{"stopReason":"max_tokens"}}"#;

fn decode(events: &[&str]) -> Decoded {
    testing::read(None, events)
}

fn delta(text: &str) -> String {
    let input = serde_json::Value::from(text);
    format!(
        r#"{{"contentBlockDelta":{{"contentBlockIndex":1,"delta":{{"toolUse":{{"input":{input}}}}}}}}}"#
    )
}

/// The arguments of the only call.
fn arguments(decoded: &Decoded) -> &str {
    let [call] = &decoded.calls[..] else {
        panic!("not one call: {decoded:?}");
    };
    std::str::from_utf8(&call.arguments).unwrap()
}

#[test]
fn a_call_is_what_its_block_holds_between_start_and_stop() {
    let (a, b) = (delta(r#"{"a": "#), delta("1.0}"));
    let metadata = r#"{"metadata":{"usage":{"totalTokens":3}}}"#;
    let decoded = decode(&[
        r#"{"messageStart":{"role":"assistant"}}"#,
        r#"{"contentBlockStart":{"contentBlockIndex":0,"start":{}}}"#,
        r#"{"contentBlockDelta":{"contentBlockIndex":0,"delta":{"text":"well"}}}"#,
        r#"{"contentBlockStop":{"contentBlockIndex":0}}"#,
        START,
        &a,
        r#"{"contentBlockDelta":{"contentBlockIndex":0,"delta":{"somethingNew":[1]}}}"#,
        r#"{"somethingNew":7}"#,
        &b,
        STOP,
        metadata,
        GOOD,
        metadata,
    ]);
    assert_eq!(decoded.dialect, Some(Dialect::Bedrock));
    assert_eq!(arguments(&decoded), r#"{"a": 1.0}"#);
    assert_eq!(decoded.calls[0].id.as_deref(), Some("t1"));
    assert!(decoded.complete && decoded.error.is_none());
}

#[test]
fn no_arguments_come_in_four_ways() {
    let object =
        r#"{"contentBlockDelta":{"contentBlockIndex":1,"delta":{"toolUse":{"input":{}}}}}"#;
    for deltas in [
        vec![],
        vec![delta("")],
        vec![delta("{}")],
        vec![object.to_owned()],
    ] {
        let mut events = vec![START];
        events.extend(deltas.iter().map(String::as_str));
        events.extend([STOP, GOOD]);
        assert_eq!(arguments(&decode(&events)), "{}", "{deltas:?}");
    }
}

#[test]
fn a_block_without_text_is_no_call_if_the_turn_was_cut_there() {
    let decoded = decode(&[START, STOP, CUT]);
    assert_eq!((decoded.calls.len(), decoded.incomplete.len()), (0, 1));
    let text = r#"{"contentBlockDelta":{"contentBlockIndex":2,"delta":{"text":"and"}}}"#;
    let decoded = decode(&[START, STOP, text, CUT]);
    assert_eq!(arguments(&decoded), "{}", "the model had gone on");
    assert!(!decoded.complete);
}

#[test]
fn the_provider_runs_its_own_tools() {
    let decoded = decode(&[
        r#"{"contentBlockStart":{"contentBlockIndex":1,"start":{"toolUse":{"toolUseId":"s","name":"nova","type":"server_tool_use"}}}}"#,
        &delta(r#"{"snippet":"1"}"#),
        STOP,
        r#"{"messageStop":{"stopReason":"end_turn"}}"#,
    ]);
    assert!(decoded.calls.is_empty() && decoded.incomplete.is_empty());
    assert_eq!(decoded.not_ours[0].owner, Owner::Provider);
    assert!(decoded.complete);
}

#[test]
fn a_turn_that_was_not_ended_well_is_not_complete() {
    for end in [
        CUT,
        r#"{"messageStop":{"stopReason":"guardrail_intervened"}}"#,
        r#"{"messageStop":{}}"#,
        r#"{"throttlingException":{"message":"slow down"}}"#,
    ] {
        let decoded = decode(&[START, &delta(r#"{"a""#), end]);
        assert!(!decoded.complete && decoded.calls.is_empty(), "{end}");
        assert_eq!(decoded.incomplete.len(), 1, "{end}");
        let told = decoded
            .error
            .is_some_and(|error| error.contains("slow down"));
        assert_eq!(told, end.contains("Exception"), "{end}");
    }
}

#[test]
fn a_message_that_begins_anew_leaves_nothing_of_the_first() {
    let begin = r#"{"messageStart":{"role":"assistant"}}"#;
    let decoded = decode(&[
        begin,
        START,
        STOP,
        begin,
        START,
        &delta(r#"{"b":2}"#),
        STOP,
        GOOD,
    ]);
    assert_eq!(arguments(&decoded), r#"{"b":2}"#);
    assert!(decoded.incomplete[0].superseded);
}

/// A response whose frames each have the header that names them.
fn decode_frames(
    dialect: Option<Dialect>,
    frames: &[(&'static str, &'static str, &'static str)],
) -> Decoded {
    let mut bytes = Vec::new();
    for &(header, name, payload) in frames {
        let message = Message::new(payload.as_bytes())
            .add_header(Header::new(header, HeaderValue::String(name.into())));
        write_message_to(&message, &mut bytes).unwrap();
    }
    let mut decoder = Decoder::new(dialect, 1 << 16);
    decoder.bytes(&bytes);
    decoder.finish()
}

#[test]
fn on_the_wire_the_frame_names_the_event() {
    let event = |name, payload| (":event-type", name, payload);
    let decoded = decode_frames(
        None,
        &[
            event("somethingNew", "not even JSON"),
            event(
                "contentBlockStart",
                r#"{"contentBlockIndex":0,"start":{"toolUse":{"toolUseId":"t","name":"f"}}}"#,
            ),
            event(
                "contentBlockDelta",
                r#"{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{\"a\":1}"}},"p":"ab"}"#,
            ),
            event("contentBlockStop", r#"{"contentBlockIndex":0}"#),
            event("messageStop", r#"{"stopReason":"tool_use"}"#),
        ],
    );
    assert_eq!(decoded.dialect, Some(Dialect::Bedrock));
    assert_eq!(arguments(&decoded), r#"{"a":1}"#);
    assert!(decoded.complete);
}

#[test]
fn an_exception_frame_ends_the_turn_in_whatever_dialect() {
    let why = r#"{"message":"slow down","originalStatusCode":429}"#;
    for dialect in [None, Some(Dialect::Bedrock), Some(Dialect::Anthropic)] {
        let frame = (":exception-type", "throttlingException", why);
        let decoded = decode_frames(dialect, &[frame]);
        assert!(!decoded.complete);
        let error = decoded.error.unwrap();
        assert!(
            error.contains("throttlingException") && error.contains("slow down"),
            "{error}"
        );
    }
}
