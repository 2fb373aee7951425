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
}
