//! What the live view knows: the last look, what follows from the one before, and where the person at the keyboard is.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;
use toolpool_proto::v1;
use v1::LaneStatus;

use super::input::Action;
use super::look::Look;
use crate::output::one_line;
use crate::output::operator::{time, tool};

/// A broker that says nothing for so many intervals is said to be silent.
const SILENT_AFTER: u32 = 3;
/// The least time after which it is said so.
const LEAST_SILENCE: Duration = Duration::from_secs(2);

/// A part of the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Tools,
    Workers,
    Batches,
}

impl Pane {
    const ALL: [Self; 3] = [Self::Tools, Self::Workers, Self::Batches];

    fn moved(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// What the tools are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    Calls,
    Queued,
    P90,
}

impl Sort {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Calls => "calls/s",
            Self::Queued => "queued",
            Self::P90 => "p90",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Name => Self::Calls,
            Self::Calls => Self::Queued,
            Self::Queued => Self::P90,
            Self::P90 => Self::Name,
        }
    }
}

/// How often a tool's calls ended, between the last two looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    /// A second.
    pub(super) calls: f64,
    /// Those of them that failed, a second.
    pub(super) failed: f64,
}

/// The state.
pub(super) struct Model {
    url: String,
    every: Duration,
    look: Look,
    looked_at: Instant,
    /// Since when an answer is waited for.
    waits_since: Instant,
    /// By tool; there are none before the second look.
    rates: HashMap<String, Rates>,
    /// Why the last look failed.
    failure: Option<String>,
    paused: bool,
    pane: Pane,
    rows: [usize; 3],
    sort: Sort,
}

impl Model {
    pub(super) fn new(url: String, every: Duration, now: Instant) -> Self {
        Self {
            url,
            every,
            look: Look::default(),
            looked_at: now,
            waits_since: now,
            rates: HashMap::new(),
            failure: None,
            paused: false,
            pane: Pane::Tools,
            rows: [0; 3],
            sort: Sort::Name,
        }
    }

    /// Takes up what the broker has shown.
    pub(super) fn take(&mut self, look: Look, now: Instant) {
        if self.paused {
            return;
        }
        self.rates = rates(&self.look.lanes, &look.lanes, now - self.looked_at);
        self.failure = None;
        self.look = look;
        self.looked_at = now;
        self.waits_since = now;
        for pane in Pane::ALL {
            let row = self.row(pane);
            self.rows[pane as usize] = row;
        }
    }

    /// The broker did not answer; what it showed last stays.
    pub(super) fn no_answer(&mut self, status: &Status) {
        self.failure = Some(one_line(status.message()));
    }

    pub(super) fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Quit => {}
            Action::NextPane => self.pane = self.pane.moved(1),
            Action::PreviousPane => self.pane = self.pane.moved(Pane::ALL.len() - 1),
            Action::Rows(by) => {
                let row = self.rows[self.pane as usize].saturating_add_signed(by);
                self.rows[self.pane as usize] = row;
                self.rows[self.pane as usize] = self.row(self.pane);
            }
            Action::Sort => self.sort = self.sort.next(),
            Action::Pause => {
                self.paused = !self.paused;
                self.waits_since = now;
            }
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn look(&self) -> &Look {
        &self.look
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn pane(&self) -> Pane {
        self.pane
    }

    pub(super) fn sort(&self) -> Sort {
        self.sort
    }

    /// The row of the pane that the person is at.
    pub(super) fn row(&self, pane: Pane) -> usize {
        let rows = match pane {
            Pane::Tools => self.look.lanes.len(),
            Pane::Workers => self.look.workers.len(),
            Pane::Batches => self.look.batches.oldest.len() + self.look.batches.latest.len(),
        };
        self.rows[pane as usize].min(rows.saturating_sub(1))
    }

    /// How often the tool's calls ended of late. `None`: there were no two looks yet, or the broker was started anew.
    pub(super) fn rates(&self, tool: &str) -> Option<Rates> {
        self.rates.get(tool).copied()
    }

    /// The lanes in the order that is asked for; those that are equal in it, by name.
    pub(super) fn lanes(&self) -> Vec<&LaneStatus> {
        let mut lanes: Vec<_> = self.look.lanes.iter().collect();
        let calls = |lane: &LaneStatus| self.rates(tool(lane)).map_or(0.0, |rates| rates.calls);
        lanes.sort_by(|one, other| {
            let most_first = match self.sort {
                Sort::Name => std::cmp::Ordering::Equal,
                Sort::Calls => calls(other).total_cmp(&calls(one)),
                Sort::Queued => other.queued.cmp(&one.queued),
                Sort::P90 => p90(other).cmp(&p90(one)),
            };
            most_first.then_with(|| tool(one).cmp(tool(other)))
        });
        lanes
    }

    /// How long ago the last answer was, and what was said instead of another; `None` while all is well.
    pub(super) fn silence(&self, now: Instant) -> Option<(Duration, Option<&str>)> {
        let since = now - self.waits_since;
        let long = (self.every * SILENT_AFTER).max(LEAST_SILENCE);
        let silent = !self.paused && (self.failure.is_some() || since >= long);
        silent.then_some((since, self.failure.as_deref()))
    }
}

fn p90(lane: &LaneStatus) -> Duration {
    let recent = lane.recent_runs.as_ref();
    recent
        .and_then(|recent| time(recent.p90))
        .unwrap_or_default()
}

/// What ended between two looks, a second. A count that went back is that of a broker which was started anew.
fn rates(before: &[LaneStatus], after: &[LaneStatus], between: Duration) -> HashMap<String, Rates> {
    let seconds = between.as_secs_f64();
    if seconds <= 0.0 {
        return HashMap::new();
    }
    let before: HashMap<&str, &LaneStatus> = before.iter().map(|lane| (tool(lane), lane)).collect();
    #[expect(
        clippy::cast_precision_loss,
        reason = "what ends between two looks is far below 2^52"
    )]
    let rate = |count: u64| count as f64 / seconds;
    let rates = after.iter().filter_map(|lane| {
        // Of a tool that was not there nothing is known: it may come with the count of others.
        let before = before.get(tool(lane))?;
        let rates = Rates {
            calls: rate(lane.calls_ended.checked_sub(before.calls_ended)?),
            failed: rate(lane.calls_failed.checked_sub(before.calls_failed)?),
        };
        Some((tool(lane).to_owned(), rates))
    });
    rates.collect()
}

#[cfg(test)]
mod tests;
