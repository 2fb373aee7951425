//! What may be found in a text, by rules that know nothing of events, fields or dialects.
//!
//! Every name and id is one of the text's JSON strings, no name more often than it stands there. Arguments are a piece of
//! the text, or strings and values of the text joined in their order; or, where a provider gives them value by value,
//! every one of their leaves is.

use std::cell::OnceCell;
use std::collections::HashMap;

use memchr::memmem;
use serde_json::value::RawValue;
use toolpool_broker::decode::{Call, Decoded, Dialect};

use super::lexer::{joined, line_feeds, pieces, utf_16};

/// The broker keeps no more of a name, and of an id.
const NAME_BYTES: usize = 256;
const ID_BYTES: usize = 4096;

/// A text, and what is in it.
pub(crate) struct Text {
    /// As it is, as SSE joins it with every line, and with those only that are data. Carriage returns stand as line
    /// feeds everywhere here.
    readings: [Reading; 3],
}

struct Reading {
    text: Vec<u8>,
    /// What the strings say, in order. Characters outside the basic plane are two surrogates, as UTF-16 has them: a
    /// provider may cut one in two.
    strings: OnceCell<Vec<Vec<u8>>>,
    /// The strings and all other values behind a colon, in order.
    values: OnceCell<Vec<Vec<u8>>>,
}

impl Reading {
    fn new(text: Vec<u8>) -> Self {
        Self {
            text,
            strings: OnceCell::new(),
            values: OnceCell::new(),
        }
    }

    fn strings(&self) -> &[Vec<u8>] {
        self.strings.get_or_init(|| pieces(&self.text, false))
    }

    fn values(&self) -> &[Vec<u8>] {
        self.values.get_or_init(|| pieces(&self.text, true))
    }
}

impl Text {
    pub(crate) fn new(text: &[u8]) -> Self {
        let readings = [joined(text, true), line_feeds(text), joined(text, false)];
        Self {
            readings: readings.map(Reading::new),
        }
    }

    /// Fails if something was found that is not there.
    pub(crate) fn judge(&self, decoded: &Decoded) -> Result<(), String> {
        let calls = decoded.calls.iter().map(|call| (&call.name, &call.id));
        let incomplete = (decoded.incomplete.iter()).map(|call| (&call.name, &call.id));
        let mut times: HashMap<&str, usize> = HashMap::new();
        for (name, id) in calls.chain(incomplete) {
            *times.entry(name).or_default() += 1;
            if id.as_ref().is_some_and(|id| !self.says(id, 1, ID_BYTES)) {
                return Err(format!("no string is the id {id:?}"));
            }
        }
        for (name, times) in times {
            if !name.is_empty() && !self.says(name, times, NAME_BYTES) {
                return Err(format!(
                    "{times} calls of {name:?}, which stands there less"
                ));
            }
        }
        let partial = decoded.dialect == Some(Dialect::Gemini);
        for call in &decoded.calls {
            if !self.holds(call, partial) {
                return Err(format!("not in the text: {call:?}"));
            }
        }
        Ok(())
    }

    fn holds(&self, call: &Call, partial: bool) -> bool {
        if call.custom {
            let input: Option<HashMap<&str, String>> = serde_json::from_slice(&call.arguments).ok();
            return input.is_some_and(|input| {
                let input = input["input"].as_bytes();
                self.is_part(&line_feeds(input)) || self.is_spelled(input)
            });
        }
        let arguments = line_feeds(&call.arguments);
        arguments.trim_ascii() == b"{}"
            || self.is_part(&arguments)
            || self.is_spelled(&call.arguments)
            || (partial && serde_json::from_slice(&call.arguments).is_ok_and(|it| self.leaves(it)))
    }

    fn is_part(&self, text: &[u8]) -> bool {
        let mut readings = self.readings.iter();
        readings.any(|reading| memmem::find(&reading.text, text).is_some())
    }

    /// Whether strings and values make this up, in their order.
    fn is_spelled(&self, text: &[u8]) -> bool {
        let text = line_feeds(&utf_16(text));
        let mut readings = self.readings.iter();
        readings.any(|it| is_spelled(&text, it.strings()) || is_spelled(&text, it.values()))
    }

    /// Whether every leaf of an object that was put together is in the text, and every name in some path.
    fn leaves(&self, value: &RawValue) -> bool {
        let json = value.get();
        match json.as_bytes() {
            [b'{', ..] => {
                let members: Option<HashMap<String, &RawValue>> = serde_json::from_str(json).ok();
                members.is_some_and(|mut members| {
                    members.drain().all(|(name, value)| {
                        let found = self.is_part(json.as_bytes()) || self.is_in_a_string(&name);
                        found && self.leaves(value)
                    })
                })
            }
            [b'[', ..] => {
                let elements: Option<Vec<&RawValue>> = serde_json::from_str(json).ok();
                elements.is_some_and(|elements| elements.into_iter().all(|it| self.leaves(it)))
            }
            [b'"', ..] => serde_json::from_str::<String>(json)
                .is_ok_and(|text| text.is_empty() || self.is_spelled(text.as_bytes())),
            // Nothing at all may stand for it.
            b"null" => true,
            _ => self.is_part(&line_feeds(json.as_bytes())),
        }
    }

    fn is_in_a_string(&self, name: &str) -> bool {
        let name = line_feeds(&utf_16(name.as_bytes()));
        let mut strings = self.readings.iter().flat_map(Reading::strings);
        strings.any(|string| {
            // A path may escape once more.
            let plain = string.iter().copied().filter(|byte| *byte != b'\\');
            memmem::find(string, &name).is_some()
                || memmem::find(&plain.collect::<Vec<u8>>(), &name).is_some()
                || name.contains(&b'\\')
        })
    }

    /// Whether so many strings say this, as far as so many bytes of them are kept.
    fn says(&self, text: &str, times: usize, kept: usize) -> bool {
        let whole = text.len() + 3 < kept;
        let text = line_feeds(&utf_16(text.as_bytes()));
        let says = |string: &&Vec<u8>| {
            if whole {
                string.len() == text.len() && **string == text
            } else {
                string.starts_with(&text)
            }
        };
        let mut readings = self.readings.iter();
        readings.any(|reading| reading.strings().iter().filter(says).count() >= times)
    }
}

fn is_spelled(text: &[u8], pieces: &[Vec<u8>]) -> bool {
    let mut reached = vec![false; text.len() + 1];
    let mut ends = vec![0];
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        for at in 0..ends.len() {
            let end = ends[at] + piece.len();
            if end <= text.len() && !reached[end] && text[ends[at]..end] == **piece {
                reached[end] = true;
                ends.push(end);
            }
        }
        if reached[text.len()] {
            return true;
        }
    }
    text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        let text = Text::new(
            br#"data: {"a":"{\"x\": \"\ud83d","b":{"c": 1},"d":"\ude00\"","e":"}","f":7}"#,
        );
        assert!(text.is_spelled("{\"x\": \"😀\"}".as_bytes()));
        assert!(text.is_spelled(b"7") && text.is_spelled(br#"{"c": 1}}"#));
        assert!(!text.is_spelled(b"}7}") && !text.is_spelled(b"\"}\""));
        assert!(text.is_part(br#""b":{"c": 1}"#));
        assert!(text.says("a", 1, 256) && !text.says("a", 2, 256) && !text.says("x", 1, 256));
    }
}
