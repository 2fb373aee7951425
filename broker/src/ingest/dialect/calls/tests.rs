//! What limits a turn whatever its dialect, and what voids its blocks.

use super::*;

const LIMITS: Limits = Limits {
    event_bytes: 1 << 20,
    arguments_bytes: 100,
    calls: 1_000,
};

fn calls() -> Calls {
    Calls::new(vec!["local".into()], LIMITS, 0)
}

fn named(name: &str) -> NewCall<'_> {
    NewCall {
        name,
        ..NewCall::default()
    }
}

/// The steps since the last time.
fn steps(calls: &mut Calls) -> Vec<Input> {
    let mut inputs = Vec::new();
    calls.drain(&mut inputs);
    inputs
}

fn voided(steps: &[Input]) -> Vec<u32> {
    let voided = steps.iter().filter_map(|step| match step {
        Input::Void { index, .. } => Some(*index),
        _ => None,
    });
    voided.collect()
}

fn error(calls: Calls) -> String {
    calls.into_turn(None).error.unwrap_or_default()
}

#[test]
fn a_few_damaged_events_cost_open_blocks_and_many_cost_the_turn() {
    let mut calls = calls();
    let closed = calls.begin(named("closed"));
    calls.append(closed, r#"{"a":1}"#);
    calls.begin(named("open"));
    calls.unreadable();
    assert_eq!(voided(&steps(&mut calls)), [1]);
    for _ in 1..MOST_UNREADABLE {
        calls.unreadable();
    }
    assert!(!calls.ended() && steps(&mut calls).is_empty());
    calls.unreadable();
    assert!(matches!(
        steps(&mut calls)[..],
        [Input::Seal(TurnEnd::Truncated)]
    ));
    assert!(error(calls).contains("could not be read"));
}

#[test]
fn a_message_that_begins_anew_leaves_alone_what_was_void_before_it() {
    let mut calls = calls();
    for message in 0..3 {
        for _ in 0..2 {
            calls.begin(named("a"));
        }
        calls.restart();
        assert_eq!(voided(&steps(&mut calls)), [2 * message, 2 * message + 1]);
        assert_eq!(calls.message, calls.blocks.len());
    }
}

#[test]
fn far_too_many_calls_end_the_turn() {
    let mut calls = calls();
    let blocks: Vec<Block> = (0..=LIMITS.calls)
        .map(|_| calls.begin(named("a")))
        .collect();
    assert!(calls.ended());
    let begun = steps(&mut calls);
    assert_eq!(begun.len(), LIMITS.calls + 1, "each begins, and a seal");
    // One of them is none. Nothing that is said of any of them now has an effect.
    for block in blocks {
        calls.append(block, "{}");
        calls.early(block);
        calls.complete(block);
        calls.void(block, Void::Withdrawn);
        calls.text(block);
    }
    assert!(steps(&mut calls).is_empty());
    assert!(error(calls).contains("max_calls_per_batch"));
}

#[test]
fn calls_of_others_are_limited_too() {
    let mut calls = calls();
    for _ in 0..MOST_PASSED_OVER {
        calls.pass_over(Owner::Provider, None, "search", 0);
    }
    assert!(!calls.ended());
    calls.pass_over(Owner::Provider, None, "search", 0);
    assert!(calls.ended());
    assert_eq!(calls.into_turn(None).not_ours.len(), MOST_NOT_OURS);
}

#[test]
fn what_goes_back_with_the_calls_is_limited_over_the_turn() {
    let signature = "s".repeat(LIMITS.arguments_bytes / 2);
    let signed = NewCall {
        signature: Some(&signature),
        ..named("a")
    };
    let mut calls = calls();
    calls.begin(signed);
    calls.keep(40);
    calls.give_back(40);
    calls.begin(signed);
    assert!(!calls.ended());
    calls.begin(signed);
    assert!(error(calls).contains("max_arguments_bytes"));
}
