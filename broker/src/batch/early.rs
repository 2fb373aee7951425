//! Calls that start before their block is complete, and blocks that turn out to be none.
//!
//! Where a provider's format has no marker for the end of a block, a closed object that satisfies the schema is enough to
//! start a call that only reads. Its result counts once the block is complete; until then it is parked.

use std::sync::Arc;

use tokio::time::Instant;

use super::call::Phase;
use super::{Batch, Cut};
use crate::ingest::Position;
use crate::policy::Policy;

impl Batch {
    /// The call's arguments are what they will be if nothing follows, and running it in vain does no harm.
    pub(crate) fn start_early(&mut self, position: Position, policy: Arc<Policy>, now: Instant) {
        let Some(entry) = self.entry(position) else {
            return;
        };
        if !matches!(entry.phase, Phase::Filling) {
            return;
        }
        entry.policy = Some(policy);
        entry.early = Some(now);
        entry.unconfirmed = true;
        entry.since = now;
        self.make_ready(position);
        self.release(now);
    }

    /// The block is complete. Whether the call was started early: then there is nothing more to do.
    pub(crate) fn confirm(&mut self, position: Position, now: Instant) -> bool {
        let Some(entry) = self.entry(position).filter(|entry| entry.unconfirmed) else {
            return false;
        };
        entry.unconfirmed = false;
        entry.complete = Some(now);
        if let Some(result) = entry.take_parked() {
            self.end(position, result, now);
            self.release(now);
        }
        true
    }

    /// The block is no call, even if it was taken for one. What runs of it is called off.
    pub(crate) fn void(&mut self, position: Position, why: &'static str, now: Instant) {
        self.take_back(position, Cut::Void(why), now);
    }

    /// Ends a call that its block does not stand for any more; what it has brought so far is thrown away.
    pub(super) fn take_back(&mut self, position: Position, cut: Cut, now: Instant) {
        let Some(entry) = self.entry(position).filter(|entry| !entry.has_ended()) else {
            return;
        };
        entry.complete = None;
        if let Some(result) = entry.take_parked() {
            entry.ended = None;
            self.output_bytes -= result.map_or(0, |output| output.size());
        }
        self.cut_off(position, cut, now);
        self.release(now);
    }
}
