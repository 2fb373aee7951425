//! Gemini: one `user` content with one `functionResponse` part for each call, in the order of the calls.
//!
//! `response` must be an object. One that a tool gave goes in as a whole, unless it has a `$ref` in it, which Gemini takes
//! for a reference to an attachment and refuses (`The referenced name … does not match to a display_name`). Everything
//! else stands under `output`, or under `error`.
//!
//! Attachments are carried by Gemini 3 only; 2.5 refuses the request (`function_response.parts is not supported for this
//! model`), and further parts beside the response's own as well, since their number must be that of the calls. What tells
//! the two apart is that Gemini 3 gives its calls ids.

use memchr::memmem;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Call;
use super::piece::{Base64, Blob, Piece, Value, is_object, pieces};
use super::text::Text;
use crate::output::Output;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    function_response: FunctionResponse<'a>,
}

#[derive(Serialize)]
struct FunctionResponse<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    name: &'a str,
    response: Response<'a>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parts: Vec<Attachment<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Response<'a> {
    Whole(&'a RawValue),
    Output { output: Value<'a> },
    Error { error: Text<'a> },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attachment<'a> {
    inline_data: InlineData<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InlineData<'a> {
    mime_type: String,
    data: Base64<'a>,
}

pub(super) fn part<'a>(call: &Call<'a>) -> Part<'a> {
    let mut attachments = Vec::new();
    let response = match call.ending {
        Ok(output) => {
            let attach = call.id.providers().map(|_| &mut attachments);
            response(output, attach)
        }
        Err(error) => Response::Error {
            error: Text::of_error(error),
        },
    };
    let function_response = FunctionResponse {
        id: call.id.providers(),
        name: call.name,
        response,
        parts: attachments,
    };
    Part { function_response }
}

fn response<'a>(output: &'a Output, mut attach: Option<&mut Vec<Attachment<'a>>>) -> Response<'a> {
    let value = |piece| match (piece, &mut attach) {
        (Piece::Blob(blob), Some(attachments)) if is_carried(&blob) => {
            let note = blob.attached();
            attachments.push(Attachment::from(blob));
            Value::Text(note.into())
        }
        (piece, _) => match Value::from(piece) {
            Value::Json(json) if memmem::find(json.get().as_bytes(), br#""$ref""#).is_some() => {
                Value::Text(json.get().into())
            }
            value => value,
        },
    };
    match pieces(output).map(value).collect() {
        Value::Json(value) if is_object(value) => Response::Whole(value),
        output => Response::Output { output },
    }
}

impl<'a> From<Blob<'a>> for Attachment<'a> {
    fn from(blob: Blob<'a>) -> Self {
        let inline_data = InlineData {
            mime_type: blob.media_type().to_owned(),
            data: blob.base64(),
        };
        Self { inline_data }
    }
}

/// The media types that Gemini documents for a function's response; text is text.
fn is_carried(blob: &Blob<'_>) -> bool {
    matches!(
        blob.media_type(),
        "image/png" | "image/jpeg" | "image/webp" | "application/pdf"
    )
}
