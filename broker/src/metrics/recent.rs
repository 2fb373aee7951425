//! What became of a tool's latest calls, for operators: counts that can be read back, and what the last ones took.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Runs that are remembered.
const RUNS: usize = 128;

/// A tool's latest calls. Written without a lock: two calls that end at once may each miss a place, which shifts the
/// figures by one run.
#[derive(Debug)]
pub(super) struct Recent {
    ended: AtomicU64,
    failed: AtomicU64,
    /// In microseconds; the one that is overwritten next is `ran % RUNS`.
    runs: [AtomicU32; RUNS],
    ran: AtomicU64,
}

/// The figures of a tool's latest calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecentCalls {
    pub(crate) ended: u64,
    pub(crate) failed: u64,
    pub(crate) runs: Option<RecentRuns>,
}

/// How long the latest runs took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecentRuns {
    pub(crate) runs: usize,
    pub(crate) median: Duration,
    pub(crate) p90: Duration,
    pub(crate) longest: Duration,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self {
            ended: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            runs: [const { AtomicU32::new(0) }; RUNS],
            ran: AtomicU64::new(0),
        }
    }

    pub(super) fn ended(&self, failed: bool) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn ran(&self, time: Duration) {
        let place = usize::try_from(self.ran.fetch_add(1, Ordering::Relaxed) % RUNS as u64);
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        if let Some(run) = place.ok().and_then(|place| self.runs.get(place)) {
            run.store(micros, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> RecentCalls {
        let ran = usize::try_from(self.ran.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let runs = self.runs.iter().take(ran);
        let mut runs: Vec<u32> = runs.map(|run| run.load(Ordering::Relaxed)).collect();
        runs.sort_unstable();
        let time = |index: usize| Duration::from_micros(u64::from(runs[index]));
        let last = runs.len().checked_sub(1);
        RecentCalls {
            ended: self.ended.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            runs: last.map(|last| RecentRuns {
                runs: runs.len(),
                median: time(last / 2),
                p90: time(last * 9 / 10),
                longest: time(last),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_latest_runs() {
        let recent = Recent::new();
        assert_eq!(recent.read(), RecentCalls::default());
        for ms in 0..1_000 {
            recent.ended(ms % 4 == 0);
            recent.ran(Duration::from_millis(ms));
        }
        let read = recent.read();
        assert_eq!((read.ended, read.failed), (1_000, 250));
        let runs = read.runs.unwrap();
        assert_eq!(runs.runs, RUNS);
        let ms = [runs.median, runs.p90, runs.longest].map(|time| time.as_millis());
        assert_eq!(ms, [872 + 63, 872 + 114, 999]);
    }
}
