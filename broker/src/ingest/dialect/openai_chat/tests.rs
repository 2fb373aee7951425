//! Chunks of Chat Completions, built and read.

mod chunk;
mod damage;
mod early;
mod ends;
mod join;

use super::super::testing::lines as calls;
use super::super::{Dialect, Limits, ProviderTurn, Turn};
use crate::decode::{Decoded, Decoder};
use crate::ingest::Input;

const MOST: usize = 4096;

/// A stream of one choice, unless it is told otherwise.
#[derive(Default)]
struct Chat(Vec<String>);

impl Chat {
    fn raw(mut self, event: &str) -> Self {
        self.0.push(event.to_owned());
        self
    }

    fn choice(self, index: usize, delta: &str, reason: &str) -> Self {
        self.raw(&format!(
            r#"{{"id":"c","object":"chat.completion.chunk","choices":[{{"index":{index},"delta":{delta},"finish_reason":{reason}}}],"usage":null}}"#
        ))
    }

    fn delta(self, delta: &str) -> Self {
        self.choice(0, delta, "null")
    }

    /// The entries of a `tool_calls` list.
    fn calls(self, entries: &str) -> Self {
        self.delta(&format!(r#"{{"tool_calls":[{entries}]}}"#))
    }

    fn finish(self, reason: &str) -> Self {
        self.choice(0, "{}", &format!(r#""{reason}""#))
    }

    fn done(self) -> Self {
        self.raw("[DONE]")
    }

    fn read(&self) -> Decoded {
        let mut decoder = Decoder::new(Some(Dialect::OpenAiChat), MOST);
        for event in &self.0 {
            decoder.event(event.as_bytes());
        }
        decoder.finish()
    }

    /// The steps that a batch takes.
    fn steps(&self) -> (Vec<String>, Turn) {
        let limits = Limits {
            event_bytes: MOST,
            arguments_bytes: 64,
            calls: 100_000,
        };
        let mut turn = ProviderTurn::new(Some(Dialect::OpenAiChat), Vec::new(), limits, 7);
        let mut inputs = Vec::new();
        for event in &self.0 {
            turn.event(event.as_bytes(), &mut inputs);
        }
        turn.finish(&mut inputs);
        (inputs.iter().map(step).collect(), turn.into_turn())
    }
}

fn step(input: &Input) -> String {
    match input {
        Input::Start { index, header, .. } => format!("{index} {}", header.tool),
        Input::Delta { index, fragment } => {
            format!("{index} + {}", std::str::from_utf8(fragment).unwrap())
        }
        Input::Stop { index } => format!("{index} stop"),
        Input::Early { index } => format!("{index} early"),
        Input::Void { index, why } => format!("{index} void {why:?}"),
        Input::Seal(end) => format!("seal {end:?}"),
        Input::Whole { .. } => "whole".to_owned(),
    }
}

#[track_caller]
fn check(chat: &Chat, wanted: &[&str]) {
    let decoded = chat.read();
    assert_eq!(calls(&decoded), wanted);
    assert!(decoded.complete, "{decoded:?}");
    assert_eq!(decoded.incomplete, [], "{decoded:?}");
}

fn chat() -> Chat {
    Chat::default().delta(r#"{"role":"assistant","content":""}"#)
}
