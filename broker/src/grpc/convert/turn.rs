//! A turn whose provider's stream was piped in, as it is told with the finished batch.

use std::collections::HashSet;

use bytes::Bytes;
use toolpool_proto::v1;

use super::dialect;
use crate::batch::task::provider::DropReason;
use crate::batch::{CallReport, Report};
use crate::ingest::dialect::{Answered, NotOurs, Owner, Turn};
use crate::ingest::{Position, TurnEnd};

/// `dropped` are the calls that have no place in the assistant's message, by their position in the batch.
pub(crate) fn turn(
    turn: &Turn,
    dropped: &[(Position, DropReason)],
    report: &Report,
    answer: Bytes,
) -> v1::Turn {
    let mut dropped: Vec<_> = dropped
        .iter()
        .filter_map(|&(position, reason)| {
            // In the order of their positions, which has no gaps here: no id was taken.
            let at = report
                .calls
                .binary_search_by_key(&position, |call| call.position);
            Some(dropped_call(
                report.calls.get(at.ok()?)?,
                turn.calls.get(position)?,
                reason,
            ))
        })
        .collect();
    dropped.extend(
        turn.not_ours_void
            .iter()
            .map(|(call, why)| v1::DroppedCall {
                id: String::new(),
                provider_id: (!call.id.is_empty()).then(|| call.id.clone()),
                tool: call.name.clone(),
                position: place(call.position),
                reason: reason((*why).map_or(DropReason::Incomplete, DropReason::from)).into(),
            }),
    );
    // Another call under its id is alive: whoever drops calls by their ids must not find that.
    let alive = turn.calls.iter().filter(|call| call.void.is_none());
    let alive: HashSet<&String> = alive.filter_map(|call| call.provider_id.as_ref()).collect();
    dropped.retain(|call| {
        let again = call
            .provider_id
            .as_ref()
            .is_some_and(|id| alive.contains(id));
        !(again && call.reason() == v1::DropReason::Superseded)
    });
    dropped.sort_by_key(|call| call.position);
    let turn_end = match turn.end {
        TurnEnd::Complete => v1::TurnEnd::Complete,
        TurnEnd::Truncated => v1::TurnEnd::Truncated,
        TurnEnd::Aborted => v1::TurnEnd::Aborted,
    };
    v1::Turn {
        dialect: turn.dialect.map(|known| dialect(known).into()),
        turn_end: turn_end.into(),
        stop_reason: turn.stop_reason.clone(),
        error: turn.error.clone(),
        answer,
        dropped,
        not_ours: turn.not_ours.iter().map(passed_over).collect(),
    }
}

fn dropped_call(report: &CallReport, call: &Answered, why: DropReason) -> v1::DroppedCall {
    v1::DroppedCall {
        id: report.id.to_string(),
        provider_id: call.provider_id.clone(),
        tool: report.tool.clone(),
        position: place(call.position),
        reason: reason(why).into(),
    }
}

fn reason(why: DropReason) -> v1::DropReason {
    match why {
        DropReason::Incomplete => v1::DropReason::Incomplete,
        DropReason::NotJson => v1::DropReason::NotJson,
        DropReason::Withdrawn => v1::DropReason::Withdrawn,
        DropReason::Superseded => v1::DropReason::Superseded,
        DropReason::Unreadable => v1::DropReason::Unreadable,
    }
}

fn passed_over(call: &NotOurs) -> v1::PassedOverCall {
    let owner = match call.owner {
        Owner::Provider => v1::Owner::Provider,
        Owner::Agent => v1::Owner::Agent,
        Owner::Client => v1::Owner::Client,
    };
    v1::PassedOverCall {
        provider_id: (!call.id.is_empty()).then(|| call.id.clone()),
        tool: call.name.clone(),
        position: place(call.position),
        owner: owner.into(),
    }
}

fn place(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}
