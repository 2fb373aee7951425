//! Damage to a stream's text, drawn by lot: some of it blind, some of it made with an eye for JSON and for events.

use std::ops::Range;

use fastrand::Rng;

/// No input becomes larger, so that a run of many stays short.
const MOST_BYTES: usize = 16 << 10;
const MOST_CHANGES: u32 = 6;

/// What is put where a value was.
const VALUES: &[&str] = &[
    "null",
    "{}",
    "[]",
    "true",
    "false",
    "\"\"",
    "0",
    "-1",
    "1",
    "7.5",
    "-0",
    "1e999",
    "4294967296",
    "18446744073709551616",
    "-9223372036854775809",
    "123456789012345678901234567890",
    "\"null\"",
    "\"{}\"",
    "\"\\ud83d\"",
    "\"\\ude00\\ud83d\"",
    "\"\\u0000\"",
    "\"{\\\"a\\\":\"",
    "\"}\"",
    "{\"a\":1}",
    "[null,{},[]]",
];

/// Bytes that mean something to a framing or to a parser.
const BYTES: &[u8] = b"{}[]\",:\\ \r\n\t0-e\x00\x7f\x80\xc3\xed\xf0\xff";

/// One of `own`, changed some times; what is taken from elsewhere is taken from `all`.
pub(crate) fn mutated(random: &mut Rng, own: &[Vec<u8>], all: &[Vec<u8>]) -> Vec<u8> {
    let mut text = pick(random, own).clone();
    for _ in 0..random.u32(1..=MOST_CHANGES) {
        change(random, &mut text, all);
        text.truncate(MOST_BYTES);
    }
    text
}

fn change(random: &mut Rng, text: &mut Vec<u8>, all: &[Vec<u8>]) {
    if text.is_empty() {
        text.extend_from_slice(pick(random, all));
    }
    match random.u8(..23) {
        0 => {
            let at = random.usize(..text.len());
            text[at] ^= 1 << random.u8(..8);
        }
        1 => {
            let at = random.usize(..text.len());
            text[at] = BYTES[random.usize(..BYTES.len())];
        }
        2 => drop(text.drain(span(random, text.len()))),
        3 => {
            let copied = text[span(random, text.len())].to_vec();
            insert(random, text, &copied);
        }
        4 => {
            let from = pick(random, all);
            let span = span(random, from.len());
            insert(random, text, &from[span]);
        }
        5 => swap(text, span(random, text.len()), span(random, text.len())),
        6 => text.truncate(random.usize(..=text.len())),
        7 => drop(text.drain(..random.usize(..text.len()))),
        8 => {
            // The beginning of this one, the end of another.
            let other = pick(random, all);
            text.truncate(random.usize(..=text.len()));
            text.extend_from_slice(&other[random.usize(..=other.len())..]);
        }
        9..=11 => {
            if let Some(value) = value(text, random.usize(..text.len())) {
                let new = replacement(random);
                text.splice(value, new);
            }
        }
        12 => {
            if let Some(number) = number(text, random.usize(..text.len())) {
                let new = VALUES[random.usize(6..16)];
                text.splice(number, new.bytes());
            }
        }
        13 => {
            let (a, b) = (random.usize(..text.len()), random.usize(..text.len()));
            if let (Some(a), Some(b)) = (key(text, a), key(text, b)) {
                swap(text, a, b);
            }
        }
        14 => {
            let (a, b) = (random.usize(..text.len()), random.usize(..text.len()));
            if let (Some(a), Some(b)) = (value(text, a), value(text, b)) {
                swap(text, a, b);
            }
        }
        15 => drop(text.drain(event(text, random.usize(..text.len())))),
        16 => {
            let (a, b) = (random.usize(..text.len()), random.usize(..text.len()));
            swap(text, event(text, a), event(text, b));
        }
        17 => {
            let from = pick(random, all);
            let other = from[event(from, random.usize(..from.len()))].to_vec();
            let at = event(text, random.usize(..text.len())).start;
            text.splice(at..at, other);
        }
        18 => {
            let event = event(text, random.usize(..text.len()));
            // Often enough that what grows with the square of it would be seen, now and then.
            let most = if random.u8(..16) == 0 { 9 } else { 4 };
            let times = 1 << random.u32(..most);
            let copies = text[event.clone()].repeat(times);
            let room = MOST_BYTES.saturating_sub(text.len());
            text.splice(event.end..event.end, copies.into_iter().take(room));
        }
        19 if random.bool() => {
            // The whole message once more, or another one.
            let more = if random.bool() {
                text.clone()
            } else {
                pick(random, all).clone()
            };
            text.extend(more);
        }
        20 => {
            let new: &[u8] = if random.bool() { b"\r\n" } else { b"\r" };
            *text = text
                .split(|byte| *byte == b'\n')
                .collect::<Vec<_>>()
                .join(new);
        }
        21 => {
            let at = random.usize(..text.len());
            let word = BYTES[random.usize(..BYTES.len())];
            text.splice(at..at, std::iter::repeat_n(word, 1 << random.u32(..8)));
        }
        _ => {
            if let Some(number) = number(text, random.usize(..text.len())) {
                let small = random.u8(..6).to_string();
                text.splice(number, small.bytes());
            }
        }
    }
}

fn replacement(random: &mut Rng) -> Vec<u8> {
    match random.u8(..12) {
        0 => "[".repeat(1 << random.u32(..12)).into_bytes(),
        1 => {
            let depth = 1 << random.u32(..8);
            let (open, close) = ("{\"a\":".repeat(depth), "}".repeat(depth));
            format!("{open}1{close}").into_bytes()
        }
        2 => {
            let depth = 1 << random.u32(..8);
            format!("{}{}", "[".repeat(depth), "]".repeat(depth)).into_bytes()
        }
        3 => format!("\"{}\"", "lang ".repeat(1 << random.u32(..10))).into_bytes(),
        4 => {
            let element = VALUES[random.usize(..VALUES.len())];
            let elements = vec![element; 1 << random.u32(..10)];
            format!("[{}]", elements.join(",")).into_bytes()
        }
        _ => VALUES[random.usize(..VALUES.len())].into(),
    }
}

pub(crate) fn pick<'a>(random: &mut Rng, from: &'a [Vec<u8>]) -> &'a Vec<u8> {
    &from[random.usize(..from.len())]
}

/// Short as a rule.
fn span(random: &mut Rng, of: usize) -> Range<usize> {
    let most = (1 << random.u32(..12)).min(of);
    let length = random.usize(..=most);
    let start = random.usize(..=of - length);
    start..start + length
}

fn insert(random: &mut Rng, text: &mut Vec<u8>, new: &[u8]) {
    let at = random.usize(..=text.len());
    text.splice(at..at, new.iter().copied());
}

/// Without effect on spans that overlap.
fn swap(text: &mut Vec<u8>, a: Range<usize>, b: Range<usize>) {
    let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
    if first.end <= second.start {
        let later = text[second.clone()].to_vec();
        let earlier = text[first.clone()].to_vec();
        text.splice(second, earlier);
        text.splice(first, later);
    }
}

/// The event at a place: up to the blank line of SSE, or up to the line's end.
fn event(text: &[u8], at: usize) -> Range<usize> {
    let ends = |from: usize, mark: &[u8]| {
        let found = memchr::memmem::find(&text[from..], mark);
        found.map(|found| from + found + mark.len())
    };
    let mark: &[u8] = match text.first() {
        Some(b'{') => b"\n",
        _ => b"\n\n",
    };
    let mark = if ends(0, mark).is_none() { b"\n" } else { mark };
    let before = memchr::memmem::rfind(&text[..at], mark);
    let start = before.map_or(0, |found| found + mark.len());
    start..ends(start, mark).unwrap_or(text.len())
}

/// The first value behind a colon from here on: a string, a number, or a whole object or list.
fn value(text: &[u8], from: usize) -> Option<Range<usize>> {
    let colon = from + memchr::memchr(b':', &text[from..])?;
    let start = colon + 1;
    let end = super::lexer::value_end(text, start)?;
    Some(start..end)
}

/// The first number from here on.
fn number(text: &[u8], from: usize) -> Option<Range<usize>> {
    let start = from + text[from..].iter().position(u8::is_ascii_digit)?;
    let length = text[start..].iter().position(|byte| !byte.is_ascii_digit());
    Some(start..length.map_or(text.len(), |length| start + length))
}

/// The first string from here on that has a colon behind it.
fn key(text: &[u8], from: usize) -> Option<Range<usize>> {
    let end = from + memchr::memmem::find(&text[from..], b"\":")?;
    let start = memchr::memrchr(b'"', &text[..end])?;
    Some(start..end + 1)
}
