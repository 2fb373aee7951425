use super::*;

fn error(text: &str) -> String {
    format!("{:#}", Turn::parse(text).unwrap_err())
}

#[test]
fn every_step_can_be_recorded() {
    let turn = Turn::parse(concat!(
        r#"{"at": 0, "block_start": {"index": 1, "id": "a", "tool": "hash"}}"#,
        "\n\n",
        r#"{"at": 0.25, "block_delta": {"index": 1, "fragment": "{\"te"}}"#,
        "\n",
        r#"{"at": 0.5, "block_stop": {"index": 1}}"#,
        "\r\n",
        r#"{"at": 0.5, "call": {"id": "b", "tool": "add", "arguments": {"a": 1}}}"#,
        "\n",
        r#"{"at": 0.5, "call": {"id": "c", "tool": "add", "arguments": "{\"a\": "}}"#,
        "\n",
        r#"{"at": 1.5, "seal": {"turn_end": "truncated"}}"#,
    ))
    .unwrap();
    assert_eq!(turn.steps.len(), 6);
    assert_eq!(turn.steps[1].at, Duration::from_millis(250));
    assert!(
        matches!(&turn.steps[3].step, Step::Call(call) if &call.arguments[..] == br#"{"a": 1}"#)
    );
    assert!(matches!(&turn.steps[4].step, Step::Call(call) if &call.arguments[..] == br#"{"a": "#));
    assert!(matches!(turn.steps[5].step, Step::Seal(TurnEnd::Truncated)));
}

#[test]
fn a_providers_stream_can_be_recorded_event_by_event_and_as_text() {
    let turn = Turn::parse(concat!(
        r#"{"at": 0, "open": {"dialect": "openai", "local_tools": ["screenshot"]}}"#,
        "\n",
        r#"{"at": 0.5, "provider_event": {"b": 1.10, "a": [ ]}}"#,
        "\n",
        r#"{"at": 1, "provider_data": "data: {\"é\": 1}\n\n"}"#,
        "\n",
        r#"{"at": 2, "seal": {"turn_end": "aborted"}}"#,
    ))
    .unwrap();
    let provider = turn.provider.unwrap();
    assert_eq!(provider.dialect, Dialect::Openai);
    assert_eq!(provider.local_tools, ["screenshot"]);
    assert_eq!(turn.steps.len(), 3);
    assert!(
        matches!(&turn.steps[0].step, Step::ProviderEvent(json) if json == r#"{"b": 1.10, "a": [ ]}"#)
    );
    assert!(
        matches!(&turn.steps[1].step, Step::ProviderData(text) if text == "data: {\"é\": 1}\n\n")
    );
    let unnamed = Turn::parse(r#"{"at": 0, "provider_data": ""}"#).unwrap();
    assert_eq!(unnamed.provider.unwrap().dialect, Dialect::Auto);
}

#[test]
fn a_stream_without_times_is_cut_into_pieces_and_tells_its_tools() {
    let example = Turn::parse(include_str!("../../docs/examples/anthropic.ndjson")).unwrap();
    let stream = Bytes::from_static(include_bytes!("../../docs/examples/anthropic.sse"));
    let stream = [&stream[..], &vec![b'\n'; PIECE]].concat().into();
    let turn = Turn::of_stream(&stream, Provider::default());
    assert_eq!(turn.steps.len(), 2);
    let tools = ["calculate", "look_up_product", "stock_report"];
    for turn in [example, turn] {
        assert!(turn.tools().iter().eq(&tools), "{:?}", turn.tools());
    }
    let local_tools = vec!["calculate".to_owned()];
    let turn = Turn::of_stream(
        &stream,
        Provider {
            local_tools,
            ..Provider::default()
        },
    );
    assert!(turn.tools().iter().eq(&tools[1..]));
    let blocks = Turn::parse(include_str!("../../docs/examples/turn.ndjson")).unwrap();
    assert_eq!(blocks.tools().len(), 4);
}

#[test]
fn the_example_can_be_read() {
    let turn = Turn::parse(include_str!("../../docs/examples/turn.ndjson")).unwrap();
    assert!(matches!(
        turn.steps.last().unwrap().step,
        Step::Seal(TurnEnd::Complete)
    ));
}

#[test]
fn an_error_names_its_line() {
    let start = r#"{"at": 1, "block_start": {"index": 0, "id": "a", "tool": "hash"}}"#;
    for (second, expected) in [
        ("{", "line 2: EOF"),
        (r#"{"at": 1}"#, "line 2: exactly one of"),
        (
            r#"{"at": 1, "seal": {}, "block_stop": {"index": 0}}"#,
            "line 2: exactly one of",
        ),
        (r#"{"at": 1, "sael": {}}"#, "line 2: unknown field `sael`"),
        (r#"{"seal": {}}"#, "line 2: missing field `at`"),
        (r#"{"at": -1, "seal": {}}"#, "line 2: `at` must be seconds"),
        (
            r#"{"at": 0.5, "seal": {}}"#,
            "line 2: `at` is 0.5 and the step before it came at 1",
        ),
        (
            r#"{"at": 1, "block_stop": {"index": 3}}"#,
            "line 2: no block 3 is open",
        ),
        (
            r#"{"at": 1, "block_delta": {"index": 3, "fragment": ""}}"#,
            "line 2: no block 3 is open",
        ),
        (start, "line 2: block 0 is open already"),
        (
            r#"{"at": 1, "seal": {"turn_end": "done"}}"#,
            "line 2: unknown variant `done`",
        ),
        (
            r#"{"at": 1, "open": {}}"#,
            "line 2: open must be the first line",
        ),
        (
            r#"{"at": 1, "provider_data": ""}"#,
            "line 2: blocks and calls cannot be mixed",
        ),
    ] {
        let error = error(&format!("{start}\n{second}\n"));
        assert!(error.starts_with(expected), "{second}: {error}");
    }
    let seal = r#"{"at": 1, "seal": {}}"#;
    assert_eq!(
        error(&format!("{seal}\n\n{seal}")),
        "line 3: nothing can follow the seal"
    );
    assert_eq!(error("\n"), "it has no steps");
    let open = r#"{"at": 0, "open": {}}"#;
    assert_eq!(error(open), "it has no steps");
    for (second, expected) in [
        (open, "line 2: open must be the first line"),
        (start, "line 2: blocks and calls cannot be mixed"),
        (
            r#"{"at": 0, "provider_event": "a"}"#,
            "line 2: provider_event must be a JSON object",
        ),
    ] {
        let error = error(&format!("{open}\n{second}\n"));
        assert!(error.starts_with(expected), "{second}: {error}");
    }
}
