//! A turn whose provider's stream was piped in, as it is told with the finished batch.

use std::collections::HashSet;

use bytes::Bytes;
use toolpool_proto::v1;

use super::{dialect, many, turn_end};
use crate::batch::Report;
use crate::ingest::dialect::{NotOurs, Owner, Turn, Void};

pub(crate) fn turn(turn: &Turn, report: &Report, answer: Bytes) -> v1::Turn {
    let not_ours = turn.not_ours.iter().filter(|call| call.void.is_none());
    v1::Turn {
        dialect: turn.dialect.map(|known| dialect(known).into()),
        turn_end: turn_end(turn.end).into(),
        stop_reason: turn.stop_reason.clone(),
        error: turn.error.clone(),
        answer,
        dropped: dropped(turn, report),
        not_ours: not_ours.map(passed_over).collect(),
    }
}

/// In the model's order.
fn dropped(turn: &Turn, report: &Report) -> Vec<v1::DroppedCall> {
    let alive = turn.calls.iter().filter(|call| call.void.is_none());
    let alive: HashSet<&String> = alive.filter_map(|call| call.provider_id.as_ref()).collect();
    let mut dropped = Vec::new();
    for report in &report.calls {
        let Some((call, why)) = turn
            .calls
            .get(report.position)
            .and_then(|call| Some((call, call.void?)))
        else {
            continue;
        };
        // Another call under its id is alive: whoever drops calls by their ids must not find that.
        let again = call
            .provider_id
            .as_ref()
            .is_some_and(|id| alive.contains(id));
        if !(again && why == Void::Superseded) {
            dropped.push(v1::DroppedCall {
                id: report.id.to_string(),
                provider_id: call.provider_id.clone(),
                tool: report.tool.clone(),
                position: many(call.position),
                reason: reason(why).into(),
            });
        }
    }
    dropped.extend(turn.not_ours.iter().filter_map(|call| {
        Some(v1::DroppedCall {
            id: String::new(),
            provider_id: (!call.id.is_empty()).then(|| call.id.clone()),
            tool: call.name.clone(),
            position: many(call.position),
            reason: reason(call.void?).into(),
        })
    }));
    dropped.sort_by_key(|call| call.position);
    dropped
}

fn reason(why: Void) -> v1::DropReason {
    match why {
        Void::Incomplete => v1::DropReason::Incomplete,
        Void::NotJson => v1::DropReason::NotJson,
        Void::Withdrawn => v1::DropReason::Withdrawn,
        Void::Superseded => v1::DropReason::Superseded,
        Void::Unreadable => v1::DropReason::Unreadable,
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
        position: many(call.position),
        owner: owner.into(),
    }
}
