//! The few events of a Responses stream that are read, and how the others are told from them.

use std::borrow::Cow;

use memchr::memchr2;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::calls::clip_reason;
use super::super::json::{Few, Text, object, read};

/// `response.output_item.added` and `.done`.
#[derive(Deserialize)]
pub(super) struct ItemEvent<'a> {
    pub(super) output_index: Option<u64>,
    #[serde(borrow)]
    pub(super) item: Option<&'a RawValue>,
}

/// The last one, which repeats all that came: of its items no more is read here than where they are.
#[derive(Deserialize)]
pub(super) struct EndEvent<'a> {
    #[serde(borrow, default, deserialize_with = "object")]
    pub(super) response: Option<Response<'a>>,
}

#[derive(Deserialize, Default)]
pub(super) struct Response<'a> {
    #[serde(borrow)]
    pub(super) status: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) output: Few<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub(super) incomplete_details: Option<IncompleteDetails<'a>>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct IncompleteDetails<'a> {
    #[serde(borrow)]
    pub(super) reason: Option<Text<'a>>,
}

/// What an event is. Most are deltas, and most servers put the type first: then nothing else of it is read.
pub(super) fn kind(data: &[u8]) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Text<'a>>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    if let Some(kind) = leading_kind(data) {
        return Ok(Cow::Borrowed(kind));
    }
    let event: Kind<'_> = read(data)?;
    Ok(match (event.kind, event.error) {
        (Some(kind), _) => Cow::Owned(kind.to_string()),
        // The body of a refused request, sent as if it were an event.
        (None, Some(_)) => Cow::Borrowed("error"),
        (None, None) => Cow::Borrowed(""),
    })
}

fn leading_kind(data: &[u8]) -> Option<&str> {
    let mut rest = data;
    for token in ["{", "\"type\"", ":", "\""] {
        rest = rest.trim_ascii_start().strip_prefix(token.as_bytes())?;
    }
    let end = memchr2(b'"', b'\\', rest).filter(|end| rest[*end] == b'"')?;
    std::str::from_utf8(&rest[..end]).ok()
}

/// What an `error` event says.
pub(super) fn failure(data: &[u8]) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    struct Failure<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let event: Failure<'_> = read(data)?;
    Ok(match event.error {
        Some(error) => broke_off(error.get()),
        // Its code and message are the event's own.
        None => broke_off(&String::from_utf8_lossy(data)),
    })
}

pub(super) fn broke_off(why: &str) -> String {
    format!("the provider broke off: {}", clip_reason(why))
}
