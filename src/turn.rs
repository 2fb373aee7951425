//! A model's turn as it was recorded: what came when.

mod dialect;
mod line;
mod live;
mod play;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;
use toolpool_broker::Config;
use toolpool_broker::decode::Decoder;
use toolpool_client::{BatchOptions, Call, TurnEnd};

pub(crate) use self::dialect::Dialect;
use self::line::{Line, Said};
pub(crate) use self::live::Watch;
pub(crate) use self::play::{Pace, Played, play};

/// A provider's stream whose own pieces are not known goes out in pieces of this size.
const PIECE: usize = 16 * 1024;

/// The steps of a turn in their order.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Set: the steps are pieces of a provider's stream. Not set: they are blocks and calls.
    pub(crate) provider: Option<Provider>,
    pub(crate) steps: Vec<TimedStep>,
    /// The rest of a provider's stream, which goes out as it comes. `None`: the steps are all.
    pub(crate) rest: Option<mpsc::Receiver<io::Result<Bytes>>>,
}

/// What is known of a provider's stream before it comes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Provider {
    pub(crate) dialect: Dialect,
    /// Tools that the agent runs itself.
    pub(crate) local_tools: Vec<String>,
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
    ProviderEvent(Bytes),
    ProviderData(Bytes),
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
                Line::parse(line)
                    .and_then(|line| turn.add(line, &mut open))
                    .with_context(|| format!("line {number}"))?;
            }
        }
        ensure!(!turn.steps.is_empty(), "it has no steps");
        Ok(turn)
    }

    /// A turn whose calls are complete from the start.
    pub(crate) fn of_calls(calls: impl IntoIterator<Item = Call>) -> Self {
        Self {
            steps: calls.into_iter().map(Step::Call).map(at_once).collect(),
            ..Self::default()
        }
    }

    /// A provider's stream of which nobody noted what came when.
    pub(crate) fn of_stream(stream: &Bytes, provider: Provider) -> Self {
        let pieces = (0..stream.len()).step_by(PIECE);
        let piece = |from: usize| stream.slice(from..stream.len().min(from + PIECE));
        Self {
            provider: Some(provider),
            steps: pieces
                .map(|from| at_once(Step::ProviderData(piece(from))))
                .collect(),
            rest: None,
        }
    }

    /// The names by which it calls tools, those of the agent's own left out.
    pub(crate) fn tools(&self) -> BTreeSet<String> {
        let mut tools = BTreeSet::new();
        if let Some(mut decoder) = self.decoder("") {
            for step in &self.steps {
                step.step.read_by(&mut decoder);
            }
            let turn = decoder.finish();
            tools.extend(turn.calls.into_iter().map(|call| call.name));
            tools.extend(turn.incomplete.into_iter().map(|call| call.name));
        }
        for step in &self.steps {
            match &step.step {
                Step::BlockStart(start) => tools.insert(start.tool.clone()),
                Step::Call(call) => tools.insert(call.tool.clone()),
                _ => false,
            };
        }
        tools
    }

    /// Reads the provider's stream as the broker of that batch does. `None`: it is none.
    fn decoder(&self, batch_id: &str) -> Option<Decoder> {
        let provider = self.provider.as_ref()?;
        let (dialect, local_tools) = (provider.dialect.to_decoder(), provider.local_tools.clone());
        let most = Config::default().max_event_bytes;
        Some(Decoder::of_batch(batch_id, dialect, local_tools, most))
    }

    fn options(&self, options: BatchOptions) -> BatchOptions {
        match &self.provider {
            Some(provider) => options
                .dialect(provider.dialect.to_wire())
                .local_tools(&provider.local_tools),
            None => options,
        }
    }

    /// Adds what the line says, if it can follow what is there.
    fn add(&mut self, line: Line, open: &mut HashSet<u32>) -> Result<()> {
        if let Some(before) = self.steps.last() {
            ensure!(
                !matches!(before.step, Step::Seal(_)),
                "nothing can follow the seal"
            );
            ensure!(
                line.at >= before.at,
                "`at` is {} and the step before it came at {}",
                line.at.as_secs_f64(),
                before.at.as_secs_f64()
            );
        }
        let step = match line.said {
            Said::Open(provider) => {
                ensure!(
                    self.steps.is_empty() && self.provider.is_none(),
                    "open must be the first line"
                );
                self.provider = Some(provider);
                return Ok(());
            }
            Said::Step(step) => step,
        };
        self.check(&step, open)?;
        self.steps.push(TimedStep { at: line.at, step });
        Ok(())
    }

    fn check(&mut self, step: &Step, open: &mut HashSet<u32>) -> Result<()> {
        let of_provider = matches!(step, Step::ProviderEvent(_) | Step::ProviderData(_));
        if of_provider && self.steps.is_empty() {
            self.provider.get_or_insert_default();
        }
        ensure!(
            of_provider == self.provider.is_some() || matches!(step, Step::Seal(_)),
            "blocks and calls cannot be mixed with a provider's stream"
        );
        match step {
            Step::BlockStart(start) => ensure!(
                open.insert(start.index),
                "block {} is open already",
                start.index
            ),
            Step::BlockDelta { index, .. } => {
                ensure!(open.contains(index), "no block {index} is open");
            }
            Step::BlockStop { index } => ensure!(open.remove(index), "no block {index} is open"),
            _ => {}
        }
        Ok(())
    }
}

impl Step {
    fn read_by(&self, decoder: &mut Decoder) {
        match self {
            Self::ProviderEvent(json) => decoder.event(json),
            Self::ProviderData(bytes) => decoder.bytes(bytes),
            _ => {}
        }
    }
}

fn at_once(step: Step) -> TimedStep {
    TimedStep {
        at: Duration::ZERO,
        step,
    }
}

#[cfg(test)]
mod tests;
