//! What a tool gives back.

use bytes::Bytes;
use prost::Message;
use serde::Serialize;
use toolpool_proto::v1 as proto;

use crate::ToolError;

/// What a tool gives back: pieces of text, JSON and blobs, in the tool's order.
///
/// The broker has a limit for the size of an output; one beyond it ends the call as `RESULT_TOO_LARGE`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    content: Vec<proto::content::Kind>,
}

impl Output {
    /// No content at all, which is a legal output.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Plain text, which the model reads as it is.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::from(proto::content::Kind::Text(text.into()))
    }

    /// One JSON value. A handler that returns any other [`Serialize`] value can return it directly; see [`IntoOutput`].
    #[must_use]
    pub fn json(value: impl Into<serde_json::Value>) -> Self {
        Self::from_json_text(Bytes::from(value.into().to_string()))
    }

    /// Anything else, with its IANA media type, such as `image/png`.
    #[must_use]
    pub fn blob(media_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self::from(proto::content::Kind::Blob(proto::Blob {
            media_type: media_type.into(),
            data: bytes.into(),
        }))
    }

    /// This output followed by another.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.content.extend(other.content);
        self
    }

    /// `json` must be one JSON value.
    pub(crate) fn from_json_text(json: Bytes) -> Self {
        Self::from(proto::content::Kind::Json(json))
    }

    pub(crate) fn into_proto(self) -> proto::Output {
        let content = self
            .content
            .into_iter()
            .map(|kind| proto::Content { kind: Some(kind) });
        proto::Output {
            content: content.collect(),
        }
    }
}

impl From<proto::content::Kind> for Output {
    fn from(kind: proto::content::Kind) -> Self {
        Self {
            content: vec![kind],
        }
    }
}

/// The size that the broker's limit is about.
pub(crate) fn size(output: &proto::Output) -> u64 {
    output.encoded_len() as u64
}

/// What a typed tool may return: an [`Output`], or any value that serde can write, which becomes one piece of JSON.
///
/// A `String` becomes a JSON string, in quotes; return [`Output::text`] for plain text.
pub trait IntoOutput {
    /// Turns the value into an output.
    ///
    /// Fails when the value has no JSON form, for example a map whose keys are not strings.
    fn into_output(self) -> Result<Output, ToolError>;
}

impl IntoOutput for Output {
    fn into_output(self) -> Result<Output, ToolError> {
        Ok(self)
    }
}

impl<T: Serialize> IntoOutput for T {
    fn into_output(self) -> Result<Output, ToolError> {
        match serde_json::to_vec(&self) {
            Ok(json) => Ok(Output::from_json_text(json.into())),
            Err(error) => Err(ToolError::failed(format!(
                "The tool's result cannot be written as JSON: {error}."
            ))
            .effect_done()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proto::content::Kind;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_becomes_json_and_an_output_stays_what_it_is() {
        assert_eq!(
            3.5.into_output().unwrap().content,
            [Kind::Json("3.5".into())]
        );
        assert_eq!(
            "a".into_output().unwrap().content,
            [Kind::Json("\"a\"".into())]
        );
        let output = Output::text("a").and(Output::json(json!({"b": 1})));
        let pieces = [Kind::Text("a".to_owned()), Kind::Json(r#"{"b":1}"#.into())];
        assert_eq!(output.into_output().unwrap().content, pieces);
    }

    #[test]
    fn a_value_without_a_json_form_is_the_tools_failure() {
        assert!(HashMap::from([((1, 2), 3)]).into_output().is_err());
    }
}
