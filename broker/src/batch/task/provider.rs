//! The provider's stream of one batch: decoded, and remembered for the answer.

use std::borrow::Borrow;

use bytes::Bytes;
use toolpool_proto::v1;

use crate::answer::{self, Id};
use crate::batch::{CallReport, Report};
use crate::config::Config;
use crate::grpc::convert;
use crate::id::BatchId;
use crate::ingest::dialect::{Answered, Dialect, Limits, ProviderTurn, Turn, Void, seed};
use crate::ingest::{Input, Position, TurnEnd};

/// A provider's stream that an agent pipes in.
#[derive(Debug)]
pub(super) struct Provider {
    turn: ProviderTurn,
    /// The agent knows what the stream is taken for.
    told: bool,
}

impl Provider {
    /// `calls` are those that get a result, at most.
    pub(super) fn new(
        named: convert::Provider,
        batch: &BatchId,
        config: &Config,
        calls: usize,
    ) -> Self {
        let limits = Limits {
            event_bytes: config.max_event_bytes,
            arguments_bytes: config.max_arguments_bytes,
            calls,
        };
        let seed = seed(&batch.to_string());
        Self {
            turn: ProviderTurn::new(named.dialect, named.local_tools, limits, seed),
            told: false,
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8], inputs: &mut Vec<Input>) {
        self.turn.bytes(bytes, inputs);
    }

    pub(super) fn event(&mut self, json: &[u8], inputs: &mut Vec<Input>) {
        self.turn.event(json, inputs);
    }

    /// The agent's own end.
    pub(super) fn seal(&mut self, end: TurnEnd, inputs: &mut Vec<Input>) {
        self.turn.end(end, inputs);
    }

    /// Nothing that still comes counts; the turn has been ended for it.
    pub(super) fn cut(&mut self, why: &str) {
        self.turn.cut(why);
    }

    /// What the stream is has come out, and the agent has not been told.
    pub(super) fn has_news(&self) -> bool {
        !self.told && self.dialect().is_some()
    }

    /// What the stream is, as far as that is known.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        self.turn.dialect()
    }

    /// The same, to be told to the agent.
    pub(super) fn tell(&mut self) -> Option<Dialect> {
        let dialect = self.turn.dialect();
        self.told = dialect.is_some();
        dialect
    }

    /// The call has no place in the assistant's message.
    pub(super) fn drop_call(&mut self, position: Position, why: Void) {
        self.turn.drop_call(position, why);
    }

    /// What is to be said of the turn when its results are there.
    pub(super) fn finish(self, report: &Report, most_bytes: usize) -> (Turn, v1::Turn) {
        let turn = self.turn.into_turn();
        let answer = match turn.dialect {
            Some(dialect) => answer::answer(dialect, &due(&turn, report), most_bytes),
            None => Bytes::from_static(b"[]"),
        };
        let told = convert::turn(&turn, report, answer);
        (turn, told)
    }
}

/// The calls that stand in the assistant's message, in its order.
fn due<'a>(turn: &'a Turn, report: &'a Report) -> Vec<answer::Call<'a>> {
    let mut due: Vec<_> = (report.calls.iter())
        .filter_map(|call| Some((call, turn.calls.get(call.position)?)))
        .filter(|(_, call)| call.void.is_none())
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
