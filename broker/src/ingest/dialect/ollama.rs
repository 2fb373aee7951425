//! Ollama `/api/chat`: a line holds whole calls, and `done` is the end.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls::{Calls, NewCall};
use super::json::{Arguments, Few, Object, Text, object, read};
use super::{Decode, Event};
use crate::ingest::TurnEnd;

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct Ollama {
    /// Lines with calls so far.
    lines: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default, deserialize_with = "object")]
    message: Option<Message<'a>>,
    done: Option<bool>,
    #[serde(borrow)]
    done_reason: Option<Text<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    tool_calls: Few<Object<ToolCall<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    /// Newer servers only.
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    /// Left out if it is 0.
    index: Option<u32>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<Arguments<'a>>,
}

impl Decode for Ollama {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error> {
        let line: Line<'_> = read(event.data)?;
        if let Some(why) = line.error {
            calls.fail(format!("the provider broke off: {why}"));
            return Ok(());
        }
        let found = line.message.map(|message| message.tool_calls);
        if let Some(found) = found.filter(|found| !found.is_empty()) {
            self.lines += 1;
            for call in found.iter() {
                self.call(call, calls);
            }
        }
        if line.done == Some(true) {
            if let Some(reason) = &line.done_reason {
                calls.stop_reason(reason);
            }
            calls.end(match line.done_reason.as_deref() {
                // `stop` is said with calls too. A server that gives no reason at all has only `done` to say.
                None | Some("stop") => TurnEnd::Complete,
                // Cut by a limit, or something new: what is held is not run.
                Some(_) => TurnEnd::Truncated,
            });
        }
        Ok(())
    }

    /// Only `done` tells whether more calls would have come.
    fn finish(&mut self, _calls: &mut Calls) {}
}

impl Ollama {
    fn call(&self, call: &ToolCall<'_>, calls: &mut Calls) {
        let Some(function) = &call.function else {
            return;
        };
        let block = calls.begin(NewCall {
            id: call.id.as_deref(),
            name: function.name.as_deref().unwrap_or_default(),
            // Lines come in order; the index counts through the turn on some servers, and is always 0 on others.
            order: self.lines << 32 | u64::from(function.index.unwrap_or(0)),
            ..NewCall::default()
        });
        if let Some(arguments) = &function.arguments {
            calls.append(block, arguments);
        }
        calls.complete(block);
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::{Decoded, Decoder, Dialect};

    const DONE: &str =
        r#"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#;

    fn decode(lines: &[&str]) -> Decoded {
        let mut decoder = Decoder::new(None, 1 << 16);
        decoder.bytes(lines.join("\n").as_bytes());
        decoder.finish()
    }

    fn line(calls: &str) -> String {
        format!(
            r#"{{"model":"m","message":{{"role":"assistant","tool_calls":[{calls}]}},"done":false}}"#
        )
    }

    fn texts(decoded: &Decoded) -> Vec<&str> {
        let calls = decoded.calls.iter();
        calls
            .map(|call| std::str::from_utf8(&call.arguments).unwrap())
            .collect()
    }

    #[test]
    fn a_line_holds_whole_calls() {
        let decoded = decode(&[
            &line(r#"{"function":{"name":"a","arguments":{"x": 1.0}}}"#),
            &line(
                r#"{"id":"i","function":{"index":1,"name":"b"}},{"function":{"name":"c","arguments":null}}"#,
            ),
            &line(r#"{"function":{"index":0,"name":"d","arguments":"{\"y\":2}"}}"#),
            DONE,
        ]);
        assert_eq!(decoded.dialect, Some(Dialect::Ollama));
        assert_eq!(texts(&decoded), [r#"{"x": 1.0}"#, "{}", "{}", r#"{"y":2}"#]);
        let names: Vec<_> = decoded.calls.iter().map(|call| &*call.name).collect();
        assert_eq!(
            names,
            ["a", "c", "b", "d"],
            "by index in a line, line by line"
        );
        assert!(decoded.complete);
    }

    #[test]
    fn a_turn_is_good_only_if_it_was_done_and_not_cut() {
        let call = line(r#"{"function":{"name":"a","arguments":{}}}"#);
        for (end, complete) in [
            (DONE, true),
            (r#"{"message":{"content":""},"done":true}"#, true),
            (
                r#"{"message":{"content":""},"done":true,"done_reason":"length"}"#,
                false,
            ),
            (r#"{"error":"the model has crashed"}"#, false),
            (r#"{"message":{"content":""},"done":fal"#, false),
        ] {
            let decoded = decode(&[&call, end]);
            assert_eq!(decoded.complete, complete, "{end}");
            assert_eq!(texts(&decoded), ["{}"], "{end}");
            assert_eq!(
                decoded.error.is_some_and(|error| error.contains("crashed")),
                end.contains("crashed")
            );
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_holds_no_call() {
        let broken = r#"{"function":{"name":"a","arguments":{}}},{"function":{"name":"b","arguments":"\ud800"}}"#;
        let decoded = decode(&[&line("{}"), &line(broken), DONE]);
        assert!(decoded.calls.is_empty() && decoded.incomplete.is_empty());
    }
}
