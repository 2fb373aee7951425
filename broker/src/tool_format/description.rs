//! A tool's description as a provider takes it.

use super::Format;

/// `OpenAI` refuses the whole request for a longer one (`Invalid 'tools[0].function.description': string too long`).
const OPENAI_MOST: usize = 1_024;

/// A description that was too long.
#[derive(Debug)]
pub(super) struct Clipped {
    pub(super) text: String,
    /// What was changed, as `path: what`.
    pub(super) change: String,
}

/// What is left of it; absent if it is taken as it is. Lengths are in characters.
pub(super) fn clip(format: Format, description: &str) -> Option<Clipped> {
    let most = match format {
        Format::OpenAiChat | Format::OpenAiResponses => OPENAI_MOST,
        // Nothing is known of a limit for one description.
        Format::Anthropic | Format::Gemini | Format::Bedrock | Format::Cohere | Format::Ollama => {
            return None;
        }
    };
    // Its bytes are at least as many.
    if description.len() <= most {
        return None;
    }
    let length = description.chars().count();
    if length <= most {
        return None;
    }
    Some(Clipped {
        text: begin(description, most),
        change: format!(
            "description: clipped from {length} characters to the {most} that are taken"
        ),
    })
}

/// Whole words and an ellipsis, `most` characters together at most. A text with hardly any spaces is cut in a word.
fn begin(text: &str, most: usize) -> String {
    let end = text
        .char_indices()
        .nth(most - 1)
        .map_or(text.len(), |(at, _)| at);
    let (kept, rest) = text.split_at(end);
    let word = match kept.rfind(char::is_whitespace) {
        Some(space) if !rest.starts_with(char::is_whitespace) && space > end / 2 => space,
        _ => end,
    };
    let mut begin = kept[..word].trim_end().to_owned();
    begin.push('…');
    begin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_with_a_whole_word_if_it_has_any() {
        for (text, wanted) in [
            ("one two three", "one two…"),
            ("one two th ree", "one two th…"),
            ("one two \n\n three", "one two…"),
            ("drei größte Tiere", "drei größte…"),
            ("a bcdefghijklmnop", "a bcdefghij…"),
            ("工具的描述没有空格分隔每个词", "工具的描述没有空格分隔…"),
        ] {
            let begin = begin(text, 12.min(text.chars().count() - 1));
            assert_eq!(begin, wanted);
            assert!(begin.chars().count() <= 12, "{begin}");
        }
    }
}
