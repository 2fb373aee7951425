//! One reading of one input: what was found, and what it took.

use std::collections::HashSet;

use toolpool_broker::decode::{Decoded, Decoder, Dialect};

use super::oracle::Text;
use super::{MAX_EVENT_BYTES, MEMORY};

/// What decoding may take at any time: so much in any case, and so many times the input. A list of `{}` is a hundred times
/// its text while its event is read; how long it may be is checked in `growth`.
const MEMORY_BASE: usize = 64 << 10;
const MEMORY_FACTOR: usize = 100;
/// And what may be left of it between two events.
const KEPT_FACTOR: usize = 16;
/// Of the input, for each step that a batch takes for it.
const BYTES_PER_STEP: usize = 4;
const STEPS_BASE: usize = 8;

/// What came of an input.
pub(crate) struct Run<'a> {
    pub(crate) local_tools: &'a [&'a str],
    pub(crate) decoded: Decoded,
    /// An id that two calls have in the broker.
    made_twice: Option<String>,
    steps: usize,
    pub(crate) kept: usize,
    pub(crate) memory: usize,
}

pub(crate) fn run<'a>(
    dialect: Option<Dialect>,
    local_tools: &'a [&'a str],
    each: impl FnOnce(&mut Decoder),
) -> Run<'a> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let local = local_tools.iter().map(ToString::to_string).collect();
    let mut decoder = Decoder::of_batch("batch", dialect, local, MAX_EVENT_BYTES);
    each(&mut decoder);
    let steps = decoder.steps();
    // The harness's own threads may have given something back since.
    let kept = MEMORY.current_usage().saturating_sub(before);
    let mut ids = HashSet::new();
    let made_twice = decoder.seen().find(|seen| !ids.insert(seen.id));
    let made_twice = made_twice.map(|seen| seen.id.to_owned());
    drop(ids);
    let found = decoder.finish();
    Run {
        local_tools,
        decoded: found,
        made_twice,
        steps,
        kept,
        memory: MEMORY.peak_usage().saturating_sub(before),
    }
}

impl Run<'_> {
    /// Fails if it found what is not there, or took too much for so many bytes. What was found `before` is known to be
    /// there.
    pub(crate) fn judge(
        &self,
        there: &Text,
        bytes: usize,
        before: Option<&Decoded>,
    ) -> Result<(), String> {
        if before != Some(&self.decoded) {
            there.judge(&self.decoded)?;
        }
        let mut calls = self.decoded.calls.iter();
        if calls.any(|call| self.local_tools.contains(&&*call.name)) {
            return Err(format!("{:?} are the agent's own", self.local_tools));
        }
        if let Some(id) = &self.made_twice {
            return Err(format!("two calls are {id:?}"));
        }
        if self.steps > STEPS_BASE + bytes / BYTES_PER_STEP {
            return Err(format!("{} steps for {bytes} bytes", self.steps));
        }
        if self.memory > MEMORY_BASE + MEMORY_FACTOR * bytes {
            return Err(format!("{} bytes taken for {bytes}", self.memory));
        }
        if self.kept > MEMORY_BASE + KEPT_FACTOR * bytes {
            return Err(format!("{} bytes kept for {bytes}", self.kept));
        }
        Ok(())
    }
}
