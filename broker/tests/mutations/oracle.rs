//! What may be found in a text, by rules that know nothing of events, fields or dialects.
//!
//! Every name and id is one of the text's JSON strings, no name more often than it stands there. Arguments are a piece of
//! the text, or strings and values of the text joined in their order; or, where a provider gives them value by value,
//! every one of their leaves is.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

use memchr::{memchr, memchr2, memmem};
use serde_json::value::RawValue;
use toolpool_broker::decode::{Call, Decoded, Dialect};

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

fn line_feeds(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let mut rest = &mut *text;
    while let Some(at) = memchr(b'\r', rest) {
        rest[at] = b'\n';
        rest = &mut rest[at + 1..];
    }
    text
}

/// The lines of an event that takes several, without what stands before each; with those that are no data, or without.
fn joined(text: &[u8], all: bool) -> Vec<u8> {
    let mut joined = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        let value = line.strip_prefix(b"data:");
        let value = value.map(|value| value.strip_prefix(b" ").unwrap_or(value));
        if let Some(value) = value.or(all.then_some(line)) {
            joined.extend_from_slice(value);
            joined.push(b'\n');
        }
        rest = &rest[end..];
        rest = rest
            .strip_prefix(b"\r\n")
            .unwrap_or(rest.get(1..).unwrap_or_default());
    }
    joined
}

/// The strings; and with them, where each begins, all other values behind a colon.
fn pieces(text: &[u8], values: bool) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(found) = memchr2(b'"', if values { b':' } else { b'"' }, &text[at..]) {
        at += found + 1;
        let before = text[..at - 1].trim_ascii_end().last();
        if text[at - 1] == b':' {
            let start = text.len() - text[at..].trim_ascii_start().len();
            if text.get(start).is_some_and(|first| *first != b'"')
                && let Some(end) = value_end(text, start)
            {
                pieces.push(text[start..end].trim_ascii().to_vec());
            }
        } else if matches!(before, None | Some(b'{' | b'[' | b',' | b':'))
            && let Some(end) = string_end(text, at)
        {
            pieces.extend(unescaped(&text[at..end - 1]));
        }
    }
    pieces
}

/// Behind the value that begins here, or after some white space.
pub(crate) fn value_end(text: &[u8], from: usize) -> Option<usize> {
    let start = text.len() - text.get(from..)?.trim_ascii_start().len();
    match text.get(start)? {
        b'"' => string_end(text, start + 1),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0, start);
            loop {
                match text.get(at)? {
                    b'"' => at = string_end(text, at + 1)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b'\n' | b'\r');
            let length = text[start..].iter().position(ends);
            Some(length.map_or(text.len(), |length| start + length))
        }
    }
}

/// Behind the closing quote of the string whose first letter is here.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// What a string says; `None` if it is none.
fn unescaped(string: &[u8]) -> Option<Vec<u8>> {
    let mut said = Vec::with_capacity(string.len());
    let mut rest = string;
    while let Some(at) = memchr(b'\\', rest) {
        said.extend_from_slice(&utf_16(&rest[..at]));
        let escape = *rest.get(at + 1)?;
        rest = &rest[at + 2..];
        match escape {
            b'"' | b'\\' | b'/' => said.push(escape),
            b'b' => said.push(8),
            b'f' => said.push(12),
            b'n' | b'r' => said.push(b'\n'),
            b't' => said.push(b'\t'),
            b'u' => {
                let digits = std::str::from_utf8(rest.get(..4)?).ok()?;
                push(&mut said, u16::from_str_radix(digits, 16).ok()?);
                rest = &rest[4..];
            }
            _ => return None,
        }
    }
    said.extend_from_slice(&utf_16(rest));
    Some(said)
}

/// A unit of UTF-16 in the form that UTF-8 has for characters of its number; a carriage return is a line feed.
fn push(said: &mut Vec<u8>, unit: u16) {
    let [high, low] = unit.to_be_bytes();
    match unit {
        0x0d => said.push(b'\n'),
        ..0x80 => said.push(low),
        0x80..0x800 => said.extend([0xc0 | high << 2 | low >> 6, 0x80 | low & 0x3f]),
        _ => said.extend([
            0xe0 | high >> 4,
            0x80 | (high & 0x0f) << 2 | low >> 6,
            0x80 | low & 0x3f,
        ]),
    }
}

/// UTF-8 with each character outside the basic plane as its two surrogates.
fn utf_16(text: &[u8]) -> Cow<'_, [u8]> {
    if text.iter().all(|byte| *byte < 0xf0) {
        return Cow::Borrowed(text);
    }
    let mut units = Vec::with_capacity(text.len() * 2);
    for chunk in text.utf8_chunks() {
        for unit in chunk.valid().encode_utf16() {
            push(&mut units, unit);
        }
        units.extend_from_slice(chunk.invalid());
    }
    Cow::Owned(units)
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
