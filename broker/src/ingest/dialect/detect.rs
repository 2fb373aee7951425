//! What a stream is, by the first event that shows it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::json::Text;
use super::{DONE, Dialect, Event};

/// The fields that tell. Of most formats one is enough.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    choices: Option<IgnoredAny>,
    candidates: Option<IgnoredAny>,
    #[serde(rename = "promptFeedback", alias = "prompt_feedback")]
    prompt_feedback: Option<IgnoredAny>,
    #[serde(rename = "usageMetadata", alias = "usage_metadata")]
    usage_metadata: Option<IgnoredAny>,
    #[serde(rename = "messageStart")]
    message_start: Option<IgnoredAny>,
    #[serde(rename = "contentBlockStart")]
    block_start: Option<IgnoredAny>,
    #[serde(rename = "contentBlockDelta")]
    block_delta: Option<IgnoredAny>,
    message: Option<IgnoredAny>,
    done: Option<IgnoredAny>,
    bytes: Option<IgnoredAny>,
}

/// The dialect of an event, if it can be of one only.
pub(super) fn dialect(event: Event<'_>) -> Option<Dialect> {
    match event.name {
        Some("chunk") => return Some(Dialect::Anthropic),
        Some(_) => return Some(Dialect::Bedrock),
        None if event.data.trim_ascii() == DONE => return None,
        None => {}
    }
    let Ok(probe) = serde_json::from_slice::<Probe<'_>>(event.data) else {
        return by_first_key(event.data);
    };
    if let Some(dialect) = probe.kind.as_deref().and_then(by_type) {
        return Some(dialect);
    }
    if probe.choices.is_some() {
        Some(Dialect::OpenAiChat)
    } else if probe.candidates.is_some()
        || probe.prompt_feedback.is_some()
        || probe.usage_metadata.is_some()
    {
        Some(Dialect::Gemini)
    } else if probe.message_start.is_some()
        || probe.block_start.is_some()
        || probe.block_delta.is_some()
    {
        Some(Dialect::Bedrock)
    } else if probe.message.is_some() && probe.done.is_some() {
        Some(Dialect::Ollama)
    } else if probe.bytes.is_some() {
        Some(Dialect::Anthropic)
    } else {
        None
    }
}

/// A stream that was cut in its first event still tells what it was going to be, if that event begins with it.
fn by_first_key(data: &[u8]) -> Option<Dialect> {
    let data = data.trim_ascii_start().strip_prefix(b"{")?;
    let data = data.trim_ascii_start().strip_prefix(b"\"")?;
    data.starts_with(b"candidates\"").then_some(Dialect::Gemini)
}

/// What a provider says where a stream was expected: the body of a refused request, or an error as the first event.
pub(super) fn error(event: Event<'_>) -> Option<&str> {
    #[derive(Deserialize)]
    struct Refusal<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
        #[serde(borrow)]
        detail: Option<&'a RawValue>,
        #[serde(borrow)]
        message: Option<&'a RawValue>,
    }
    let refusal: Refusal<'_> = serde_json::from_slice(event.data).ok()?;
    let said = refusal.error.or(refusal.detail).or(refusal.message)?;
    Some(said.get())
}

/// Anthropic's words are joined by underscores, Cohere's and Vercel's by hyphens, Responses' by dots.
fn by_type(kind: &str) -> Option<Dialect> {
    match kind {
        "message_start" | "content_block_start" | "content_block_delta" => Some(Dialect::Anthropic),
        "message-start" | "content-start" | "content-delta" | "tool-plan-delta"
        | "tool-call-start" => Some(Dialect::Cohere),
        kind if kind.starts_with("response.") => Some(Dialect::OpenAiResponses),
        "start" | "start-step" => Some(Dialect::VercelUi),
        kind if ["tool-input-", "text-", "reasoning-", "data-"]
            .iter()
            .any(|begin| kind.starts_with(begin)) =>
        {
            Some(Dialect::VercelUi)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_no_format_has_leaves_it_to_the_other_fields() {
        let of = |json: &str| dialect(Event::of(json.as_bytes()));
        let chunk = r#"{"type":"chunk","choices":[],"prompt_filter_results":[]}"#;
        assert_eq!(of(chunk), Some(Dialect::OpenAiChat));
        assert_eq!(of(r#"{"type":"chunk"}"#), None);
        assert_eq!(
            of(r#"{"type":"message-start","delta":{}}"#),
            Some(Dialect::Cohere)
        );
    }
}
