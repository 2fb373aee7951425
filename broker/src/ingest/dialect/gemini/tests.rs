//! Chunks of Gemini: whole calls, streamed ones, and ends.

use super::*;
use crate::decode::{Decoded, Dialect, Owner};
use crate::ingest::dialect::testing::{self, by_name as calls};
use crate::ingest::dialect::{Limits, ProviderTurn, Turn};

fn read(chunks: &[String]) -> Decoded {
    testing::read(Some(Dialect::Gemini), chunks)
}

/// The turn itself, which the agent ends as it likes.
fn turn(chunks: &[String], end: TurnEnd) -> Turn {
    testing::turn(Dialect::Gemini, chunks, end)
}

fn chunk(parts: &str) -> String {
    format!(r#"{{"candidates":[{{"content":{{"role":"model","parts":[{parts}]}},"index":0}}]}}"#)
}

/// A chunk with the last word.
fn last(parts: &str, reason: &str) -> String {
    chunk(parts).replace(
        r#","index":0"#,
        &format!(r#","index":0,"finishReason":"{reason}""#),
    )
}

fn stop() -> String {
    last(r#"{"text":""}"#, "STOP")
}

fn incomplete(decoded: &Decoded) -> Vec<&str> {
    decoded.incomplete.iter().map(|call| &*call.name).collect()
}

/// The parts of a call whose arguments are streamed.
fn streamed(parts: &[&str]) -> Vec<String> {
    parts
        .iter()
        .map(|call| chunk(&format!(r#"{{"functionCall":{call}}}"#)))
        .collect()
}

#[test]
fn every_part_with_a_name_is_a_call_of_its_own() {
    let same = r#"{"functionCall":{"name":"add","args":{"a": 1.0}}}"#;
    let decoded = read(&[
        chunk(&format!("{same},{same}")),
        chunk(same),
        last(r#"{"functionCall":{"id":"k1","name":"now"}}"#, "STOP"),
    ]);
    let add = ("add", r#"{"a": 1.0}"#);
    assert_eq!(calls(&decoded), [add, add, add, ("now", "{}")]);
    let ids: Vec<_> = decoded
        .calls
        .iter()
        .map(|call| call.id.as_deref())
        .collect();
    assert_eq!(ids, [None, None, None, Some("k1")]);
    assert_eq!(decoded.stop_reason.as_deref(), Some("STOP"));
    assert!(decoded.complete);
}

#[test]
fn a_part_without_a_name_is_nothing() {
    let decoded = read(&[
        chunk(r#"{"functionCall":{}},{"functionCall":{"name":"","args":{"a":1}}}"#),
        chunk(r#"{"functionCall":{"willContinue":true}},{"functionCall":null}"#),
        stop(),
    ]);
    assert_eq!(calls(&decoded), []);
    assert_eq!(incomplete(&decoded), [] as [&str; 0]);
}

#[test]
fn the_words_of_the_python_sdk_and_its_nulls_are_understood() {
    let whole = r#"{"candidates":[{"content":{"parts":[{"function_call":{"id":null,"name":"add","args":{"a":1},"partial_args":null,"will_continue":null},"thought_signature":"c2ln","executable_code":null,"text":null}],"role":"model"},"finish_reason":null,"index":null}],"prompt_feedback":null,"error":null}"#;
    let end = r#"{"candidates":[{"content":null,"finish_reason":"FinishReason.STOP"}]}"#;
    let decoded = read(&[whole.to_owned(), end.to_owned()]);
    assert_eq!(calls(&decoded), [("add", r#"{"a":1}"#)]);
    assert_eq!(decoded.stop_reason.as_deref(), Some("STOP"));
    assert!(decoded.complete);

    let decoded = read(&[
        r#"{"candidates":[{"content":{"parts":[{"function_call":{"name":"f","args":null,"will_continue":true}}]}}]}"#.to_owned(),
        r#"{"candidates":[{"content":{"parts":[{"function_call":{"name":null,"args":null,"partial_args":[{"json_path":"$.a","string_value":"x","number_value":null,"bool_value":null,"null_value":null,"will_continue":null}],"will_continue":null}}]}}]}"#.to_owned(),
        stop(),
    ]);
    assert_eq!(calls(&decoded), [("f", r#"{"a":"x"}"#)]);
}

#[test]
fn the_thought_signature_of_a_part_stays_with_its_call() {
    let call = |signature: &str| {
        chunk(&format!(
            r#"{{"functionCall":{{"name":"f"}}{signature}}},{{"functionCall":{{"name":"g"}}}}"#
        ))
    };
    for signature in [
        r#","thoughtSignature":"c2ln""#,
        r#","thought_signature":"c2ln""#,
    ] {
        let turn = turn(&[call(signature)], TurnEnd::Complete);
        let signatures: Vec<_> = turn
            .calls
            .iter()
            .map(|call| call.signature.as_deref())
            .collect();
        assert_eq!(signatures, [Some("c2ln"), None]);
    }
}

#[test]
fn streamed_arguments_are_put_together_until_an_empty_part() {
    let mut chunks = streamed(&[
        r#"{"id":"k1","name":"f","willContinue":true}"#,
        r#"{"partialArgs":[{"jsonPath":"$.city","stringValue":"Bos","willContinue":true}],"willContinue":true}"#,
        r#"{"willContinue":true}"#,
        r#"{"partialArgs":[{"jsonPath":"$.city","stringValue":"ton"}],"willContinue":true}"#,
        r#"{"partialArgs":[{"jsonPath":"$.n","numberValue":1.50},{"jsonPath":"$.list[0].on","boolValue":false}],"willContinue":true}"#,
        "{}",
        r#"{"name":"g"}"#,
    ]);
    chunks.push(stop());
    let decoded = read(&chunks);
    assert_eq!(
        calls(&decoded),
        [
            ("f", r#"{"city":"Boston","n":1.50,"list":[{"on":false}]}"#),
            ("g", "{}")
        ]
    );
    assert_eq!(decoded.calls[0].id.as_deref(), Some("k1"));
}

#[test]
fn a_part_that_does_not_continue_is_the_end_of_its_call() {
    let decoded = read(&streamed(&[
        r#"{"name":"f","willContinue":true}"#,
        r#"{"partialArgs":[{"jsonPath":"$.a","numberValue":1}],"willContinue":false}"#,
        r#"{"partialArgs":[{"jsonPath":"$.b","numberValue":2}]}"#,
        r#"{"name":"g","partialArgs":[{"jsonPath":"$.c","numberValue":3}]}"#,
    ]));
    assert_eq!(calls(&decoded), [("f", r#"{"a":1}"#), ("g", r#"{"c":3}"#)]);
}

#[test]
fn a_new_call_ends_the_one_before_it() {
    let decoded = read(&streamed(&[
        r#"{"name":"f","willContinue":true}"#,
        r#"{"partialArgs":[{"jsonPath":"$.a","stringValue":"x"}],"willContinue":true}"#,
        r#"{"name":"f","willContinue":true}"#,
        "{}",
    ]));
    assert_eq!(calls(&decoded), [("f", r#"{"a":"x"}"#), ("f", "{}")]);
}

#[test]
fn arguments_that_come_whole_may_still_be_added_to() {
    let decoded = read(&streamed(&[
        r#"{"name":"f","args":{"a":1.0},"willContinue":true}"#,
        r#"{"partialArgs":[{"jsonPath":"$.b","numberValue":2}]}"#,
    ]));
    assert_eq!(calls(&decoded), [("f", r#"{"a":1.0,"b":2}"#)]);
}

#[test]
fn cut_before_its_end_a_call_is_none_though_an_object_is_there() {
    let begun = streamed(&[
        r#"{"name":"f","willContinue":true}"#,
        r#"{"partialArgs":[{"jsonPath":"$.a","stringValue":"x"}],"willContinue":true}"#,
    ]);
    for end in [None, Some(last("", "MAX_TOKENS")), Some(stop())] {
        let mut chunks = begun.clone();
        chunks.extend(end);
        let decoded = read(&chunks);
        assert_eq!(calls(&decoded), []);
        assert_eq!(incomplete(&decoded), ["f"]);
    }
}

#[test]
fn a_chunk_that_cannot_be_read_may_have_been_a_part_of_the_call() {
    let mut chunks = streamed(&[r#"{"name":"f","willContinue":true}"#]);
    chunks.push("{\"candidates\":[".to_owned());
    chunks.extend(streamed(&["{}", r#"{"name":"g","args":{}}"#]));
    chunks.push(stop());
    let decoded = read(&chunks);
    assert_eq!(calls(&decoded), [("g", "{}")]);
    assert_eq!(incomplete(&decoded), ["f"]);
}

#[test]
fn arguments_that_contradict_each_other_are_no_call() {
    let mut chunks = streamed(&[
        r#"{"name":"f","willContinue":true}"#,
        r#"{"partialArgs":[{"jsonPath":"$.a","numberValue":1},{"jsonPath":"$.a.b","numberValue":1}],"willContinue":true}"#,
        "{}",
    ]);
    chunks.push(stop());
    let decoded = read(&chunks);
    assert_eq!(calls(&decoded), []);
    assert_eq!(incomplete(&decoded), ["f"]);
}

#[test]
fn arguments_longer_than_a_call_may_be_are_refused_like_all_others() {
    let long = "x".repeat(40_000);
    let part = format!(
        r#"{{"partialArgs":[{{"jsonPath":"$.a","stringValue":"{long}","willContinue":true}}],"willContinue":true}}"#
    );
    let mut chunks = streamed(&[r#"{"name":"f","willContinue":true}"#, &part, &part]);
    let mut turn = ProviderTurn::new(
        Some(Dialect::Gemini),
        Vec::new(),
        Limits {
            event_bytes: 1 << 16,
            arguments_bytes: 1 << 16,
            calls: 100_000,
        },
        0,
    );
    let mut ingest = crate::ingest::Ingest::new(crate::ingest::Limits {
        calls: 10,
        arguments_bytes: 1 << 16,
        batch_bytes: 1 << 20,
    });
    chunks.push(stop());
    let (mut inputs, mut events) = (Vec::new(), Vec::new());
    for chunk in &chunks {
        turn.event(chunk.as_bytes(), &mut inputs);
    }
    turn.finish(&mut inputs);
    for input in inputs {
        ingest
            .apply(input, &mut |event| events.push(event))
            .unwrap();
    }
    assert!(events.contains(&crate::ingest::Event::Refused(
        0,
        crate::ingest::Refusal::ArgumentsTooLarge
    )));
}

#[test]
fn what_the_provider_runs_is_passed_over_once() {
    let decoded = read(&[
        chunk(r#"{"executableCode":{"language":"PYTHON","code":"1"}}"#),
        chunk(r#"{"codeExecutionResult":{"outcome":"OUTCOME_OK"}}"#),
        chunk(r#"{"toolCall":{"id":"t1","toolType":"GOOGLE_SEARCH_WEB"}}"#),
        chunk(r#"{"toolResponse":{"id":"t1"}},{"functionCall":{"name":"f"}}"#),
        chunk(r#"{"tool_call":{}},{"executable_code":{}},{"code_execution_result":{}}"#),
        last("", "STOP"),
    ]);
    assert_eq!(calls(&decoded), [("f", "{}")]);
    assert!(
        decoded
            .not_ours
            .iter()
            .all(|of| of.owner == Owner::Provider)
    );
    let not_ours: Vec<_> = (decoded.not_ours.iter())
        .map(|of| (&*of.name, &*of.id))
        .collect();
    assert_eq!(
        not_ours,
        [
            ("executableCode", ""),
            ("toolCall", "t1"),
            ("toolCall", ""),
            ("executableCode", "")
        ]
    );
}

#[test]
fn a_call_may_come_after_a_good_end_and_with_a_bad_one() {
    let f = r#"{"functionCall":{"name":"f"}}"#;
    let decoded = read(&[stop(), last(f, "STOP"), chunk(f)]);
    assert_eq!(calls(&decoded), [("f", "{}"), ("f", "{}")]);
    assert!(decoded.complete);

    let decoded = read(&[last(f, "SAFETY"), chunk(f)]);
    assert_eq!(calls(&decoded), [("f", "{}")]);
    assert!(!decoded.complete);
}

#[test]
fn only_stop_is_a_good_end() {
    for reason in [
        "MAX_TOKENS",
        "SAFETY",
        "RECITATION",
        "MALFORMED_FUNCTION_CALL",
        "UNEXPECTED_TOOL_CALL",
        "OTHER",
        "BRAND_NEW",
    ] {
        for chunks in [
            vec![last("", reason)],
            vec![stop(), last("", reason), stop()],
        ] {
            let decoded = read(&chunks);
            assert_eq!(decoded.stop_reason.as_deref(), Some(reason));
            assert!(!decoded.complete, "{reason}");
        }
        // Whatever the agent thinks of it.
        let turn = turn(&[last("", reason)], TurnEnd::Complete);
        assert_eq!(turn.end, TurnEnd::Truncated);
    }
    let unspecified = last("", "FINISH_REASON_UNSPECIFIED");
    for chunks in [vec![], vec![chunk("")], vec![unspecified]] {
        let decoded = read(&chunks);
        assert_eq!(decoded.stop_reason, None);
        assert!(!decoded.complete);
    }
}

#[test]
fn an_agent_that_calls_the_turn_cut_is_believed() {
    for (said, end) in [
        (TurnEnd::Complete, TurnEnd::Complete),
        (TurnEnd::Truncated, TurnEnd::Truncated),
        (TurnEnd::Aborted, TurnEnd::Aborted),
    ] {
        assert_eq!(turn(&[stop()], said).end, end);
    }
    assert_eq!(
        turn(&[chunk("")], TurnEnd::Truncated).end,
        TurnEnd::Truncated
    );
}

#[test]
fn a_reason_may_be_the_number_of_its_type() {
    let number =
        |of: &str| last("", "").replace(r#""finishReason":"""#, &format!(r#""finishReason":{of}"#));
    let decoded = read(&[number("0"), number("1")]);
    assert_eq!(decoded.stop_reason.as_deref(), Some("STOP"));
    assert!(decoded.complete);
    assert!(!read(&[number("1"), number("2")]).complete);
}

#[test]
fn a_turn_of_several_answers_ends_when_all_have() {
    let of = |index: u32, text: &str| {
        last(r#"{"functionCall":{"name":"f"}}"#, text)
            .replace(r#""index":0"#, &format!(r#""index":{index}"#))
    };
    let decoded = read(&[of(0, "STOP"), of(1, "STOP")]);
    assert_eq!(calls(&decoded).len(), 2);
    assert!(decoded.complete);
    let unfinished = "FINISH_REASON_UNSPECIFIED";
    for reason in ["MAX_TOKENS", unfinished] {
        let decoded = read(&[of(0, unfinished), of(1, reason), of(0, "STOP")]);
        assert_eq!(calls(&decoded).len(), 3);
        assert!(!decoded.complete, "{reason}");
    }
    let many: Vec<_> = (0..100).map(|index| of(index, "STOP")).collect();
    assert_eq!(calls(&read(&many)).len(), MOST_CANDIDATES);
}

#[test]
fn a_prompt_that_was_blocked_has_no_answer() {
    let decoded = read(&[r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#.to_owned()]);
    assert_eq!(decoded.stop_reason, None);
    assert!(!decoded.complete);
    assert!(decoded.error.unwrap().contains("SAFETY"));
    let decoded = read(&[
        r#"{"promptFeedback":{"safetyRatings":[]}}"#.to_owned(),
        stop(),
    ]);
    assert!(decoded.complete);
}

#[test]
fn an_error_ends_the_stream() {
    let f = r#"{"functionCall":{"name":"f"}}"#;
    let error = r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#;
    for error in [error.to_owned(), format!("[{error}]")] {
        let decoded = read(&[chunk(f), stop(), error, chunk(f)]);
        assert_eq!(calls(&decoded), [("f", "{}")]);
        assert_eq!(decoded.stop_reason.as_deref(), Some("STOP"));
        assert!(!decoded.complete);
        assert!(decoded.error.unwrap().contains("UNAVAILABLE"));
    }
}

#[test]
fn what_is_not_known_is_passed_over() {
    let decoded = read(&[
        "[DONE]".to_owned(),
        "ping".to_owned(),
        r#"{"usageMetadata":{"totalTokenCount":1},"candidates":[]}"#.to_owned(),
        r#"{"candidates":[{"content":{"role":"model"}},{"newField":[1]}]}"#.to_owned(),
        chunk(r#"{"inlineData":{}},{"text":"functionCall","thought":true},{}"#),
        last(r#"{"functionCall":{"name":"f","newField":{}}}"#, "STOP"),
    ]);
    assert_eq!(calls(&decoded), [("f", "{}")]);
    assert!(decoded.complete);
}
