//! A chunk of a chat completion, as far as calls are concerned.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ingest::dialect::json::{Few, Object, Text, object, read};

#[derive(Deserialize)]
pub(super) struct Chunk<'a> {
    /// Empty beside usage and filter results.
    #[serde(borrow, default)]
    pub(super) choices: Few<Object<Choice<'a>>>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    pub(super) index: Option<u64>,
    #[serde(borrow, default, deserialize_with = "object")]
    delta: Option<Delta<'a>>,
    /// Stands in its place where a response was not streamed.
    #[serde(borrow, default, deserialize_with = "object")]
    message: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
}

impl<'a> Choice<'a> {
    pub(super) fn delta(&self) -> Option<&Delta<'a>> {
        self.delta.as_ref().or(self.message.as_ref())
    }

    /// Why the choice ends here, if it does.
    pub(super) fn finish_reason(&self) -> Option<&str> {
        said(self.finish_reason.as_ref())
    }
}

#[derive(Deserialize)]
pub(super) struct Delta<'a> {
    #[serde(borrow, default)]
    pub(super) tool_calls: Few<Object<ToolCall<'a>>>,
    /// The deprecated form, one call a message.
    #[serde(borrow, default, deserialize_with = "object")]
    pub(super) function_call: Option<Function<'a>>,
}

#[derive(Deserialize)]
pub(super) struct ToolCall<'a> {
    pub(super) index: Option<u64>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub(super) function: Option<Function<'a>>,
    #[serde(borrow)]
    extra_content: Option<&'a RawValue>,
}

impl ToolCall<'_> {
    /// llama.cpp had it inside the function at first.
    pub(super) fn id(&self) -> Option<&str> {
        let inside = || self.function.as_ref()?.id.as_ref();
        said(self.id.as_ref()).or_else(|| said(inside()))
    }

    /// Gemini's thought signature, which has to go back with the call.
    pub(super) fn signature(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Extra {
            google: Option<Google>,
        }
        #[derive(Deserialize)]
        struct Google {
            thought_signature: Option<String>,
        }
        let extra: Extra = read(self.extra_content?.get().as_bytes()).ok()?;
        extra.google?.thought_signature
    }
}

#[derive(Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    /// Text as a rule.
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

impl Function<'_> {
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref().filter(|name| !name.is_empty())
    }

    pub(super) fn has_text(&self) -> bool {
        let text = self.arguments.map(RawValue::get);
        !matches!(text, None | Some("null" | "\"\""))
    }
}

/// A word that servers also leave empty, or write as `"null"`, where they mean none.
fn said<'a>(text: Option<&'a Text<'_>>) -> Option<&'a str> {
    text.map(|text| &**text)
        .filter(|text| !matches!(*text, "" | "null"))
}
