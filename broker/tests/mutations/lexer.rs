//! The strings and values of a text that may be no JSON at all.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

pub(crate) fn line_feeds(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let mut rest = &mut *text;
    while let Some(at) = memchr(b'\r', rest) {
        rest[at] = b'\n';
        rest = &mut rest[at + 1..];
    }
    text
}

/// The lines of an event that takes several, without what stands before each; with those that are no data, or without.
pub(crate) fn joined(text: &[u8], all: bool) -> Vec<u8> {
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
pub(crate) fn pieces(text: &[u8], values: bool) -> Vec<Vec<u8>> {
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
pub(crate) fn utf_16(text: &[u8]) -> Cow<'_, [u8]> {
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
