//! A tool's name as a provider permits it.
//!
//! A permitted name stays as it is. Any other becomes its permitted characters, `_`, and eight hexadecimal digits of a
//! hash of the whole name: the same in every build and beside whatever other tools, and different for names that only
//! look alike then.

use std::borrow::Cow;

use super::Format;

const HASH_DIGITS: usize = 8;

/// What a provider permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// `[a-zA-Z0-9_-]{1,64}`: `OpenAI` and Bedrock. Cohere and Ollama document nothing for the formats used here.
    Short,
    /// `[a-zA-Z0-9_-]{1,128}`: Anthropic.
    Long,
    /// Gemini: `.` and `:` too, but a letter or `_` at the beginning. Its own pages disagree on the length (64, 128);
    /// its error says `with a maximum length of 64`.
    Dotted,
}

const RULES: [Rule; 3] = [Rule::Short, Rule::Long, Rule::Dotted];

/// Other names than its own that models may know a tool by: none for most tools, three at most.
pub(crate) fn aliases(name: &str) -> impl Iterator<Item = String> + use<> {
    let mut aliases: Vec<String> = Vec::new();
    for rule in RULES {
        if let Cow::Owned(alias) = rule.apply(name)
            && !aliases.contains(&alias)
        {
            aliases.push(alias);
        }
    }
    aliases.into_iter()
}

impl Rule {
    pub(super) fn of(format: Format) -> Self {
        match format {
            Format::Anthropic => Self::Long,
            Format::Gemini => Self::Dotted,
            Format::OpenAiChat
            | Format::OpenAiResponses
            | Format::Bedrock
            | Format::Cohere
            | Format::Ollama => Self::Short,
        }
    }

    /// The permitted name; borrowed if it is the same.
    pub(super) fn apply(self, name: &str) -> Cow<'_, str> {
        let fits = name.len() <= self.most() && !name.is_empty();
        if fits && self.begins_well(name) && name.bytes().all(|byte| self.permits(byte)) {
            return Cow::Borrowed(name);
        }
        let most = self.most() - HASH_DIGITS - 1;
        let begin = if self.begins_well(name) { "" } else { "_" };
        let permitted = name.bytes().map(|byte| match byte {
            byte if self.permits(byte) => char::from(byte),
            _ => '_',
        });
        let kept: String = begin.chars().chain(permitted).take(most).collect();
        Cow::Owned(format!("{kept}_{:08x}", hash(name)))
    }

    fn most(self) -> usize {
        match self {
            Self::Short | Self::Dotted => 64,
            Self::Long => 128,
        }
    }

    fn permits(self, byte: u8) -> bool {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'-')
            || self == Self::Dotted && matches!(byte, b'.' | b':')
    }

    fn begins_well(self, name: &str) -> bool {
        self != Self::Dotted || name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }
}

/// FNV-1a of 64 bits, folded: what it gives is written down, so it can never change with a library.
fn hash(name: &str) -> u32 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [a, b, c, d, rest @ ..] = hash.to_be_bytes();
    u32::from_be_bytes([a, b, c, d]) ^ u32::from_be_bytes(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permitted_name_stays_as_it_is() {
        for name in ["search", "a-b_C9", "9lives", &"x".repeat(64)] {
            assert_eq!(Rule::Short.apply(name), name);
            assert_eq!(Rule::Long.apply(name), name);
        }
        assert_eq!(Rule::Long.apply(&"x".repeat(128)), "x".repeat(128));
        for name in ["fs.read", "a:b-c", "_x"] {
            assert_eq!(Rule::Dotted.apply(name), name);
        }
        assert_eq!(aliases("search").count(), 0);
    }

    #[test]
    fn any_other_name_has_the_same_one_for_ever() {
        // Written down in conversations and in prompt caches: these may never change.
        assert_eq!(Rule::Short.apply("fs.read"), "fs_read_4f70ea29");
        assert_eq!(Rule::Long.apply("fs.read"), "fs_read_4f70ea29");
        assert_eq!(Rule::Dotted.apply("fs/read"), "fs_read_c43b8f79");
        assert_eq!(Rule::Dotted.apply("3d.render"), "_3d.render_451ee0d4");
        assert_eq!(Rule::Short.apply(""), "_4fd0bfc1");
    }

    #[test]
    fn names_that_look_alike_stay_apart_and_within_the_limit() {
        let names = [
            "a.b".to_owned(),
            "a/b".to_owned(),
            "a:b".to_owned(),
            format!("{}y", "x".repeat(127)),
            format!("{}z", "x".repeat(127)),
            format!("9{}", ".".repeat(127)),
        ];
        for rule in RULES {
            let mut given: Vec<_> = names.iter().map(|name| rule.apply(name)).collect();
            for name in &given {
                assert!(name.len() <= rule.most(), "{rule:?} {name}");
                assert_eq!(rule.apply(name), *name, "what is given is permitted");
            }
            given.sort();
            given.dedup();
            assert_eq!(given.len(), names.len(), "{rule:?}");
        }
        assert!(names.iter().all(|name| aliases(name).count() <= 3));
    }
}
