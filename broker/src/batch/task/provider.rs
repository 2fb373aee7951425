//! The provider's stream of one batch: decoded, and remembered for the answer.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault};

use bytes::Bytes;
use rustc_hash::FxHasher;
use toolpool_proto::v1;

use crate::answer::{self, Id};
use crate::batch::{CallReport, Report};
use crate::config::Config;
use crate::grpc::convert;
use crate::id::BatchId;
use crate::ingest::dialect::{Answered, Dialect, Limits, ProviderTurn, Turn, Void};
use crate::ingest::{Input, Position, TurnEnd};

/// Why a call that began is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    Incomplete,
    NotJson,
    Withdrawn,
    Superseded,
    Unreadable,
}

impl From<Void> for DropReason {
    fn from(why: Void) -> Self {
        match why {
            Void::Cut => Self::Incomplete,
            Void::NotJson => Self::NotJson,
            Void::Withdrawn => Self::Withdrawn,
            Void::Superseded => Self::Superseded,
            Void::Unreadable => Self::Unreadable,
        }
    }
}

/// A provider's stream that an agent pipes in.
#[derive(Debug)]
pub(super) struct Provider {
    turn: ProviderTurn,
    /// The agent knows what the stream is taken for.
    told: bool,
    dropped: Vec<(Position, DropReason)>,
}

impl Provider {
    pub(super) fn new(named: convert::Provider, batch: &BatchId, config: &Config) -> Self {
        let limits = Limits {
            event_bytes: config.max_event_bytes,
            arguments_bytes: config.max_arguments_bytes,
        };
        // Ids that are made must differ from turn to turn, as those of batches do.
        let seed = BuildHasherDefault::<FxHasher>::default().hash_one(batch.to_string());
        Self {
            turn: ProviderTurn::new(named.dialect, named.local_tools, limits, seed),
            told: false,
            dropped: Vec::new(),
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8], inputs: &mut Vec<Input>) {
        self.turn.bytes(bytes, inputs);
    }

    pub(super) fn event(&mut self, json: &[u8], inputs: &mut Vec<Input>) {
        self.turn.event(json, inputs);
    }

    /// The agent's own end. One that is good only says that no more will come: whether the turn is complete stands in the
    /// stream.
    pub(super) fn seal(&mut self, end: TurnEnd, inputs: &mut Vec<Input>) {
        match end {
            TurnEnd::Complete => self.turn.finish(inputs),
            TurnEnd::Truncated | TurnEnd::Aborted => self.turn.end(end, inputs),
        }
    }

    /// The agent has stopped sending in the middle of a call; whoever ends the turn knows.
    pub(super) fn fell_silent(&mut self) {
        self.turn
            .fail("the agent fell silent in the middle of a call");
    }

    pub(super) fn dialect(&self) -> Option<Dialect> {
        self.turn.dialect()
    }

    pub(super) fn knows(&self) -> bool {
        self.dialect().is_some()
    }

    pub(super) fn told(&self) -> bool {
        self.told
    }

    /// What the stream is, as far as that is known, to be told to the agent.
    pub(super) fn tell(&mut self) -> Option<Dialect> {
        self.told = self.knows();
        self.turn.dialect()
    }

    /// The call has no place in the assistant's message.
    pub(super) fn drop_call(&mut self, position: Position, reason: DropReason) {
        if self.dropped.iter().all(|(dropped, _)| *dropped != position) {
            self.dropped.push((position, reason));
        }
    }

    /// What is to be said of the turn when its results are there.
    pub(super) fn finish(self, report: &Report, most_bytes: usize) -> (Turn, v1::Turn) {
        let turn = self.turn.into_turn();
        let answer = match turn.dialect {
            Some(dialect) => {
                answer::answer(dialect, &due(&turn, &self.dropped, report), most_bytes)
            }
            None => Bytes::from_static(b"[]"),
        };
        let told = convert::turn(&turn, &self.dropped, report, answer);
        (turn, told)
    }
}

/// The calls that stand in the assistant's message, in its order.
fn due<'a>(
    turn: &'a Turn,
    dropped: &[(Position, DropReason)],
    report: &'a Report,
) -> Vec<answer::Call<'a>> {
    let dropped: HashSet<Position> = dropped.iter().map(|(position, _)| *position).collect();
    let mut due: Vec<_> = (report.calls.iter())
        .filter(|call| !dropped.contains(&call.position))
        .filter_map(|call| Some((call, turn.calls.get(call.position)?)))
        .collect();
    due.sort_by_key(|(_, call)| call.position);
    let call = |(result, call): (&'a CallReport, &'a Answered)| answer::Call {
        id: match &call.provider_id {
            Some(id) => Id::Provider(id),
            None => Id::Made(result.id.borrow()),
        },
        name: &result.tool,
        kind: call.kind,
        caller: call.caller.as_deref(),
        ending: result.result.as_ref(),
    };
    due.into_iter().map(call).collect()
}
