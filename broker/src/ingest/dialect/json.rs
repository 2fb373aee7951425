//! How decoders read JSON: borrowed where the text has no escapes, null as absent.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Elements of all lists of an event together, one within another too. Without a limit a few bytes of text, `{},`, would
/// be a hundred times as much memory for as long as the event is read.
const MOST_ELEMENTS: usize = 16 * 1024;

thread_local! {
    /// Elements that the lists of the present event may still have; `None`: they had more. serde has no way to hand a
    /// count from one list to the next.
    static ROOM: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Another event is going to be read.
pub(super) fn make_room() {
    ROOM.set(Some(MOST_ELEMENTS));
}

/// Whether the lists of the present event were too long.
pub(super) fn was_too_long() -> bool {
    ROOM.get().is_none()
}

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
        let json = <&RawValue>::deserialize(deserializer)?;
        let text = arguments(Some(json)).map_err(D::Error::custom)?;
        Ok(Self(Text(text)))
    }
}

/// The same of a field that was not looked into before; one that is not there is empty.
pub(super) fn arguments(field: Option<&RawValue>) -> Result<Cow<'_, str>, serde_json::Error> {
    match field.map(RawValue::get) {
        Some(string) if string.starts_with('"') => {
            serde_json::from_str(string).map(|Text(text)| text)
        }
        Some(other) => Ok(Cow::Borrowed(other)),
        None => Ok(Cow::Borrowed("")),
    }
}

/// A list, which has one element as a rule. Null is an empty list, and no element of one. It is not kept in place though
/// it is short: events would be moved about with all that they may hold, which costs more than an allocation.
#[derive(Debug)]
pub(super) struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Vec::new())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = from.next_element::<Option<T>>()? {
                    ROOM.set(ROOM.get().and_then(|room| room.checked_sub(1)));
                    if was_too_long() {
                        return Err(A::Error::custom("its lists are too long"));
                    }
                    list.extend(element);
                }
                Ok(list)
            }
        }
        deserializer.deserialize_any(List(PhantomData)).map(Few)
    }
}

/// What is an object. Derived code takes a list as well, its elements for the fields in their order, and would find a
/// call where there is none.
#[derive(Debug)]
pub(super) struct Object<T>(T);

impl<T> Object<T> {
    pub(super) fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Object<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        let object = deserializer.deserialize_map(Members(PhantomData));
        object.map(Self)
    }
}

/// An object that may be left out: for fields.
pub(super) fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let object = Option::<Object<T>>::deserialize(deserializer);
    object.map(|object| object.map(Object::into_inner))
}

/// Reads a whole text that is an object.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(text).map(Object::into_inner)
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
    match read(data) {
        Ok(event) => Ok(Some(event)),
        Err(error) => match read::<Typed<'_>>(data) {
            Ok(Typed { kind: Some(kind) }) if !known.contains(&&*kind) => Ok(None),
            _ => Err(error),
        },
    }
}
