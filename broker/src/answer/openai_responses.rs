//! OpenAI Responses: one output item for each call, of the kind that the call is.
//!
//! A string unless there is an image or a PDF to carry, since not every server that speaks this format takes a list.
//! There is no mark for an error. A call that a program of the model's made is answered with its `caller`.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Call;
use super::piece::{Blob, DataUrl, Piece, pieces};
use super::text::Text;
use crate::ingest::dialect::Kind;
use crate::output::Output;

/// The `maxLength` of an image's URL in OpenAI's own description of the API.
const MOST_URL_CHARACTERS: usize = 20_971_520;
/// What a data URL has besides its base64, at most.
const URL_REST: usize = 128;

#[derive(Serialize)]
pub(super) struct Item<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    call_id: &'a str,
    output: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(Text<'a>),
    Parts(Vec<Part<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Part<'a> {
    #[serde(rename = "input_text")]
    Text { text: Cow<'a, str> },
    #[serde(rename = "input_image")]
    Image { image_url: DataUrl<'a> },
    #[serde(rename = "input_file")]
    File {
        filename: &'static str,
        file_data: DataUrl<'a>,
    },
}

pub(super) fn item<'a>(call: &Call<'a>) -> Item<'a> {
    let output = match call.ending {
        Ok(output) if has_media(output) => Content::Parts(pieces(output).map(part).collect()),
        ending => Content::Text(Text::marked(ending)),
    };
    Item {
        kind: match call.kind {
            Kind::Function | Kind::LegacyFunction => "function_call_output",
            Kind::Custom => "custom_tool_call_output",
        },
        call_id: call.id.text(),
        output,
        caller: call.caller,
    }
}

fn has_media(output: &Output) -> bool {
    pieces(output)
        .any(|piece| matches!(piece, Piece::Blob(blob) if is_image(&blob) || is_pdf(&blob)))
}

fn part(piece: Piece<'_>) -> Part<'_> {
    match piece {
        Piece::Blob(blob) if is_image(&blob) => Part::Image {
            image_url: blob.into_data_url(),
        },
        Piece::Blob(blob) if is_pdf(&blob) => Part::File {
            filename: "output.pdf",
            file_data: blob.into_data_url(),
        },
        other => Part::Text { text: other.text() },
    }
}

fn is_image(blob: &Blob<'_>) -> bool {
    matches!(
        blob.media_type(),
        "image/png" | "image/jpeg" | "image/gif" | "image/webp"
    ) && fits(blob)
}

fn is_pdf(blob: &Blob<'_>) -> bool {
    blob.media_type() == "application/pdf" && fits(blob)
}

fn fits(blob: &Blob<'_>) -> bool {
    blob.base64_len() <= MOST_URL_CHARACTERS - URL_REST
}
