//! The gauges, and what is counted elsewhere, read from the lanes and registries when somebody asks:
//! nothing is counted along the way.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::KeyValue;
use tokio_util::sync::CancellationToken;

use super::presence::WorkerState;
use super::table::{self, Metric};
use super::{Error, Metrics};
use crate::catalogue::Catalogue;
use crate::lane::Load;
use crate::registry::Batches;
use crate::telemetry::Telemetry;

/// What the gauges are read from.
#[derive(Clone, Debug)]
pub(crate) struct Scrape {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) batches: Arc<Batches>,
    pub(crate) draining: CancellationToken,
    pub(crate) telemetry: Telemetry,
}

/// The values of all gauges at one moment.
#[derive(Debug, Default)]
pub(super) struct Readings(HashMap<&'static str, Vec<(f64, Vec<KeyValue>)>>);

impl Readings {
    pub(super) fn of(&self, gauge: &str) -> &[(f64, Vec<KeyValue>)] {
        self.0.get(gauge).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, gauge: &Metric, labels: Vec<KeyValue>, value: f64) {
        self.0.entry(gauge.name).or_default().push((value, labels));
    }
}

impl Scrape {
    /// All metrics in Prometheus' text format. Takes a few milliseconds for hundreds of tools: keep it off the threads
    /// that calls run on.
    pub(crate) fn text(&self) -> Result<String, Error> {
        self.metrics.encode(|| self.read())
    }

    fn read(&self) -> Readings {
        let mut readings = Readings::default();
        self.read_tools(&mut readings);
        let workers = self.metrics.present.count();
        for (state, many) in WorkerState::ALL.into_iter().zip(workers.workers) {
            let state = vec![KeyValue::new("state", state.label())];
            readings.add(&table::WORKERS, state, count(many));
        }
        for (state, many) in [("used", workers.slots_used), ("free", workers.slots_free)] {
            readings.add(
                &table::SLOTS,
                vec![KeyValue::new("state", state)],
                count(many),
            );
        }
        let open = count(self.batches.open());
        readings.add(&table::BATCHES_OPEN, Vec::new(), open);
        let draining = f64::from(u8::from(self.draining.is_cancelled()));
        readings.add(&table::DRAINING, Vec::new(), draining);
        for (reason, spans) in self.telemetry.spans_dropped() {
            let reason = vec![KeyValue::new("reason", reason)];
            let spans = usize::try_from(spans).unwrap_or(usize::MAX);
            readings.add(&table::SPANS_DROPPED, reason, count(spans));
        }
        let version = KeyValue::new("version", env!("CARGO_PKG_VERSION"));
        readings.add(&table::BUILD, vec![version], 1.0);
        readings
    }

    /// Tools that share a label are added up; of their bursts the one that is used up the most counts.
    fn read_tools(&self, readings: &mut Readings) {
        let tools = self.catalogue.list();
        readings.add(&table::TOOLS, Vec::new(), count(tools.len()));
        let mut by_label: HashMap<Arc<str>, Load> = HashMap::new();
        for tool in tools {
            let label = Arc::clone(tool.lane.series().label());
            by_label.entry(label).or_default().add(&tool.lane.load());
        }
        // One that the configuration names and nobody serves is seen to be without workers.
        for named in self.metrics.named() {
            by_label.entry(Arc::clone(named)).or_default();
        }
        for (label, load) in by_label {
            let labels = || vec![KeyValue::new("tool", Arc::clone(&label))];
            let Load {
                queued,
                in_flight,
                slots_needed,
                workers,
                in_flight_limit,
                rate,
            } = load;
            let counts = [
                (&table::QUEUED, queued),
                (&table::IN_FLIGHT, in_flight),
                (&table::SLOTS_NEEDED, slots_needed),
                (&table::TOOL_WORKERS, workers),
            ];
            for (gauge, many) in counts {
                readings.add(gauge, labels(), count(many));
            }
            if let Some(limit) = in_flight_limit {
                readings.add(&table::IN_FLIGHT_LIMIT, labels(), count(limit));
            }
            if let Some((per_second, used)) = rate {
                readings.add(&table::RATE_LIMIT, labels(), per_second);
                readings.add(&table::RATE_USED, labels(), used);
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nothing here is counted up to 2^52"
)]
fn count(many: usize) -> f64 {
    many as f64
}
