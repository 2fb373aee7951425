//! Cohere v2 chat: calls by `index`, each closed by `tool-call-end`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::calls::{Block, Calls, NewCall};
use super::fragment::Half;
use super::json::{Text, object, typed};
use super::turn::Void;
use super::{DONE, Decode, Event};
use crate::ingest::TurnEnd;

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct Cohere {
    /// One as a rule.
    open: HashMap<u64, Open>,
    /// The last call, if it has ended without any text: a call without arguments, unless the turn was cut right there.
    blank: Option<Block>,
    /// Calls so far.
    order: u64,
}

#[derive(Debug)]
struct Open {
    block: Block,
    half: Half,
}

const KNOWN: &[&str] = &[
    "tool-call-start",
    "tool-call-delta",
    "tool-call-end",
    "message-end",
];

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    index: Option<u64>,
    #[serde(borrow, default, deserialize_with = "object")]
    delta: Option<Delta<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default, deserialize_with = "object")]
    message: Option<Part<'a>>,
    #[serde(borrow)]
    finish_reason: Option<Text<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    /// One call; a list only where a message starts.
    #[serde(borrow, default, deserialize_with = "object")]
    tool_calls: Option<ToolCall<'a>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

impl Decode for Cohere {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error> {
        if event.data.trim_ascii() == DONE {
            calls.fail("the provider's stream is done, but its message has not ended");
            return Ok(());
        }
        if let Some(message) = typed::<Message<'_>>(event.data, KNOWN)? {
            self.message(message, calls);
        }
        Ok(())
    }

    fn finish(&mut self, _calls: &mut Calls) {
        // `message-end` never came: the stream was cut.
    }
}

impl Cohere {
    fn message(&mut self, message: Message<'_>, calls: &mut Calls) {
        let index = message.index.unwrap_or_default();
        let (part, reason, error) = match message.delta {
            Some(delta) => (delta.message, delta.finish_reason, delta.error),
            None => (None, None, None),
        };
        let call = part.and_then(|part| part.tool_calls);
        if let ("tool-call-start" | "tool-call-delta" | "tool-call-end", Some(block)) =
            (message.kind.as_deref().unwrap_or_default(), self.blank)
        {
            // More came, so its end was no cut.
            calls.complete(block);
            self.blank = None;
        }
        match message.kind.as_deref().unwrap_or_default() {
            "tool-call-start" => self.start(index, call, calls),
            "tool-call-delta" => {
                let arguments = call.and_then(|call| call.function?.arguments);
                if let (Some(open), Some(arguments)) = (self.open.get_mut(&index), arguments) {
                    open.append(arguments, calls);
                }
            }
            "tool-call-end" => {
                if let Some(open) = self.open.remove(&index) {
                    self.blank = open.end(calls);
                }
            }
            "message-end" => self.end(reason.as_deref(), error, calls),
            _ => {}
        }
    }

    fn start(&mut self, index: u64, call: Option<ToolCall<'_>>, calls: &mut Calls) {
        self.order += 1;
        if let Some(before) = self.open.remove(&index) {
            calls.void(before.block, Void::Superseded);
        }
        let Some(call) = call else { return };
        let Some((function, name)) = call
            .function
            .as_ref()
            .and_then(|function| Some((function, function.name.as_deref()?)))
            .filter(|(_, name)| !name.is_empty())
        else {
            return;
        };
        let mut open = Open {
            block: calls.begin(NewCall {
                id: call.id.as_deref(),
                name,
                order: self.order,
                ..NewCall::default()
            }),
            half: Half::default(),
        };
        if let Some(arguments) = function.arguments {
            open.append(arguments, calls);
        }
        self.open.insert(index, open);
    }

    fn end(&mut self, reason: Option<&str>, error: Option<&RawValue>, calls: &mut Calls) {
        if let Some(reason) = reason {
            calls.stop_reason(reason);
        }
        if matches!(reason, Some("TOOL_CALL" | "COMPLETE" | "STOP_SEQUENCE")) {
            if let Some(block) = self.blank.take() {
                calls.complete(block);
            }
            calls.end(TurnEnd::Complete);
            return;
        }
        // Cut by a limit, a timeout, an error, or something new. The end of the last call may be the cut's own doing.
        if let Some(block) = self.blank.take() {
            calls.void(block, Void::Incomplete);
        }
        match error {
            Some(error) => calls.fail(format!("the provider broke off: {}", error.get())),
            None => calls.end(TurnEnd::Truncated),
        }
    }
}

impl Open {
    fn append(&mut self, arguments: &RawValue, calls: &mut Calls) {
        match self.half.join(arguments) {
            Ok(text) => calls.append(self.block, &text),
            Err(_) => calls.void(self.block, Void::NotJson),
        }
    }

    /// Returns the call if there was nothing in it.
    fn end(self, calls: &mut Calls) -> Option<Block> {
        if self.half.is_open() {
            calls.void(self.block, Void::NotJson);
        } else if calls.text(self.block).is_nothing() {
            return Some(self.block);
        } else {
            calls.complete(self.block);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::{Decoded, Dialect};
    use crate::ingest::dialect::testing::{self, lines as calls};

    const BEGIN: &str = r#"{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"f_1","type":"function","function":{"name":"f","arguments":""}}}}}"#;
    const STOP: &str = r#"{"type":"tool-call-end","index":0}"#;

    fn fragment(arguments: &str) -> String {
        format!(
            r#"{{"type":"tool-call-delta","index":0,"delta":{{"message":{{"tool_calls":{{"function":{{"arguments":{arguments}}}}}}}}}}}"#
        )
    }

    fn end(reason: &str) -> String {
        format!(r#"{{"type":"message-end","delta":{{"finish_reason":"{reason}","usage":{{}}}}}}"#)
    }

    fn read(events: &[&str]) -> Decoded {
        testing::read(Some(Dialect::Cohere), events)
    }

    #[test]
    fn a_call_is_complete_at_its_own_end() {
        let decoded = read(&[
            r#"{"type":"message-start","id":"m","delta":{"message":{"role":"assistant","tool_calls":[],"tool_plan":""}}}"#,
            r#"{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"I will"}}}"#,
            r#"{"type":"new","index":"one","delta":[]}"#,
            BEGIN,
            &fragment(r#""{\n    \"x\"""#),
            &fragment("null"),
            &fragment(r#"": \"\ud83d""#),
            &fragment(r#""\ude00\"}""#),
            STOP,
            r#"{"type":"tool-call-start","index":1,"delta":{"message":{"tool_calls":{"id":"g_1","function":{"name":"g","arguments":"{\"y\""}}}}}"#,
        ]);
        assert_eq!(calls(&decoded), ["f_1 f {\n    \"x\": \"😀\"}"]);
        assert_eq!(decoded.incomplete.len(), 1);
        assert!(!decoded.complete && decoded.error.is_some());
    }

    #[test]
    fn good_reasons_complete_the_turn_and_all_others_cut_it() {
        for reason in ["TOOL_CALL", "COMPLETE", "STOP_SEQUENCE"] {
            let decoded = read(&[BEGIN, STOP, &end(reason), "[DONE]"]);
            assert_eq!(calls(&decoded), ["f_1 f {}"], "{reason}");
            assert!(decoded.complete, "{reason}");
            assert_eq!(decoded.stop_reason.as_deref(), Some(reason));
        }
        for reason in ["MAX_TOKENS", "ERROR", "TIMEOUT", "NEW"] {
            let decoded = read(&[BEGIN, &fragment(r#""{}""#), STOP, &end(reason)]);
            assert_eq!(calls(&decoded), ["f_1 f {}"], "{reason}");
            assert!(!decoded.complete && decoded.error.is_none(), "{reason}");
        }
    }

    #[test]
    fn no_arguments_are_an_empty_object_unless_the_turn_was_cut_there() {
        for text in [r#""""#, "null", r#""null""#, r#"" ""#] {
            let (good, bad) = (end("TOOL_CALL"), end("MAX_TOKENS"));
            let one = [BEGIN, &fragment(text), STOP];
            let whole = read(&[&one[..], &[&good]].concat());
            assert_eq!(calls(&whole), ["f_1 f {}"], "{text}");
            let cut = read(&[&one[..], &[&bad]].concat());
            assert_eq!(calls(&cut), [""; 0], "{text}");
            // What came after it shows that it had its end.
            let later = [&one[..], &one[..], &[&bad]].concat();
            assert_eq!(calls(&read(&later)), ["f_1 f {}"], "{text}");
        }
    }

    #[test]
    fn an_error_is_told() {
        let decoded = read(&[
            BEGIN,
            r#"{"type":"message-end","delta":{"error":"overloaded","finish_reason":"ERROR"}}"#,
        ]);
        assert_eq!(decoded.stop_reason.as_deref(), Some("ERROR"));
        assert!(
            decoded
                .error
                .is_some_and(|error| error.contains("overloaded"))
        );
        let decoded = read(&[BEGIN, &fragment(r#""{}""#), STOP, "[DONE]"]);
        assert_eq!(calls(&decoded), ["f_1 f {}"]);
        assert!(!decoded.complete && decoded.error.is_some());
    }

    #[test]
    fn what_is_out_of_order_is_passed_over() {
        let decoded = read(&[
            STOP,
            &fragment(r#""{}""#),
            r#"{"type":"tool-call-start","index":0}"#,
            r#"{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"n","function":{"name":""}}}}}"#,
            BEGIN,
            BEGIN,
            STOP,
            STOP,
            &end("TOOL_CALL"),
        ]);
        assert_eq!(calls(&decoded), ["f_1 f {}"]);
        assert!(decoded.incomplete[0].superseded);
    }
}
