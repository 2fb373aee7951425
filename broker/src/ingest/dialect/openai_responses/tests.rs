//! Events of Responses: items begun, done and repeated, and whose each is.

use super::*;
use crate::decode::{Decoded, Dialect, Owner};
use crate::ingest::dialect::Turn;
use crate::ingest::dialect::testing::{self, by_id as calls};

const COMPLETED: &str =
    r#"{"type":"response.completed","response":{"status":"completed","output":[]}}"#;

fn read(events: &[String]) -> Decoded {
    testing::read(Some(Dialect::OpenAiResponses), events)
}

/// The turn itself, which the agent ends as complete.
fn turn(events: &[String]) -> Turn {
    testing::turn(Dialect::OpenAiResponses, events, TurnEnd::Complete)
}

fn added(index: u64, item: &str) -> String {
    format!(r#"{{"type":"response.output_item.added","output_index":{index},"item":{item}}}"#)
}

fn done(index: u64, item: &str) -> String {
    format!(r#"{{"type":"response.output_item.done","output_index":{index},"item":{item}}}"#)
}

fn completed(items: &[&str]) -> String {
    let items = items.join(",");
    format!(
        r#"{{"type":"response.completed","response":{{"status":"completed","output":[{items}]}}}}"#
    )
}

/// A function's item; `arguments` is JSON, which the item has as a string.
fn function(call_id: &str, name: &str, arguments: &str, status: &str) -> String {
    let arguments = serde_json::to_string(arguments).unwrap();
    format!(
        r#"{{"type":"function_call","id":"fc_{call_id}","call_id":"{call_id}","name":"{name}","arguments":{arguments},"status":"{status}"}}"#
    )
}

fn whole(call_id: &str, arguments: &str) -> String {
    function(call_id, "add", arguments, "completed")
}

fn begun(call_id: &str) -> String {
    function(call_id, "add", "", "in_progress")
}

fn incomplete(decoded: &Decoded) -> Vec<&str> {
    let incomplete = decoded.incomplete.iter().filter(|call| !call.superseded);
    incomplete
        .map(|call| call.id.as_deref().unwrap_or("-"))
        .collect()
}

fn elsewhere(item: &str) -> Vec<(Owner, String, String)> {
    let decoded = read(&[added(0, item), done(0, item), completed(&[item])]);
    assert_eq!(calls(&decoded), [], "{item}");
    assert_eq!(incomplete(&decoded), [] as [&str; 0], "{item}");
    let not_ours = decoded.not_ours.into_iter();
    not_ours.map(|of| (of.owner, of.id, of.name)).collect()
}

#[test]
fn a_call_is_what_its_done_item_says_and_not_what_deltas_said() {
    let delta = r#"{"type":"response.function_call_arguments.delta","output_index":1,"item_id":"fc_a","delta":"{\"x\":9"}"#;
    let told = r#"{"type":"response.function_call_arguments.done","output_index":1,"item_id":"fc_a","arguments":"{\"x\":9}"}"#;
    let decoded = read(&[
        r#"{"type":"response.created","response":{"output":[]}}"#.into(),
        added(1, &begun("a")),
        delta.into(),
        told.into(),
        done(1, &whole("a", r#"{"x": 1.0}"#)),
        completed(&[&whole("a", r#"{"x": 1.0}"#)]),
    ]);
    assert_eq!(calls(&decoded), [("a", r#"{"x": 1.0}"#)]);
    assert_eq!(decoded.stop_reason.as_deref(), Some("completed"));
    assert!(decoded.complete);
}

#[test]
fn without_its_done_item_it_is_none_though_its_arguments_are_done() {
    let told =
        r#"{"type":"response.function_call_arguments.done","output_index":0,"arguments":"{}"}"#;
    for end in [None, Some(COMPLETED)] {
        let mut events = vec![added(0, &begun("a")), told.to_owned()];
        events.extend(end.map(str::to_owned));
        let decoded = read(&events);
        assert_eq!(calls(&decoded), []);
        assert_eq!(incomplete(&decoded), ["a"]);
        assert_eq!(decoded.complete, end.is_some());
    }
}

#[test]
fn an_item_may_be_done_without_having_been_added() {
    let decoded = read(&[done(0, &whole("a", "{}")), COMPLETED.into()]);
    assert_eq!(calls(&decoded), [("a", "{}")]);
}

#[test]
fn the_id_of_an_item_is_no_key() {
    let item = |id: &str| whole("a", "{}").replace("fc_a", id);
    let decoded = read(&[
        added(0, &item("x")),
        done(0, &item("y")),
        completed(&[&item("z")]),
    ]);
    assert_eq!(calls(&decoded), [("a", "{}")]);
    assert_eq!(decoded.incomplete, []);
}

#[test]
fn items_overlap_and_end_in_any_order() {
    let decoded = read(&[
        added(2, &begun("b")),
        added(1, &begun("a")),
        done(2, &whole("b", r#"{"n":2}"#)),
        done(1, &whole("a", r#"{"n":1}"#)),
        COMPLETED.into(),
    ]);
    assert_eq!(calls(&decoded), [("a", r#"{"n":1}"#), ("b", r#"{"n":2}"#)]);
}

#[test]
fn of_all_states_only_incomplete_means_cut() {
    for status in ["completed", "in_progress", "searching"] {
        let decoded = read(&[done(0, &function("a", "f", "{}", status))]);
        assert_eq!(calls(&decoded), [("a", "{}")], "{status}");
    }
    let cut = function("a", "f", r#"{"x":48"#, "incomplete");
    let lucky = function("b", "f", r#"{"x":48}"#, "incomplete");
    let decoded = read(&[
        added(0, &begun("a")),
        done(0, &cut),
        done(1, &lucky),
        completed(&[&cut, &lucky]),
    ]);
    assert_eq!(calls(&decoded), []);
    assert_eq!(incomplete(&decoded), ["a", "b"]);
}

#[test]
fn a_programs_call_is_run_and_its_caller_kept_for_the_answer() {
    let caller = r#"{"type":"program","caller_id":"call_p"}"#;
    let item = function("a", "f", "{}", "in_progress")
        .replace(r#""name""#, &format!(r#""caller":{caller},"name""#));
    assert_eq!(calls(&read(&[done(0, &item)])), [("a", "{}")]);
    // The second was added without.
    let turn = turn(&[
        added(0, &item),
        done(0, &item),
        added(1, &begun("b")),
        done(1, &item.replace("\"a\"", "\"b\"")),
    ]);
    let callers: Vec<_> = (turn.calls.iter())
        .filter(|call| call.void.is_none())
        .map(|call| call.caller.as_deref().map(RawValue::get))
        .collect();
    assert_eq!(callers, [Some(caller), Some(caller)]);
}

#[test]
fn free_text_becomes_one_json_string() {
    let item = |input: &str| {
        format!(r#"{{"type":"custom_tool_call","call_id":"c","name":"sh","input":{input}}}"#)
    };
    for (input, arguments) in [
        (
            r#""*** \"Begin\"\n{not json""#,
            r#"{"input":"*** \"Begin\"\n{not json"}"#,
        ),
        (r#""""#, r#"{"input":""}"#),
        ("null", r#"{"input":""}"#),
    ] {
        let decoded = read(&[added(0, &item(r#""""#)), done(0, &item(input))]);
        assert_eq!(calls(&decoded), [("c", arguments)]);
        assert!(decoded.calls[0].custom);
    }
}

#[test]
fn no_arguments_are_an_empty_object_and_an_object_is_its_own_text() {
    let item =
        |value: &str| format!(r#"{{"type":"function_call","call_id":"a","name":"f"{value}}}"#);
    for (value, arguments) in [
        ("", "{}"),
        (r#","arguments":null"#, "{}"),
        (r#","arguments":"""#, "{}"),
        (r#","arguments":" null""#, "{}"),
        (r#","arguments":{"x": 1e2}"#, r#"{"x": 1e2}"#),
    ] {
        let decoded = read(&[done(0, &item(value)), COMPLETED.into()]);
        assert_eq!(calls(&decoded), [("a", arguments)], "{value}");
    }
}

#[test]
fn the_response_vouches_for_an_item_that_was_not_done() {
    let (a, b, c) = (whole("a", "{}"), whole("b", "{}"), whole("c", "{}"));
    let decoded = read(&[done(0, &a), added(1, &begun("b")), completed(&[&a, &b, &c])]);
    assert_eq!(calls(&decoded), [("a", "{}"), ("b", "{}"), ("c", "{}")]);
    assert_eq!(decoded.incomplete, []);
}

#[test]
fn a_call_that_was_done_is_not_run_again_though_the_list_is_shifted_or_renames_it() {
    let message = r#"{"type":"message","content":[]}"#;
    let (a, b) = (whole("a", "{}"), whole("b", "{}"));
    // A proxy that leaves the message out; another one that puts it in; one with new ids.
    for output in [
        completed(&[&a, &b]),
        completed(&[message, message, &a, &b]),
        completed(&[message, &whole("x", "{}"), &whole("y", "{}")]),
    ] {
        let decoded = read(&[done(0, message), done(1, &a), done(2, &b), output.clone()]);
        assert_eq!(calls(&decoded), [("a", "{}"), ("b", "{}")], "{output}");
    }
    // Added at another place than in the list.
    let decoded = read(&[added(3, &begun("a")), completed(&[&a])]);
    assert_eq!(calls(&decoded), [("a", "{}")]);
    assert_eq!(decoded.incomplete, []);
}

#[test]
fn of_a_response_that_was_cut_only_items_that_say_so_are_whole() {
    let (a, b) = (whole("a", "{}"), function("b", "f", "{}", "in_progress"));
    let end = completed(&[&a, &b]).replace("completed\",\"response\":{\"status\":\"completed\"", "incomplete\",\"response\":{\"status\":\"incomplete\",\"incomplete_details\":{\"reason\":\"max_output_tokens\"}");
    let decoded = read(&[end]);
    assert_eq!(calls(&decoded), [("a", "{}")]);
    assert_eq!(incomplete(&decoded), ["b"]);
    assert_eq!(
        decoded.stop_reason.as_deref(),
        Some("incomplete:max_output_tokens")
    );
    assert!(!decoded.complete);
}

#[test]
fn what_the_provider_runs_is_passed_over() {
    for kind in [
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_call",
        "mcp_list_tools",
        "tool_search_call",
        "program",
        "program_output",
        "compaction",
        "brand_new_call",
    ] {
        let item = format!(r#"{{"type":"{kind}","id":"i","call_id":null,"arguments":{{}}}}"#);
        assert_eq!(
            elsewhere(&item),
            [(Owner::Provider, "i".into(), kind.to_owned())]
        );
    }
    for item in [
        "message",
        "reasoning",
        "tool_search_output",
        "item_reference",
    ] {
        assert_eq!(elsewhere(&format!(r#"{{"type":"{item}","id":"i"}}"#)), []);
    }
    let in_container = r#"{"type":"shell_call","id":"i","call_id":"c","environment":{"type":"container_reference","container_id":"k"}}"#;
    assert_eq!(elsewhere(in_container)[0].0, Owner::Provider);
    let program = r#"{"type":"program","id":"p","call_id":"c"}"#;
    let output = r#"{"type":"program_output","id":"o","call_id":"c"}"#;
    let decoded = read(&[done(0, program), done(1, output), COMPLETED.into()]);
    assert_eq!(decoded.not_ours.len(), 1, "a result is no second call");
}

#[test]
fn what_the_agents_side_runs_is_passed_over_under_the_id_of_its_answer() {
    for kind in [
        "computer_call",
        "local_shell_call",
        "shell_call",
        "apply_patch_call",
        "brand_new_call",
    ] {
        let item = format!(r#"{{"type":"{kind}","id":"i","call_id":"c","action":{{}}}}"#);
        assert_eq!(
            elsewhere(&item),
            [(Owner::Client, "c".into(), kind.to_owned())]
        );
    }
    let search = r#"{"type":"tool_search_call","id":"i","call_id":"c","execution":"client"}"#;
    assert_eq!(elsewhere(search)[0].0, Owner::Client);
    let shell = r#"{"type":"shell_call","call_id":"c","environment":{"type":"local"}}"#;
    assert_eq!(elsewhere(shell)[0].0, Owner::Client);
    let approval = r#"{"type":"mcp_approval_request","id":"i","name":"drop_table"}"#;
    assert_eq!(
        elsewhere(approval),
        [(Owner::Client, "i".into(), "drop_table".into())]
    );
}

#[test]
fn what_is_run_elsewhere_is_told_once_though_its_id_changes() {
    let item = |id: &str| format!(r#"{{"type":"web_search_call","id":"{id}"}}"#);
    let decoded = read(&[
        added(0, &item("x")),
        done(0, &item("y")),
        added(1, &item("z")),
        completed(&[&item("v"), &item("w")]),
    ]);
    let ids: Vec<_> = decoded.not_ours.iter().map(|of| &of.id).collect();
    assert_eq!(ids, ["x", "z"]);
}

#[test]
fn xai_runs_its_search_of_x_itself() {
    let item = r#"{"type":"custom_tool_call","id":"ctc_1","call_id":"xs_call_7","name":"x_keyword_search","input":"{}"}"#;
    assert_eq!(
        elsewhere(item),
        [(Owner::Provider, "ctc_1".into(), "x_keyword_search".into())]
    );
}

#[test]
fn a_failed_response_says_so_and_why() {
    let failed = r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"server_error"}}}"#;
    let decoded = read(&[done(0, &whole("a", "{}")), failed.into()]);
    assert_eq!(calls(&decoded), [("a", "{}")]);
    assert_eq!(decoded.stop_reason.as_deref(), Some("failed"));
    assert!(!decoded.complete);
    assert!(decoded.error.unwrap().contains("server_error"));
    for status in ["failed", "incomplete", "cancelled"] {
        let decoded = read(&[COMPLETED.replace("\"completed\"", &format!("\"{status}\""))]);
        assert_eq!(decoded.stop_reason.as_deref(), Some(status));
        assert!(!decoded.complete, "{status}");
    }
}

#[test]
fn an_error_ends_the_stream_whatever_follows() {
    let failed = r#"{"type":"response.failed","response":{"status":"failed"}}"#;
    for error in [
        r#"{"type":"error","sequence_number":2,"error":{"code":"too_fast"}}"#,
        r#"{"type":"error","code":"too_fast","message":"slow down"}"#,
        r#"{"error":{"code":"too_fast"}}"#,
    ] {
        for (end, reason) in [
            (None, None),
            (Some(failed), Some("failed")),
            (Some(COMPLETED), Some("completed")),
        ] {
            let mut events = vec![error.to_owned(), done(0, &whole("a", "{}"))];
            events.extend(end.map(str::to_owned));
            let decoded = read(&events);
            assert_eq!(calls(&decoded), []);
            assert_eq!(decoded.stop_reason.as_deref(), reason);
            assert!(!decoded.complete);
            assert!(decoded.error.unwrap().contains("too_fast"));
        }
        // The agent thinks that all is well.
        assert_eq!(turn(&[error.to_owned()]).end, TurnEnd::Truncated);
    }
}

#[test]
fn a_gateway_may_try_again_inside_one_stream() {
    let created = r#"{"type":"response.created","response":{}}"#;
    let error = r#"{"type":"error","error":{"code":"overloaded"}}"#;
    for between in [None, Some(error)] {
        let mut events = vec![created.to_owned(), done(0, &whole("a", "{}"))];
        events.extend(between.map(str::to_owned));
        events.push(created.to_owned());
        events.push(done(0, &whole("b", "{}")));
        events.push(COMPLETED.to_owned());
        let decoded = read(&events);
        assert_eq!(calls(&decoded), [("b", "{}")]);
        assert_eq!(incomplete(&decoded), [] as [&str; 0]);
        assert!(decoded.complete);
    }
}

#[test]
fn an_item_that_is_done_under_another_id_or_name_has_those() {
    let decoded = read(&[
        added(0, &begun("a")),
        done(0, &whole("b", "{}")),
        added(1, &function("c", "", "", "in_progress")),
        done(1, &whole("c", "{}")),
        COMPLETED.into(),
    ]);
    assert_eq!(calls(&decoded), [("b", "{}"), ("c", "{}")]);
    assert_eq!(decoded.calls[1].name, "add");
    assert_eq!(incomplete(&decoded), [] as [&str; 0]);
}

#[test]
fn a_server_that_knows_one_index_or_none_is_understood() {
    let one = |event: String| event;
    let none = |event: String| event.replace(r#""output_index":0,"#, "");
    for spoil in [one, none] {
        let events = [
            added(0, &begun("a")),
            added(0, &begun("b")),
            done(0, &whole("a", "{}")),
            done(0, &whole("b", "{}")),
            completed(&[&whole("a", "{}"), &whole("b", "{}")]),
        ];
        let decoded = read(&events.map(spoil));
        assert_eq!(calls(&decoded), [("a", "{}"), ("b", "{}")]);
        assert_eq!(incomplete(&decoded), [] as [&str; 0]);
    }
}

#[test]
fn the_type_may_stand_anywhere() {
    let item = whole("a", "{}");
    let decoded = read(&[
        format!(r#"{{"output_index":0,"item":{item},"type":"response.output_item.done"}}"#),
        format!(
            r#" {{ "type" : "response.output_item.done", "output_index":1, "item":{} }}"#,
            whole("b", "{}")
        ),
        format!(
            r#"{{"type":"response.output_item.\u0064one","output_index":2,"item":{}}}"#,
            whole("c", "{}")
        ),
    ]);
    assert_eq!(calls(&decoded), [("a", "{}"), ("b", "{}"), ("c", "{}")]);
}

#[test]
fn what_is_not_known_or_not_json_changes_nothing() {
    let decoded = read(&[
        added(0, &begun("a")),
        r#"{"type":"response.new.thing","output_index":"x","item":7}"#.into(),
        r#"{"output_index":"x","item":7,"type":"response.new.thing"}"#.into(),
        done(4, r#"{"type":"new_thing","name":{},"call_id":5}"#),
        done(5, "null"),
        "[DONE]".into(),
        "keep-alive".into(),
        r#"{"type":"response.function_call_arguments.delta","delta":"{"#.into(),
        done(0, &whole("a", "{}")),
        completed(&[r#"{"type":"function_call","call_id":7}"#]),
    ]);
    assert_eq!(calls(&decoded), [("a", "{}")]);
    assert!(decoded.complete);
}

#[test]
fn a_done_item_that_cannot_be_read_is_no_call() {
    let cut = done(0, &whole("a", "{}"))
        .replace("]}", "")
        .replace("}}", "}");
    let half_a_character =
        r#"{"type":"function_call","call_id":"b","name":"f","arguments":"\ud83d"}"#;
    let decoded = read(&[
        added(0, &begun("a")),
        cut,
        done(1, half_a_character),
        COMPLETED.into(),
    ]);
    assert_eq!(calls(&decoded), []);
    assert_eq!(incomplete(&decoded), ["a"]);
}

#[test]
fn more_items_than_any_response_has_end_the_stream() {
    let many = (0..=MOST_ITEMS as u64).map(|index| done(index, r#"{"type":"mcp_call"}"#));
    let decoded = read(&many.collect::<Vec<_>>());
    assert!(decoded.error.unwrap().contains("more than"));
}
