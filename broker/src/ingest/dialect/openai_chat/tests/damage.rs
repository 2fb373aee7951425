//! Damage and excess.

use super::{Chat, calls, chat};

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
