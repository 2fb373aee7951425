//! The finished batch.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use toolpool_proto::v1;

use crate::error::ProtocolError;
use crate::result::{CallError, CallResult, required};
use crate::turn::Turn;

/// Every result of a batch, and its totals.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedBatch {
    results: Vec<CallResult>,
    /// Counts and times.
    pub summary: Summary,
    /// Where the provider's stream was piped in: the turn as its provider sees it.
    pub turn: Option<Turn>,
}

/// What the broker says of a batch as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The id given, or the one the broker made.
    pub batch_id: String,
    /// Call ids seen, which is the number of results.
    pub calls: u32,
    /// Those of them that are outputs.
    pub succeeded: u32,
    /// By the broker's wall clock.
    pub accepted_at: SystemTime,
    /// From acceptance to the last call's end.
    pub elapsed: Duration,
    /// How long the calls would have taken one after another: the sum of what the last attempts took.
    pub summed_run: Duration,
    /// Calls that came under an id which was taken, and were not run.
    pub duplicates: Vec<DuplicateCall>,
    /// What to look for where traces are kept. `None`: the broker did not trace the batch, and it came with no context.
    pub trace_id: Option<String>,
}

/// A call that was not run, since its id was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateCall {
    /// The id that was taken.
    pub id: String,
    /// The tool's name as the agent gave it.
    pub tool: String,
    /// Its place in the model's order.
    pub position: u32,
    /// Says so to the model.
    pub error: CallError,
}

impl FinishedBatch {
    /// The result of a call. `None`: the broker never saw a call under this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&CallResult> {
        self.results.iter().find(|result| result.id == id)
    }

    /// All results in the model's order.
    #[must_use]
    pub fn results(&self) -> &[CallResult] {
        &self.results
    }

    /// All results in the model's order, to keep.
    #[must_use]
    pub fn into_results(self) -> Vec<CallResult> {
        self.results
    }

    /// Whether every call has an output and none was turned away as a duplicate.
    #[must_use]
    pub fn all_succeeded(&self) -> bool {
        self.summary.duplicates.is_empty()
            && self.results.iter().all(|result| result.outcome.is_ok())
    }

    /// Checks what came against what the broker says it sent.
    pub(crate) fn new(
        mut results: Vec<CallResult>,
        mut finished: v1::Finished,
    ) -> Result<Self, ProtocolError> {
        if usize::try_from(finished.calls) != Ok(results.len()) {
            return Err(ProtocolError::Count {
                came: results.len(),
                counted: finished.calls,
            });
        }
        let mut ids = HashSet::with_capacity(results.len());
        if let Some(second) = results.iter().find(|result| !ids.insert(&*result.id)) {
            return Err(ProtocolError::SecondResult(second.id.clone()));
        }
        results.sort_by_key(|result| result.position);
        let turn = finished.turn.take().map(Turn::try_from).transpose()?;
        Ok(Self {
            results,
            turn,
            summary: finished.try_into()?,
        })
    }
}

impl TryFrom<v1::Finished> for Summary {
    type Error = ProtocolError;

    fn try_from(finished: v1::Finished) -> Result<Self, ProtocolError> {
        let duplicates = finished.duplicates.into_iter().map(|duplicate| {
            let error = duplicate
                .error
                .ok_or(ProtocolError::Missing("duplicate.error"))?;
            Ok(DuplicateCall {
                id: duplicate.id,
                tool: duplicate.tool,
                position: duplicate.position,
                error: error.try_into()?,
            })
        });
        Ok(Self {
            duplicates: duplicates.collect::<Result<_, _>>()?,
            batch_id: finished.batch_id,
            calls: finished.calls,
            succeeded: finished.succeeded,
            accepted_at: finished
                .accepted_at
                .and_then(|at| SystemTime::try_from(at).ok())
                .ok_or(ProtocolError::Missing("finished.accepted_at"))?,
            elapsed: required("finished.elapsed", finished.elapsed)?,
            summed_run: required("finished.summed_run", finished.summed_run)?,
            trace_id: finished.trace_id,
        })
    }
}
