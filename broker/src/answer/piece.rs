//! What an output is made of.

use std::borrow::Cow;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use toolpool_proto::v1;

use crate::output::Output;

/// JSON that is nested deeper goes in as text: parsers on its way give up somewhere. Protobuf's at 100 messages, of which
/// each level takes up to three.
const MOST_LEVELS: usize = 32;
/// As much of a media type as is repeated.
const MAX_MEDIA_TYPE_BYTES: usize = 100;

/// One piece of an output.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Json(Json<'a>),
    Blob(Blob<'a>),
}

/// What a worker says is one JSON value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<'a>(&'a [u8]);

/// Bytes with a media type.
#[derive(Debug)]
pub(super) struct Blob<'a> {
    /// In lower case, without parameters.
    media_type: Cow<'a, str>,
    data: &'a [u8],
}

/// The pieces of an output. Kinds that this broker does not know are passed over.
pub(super) fn pieces(output: &Output) -> impl Iterator<Item = Piece<'_>> {
    use v1::content::Kind;
    let content = output.content().iter();
    content.filter_map(|content| match content.kind.as_ref()? {
        Kind::Text(text) => Some(Piece::Text(text)),
        Kind::Json(json) => Some(Piece::Json(Json(json))),
        Kind::Blob(blob) => Some(Piece::Blob(Blob::new(blob))),
    })
}

impl<'a> Piece<'a> {
    /// It as text: JSON as it is written, bytes that are text as that, all others as a note that they are there.
    pub(super) fn text(&self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Json(json) => json.text(),
            Self::Blob(blob) => blob
                .text()
                .map_or_else(|| Cow::Owned(blob.note()), Cow::Borrowed),
        }
    }
}

impl<'a> Json<'a> {
    /// As it is written.
    fn text(self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.0)
    }

    /// The value, unparsed, if it can be a part of a larger one.
    pub(super) fn value(self) -> Option<&'a RawValue> {
        let value: &RawValue = serde_json::from_slice(self.0).ok()?;
        (levels(value.get()) <= MOST_LEVELS).then_some(value)
    }
}

/// Whether a JSON value is an object.
pub(super) fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// How deeply valid JSON is nested.
fn levels(json: &str) -> usize {
    let (mut level, mut most) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                level += 1;
                most = most.max(level);
            }
            b'}' | b']' if !in_string => level = level.saturating_sub(1),
            _ => {}
        }
    }
    most
}

impl<'a> Blob<'a> {
    fn new(blob: &'a v1::Blob) -> Self {
        let media_type = blob.media_type.split(';').next().unwrap_or_default().trim();
        let media_type = &media_type[..media_type.floor_char_boundary(MAX_MEDIA_TYPE_BYTES)];
        let media_type = match media_type.to_ascii_lowercase() {
            empty if empty.is_empty() => Cow::Borrowed("application/octet-stream"),
            // What many say for it.
            jpg if jpg == "image/jpg" => Cow::Borrowed("image/jpeg"),
            same if same == media_type => Cow::Borrowed(media_type),
            lower => Cow::Owned(lower),
        };
        Self {
            media_type,
            data: &blob.data,
        }
    }

    pub(super) fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Bytes that are text, such as a page or a table.
    pub(super) fn text(&self) -> Option<&'a str> {
        let textual = self.media_type.starts_with("text/")
            || matches!(&*self.media_type, "application/json" | "application/xml")
            || self.media_type.ends_with("+json")
            || self.media_type.ends_with("+xml") && self.media_type != "image/svg+xml";
        std::str::from_utf8(self.data).ok().filter(|_| textual)
    }

    /// For the model, where the bytes cannot be passed on.
    pub(super) fn note(&self) -> String {
        let Self { media_type, data } = self;
        format!(
            "[{media_type}, {} bytes: it cannot be shown here]",
            data.len()
        )
    }

    /// For the model, where the bytes stand elsewhere in the answer.
    pub(super) fn attached(&self) -> String {
        let Self { media_type, data } = self;
        format!("[{media_type}, {} bytes: attached]", data.len())
    }

    pub(super) fn base64(&self) -> Base64<'a> {
        Base64(self.data)
    }

    /// How long it is in base64.
    pub(super) fn base64_len(&self) -> usize {
        self.data.len().div_ceil(3).saturating_mul(4)
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    pub(super) fn into_data_url(self) -> DataUrl<'a> {
        DataUrl(self)
    }
}

/// Pieces where any JSON value may stand: none as an empty string, one as itself, more as a list.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Json(&'a RawValue),
    Many(Vec<Value<'a>>),
}

impl<'a> From<Piece<'a>> for Value<'a> {
    fn from(piece: Piece<'a>) -> Self {
        let value = match piece {
            Piece::Json(json) => json.value(),
            Piece::Text(_) | Piece::Blob(_) => None,
        };
        value.map_or_else(|| Self::Text(piece.text()), Self::Json)
    }
}

impl<'a> FromIterator<Value<'a>> for Value<'a> {
    fn from_iter<I: IntoIterator<Item = Value<'a>>>(values: I) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        match values.pop() {
            None => Self::Text(Cow::Borrowed("")),
            Some(single) if values.is_empty() => single,
            Some(last) => {
                values.push(last);
                Self::Many(values)
            }
        }
    }
}

/// Bytes, encoded as they are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

/// `data:image/png;base64,…`
#[derive(Debug)]
pub(super) struct DataUrl<'a>(Blob<'a>);

impl Serialize for DataUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Blob { media_type, data } = &self.0;
        let data = Base64Display::new(data, &STANDARD);
        serializer.collect_str(&format_args!("data:{media_type};base64,{data}"))
    }
}
