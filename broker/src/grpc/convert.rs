//! Protobuf to our types and back. Behind this file every value is valid.

use std::time::Duration;

use toolpool_proto::v1;

use crate::ingest::TurnEnd;

mod admin;
mod agent;
mod result;
mod tool;
mod turn;
mod worker;

pub(crate) use admin::{batch_delivering, batch_status, explanation, lane_status, worker_status};
pub(crate) use agent::{Open, Provider, Step, agent_frame, call, dialect, open, seal};
pub(crate) use result::{batch_frame, finished, progress, result};
pub(crate) use tool::{catalogue_entry, tool_format};
pub(crate) use turn::turn;
pub(crate) use worker::{FromWorker, Register, assignment, pool_frame, register, worker_frame};

const MAX_NAME_BYTES: usize = 128;

/// A message that breaks the protocol; says which field and what is permitted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct Malformed(String);

/// A count or a place on the wire; ours are far below its range.
fn many(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn turn_end(end: TurnEnd) -> v1::TurnEnd {
    match end {
        TurnEnd::Complete => v1::TurnEnd::Complete,
        TurnEnd::Truncated => v1::TurnEnd::Truncated,
        TurnEnd::Aborted => v1::TurnEnd::Aborted,
    }
}

fn malformed<T>(text: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(text.into()))
}

fn printable(field: &str, id: String) -> Result<String, Malformed> {
    if id.is_empty() || id.len() > MAX_NAME_BYTES || !id.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return malformed(format!(
            "{field}: permitted are 1 to {MAX_NAME_BYTES} printable ASCII characters"
        ));
    }
    Ok(id)
}

fn duration(field: &str, time: prost_types::Duration) -> Result<Duration, Malformed> {
    let wrong = |_| Malformed(format!("{field} is negative or out of range"));
    Duration::try_from(time).map_err(wrong)
}

/// A duration on the wire; ours are far below its range.
pub(crate) fn to_wire(time: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: time.subsec_nanos().cast_signed(),
    }
}
