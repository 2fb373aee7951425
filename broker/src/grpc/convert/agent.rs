//! What an agent sends.

use std::time::Duration;

use bytes::Bytes;
use toolpool_proto::v1;

use super::{Malformed, duration, malformed, printable};
use crate::id::{BatchId, CallId};
use crate::ingest::dialect::Dialect;
use crate::ingest::{Header, Input, TurnEnd};
use crate::telemetry::TraceContext;

const MAX_ID_BYTES: usize = 256;
/// As much of a tool's name as is kept; no tool has one that long.
const MAX_TOOL_NAME_BYTES: usize = 256;
const MOST_LOCAL_TOOLS: usize = 10_000;

/// The agent's wishes for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) batch: BatchId,
    pub(crate) deadline: Option<Duration>,
    pub(crate) max_parallel: Option<usize>,
    pub(crate) finish_on_disconnect: bool,
    pub(crate) progress: bool,
    /// The agent pipes its provider's stream in.
    pub(crate) provider: Option<Provider>,
    /// The agent's span.
    pub(crate) agent: Option<TraceContext>,
}

/// What an agent says of its provider's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provider {
    /// `None`: the stream tells.
    pub(crate) dialect: Option<Dialect>,
    /// Names of tools that the agent runs itself.
    pub(crate) local_tools: Vec<String>,
}

/// A step of the turn as the agent sends it.
#[derive(Debug)]
pub(crate) enum Step {
    /// In the broker's own terms.
    Own(Input),
    /// Bytes of the provider's stream.
    ProviderData(Bytes),
    /// One event of it.
    ProviderEvent(Bytes),
    /// The end.
    Seal(TurnEnd),
}

pub(crate) fn open(open: v1::Open) -> Result<Open, Malformed> {
    let batch = match open.batch_id {
        None => BatchId::generate(),
        Some(id) => BatchId::from(printable("open.batch_id", id)?),
    };
    let max_parallel = match open.max_parallel {
        Some(0) => {
            return malformed("open.max_parallel is 0; permitted is 1 or more, or leave it out");
        }
        other => other.map(|most| most as usize),
    };
    let finish_on_disconnect = match open.on_disconnect.map(v1::OnDisconnect::try_from) {
        None | Some(Ok(v1::OnDisconnect::Cancel)) => false,
        Some(Ok(v1::OnDisconnect::Finish)) => true,
        Some(_) => {
            return malformed(
                "open.on_disconnect is not one of its values; leave it out for the default",
            );
        }
    };
    let deadline = open
        .deadline
        .map(|time| duration("open.deadline", time))
        .transpose()?;
    if deadline.is_some_and(|time| time.is_zero()) {
        return malformed("open.deadline is 0; permitted is more than that, or leave it out");
    }
    let parent = open.traceparent.as_deref();
    Ok(Open {
        agent: parent.and_then(|parent| TraceContext::parse(parent, open.tracestate.as_deref())),
        batch,
        deadline,
        max_parallel,
        finish_on_disconnect,
        progress: open.progress,
        provider: provider(open.dialect, open.local_tools)?,
    })
}

fn provider(dialect: Option<i32>, local_tools: Vec<String>) -> Result<Option<Provider>, Malformed> {
    if local_tools.len() > MOST_LOCAL_TOOLS {
        return malformed(format!(
            "open.local_tools has {} names; permitted are {MOST_LOCAL_TOOLS}",
            local_tools.len()
        ));
    }
    if let Some(name) =
        (local_tools.iter()).find(|name| !(1..=MAX_TOOL_NAME_BYTES).contains(&name.len()))
    {
        return malformed(format!(
            "open.local_tools has a name of {} bytes; permitted are 1 to {MAX_TOOL_NAME_BYTES}",
            name.len()
        ));
    }
    let dialect = match dialect {
        None if local_tools.is_empty() => return Ok(None),
        None => {
            return malformed(
                "open.local_tools is of use only with open.dialect; leave a local tool's blocks out instead",
            );
        }
        Some(named) => match v1::Dialect::try_from(named) {
            Ok(v1::Dialect::Auto) => None,
            Ok(named) if named != v1::Dialect::Unspecified => known(named),
            _ => return malformed("open.dialect is not one of its values; leave it out for none"),
        },
    };
    Ok(Some(Provider {
        dialect,
        local_tools,
    }))
}

/// The dialect of that name; neither AUTO nor UNSPECIFIED is one.
fn known(dialect: v1::Dialect) -> Option<Dialect> {
    Some(match dialect {
        v1::Dialect::Unspecified | v1::Dialect::Auto => return None,
        v1::Dialect::Anthropic => Dialect::Anthropic,
        v1::Dialect::OpenaiChat => Dialect::OpenAiChat,
        v1::Dialect::OpenaiResponses => Dialect::OpenAiResponses,
        v1::Dialect::Gemini => Dialect::Gemini,
        v1::Dialect::Bedrock => Dialect::Bedrock,
        v1::Dialect::Cohere => Dialect::Cohere,
        v1::Dialect::Ollama => Dialect::Ollama,
        v1::Dialect::VercelUi => Dialect::VercelUi,
    })
}

pub(crate) fn dialect(dialect: Dialect) -> v1::Dialect {
    match dialect {
        Dialect::Anthropic => v1::Dialect::Anthropic,
        Dialect::OpenAiChat => v1::Dialect::OpenaiChat,
        Dialect::OpenAiResponses => v1::Dialect::OpenaiResponses,
        Dialect::Gemini => v1::Dialect::Gemini,
        Dialect::Bedrock => v1::Dialect::Bedrock,
        Dialect::Cohere => v1::Dialect::Cohere,
        Dialect::Ollama => v1::Dialect::Ollama,
        Dialect::VercelUi => v1::Dialect::VercelUi,
    }
}

/// A frame after the first.
pub(crate) fn agent_frame(frame: v1::AgentFrame) -> Result<Step, Malformed> {
    use v1::agent_frame::Frame;
    Ok(Step::Own(match frame.frame {
        None => return malformed("a frame is empty or of a kind that this broker does not know"),
        Some(Frame::Open(_)) => {
            return malformed("open came twice; it must be the first frame and only the first");
        }
        Some(Frame::BlockStart(start)) => {
            let header = header("block_start", start.id, start.tool)?;
            let idempotency_key = key("block_start", start.idempotency_key)?;
            Input::Start {
                index: start.index,
                header,
                idempotency_key,
            }
        }
        Some(Frame::BlockDelta(delta)) => Input::Delta {
            index: delta.index,
            fragment: delta.fragment,
        },
        Some(Frame::BlockStop(stop)) => Input::Stop { index: stop.index },
        Some(Frame::Call(whole)) => call(whole)?,
        Some(Frame::Seal(end)) => return Ok(Step::Seal(seal(end)?)),
        Some(Frame::ProviderData(bytes)) => return Ok(Step::ProviderData(bytes)),
        Some(Frame::ProviderEvent(json)) => return Ok(Step::ProviderEvent(json)),
    }))
}

pub(crate) fn call(call: v1::Call) -> Result<Input, Malformed> {
    let header = header("call", call.id, call.tool)?;
    let idempotency_key = key("call", call.idempotency_key)?;
    Ok(Input::Whole {
        header,
        idempotency_key,
        arguments: call.arguments,
    })
}

pub(crate) fn seal(seal: v1::Seal) -> Result<TurnEnd, Malformed> {
    match seal.turn_end.map(v1::TurnEnd::try_from) {
        None | Some(Ok(v1::TurnEnd::Complete)) => Ok(TurnEnd::Complete),
        Some(Ok(v1::TurnEnd::Truncated)) => Ok(TurnEnd::Truncated),
        Some(Ok(v1::TurnEnd::Aborted)) => Ok(TurnEnd::Aborted),
        Some(_) => {
            malformed("seal.turn_end is not one of its values; leave it out for the default")
        }
    }
}

fn header(field: &str, id: String, mut tool: String) -> Result<Header, Malformed> {
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return malformed(format!(
            "{field}.id has {} bytes; permitted are 1 to {MAX_ID_BYTES}",
            id.len()
        ));
    }
    // The name is the model's: a silly one costs its call, not the turn.
    tool.truncate(tool.floor_char_boundary(MAX_TOOL_NAME_BYTES));
    Ok(Header {
        id: CallId::from(id),
        tool,
    })
}

fn key(field: &str, key: Option<String>) -> Result<Option<String>, Malformed> {
    match key {
        Some(key) if key.is_empty() || key.len() > MAX_ID_BYTES => malformed(format!(
            "{field}.idempotency_key has {} bytes; permitted are 1 to {MAX_ID_BYTES}, or leave it out",
            key.len()
        )),
        other => Ok(other),
    }
}
