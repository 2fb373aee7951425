//! A piece of a call's arguments, as the servers send it: a string, nothing, or the arguments themselves.
//!
//! Servers that count in UTF-16 cut a character outside the basic plane into its two surrogates and send each as an
//! escape in a string of its own. Neither is text, so the first is held until the other comes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde_json::value::RawValue;

/// The bytes of a surrogate, written as if it were a character.
type Surrogate = [u8; 3];

/// The first half of a character whose other half the next fragment begins with.
#[derive(Debug, Default)]
pub(super) struct Half(Option<Surrogate>);

/// Half a character without its other half: the text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Half {
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// The text that a fragment brings. Null is nothing; what is no string is its own JSON text.
    pub(super) fn join<'a>(&mut self, fragment: &'a RawValue) -> Result<Cow<'a, str>, Broken> {
        let json = fragment.get();
        let Some(string) = json.strip_prefix('"') else {
            return match json {
                "null" => Ok(Cow::Borrowed("")),
                _ if self.is_open() => Err(Broken),
                json => Ok(Cow::Borrowed(json)),
            };
        };
        let string = string.strip_suffix('"').unwrap_or(string);
        if string.is_empty() {
            return Ok(Cow::Borrowed(""));
        }
        if !self.is_open() && memchr::memchr(b'\\', string.as_bytes()).is_none() {
            return Ok(Cow::Borrowed(string));
        }
        self.join_bytes(bytes_of(json)?).map(Cow::Owned)
    }

    fn join_bytes(&mut self, mut bytes: Vec<u8>) -> Result<String, Broken> {
        if let Some(first) = self.0.take() {
            let second = bytes
                .first_chunk()
                .copied()
                .and_then(second_half)
                .ok_or(Broken)?;
            let whole = char::decode_utf16([unit(first), second])
                .next()
                .and_then(Result::ok)
                .ok_or(Broken)?;
            bytes.splice(..size_of::<Surrogate>(), whole.to_string().into_bytes());
        }
        if let Some(last) = bytes.last_chunk().copied()
            && is_first_half(last)
        {
            self.0 = Some(last);
            bytes.truncate(bytes.len() - last.len());
        }
        String::from_utf8(bytes).map_err(|_| Broken)
    }
}

fn is_first_half(bytes: Surrogate) -> bool {
    matches!(bytes, [0xED, 0xA0..=0xAF, _])
}

fn second_half(bytes: Surrogate) -> Option<u16> {
    matches!(bytes, [0xED, 0xB0..=0xBF, _]).then(|| unit(bytes))
}

fn unit([first, second, third]: Surrogate) -> u16 {
    u16::from(first & 0x0F) << 12 | u16::from(second & 0x3F) << 6 | u16::from(third & 0x3F)
}

/// A string's bytes: UTF-8, but for halves of characters.
fn bytes_of(json: &str) -> Result<Vec<u8>, Broken> {
    struct Bytes;
    impl Visitor<'_> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Ok(bytes.to_vec())
        }
    }
    serde_json::Deserializer::from_str(json)
        .deserialize_bytes(Bytes)
        .map_err(|_| Broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(fragments: &[&str]) -> Result<String, Broken> {
        let mut half = Half::default();
        let mut text = String::new();
        for fragment in fragments {
            let raw: &RawValue = serde_json::from_str(fragment).unwrap();
            text.push_str(&half.join(raw)?);
        }
        if half.is_open() {
            return Err(Broken);
        }
        Ok(text)
    }

    #[test]
    fn strings_are_joined_and_null_is_nothing() {
        assert_eq!(
            joined(&[r#""{\"a\":""#, "null", r#""""#, r#""1}""#]).unwrap(),
            r#"{"a":1}"#
        );
        assert_eq!(joined(&[r#""null""#]).unwrap(), "null");
    }

    #[test]
    fn what_is_no_string_is_its_own_text() {
        assert_eq!(
            joined(&[r#"{"a": 1.0, "a":2}"#]).unwrap(),
            r#"{"a": 1.0, "a":2}"#
        );
        assert_eq!(joined(&["[1]"]).unwrap(), "[1]");
    }

    #[test]
    fn a_character_may_be_cut_in_its_middle() {
        for cut in [
            &[r#""a\ud83d""#, r#""\ude00b""#][..],
            &[r#""a\ud83d""#, r#""""#, "null", r#""\ude00b""#],
            &[r#""a\ud83d\ude00b""#],
            &[r#""a😀b""#],
        ] {
            assert_eq!(joined(cut).unwrap(), "a😀b", "{cut:?}");
        }
        assert_eq!(
            joined(&[r#""\ud83d""#, r#""\ude00\ud83d""#, r#""\ude01""#]).unwrap(),
            "😀😁"
        );
        // The escape of an escape is text, and stays in two.
        assert_eq!(
            joined(&[r#""\\ud83d""#, r#""\\ude00""#]).unwrap(),
            r"\ud83d\ude00"
        );
    }

    #[test]
    fn half_a_character_alone_is_no_text() {
        for broken in [
            &[r#""\ud83d""#][..],
            &[r#""\ud83d""#, r#""a""#],
            &[r#""\ud83d""#, "{}"],
            &[r#""\ude00""#],
            &[r#""\ud83da""#],
            &[r#""\ud83d""#, r#""\ud83d""#],
        ] {
            assert_eq!(joined(broken), Err(Broken), "{broken:?}");
        }
    }
}
