//! Events of Anthropic Messages: inputs at both places, ends, and whose a call is.

use crate::decode::{Decoded, Dialect, Owner};
use crate::ingest::dialect::testing::{self, by_id as calls};

const STOP: &str = r#"{"type":"message_stop"}"#;

fn start(index: u32, id: &str, input: &str) -> String {
    format!(
        r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"tool_use","id":"{id}","name":"f","input":{input}}}}}"#
    )
}

fn delta(index: u32, fragment: &str) -> String {
    format!(
        r#"{{"type":"content_block_delta","index":{index},"delta":{{"type":"input_json_delta","partial_json":{fragment}}}}}"#
    )
}

fn stop(index: u32) -> String {
    format!(r#"{{"type":"content_block_stop","index":{index}}}"#)
}

fn reason(reason: &str) -> String {
    format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}}}}"#)
}

fn read<S: AsRef<str>>(events: &[S]) -> Decoded {
    testing::read(Some(Dialect::Anthropic), events)
}

#[test]
fn without_a_delta_the_input_is_that_of_the_start() {
    let turn = [
        start(0, "a", r#"{"p": 1.0}"#),
        stop(0),
        start(1, "b", "{}"),
        delta(1, "\"\""),
        stop(1),
    ];
    let decoded = read(&[&turn[..], &[reason("tool_use"), STOP.to_owned()]].concat());
    assert_eq!(calls(&decoded), [("a", r#"{"p": 1.0}"#), ("b", "{}")]);
    assert!(decoded.complete);
}

#[test]
fn a_whole_call_may_stand_in_the_message_start() {
    let message = r#"{"type":"message_start","message":{"content":[{"type":"tool_use","id":"a","name":"f","input":{"x":1}}],"stop_reason":"tool_use"}}"#;
    let decoded = read(&[message, STOP]);
    assert_eq!(calls(&decoded), [("a", r#"{"x":1}"#)]);
    assert!(decoded.complete);
}

#[test]
fn a_call_without_arguments_is_none_if_the_turn_was_cut_there() {
    let blank = [start(0, "a", "{}"), delta(0, "\"\""), stop(0)];
    let cut = read(&[&blank[..], &[reason("max_tokens"), STOP.to_owned()]].concat());
    assert_eq!((calls(&cut).len(), cut.incomplete.len()), (0, 1));
    let broken_off = read(&blank);
    assert_eq!(
        (calls(&broken_off).len(), broken_off.incomplete.len()),
        (0, 1)
    );
    let later = [start(1, "b", "{}"), stop(1)];
    let decoded = read(&[&blank[..], &later, &[reason("max_tokens"), STOP.to_owned()]].concat());
    assert_eq!(calls(&decoded), [("a", "{}")]);
    let overlapping = [start(0, "a", "{}"), start(1, "b", "{}"), stop(0), stop(1)];
    let decoded = read(&[&overlapping[..], &[reason("tool_use"), STOP.to_owned()]].concat());
    assert_eq!(calls(&decoded), [("a", "{}"), ("b", "{}")]);
}

#[test]
fn a_character_may_be_cut_in_its_middle() {
    let fragments = [r#""{\"x\":\"\ud83d""#, r#""\ude00\"}""#].map(|fragment| delta(0, fragment));
    let turn = [&[start(0, "a", "{}")][..], &fragments, &[stop(0)]].concat();
    let decoded = read(&[&turn[..], &[reason("tool_use"), STOP.to_owned()]].concat());
    assert_eq!(calls(&decoded), [("a", "{\"x\":\"\u{1f600}\"}")]);
}

#[test]
fn what_the_provider_runs_is_not_ours() {
    let server = start(0, "s", "{}").replace("tool_use", "server_tool_use");
    let decoded = read(&[
        server,
        delta(0, "\"{}\""),
        stop(0),
        reason("end_turn"),
        STOP.to_owned(),
    ]);
    assert_eq!(decoded.calls, []);
    assert_eq!(
        (decoded.not_ours[0].owner, &*decoded.not_ours[0].id),
        (Owner::Provider, "s")
    );
}

#[test]
fn helper_events_of_the_sdks_add_nothing() {
    let helpers = [
        r#"{"type":"input_json","partial_json":"{}","snapshot":{"x":1}}"#.to_owned(),
        r#"{"type":"text","text":"a","snapshot":"a"}"#.to_owned(),
        r#"{"type":"new","index":"one","delta":7,"message":"x"}"#.to_owned(),
    ];
    let turn = [
        &[start(0, "a", "{}"), delta(0, r#""{}""#)][..],
        &helpers,
        &[stop(0)],
    ]
    .concat();
    let decoded = read(&[&turn[..], &[reason("tool_use"), STOP.to_owned()]].concat());
    assert_eq!(calls(&decoded), [("a", "{}")]);
}
