//! What is to be said of a provider's turn besides its calls' results.

use std::io;

use toolpool_client::{Dialect, DropReason, Owner, Turn, TurnEnd};

use super::{Output, one_line};

impl Output {
    /// How the turn ended, and which of its calls have no place in the answer. `calls` is how many have a result.
    pub(crate) fn turn(&mut self, turn: &Turn, calls: u32) -> io::Result<()> {
        let end = match turn.end {
            TurnEnd::Complete => "complete",
            TurnEnd::Truncated => "cut short",
            TurnEnd::Aborted => "given up",
        };
        let reason = turn.stop_reason.as_deref();
        let reason = reason.map_or_else(String::new, |why| format!(" ({})", one_line(why)));
        let none = if calls == 0 {
            "; it has no calls for the broker"
        } else {
            ""
        };
        let line = format!("{}: the turn is {end}{reason}{none}", title(turn.dialect));
        self.line(self.paint.bold(&line))?;
        if let Some(error) = &turn.error {
            self.line(format!("  {} {}", self.paint.red("✗"), one_line(error)))?;
        }
        for call in &turn.dropped {
            let id = call.provider_id.as_ref().unwrap_or(&call.id);
            self.call("dropped", id, &call.tool, dropped(call.reason))?;
        }
        for call in &turn.not_ours {
            let id = call.provider_id.as_deref().unwrap_or_default();
            self.call("not ours", id, &call.tool, owner(call.owner))?;
        }
        Ok(())
    }

    fn call(&mut self, what: &str, id: &str, tool: &str, why: &str) -> io::Result<()> {
        let what = self.paint.yellow(&format!("{what:<8}"));
        let name = format!("{} {}", one_line(id), one_line(tool));
        self.line(format!("  {what}  {}: {why}", name.trim()))
    }
}

fn title(dialect: Option<Dialect>) -> &'static str {
    match dialect {
        Some(Dialect::Anthropic) => "Anthropic Messages",
        Some(Dialect::OpenaiChat) => "OpenAI Chat Completions",
        Some(Dialect::OpenaiResponses) => "OpenAI Responses",
        Some(Dialect::Gemini) => "Gemini",
        Some(Dialect::Bedrock) => "Bedrock ConverseStream",
        Some(Dialect::Cohere) => "Cohere",
        Some(Dialect::Ollama) => "Ollama",
        Some(Dialect::VercelUi) => "Vercel UI messages",
        Some(Dialect::Unspecified | Dialect::Auto) | None => "a stream of no known provider",
    }
}

fn dropped(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Incomplete => "the turn ended before the call did",
        DropReason::NotJson => "its arguments are not JSON",
        DropReason::Withdrawn => "the provider withdrew it",
        DropReason::Superseded => "the provider began its message anew, without it",
        DropReason::Unreadable => "a damaged event may have been a part of it",
        DropReason::Unspecified => "it never became a call",
    }
}

fn owner(owner: Owner) -> &'static str {
    match owner {
        Owner::Provider => "the provider ran it, and nothing is due",
        Owner::Agent => "a tool of the agent's own, which has to answer it",
        Owner::Client => "a tool of the provider's that the agent's side runs and answers",
        Owner::Unspecified => "somebody else runs it",
    }
}
