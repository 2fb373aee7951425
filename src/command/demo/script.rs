//! What the demo's model writes, and at which pace.

use std::time::Duration;

use serde_json::{Value, json};
use toolpool_client::{Content, FinishedBatch, TurnEnd};

use crate::turn::{BlockStart, Step, TimedStep, Turn};

/// A token comes so long after the one before.
const TOKEN: Duration = Duration::from_millis(25);
/// Characters of a token, in turn: about what a tokenizer makes of JSON.
const TOKEN_LENGTHS: [usize; 5] = [2, 4, 3, 5, 1];
/// Tokens before the first block: the model says what it is about to do.
const PREAMBLE: u32 = 8;
/// The product that the second turn orders.
const WANTED: &str = "p-101";
/// The call that looks it up.
const LOOK_UP: &str = "call_3";

/// A fan-out: look-ups, one slow call, one that fails, one with bad arguments.
pub(super) fn first_turn() -> Turn {
    written([
        ("call_1", "look_up_product", json!({ "product": "p-100" })),
        ("call_2", "stock_report", json!({ "supplier": "s-3" })),
        (LOOK_UP, "look_up_product", json!({ "product": WANTED })),
        ("call_4", "price_history", json!({ "product": WANTED })),
        ("call_5", "look_up_product", json!({ "product": 7 })),
        ("call_6", "look_up_product", json!({ "product": "p-102" })),
    ])
}

/// One call, with an argument that came out of the first turn.
pub(super) fn second_turn(supplier: &str) -> Turn {
    let order = json!({ "supplier": supplier, "product": WANTED, "quantity": 24 });
    written([("call_1", "place_order", order)])
}

/// The supplier that the first turn found.
pub(super) fn supplier(batch: &FinishedBatch) -> Option<String> {
    let output = batch.get(LOOK_UP)?.outcome.as_ref().ok()?;
    output.content.iter().find_map(|content| {
        let product: Value = match content {
            Content::Json(json) => serde_json::from_slice(json).ok()?,
            Content::Text(text) => serde_json::from_str(text).ok()?,
            _ => return None,
        };
        Some(product.get("supplier")?.as_str()?.to_owned())
    })
}

/// The calls as a model writes them: token by token, a block right after the one before it.
fn written<const N: usize>(calls: [(&str, &str, Value); N]) -> Turn {
    let mut turn = Turn::default();
    let mut at = TOKEN * PREAMBLE;
    let mut push = |at, step| turn.steps.push(TimedStep { at, step });
    for (index, (id, tool, arguments)) in (0..).zip(calls) {
        push(
            at,
            Step::BlockStart(BlockStart {
                index,
                id: id.to_owned(),
                tool: tool.to_owned(),
                idempotency_key: None,
            }),
        );
        for fragment in tokens(&arguments.to_string()) {
            at += TOKEN;
            push(at, Step::BlockDelta { index, fragment });
        }
        at += TOKEN;
        push(at, Step::BlockStop { index });
    }
    push(at + TOKEN, Step::Seal(TurnEnd::Complete));
    turn
}

fn tokens(text: &str) -> Vec<String> {
    let mut rest = text.chars().peekable();
    let mut lengths = TOKEN_LENGTHS.iter().cycle();
    std::iter::from_fn(|| {
        rest.peek()?;
        let length = *lengths.next()?;
        Some(rest.by_ref().take(length).collect())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_join_to_what_they_were_cut_from() {
        let text = r#"{"product":"größer"}"#;
        let tokens = tokens(text);
        assert_eq!(tokens.concat(), text);
        assert_eq!(tokens[0], "{\"");
        assert!(tokens.iter().all(|token| !token.is_empty()));
    }

    #[test]
    fn a_block_begins_the_moment_the_one_before_it_is_complete() {
        let turn = first_turn();
        let stop = turn
            .steps
            .iter()
            .position(|step| matches!(step.step, Step::BlockStop { .. }));
        let pair = &turn.steps[stop.unwrap()..][..2];
        assert!(matches!(pair[1].step, Step::BlockStart(_)));
        assert_eq!(pair[0].at, pair[1].at);
        assert!(turn.steps.is_sorted_by_key(|step| step.at));
    }
}
