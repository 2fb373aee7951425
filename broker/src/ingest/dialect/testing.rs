//! How the unit tests of a dialect read its events, and how they see what was in them.

use super::{Dialect, Limits, ProviderTurn, Turn};
use crate::decode::{Decoded, Decoder};
use crate::ingest::TurnEnd;

const MOST_BYTES: usize = 1 << 20;

/// A stream to its end. `None`: it is to tell by itself what it is.
pub(super) fn read(dialect: Option<Dialect>, events: &[impl AsRef<str>]) -> Decoded {
    let mut decoder = Decoder::new(dialect, MOST_BYTES);
    for event in events {
        decoder.event(event.as_ref().as_bytes());
    }
    decoder.finish()
}

/// The turn itself, which the agent ends as it likes.
pub(super) fn turn(dialect: Dialect, events: &[impl AsRef<str>], end: TurnEnd) -> Turn {
    let limits = Limits {
        event_bytes: MOST_BYTES,
        arguments_bytes: MOST_BYTES,
        calls: 100_000,
    };
    let mut turn = ProviderTurn::new(Some(dialect), Vec::new(), limits, 0);
    let mut inputs = Vec::new();
    for event in events {
        turn.event(event.as_ref().as_bytes(), &mut inputs);
    }
    turn.end(end, &mut inputs);
    turn.into_turn()
}

/// Each call as its id, `-` where it has none, its name, and the text of its arguments.
pub(super) fn calls(decoded: &Decoded) -> Vec<(&str, &str, &str)> {
    let calls = decoded.calls.iter();
    calls
        .map(|call| {
            let text = std::str::from_utf8(&call.arguments).unwrap();
            (call.id.as_deref().unwrap_or("-"), &*call.name, text)
        })
        .collect()
}

/// The same without the names.
pub(super) fn by_id(decoded: &Decoded) -> Vec<(&str, &str)> {
    let calls = calls(decoded).into_iter();
    calls.map(|(id, _, text)| (id, text)).collect()
}

/// The same without the ids.
pub(super) fn by_name(decoded: &Decoded) -> Vec<(&str, &str)> {
    let calls = calls(decoded).into_iter();
    calls.map(|(_, name, text)| (name, text)).collect()
}

/// The same, one line each.
pub(super) fn lines(decoded: &Decoded) -> Vec<String> {
    let calls = calls(decoded).into_iter();
    calls
        .map(|(id, name, text)| format!("{id} {name} {text}"))
        .collect()
}
