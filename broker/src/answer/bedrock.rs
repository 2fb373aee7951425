//! Amazon Bedrock Converse: one user message of `toolResult` blocks.
//!
//! - `json` must be an object: other values are wrapped.
//! - Empty content and blank text are refused by some models or all (`The content field … is empty`, `The text field … is
//!   blank`), so an empty output is said in words.
//! - `status` is documented for Claude and Nova only. Llama, Mistral and Cohere take it all the same; Writer's models
//!   refuse it. So it is set for errors, where it says something, and absent otherwise, which is a success everywhere.
//! - `bytes` are base64, as in the HTTP body. An SDK that encodes them itself (boto3) wants them decoded first.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Call;
use super::piece::{Base64, Blob, Piece, is_object, pieces};
use super::text::Text;

/// The largest image and the largest document, in bytes: 3.75 MB and 4.5 MB (API reference, `Message`).
const MOST_IMAGE_BYTES: usize = 3_750_000;
const MOST_DOCUMENT_BYTES: usize = 4_500_000;
const MOST_NAME_CHARACTERS: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    tool_result: ToolResult<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolResult<'a> {
    tool_use_id: &'a str,
    content: Vec<Block<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Block<'a> {
    Text(Cow<'a, str>),
    #[serde(rename = "text")]
    Error(Text<'a>),
    Json(Object<'a>),
    Image {
        format: &'static str,
        source: Source<'a>,
    },
    Document {
        format: &'static str,
        name: String,
        source: Source<'a>,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Object<'a> {
    Whole(&'a RawValue),
    Wrapped { output: &'a RawValue },
}

#[derive(Serialize)]
struct Source<'a> {
    bytes: Base64<'a>,
}

pub(super) fn result<'a>(call: &Call<'a>) -> Part<'a> {
    let (content, status) = match call.ending {
        Ok(output) => {
            let blocks = pieces(output).enumerate();
            let mut content: Vec<_> = blocks
                .filter_map(|(at, piece)| block(call, at, &piece))
                .collect();
            if content.is_empty() {
                content.push(Block::Text("(no output)".into()));
            }
            (content, None)
        }
        Err(error) => (vec![Block::Error(Text::of_error(error))], Some("error")),
    };
    let tool_result = ToolResult {
        tool_use_id: call.id.text(),
        content,
        status,
    };
    Part { tool_result }
}

fn block<'a>(call: &Call<'a>, at: usize, piece: &Piece<'a>) -> Option<Block<'a>> {
    match piece {
        Piece::Json(json) => {
            if let Some(value) = json.value() {
                return Some(Block::Json(if is_object(value) {
                    Object::Whole(value)
                } else {
                    Object::Wrapped { output: value }
                }));
            }
        }
        Piece::Blob(blob) if blob.text().is_none() => {
            if let Some(block) = carried(call, at, blob) {
                return Some(block);
            }
        }
        Piece::Text(_) | Piece::Blob(_) => {}
    }
    let text = piece.text();
    (!text.trim().is_empty()).then_some(Block::Text(text))
}

fn carried<'a>(call: &Call<'a>, at: usize, blob: &Blob<'a>) -> Option<Block<'a>> {
    let source = Source {
        bytes: blob.base64(),
    };
    let image = match blob.media_type() {
        "image/png" => Some("png"),
        "image/jpeg" => Some("jpeg"),
        "image/gif" => Some("gif"),
        "image/webp" => Some("webp"),
        _ => None,
    };
    if let Some(format) = image {
        return (blob.len() <= MOST_IMAGE_BYTES).then_some(Block::Image { format, source });
    }
    // Text that is no UTF-8 comes here too.
    let format = match blob.media_type() {
        "application/pdf" => "pdf",
        "text/csv" => "csv",
        "application/msword" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        "text/html" => "html",
        "text/plain" => "txt",
        "text/markdown" => "md",
        _ => return None,
    };
    (blob.len() <= MOST_DOCUMENT_BYTES).then(|| Block::Document {
        format,
        name: document_name(call.id.text(), at),
        source,
    })
}

/// Unique in its conversation, and of letters, digits and single hyphens: names are held to that, and the model reads
/// them.
fn document_name(id: &str, at: usize) -> String {
    let id: String = id
        .chars()
        .take(MOST_NAME_CHARACTERS)
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("output-{}-of-{id}", at + 1)
}
