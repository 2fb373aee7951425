//! Whether joined text is a closed JSON object, seen as it comes: nothing but white space could follow.

use crate::ingest::object::Object;

/// How far a text has come. It is looked at only as far as braces and strings go; whether it is valid JSON is for the
/// parser to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Closed {
    /// White space at most.
    #[default]
    Blank,
    /// Inside the object.
    Open {
        object: Object,
        /// Something stands in it.
        filled: bool,
    },
    /// The object has ended, and only white space followed.
    Object { filled: bool },
    /// So many letters of `null`, which stands for no arguments, and after the last only white space.
    Null(u8),
    /// Something else: another value, or more after the object.
    Other,
}

const NULL: &[u8] = b"null";

impl Closed {
    /// Nothing that stands for arguments has come.
    pub(super) fn is_nothing(self) -> bool {
        matches!(self, Self::Blank) || self.is_null()
    }

    /// A whole value: an object, or `null`.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Object { .. }) || self.is_null()
    }

    fn is_null(self) -> bool {
        matches!(self, Self::Null(letters) if usize::from(letters) == NULL.len())
    }

    pub(super) fn push(&mut self, text: &str) {
        let mut bytes = text.as_bytes();
        while let Some((&byte, rest)) = bytes.split_first() {
            if let Self::Open { object, filled } = self {
                let end = object.end(bytes);
                let inside = &bytes[..end.map_or(bytes.len(), |end| end - 1)];
                *filled = *filled || !inside.trim_ascii().is_empty();
                let Some(end) = end else { return };
                *self = Self::Object { filled: *filled };
                bytes = &bytes[end..];
                continue;
            }
            *self = self.outside(byte);
            bytes = rest;
        }
    }

    /// After a byte that is not inside the object.
    fn outside(self, byte: u8) -> Self {
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self {
            Self::Blank | Self::Object { .. } if blank => self,
            Self::Blank if byte == b'{' => {
                let mut object = Object::default();
                object.end(b"{");
                Self::Open {
                    object,
                    filled: false,
                }
            }
            Self::Blank if byte == NULL[0] => Self::Null(1),
            Self::Null(letters) if NULL.get(usize::from(letters)) == Some(&byte) => {
                Self::Null(letters + 1)
            }
            Self::Null(_) if blank && self.is_null() => self,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Closed {
        let mut closed = Closed::default();
        closed.push(text);
        closed
    }

    #[test]
    fn an_object_is_closed_by_its_own_brace() {
        assert_eq!(after(" \n"), Closed::Blank);
        assert_eq!(after("{ }"), Closed::Object { filled: false });
        for text in [
            r#"{"a":1}"#,
            r#" {"a":{"b":[1,{}]}} "#,
            r#"{"a":"}\"}"}"#,
            r#"{"a":"\\"}"#,
        ] {
            assert_eq!(after(text), Closed::Object { filled: true }, "{text}");
            for (end, _) in text.trim_end().char_indices().skip(2) {
                assert!(
                    matches!(after(&text[..end]), Closed::Open { .. }),
                    "{}",
                    &text[..end]
                );
            }
        }
    }

    #[test]
    fn it_does_not_matter_where_the_text_is_cut() {
        let text = r#" {"a\"":"b\\","c":["{",{"d":"\u005c"}],"e":"a long string"} "#;
        for (cut, _) in text.char_indices() {
            let mut closed = Closed::default();
            closed.push(&text[..cut]);
            closed.push(&text[cut..]);
            assert_eq!(closed, Closed::Object { filled: true }, "{cut}");
        }
    }

    #[test]
    fn what_follows_the_object_is_seen() {
        for text in [r#"{}{"a":1}"#, r#"{"a":1},"#, "[1]", "nul l", "nulll", "1"] {
            assert_eq!(after(text), Closed::Other, "{text}");
        }
    }

    #[test]
    fn null_is_a_whole_value_and_stands_for_nothing() {
        for text in ["null", " null\n"] {
            assert!(after(text).is_whole() && after(text).is_nothing(), "{text}");
        }
        assert!(!after("nul").is_whole() && !after("nul").is_nothing());
        assert!(after(" ").is_nothing() && !after(" ").is_whole());
        assert!(after("{}").is_whole() && !after("{}").is_nothing());
    }
}
