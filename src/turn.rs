//! A model's turn as it was recorded: what came when.

mod live;
mod play;

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use toolpool_client::{Call, TurnEnd};

pub(crate) use self::live::Watch;
pub(crate) use self::play::{Pace, Played, play};

/// The steps of a turn in their order.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) steps: Vec<TimedStep>,
}

/// A step and its moment, counted from the start of the turn.
#[derive(Debug, Clone)]
pub(crate) struct TimedStep {
    pub(crate) at: Duration,
    pub(crate) step: Step,
}

/// What the model, or the agent for it, does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    BlockStart(BlockStart),
    BlockDelta { index: u32, fragment: String },
    BlockStop { index: u32 },
    Call(Call),
    Seal(TurnEnd),
}

/// A block begins.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockStart {
    pub(crate) index: u32,
    pub(crate) id: String,
    pub(crate) tool: String,
    pub(crate) idempotency_key: Option<String>,
}

impl Turn {
    /// Reads a recording: a JSON object a line; empty lines are passed over. An error names its line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut turn = Self::default();
        let mut open = HashSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            if !line.trim().is_empty() {
                let step = TimedStep::parse(line).and_then(|step| turn.check(step, &mut open));
                turn.steps
                    .push(step.with_context(|| format!("line {number}"))?);
            }
        }
        ensure!(!turn.steps.is_empty(), "it has no steps");
        Ok(turn)
    }

    /// A turn whose calls are complete from the start.
    pub(crate) fn of_calls(calls: impl IntoIterator<Item = Call>) -> Self {
        let step = |step| TimedStep {
            at: Duration::ZERO,
            step,
        };
        Self {
            steps: calls.into_iter().map(Step::Call).map(step).collect(),
        }
    }

    /// Whether the step can follow those that are there.
    fn check(&self, step: TimedStep, open: &mut HashSet<u32>) -> Result<TimedStep> {
        if let Some(before) = self.steps.last() {
            ensure!(
                !matches!(before.step, Step::Seal(_)),
                "nothing can follow the seal"
            );
            ensure!(
                step.at >= before.at,
                "`at` is {} and the step before it came at {}",
                step.at.as_secs_f64(),
                before.at.as_secs_f64()
            );
        }
        match &step.step {
            Step::BlockStart(start) => {
                ensure!(
                    open.insert(start.index),
                    "block {} is open already",
                    start.index
                );
            }
            Step::BlockDelta { index, .. } => {
                ensure!(open.contains(index), "no block {index} is open");
            }
            Step::BlockStop { index } => ensure!(open.remove(index), "no block {index} is open"),
            Step::Call(_) | Step::Seal(_) => {}
        }
        Ok(step)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    at: f64,
    block_start: Option<BlockStart>,
    block_delta: Option<BlockDelta>,
    block_stop: Option<BlockStop>,
    call: Option<WholeCall>,
    seal: Option<Seal>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockDelta {
    index: u32,
    fragment: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockStop {
    index: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeCall {
    id: String,
    tool: String,
    /// JSON, or a string with JSON text in it, which may be broken.
    arguments: Box<RawValue>,
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    turn_end: Option<RecordedEnd>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum RecordedEnd {
    Complete,
    Truncated,
    Aborted,
}

impl TimedStep {
    fn parse(line: &str) -> Result<Self> {
        let line: Line = serde_json::from_str(line)?;
        let at =
            Duration::try_from_secs_f64(line.at).context("`at` must be seconds from the start")?;
        let steps = [
            line.block_start.map(Step::BlockStart),
            line.block_delta
                .map(|BlockDelta { index, fragment }| Step::BlockDelta { index, fragment }),
            line.block_stop
                .map(|BlockStop { index }| Step::BlockStop { index }),
            line.call.map(WholeCall::into_step).transpose()?,
            line.seal.map(|seal| {
                Step::Seal(match seal.turn_end {
                    None | Some(RecordedEnd::Complete) => TurnEnd::Complete,
                    Some(RecordedEnd::Truncated) => TurnEnd::Truncated,
                    Some(RecordedEnd::Aborted) => TurnEnd::Aborted,
                })
            }),
        ];
        let mut steps = steps.into_iter().flatten();
        let (Some(step), None) = (steps.next(), steps.next()) else {
            bail!(
                "exactly one of block_start, block_delta, block_stop, call, seal must stand beside `at`"
            );
        };
        Ok(Self { at, step })
    }
}

impl WholeCall {
    fn into_step(self) -> Result<Step> {
        let text = self.arguments.get();
        let arguments = if text.starts_with('"') {
            serde_json::from_str(text)?
        } else {
            text.to_owned()
        };
        let mut call = Call::new(self.id, self.tool, arguments);
        call.idempotency_key = self.idempotency_key;
        Ok(Step::Call(call))
    }
}

#[cfg(test)]
mod tests;
