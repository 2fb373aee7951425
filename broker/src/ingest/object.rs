//! Where a JSON object ends that comes in pieces.
//!
//! Only strings and braces are looked at: in JSON text brackets cannot close a brace, and whether it is JSON text is for
//! the parser to say.

use memchr::memchr2;

/// How far into an object the bytes have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Object {
    depth: usize,
    in_string: bool,
    /// The last byte was a backslash in a string.
    escaped: bool,
}

impl Object {
    /// Looks at the next bytes of the object, whose very first is its opening brace, and gives the place behind its
    /// closing one. After that it is ready for another object.
    pub(in crate::ingest) fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if self.escaped && !bytes.is_empty() {
            self.escaped = false;
            at = 1;
        }
        while at < bytes.len() {
            if self.in_string {
                at += memchr2(b'"', b'\\', &bytes[at..])?;
                if bytes[at] == b'"' {
                    self.in_string = false;
                    at += 1;
                } else {
                    at += 2;
                    self.escaped = at > bytes.len();
                }
                continue;
            }
            match bytes[at] {
                b'"' => self.in_string = true,
                b'{' => self.depth += 1,
                b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_at_its_own_brace_wherever_it_is_cut() {
        for object in [
            r"{}",
            r#"{"a":{"b":[{},{}]}}"#,
            r#"{"}":"{\"}\\","\\":"ä\u007d"}"#,
        ] {
            let text = format!("{object},}}{{");
            assert_eq!(Object::default().end(text.as_bytes()), Some(object.len()));
            for cut in 0..object.len() {
                let mut scanner = Object::default();
                let (a, b) = text.as_bytes().split_at(cut);
                assert_eq!(scanner.end(a), None, "{object} cut at {cut}");
                assert_eq!(
                    scanner.end(b),
                    Some(object.len() - cut),
                    "{object} at {cut}"
                );
                assert_eq!(scanner.end(b"{}"), Some(2), "another one");
            }
        }
    }
}
