//! One tool's series, found once for each lane, so that recording a call looks nothing up.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, BoundHistogram, Counter, Histogram};

use super::Instruments;
use super::recent::{Recent, RecentCalls};
use crate::batch::EndedCall;
use crate::call_error::{CallError, Code};
use crate::lane::lease::Limit;

/// Label values of `outcome`: `ok`, and every [`Code`].
pub(super) const OUTCOMES: usize = 18;

/// The series of one label value. Each exists from its first value on, or from [`show_zeros`](Self::show_zeros).
#[derive(Debug)]
pub(crate) struct ToolSeries {
    label: Arc<str>,
    instruments: Arc<Instruments>,
    outcomes: [OnceLock<BoundCounter<u64>>; OUTCOMES],
    limits: [OnceLock<BoundHistogram<f64>>; Limit::COUNT],
    hold: OnceLock<BoundHistogram<f64>>,
    slot: OnceLock<BoundHistogram<f64>>,
    run: OnceLock<BoundHistogram<f64>>,
    attempts: OnceLock<BoundCounter<u64>>,
    retries: OnceLock<BoundCounter<u64>>,
    early_starts: OnceLock<BoundCounter<u64>>,
    early_discarded: OnceLock<BoundCounter<u64>>,
    leases_fenced: OnceLock<BoundCounter<u64>>,
    recent: Recent,
}

impl ToolSeries {
    pub(super) fn new(label: Arc<str>, instruments: Arc<Instruments>) -> Self {
        Self {
            label,
            instruments,
            outcomes: Default::default(),
            limits: Default::default(),
            hold: OnceLock::new(),
            slot: OnceLock::new(),
            run: OnceLock::new(),
            attempts: OnceLock::new(),
            retries: OnceLock::new(),
            early_starts: OnceLock::new(),
            early_discarded: OnceLock::new(),
            leases_fenced: OnceLock::new(),
            recent: Recent::new(),
        }
    }

    /// Counts nothing: a counter that is there from the start shows its first event as a change, and that there was none.
    pub(super) fn show_zeros(&self) {
        let of = &*self.instruments;
        self.ended(None, 0);
        for (series, of) in [
            (&self.attempts, &of.attempts),
            (&self.retries, &of.retries),
            (&self.early_starts, &of.early_starts),
            (&self.early_discarded, &of.early_discarded),
            (&self.leases_fenced, &of.leases_fenced),
        ] {
            self.count(series, of, 0);
        }
    }

    /// The value of the label `tool`.
    pub(crate) fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// A call has its result.
    pub(crate) fn call(&self, call: &EndedCall<'_>) {
        self.outcome(call.error);
        let of = &*self.instruments;
        if let Some(held) = call.held {
            self.time(&self.hold, &of.hold, held);
        }
        if let Some(by) = call.waits.limited_by {
            let bound = self.limits[limit(by)].get_or_init(|| {
                of.limit
                    .bind(&[KeyValue::new("limit", by.name()), self.tool()])
            });
            bound.record(call.waits.limit.as_secs_f64());
        }
        if !call.waits.slot.is_zero() {
            self.time(&self.slot, &of.slot, call.waits.slot);
        }
        if let Some(ran) = call.ran {
            self.time(&self.run, &of.run, ran);
            self.recent.ran(ran);
        }
        if call.attempts > 0 {
            self.count(&self.attempts, &of.attempts, u64::from(call.attempts));
        }
        if call.attempts > 1 {
            self.count(&self.retries, &of.retries, u64::from(call.attempts - 1));
        }
        if call.was_started_early {
            self.count(&self.early_starts, &of.early_starts, 1);
            if !call.was_complete {
                self.count(&self.early_discarded, &of.early_discarded, 1);
            }
        }
    }

    /// A call has its result, and there is nothing else to be said of it.
    pub(crate) fn outcome(&self, error: Option<&CallError>) {
        self.ended(error.map(|error| error.code), 1);
        self.recent.ended(error.is_some());
    }

    /// What became of the latest calls.
    pub(crate) fn recent(&self) -> RecentCalls {
        self.recent.read()
    }

    fn ended(&self, code: Option<Code>, calls: u64) {
        let bound = self.outcomes[code.map_or(0, outcome)].get_or_init(|| {
            let outcome = KeyValue::new("outcome", code.map_or("ok", Code::name));
            self.instruments.calls.bind(&[outcome, self.tool()])
        });
        bound.add(calls);
    }

    /// A lease was ended for its batch, and its worker has not answered yet.
    pub(crate) fn lease_fenced(&self) {
        self.count(&self.leases_fenced, &self.instruments.leases_fenced, 1);
    }

    fn count(&self, series: &OnceLock<BoundCounter<u64>>, of: &Counter<u64>, more: u64) {
        series.get_or_init(|| of.bind(&[self.tool()])).add(more);
    }

    fn time(&self, series: &OnceLock<BoundHistogram<f64>>, of: &Histogram<f64>, time: Duration) {
        let bound = series.get_or_init(|| of.bind(&[self.tool()]));
        bound.record(time.as_secs_f64());
    }

    pub(super) fn tool(&self) -> KeyValue {
        KeyValue::new("tool", Arc::clone(&self.label))
    }
}

/// The place of an error's series; 0 is that of `ok`.
pub(super) fn outcome(code: Code) -> usize {
    match code {
        Code::InvalidArguments => 1,
        Code::UnknownTool => 2,
        Code::NoWorker => 3,
        Code::Overloaded => 4,
        Code::RateLimited => 5,
        Code::Timeout(_) => 6,
        Code::ToolFailed => 7,
        Code::WorkerLost => 8,
        Code::OutcomeUnknown => 9,
        Code::ResultTooLarge => 10,
        Code::Cancelled => 11,
        Code::Aborted => 12,
        Code::Incomplete => 13,
        Code::TruncatedTurn => 14,
        Code::DuplicateId => 15,
        Code::PermissionDenied => 16,
        Code::Internal => 17,
    }
}

fn limit(limit: Limit) -> usize {
    match limit {
        Limit::Rate => 0,
        Limit::InFlight => 1,
        Limit::Pause => 2,
        Limit::MaxParallel => 3,
    }
}
