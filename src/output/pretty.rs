//! JSON over several lines, with every token as it was.

/// The text over several lines, two spaces a level. Numbers keep their digits and members their order, which reading it into
/// values would not promise. `json` must be JSON.
pub(super) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(2 * json.len());
    let mut depth = 0;
    let mut rest = json.char_indices().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    while let Some((at, c)) = rest.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '"' => {
                let end = end_of_string(&json[at..]);
                out.push_str(&json[at..at + end]);
                while rest.next_if(|(next, _)| *next < at + end).is_some() {}
            }
            '{' | '[' => {
                out.push(c);
                while rest.next_if(|(_, c)| c.is_ascii_whitespace()).is_some() {}
                if let Some((_, close)) = rest.next_if(|(_, c)| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

/// Where the string ends that the text begins with, its closing quote included.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |at| at + 2)
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
