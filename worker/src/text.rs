//! Text that has to fit into a limit.

/// At most the first `limit` bytes of `text`, cut at a character's boundary.
pub(crate) fn head(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// `text` itself when it fits into `limit` bytes, else its head and a mark that something is missing.
pub(crate) fn clipped(text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    format!("{} [… {} bytes in all]", head(&text, limit), text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(head("aé", 2), "a");
        assert_eq!(head("aé", 3), "aé");
        assert_eq!(head("", 3), "");
    }

    #[test]
    fn only_what_is_too_long_is_clipped() {
        assert_eq!(clipped("abc".to_owned(), 3), "abc");
        assert_eq!(clipped("abcd".to_owned(), 3), "abc [… 4 bytes in all]");
    }
}
