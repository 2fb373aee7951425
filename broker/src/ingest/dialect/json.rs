//! How decoders read JSON: borrowed where the text has no escapes, null as absent.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_json::value::RawValue;

/// A string, borrowed from the event if it has no escapes. serde borrows a `Cow` only where it stands alone, not inside
/// an `Option`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Strings).map(Text)
    }
}

/// Arguments as text. Where text is due some servers give the object itself, and where an object is due, text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arguments<'a>(Text<'a>);

impl Deref for Arguments<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Arguments<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        if json.starts_with('"') {
            return serde_json::from_str(json)
                .map(Self)
                .map_err(D::Error::custom);
        }
        Ok(Self(Text(Cow::Borrowed(json))))
    }
}

/// Reads an event whose `type` says what it is. One of an unknown type is `None`, whatever its other fields are like.
pub(super) fn typed<'a, T: Deserialize<'a>>(
    data: &'a [u8],
    known: &[&str],
) -> Result<Option<T>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Text<'a>>,
    }
    match serde_json::from_slice(data) {
        Ok(event) => Ok(Some(event)),
        Err(error) => match serde_json::from_slice::<Typed<'_>>(data) {
            Ok(Typed { kind: Some(kind) }) if !known.contains(&&*kind) => Ok(None),
            _ => Err(error),
        },
    }
}
