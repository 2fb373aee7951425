//! Anthropic Messages: one user message of `tool_result` blocks.
//!
//! Images and documents are carried. Refused are: empty text blocks (`text content blocks must be non-empty`), an error
//! without text (`content cannot be empty if is_error is true`) or with anything but text, and images whose base64 is
//! longer than 5 MiB (`image exceeds 5 MB maximum`; some models take more, none less).

use std::borrow::Cow;

use serde::Serialize;

use super::Call;
use super::piece::{Base64, Blob, Piece, pieces};
use super::text::Text;

const MOST_IMAGE_BASE64: usize = 5 * 1024 * 1024;

#[derive(Serialize)]
#[serde(tag = "type", rename = "tool_result")]
pub(super) struct ToolResult<'a> {
    tool_use_id: &'a str,
    /// Absent is what an empty output looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Content<'a>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_error: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Error(Text<'a>),
    Text(Cow<'a, str>),
    Blocks(Vec<Block<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text { text: Cow<'a, str> },
    Image { source: Source<'a> },
    Document { source: Source<'a> },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 {
        media_type: String,
        data: Base64<'a>,
    },
    Text {
        media_type: &'static str,
        data: &'a str,
    },
}

pub(super) fn result<'a>(call: &Call<'a>) -> ToolResult<'a> {
    let content = match call.ending {
        Ok(output) => content(pieces(output).filter_map(block).collect()),
        Err(error) => Some(Content::Error(Text::of_error(error))),
    };
    ToolResult {
        tool_use_id: call.id.text(),
        content,
        is_error: call.ending.is_err(),
    }
}

fn content(mut blocks: Vec<Block<'_>>) -> Option<Content<'_>> {
    match blocks.pop() {
        None => None,
        Some(Block::Text { text }) if blocks.is_empty() => Some(Content::Text(text)),
        Some(last) => {
            blocks.push(last);
            Some(Content::Blocks(blocks))
        }
    }
}

fn block(piece: Piece<'_>) -> Option<Block<'_>> {
    let text = match piece {
        Piece::Blob(blob) => match carried(&blob) {
            Some(block) => return Some(block),
            None => Piece::Blob(blob).text(),
        },
        Piece::Text(_) | Piece::Json(_) => piece.text(),
    };
    (!text.trim().is_empty()).then_some(Block::Text { text })
}

fn carried<'a>(blob: &Blob<'a>) -> Option<Block<'a>> {
    let encoded = || Source::Base64 {
        media_type: blob.media_type().to_owned(),
        data: blob.base64(),
    };
    match blob.media_type() {
        "image/png" | "image/jpeg" | "image/gif" | "image/webp"
            if blob.base64_len() <= MOST_IMAGE_BASE64 =>
        {
            Some(Block::Image { source: encoded() })
        }
        "application/pdf" => Some(Block::Document { source: encoded() }),
        "text/plain" => {
            let data = blob.text().filter(|text| !text.trim().is_empty())?;
            let source = Source::Text {
                media_type: "text/plain",
                data,
            };
            Some(Block::Document { source })
        }
        _ => None,
    }
}
