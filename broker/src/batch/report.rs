//! A finished batch: each call's result, and where its time went.

use std::time::Duration;

use super::tried::Tried;
use crate::call_error::CallError;
use crate::id::{CallId, WorkerId};
use crate::ingest::{Position, TurnEnd};
use crate::lane::lease::{Limit, Waits};
use crate::output::Output;

/// A finished batch.
#[derive(Debug)]
pub(crate) struct Report {
    /// In the model's order.
    pub(crate) calls: Vec<CallReport>,
    /// Calls that came under a taken id.
    pub(crate) duplicates: Vec<Duplicate>,
    /// How the turn ended, if somebody said so.
    pub(crate) turn_end: Option<TurnEnd>,
    /// From acceptance to the last result.
    pub(crate) elapsed: Duration,
}

/// How one call ended.
#[derive(Debug)]
pub(crate) struct CallReport {
    pub(crate) position: Position,
    pub(crate) id: CallId,
    pub(crate) tool: String,
    pub(crate) result: Result<Output, CallError>,
    pub(crate) ledger: Ledger,
    /// Every attempt that was offered, if the batch is traced; else empty.
    pub(crate) tried: Vec<Tried>,
}

/// A call that has its result, while its batch may go on.
#[derive(Debug)]
pub(crate) struct EndedCall<'a> {
    pub(crate) id: &'a CallId,
    pub(crate) tool: &'a str,
    pub(crate) error: Option<&'a CallError>,
    pub(crate) worker: Option<&'a WorkerId>,
    pub(crate) was_complete: bool,
    pub(crate) was_started_early: bool,
    pub(crate) held: Option<Duration>,
    pub(crate) waits: Waits,
    pub(crate) ran: Option<Duration>,
    pub(crate) attempts: u32,
}

/// Where a call's time went; moments are counted from the batch's acceptance.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) block_began: Duration,
    pub(crate) block_complete: Option<Duration>,
    pub(crate) started_early: Option<Duration>,
    pub(crate) held: Option<Duration>,
    pub(crate) limit_wait: Duration,
    pub(crate) limited_by: Option<Limit>,
    pub(crate) slot_wait: Duration,
    pub(crate) ran: Option<Duration>,
    pub(crate) ended: Duration,
    pub(crate) attempts: u32,
    pub(crate) worker: Option<WorkerId>,
}

/// A call that was not run, since its id was taken.
#[derive(Debug)]
pub(crate) struct Duplicate {
    pub(crate) id: CallId,
    pub(crate) tool: String,
    pub(crate) position: Position,
    /// Since the batch's acceptance.
    pub(crate) came: Duration,
    pub(crate) error: CallError,
}

impl CallReport {
    /// About what it is on the wire, for the packing of packets.
    pub(crate) fn about_bytes(&self) -> usize {
        const REST: usize = 256;
        REST + match &self.result {
            Ok(output) => output.size(),
            Err(error) => {
                let violations = error.violations.iter();
                let listed: usize = violations.map(|of| of.path.len() + of.message.len()).sum();
                error.message.len() + listed
            }
        }
    }
}

impl Report {
    /// Calls that gave an output.
    pub(crate) fn succeeded(&self) -> usize {
        self.calls.iter().filter(|call| call.result.is_ok()).count()
    }

    /// What the calls' last attempts took, one after another.
    pub(crate) fn summed_run(&self) -> Duration {
        self.calls.iter().filter_map(|call| call.ledger.ran).sum()
    }
}
