//! JSON over several lines, with every token as it was.

/// The text over several lines, two spaces a level. Numbers keep their digits and members their order, which reading it into
/// values would not promise. `json` must be JSON.
pub(super) fn pretty(json: &str) -> String {
    let mut lines = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let new_line = |lines: &mut String, depth: usize| {
        lines.push('\n');
        lines.extend(std::iter::repeat_n("  ", depth));
    };
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if in_string {
            lines.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '{' | '[' => {
                lines.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = rest.next_if(|c| matches!(c, '}' | ']')) {
                    lines.push(close);
                } else {
                    depth += 1;
                    new_line(&mut lines, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut lines, depth);
                lines.push(c);
            }
            ',' => {
                lines.push(c);
                new_line(&mut lines, depth);
            }
            ':' => lines.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => {
                in_string = c == '"';
                lines.push(c);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_stays_as_it_is() {
        let text = r#"[{"b":1.10,"a":[ ],"text":"a \"b\\\" {,:} é","c":{ "d" : [123456789012345678901234567890,null]}},{}]"#;
        let expected = r#"[
  {
    "b": 1.10,
    "a": [],
    "text": "a \"b\\\" {,:} é",
    "c": {
      "d": [
        123456789012345678901234567890,
        null
      ]
    }
  },
  {}
]"#;
        assert_eq!(pretty(text), expected);
        assert_eq!(pretty(expected), expected);
        assert_eq!(pretty("[]"), "[]");
        assert_eq!(pretty(r#""\\""#), r#""\\""#);
    }
}
