//! What the broker counts of itself: OpenTelemetry instruments, shown in Prometheus' text format.
//!
//! [`METRICS`] is the one list of them. Counters and histograms are recorded where a call or a batch ends, or where
//! the event happens; gauges are read when somebody asks. A tool's series are found once, when its lane is made, and kept
//! bound: recording a call takes a few atomic additions and short locks of its own, and looks nothing up.
//!
//! **Labels are bounded.** Only names of tools that workers registered become label values, and no more of them than
//! `max_metric_tools` in the life of the process, those that the configuration names first; the rest share
//! [`OTHER_TOOLS`]. What a model calls without there being such a tool is [`NO_TOOL`]. Both have brackets, which no tool's
//! name can have. Names of workers and batches are never label values: they are in the log.

mod presence;
mod readings;
mod recent;
mod table;
mod tool;

use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

use dashmap::DashMap;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, Counter, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, SdkMeterProvider, Stream};
use parking_lot::{Mutex, RwLock};
use prometheus::{Registry, TextEncoder};

pub use table::{Kind, METRICS, Metric, SECONDS};

pub(crate) use presence::{Presence, WorkerState};
pub(crate) use readings::Scrape;
pub(crate) use recent::RecentCalls;
pub(crate) use tool::ToolSeries;

use crate::config::Config;
use crate::ingest::dialect::{Dialect, Turn};
use crate::lane::seat::Seat;
use presence::Present;
use readings::Readings;
use tool::OUTCOMES;

/// The label value that tools share for which there was no room.
pub const OTHER_TOOLS: &str = "(other)";
/// The label value of calls of tools that there are not.
pub const NO_TOOL: &str = "(none)";

/// Why the metrics cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the exporter failed: {0}")]
    Exporter(#[from] opentelemetry_sdk::error::OTelSdkError),
    #[error("the metrics cannot be written: {0}")]
    Encoder(#[from] prometheus::Error),
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Finished,
    Refused,
    Unread,
}

/// Why a batch was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    Full,
    Draining,
    Taken,
    Malformed,
}

/// Why a worker's session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Closed,
    Lost,
    Restarted,
    Refused,
    Shutdown,
}

impl Ending {
    const ALL: [Self; 3] = [Self::Finished, Self::Refused, Self::Unread];

    fn label(self) -> KeyValue {
        let name = match self {
            Self::Finished => "finished",
            Self::Refused => "refused",
            Self::Unread => "unread",
        };
        KeyValue::new("ending", name)
    }
}

impl TurnedAway {
    const ALL: [Self; 4] = [Self::Full, Self::Draining, Self::Taken, Self::Malformed];

    fn label(self) -> KeyValue {
        let name = match self {
            Self::Full => "full",
            Self::Draining => "draining",
            Self::Taken => "taken",
            Self::Malformed => "malformed",
        };
        KeyValue::new("reason", name)
    }
}

impl Left {
    const ALL: [Self; 5] = [
        Self::Closed,
        Self::Lost,
        Self::Restarted,
        Self::Refused,
        Self::Shutdown,
    ];

    fn label(self) -> KeyValue {
        let name = match self {
            Self::Closed => "closed",
            Self::Lost => "lost",
            Self::Restarted => "restarted",
            Self::Refused => "refused",
            Self::Shutdown => "shutdown",
        };
        KeyValue::new("reason", name)
    }
}

/// All that is counted.
pub(crate) struct Metrics {
    tools: DashMap<Arc<str>, Arc<ToolSeries>>,
    max_tools: usize,
    none: Arc<ToolSeries>,
    /// Tools of the configuration.
    named: Vec<Arc<str>>,
    /// That there are more tools than series.
    said_full: Once,
    present: Arc<Present>,
    batches_started: BoundCounter<u64>,
    outcomes_fenced: BoundCounter<u64>,
    streams_broken: BoundCounter<u64>,
    beats_missed: BoundCounter<u64>,
    worker_stalls: BoundCounter<u64>,
    undelivered: BoundCounter<u64>,
    dropped_at_agent: BoundCounter<u64>,
    dropped_at_batch: BoundCounter<u64>,
    instruments: Arc<Instruments>,
    /// What the gauges show; filled in before each showing.
    readings: Arc<RwLock<Readings>>,
    /// One showing at a time.
    registry: Mutex<Registry>,
    _provider: SdkMeterProvider,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The instruments that have labels.
#[derive(Debug)]
struct Instruments {
    calls: Counter<u64>,
    attempts: Counter<u64>,
    retries: Counter<u64>,
    early_starts: Counter<u64>,
    early_discarded: Counter<u64>,
    leases_fenced: Counter<u64>,
    hold: Histogram<f64>,
    limit: Histogram<f64>,
    slot: Histogram<f64>,
    run: Histogram<f64>,
    batch: Histogram<f64>,
    batches: Counter<u64>,
    turned_away: Counter<u64>,
    workers_left: Counter<u64>,
    provider_turns: Counter<u64>,
    provider_dropped: Counter<u64>,
}

impl Metrics {
    pub(crate) fn new(config: &Config) -> Result<Arc<Self>, Error> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            // The names in the table are those that are shown.
            .without_units()
            .without_counter_suffixes()
            .without_target_info()
            .scope_info_enabled(false)
            .build()?;
        let max_tools = config.max_metric_tools;
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_resource(Resource::builder_empty().build())
            .with_view(move |instrument: &Instrument| stream(instrument, max_tools))
            .build();
        let meter = provider.meter("toolpool");
        let readings = Arc::new(RwLock::new(Readings::default()));
        gauges(&meter, &readings);
        let instruments = Arc::new(Instruments::new(&meter));
        let none = Arc::new(ToolSeries::new(
            Arc::from(NO_TOOL),
            Arc::clone(&instruments),
        ));
        let bound = |metric: &Metric, labels: &[KeyValue]| {
            let series = counter(&meter, metric).bind(labels);
            // Shown from the start, so that the first one is seen as a change.
            series.add(0);
            series
        };
        let plain = |metric: &Metric| bound(metric, &[]);
        let dropped = |at| bound(&table::PROGRESS_DROPPED, &[KeyValue::new("at", at)]);
        instruments.show_zeros();
        // What the operator has an eye on comes first, whoever registers what.
        let mut named: Vec<Arc<str>> = (config.tools.keys())
            .map(|tool| Arc::from(tool.as_str()))
            .collect();
        named.sort();
        let metrics = Self {
            tools: DashMap::new(),
            max_tools,
            named: named.clone(),
            said_full: Once::new(),
            none,
            present: Arc::default(),
            batches_started: plain(&table::BATCHES_STARTED),
            outcomes_fenced: plain(&table::OUTCOMES_FENCED),
            streams_broken: plain(&table::STREAMS_BROKEN),
            beats_missed: plain(&table::BEATS_MISSED),
            worker_stalls: plain(&table::WORKER_STALLS),
            undelivered: plain(&table::UNDELIVERED),
            dropped_at_agent: dropped("agent"),
            dropped_at_batch: dropped("batch"),
            instruments,
            readings,
            registry: Mutex::new(registry),
            _provider: provider,
        };
        for tool in named {
            metrics.tool(&tool);
        }
        Ok(Arc::new(metrics))
    }

    /// The series of a tool that a worker registered; without room for its name, under the label that such tools share.
    pub(crate) fn tool(&self, name: &Arc<str>) -> Arc<ToolSeries> {
        if let Some(known) = self.known(name) {
            return known;
        }
        // Of two new ones at once, one too many may get in: the instruments have room for it.
        if self.tools.len() >= self.max_tools {
            self.said_full.call_once(|| {
                tracing::warn!(
                    max_metric_tools = self.max_tools, tool = %name,
                    "there are more tools than may have series of their own; this one and further ones share one"
                );
            });
            // What it is known for of late stays its own.
            let label = Arc::from(OTHER_TOOLS);
            return Arc::new(ToolSeries::new(label, Arc::clone(&self.instruments)));
        }
        let new = || {
            let series = ToolSeries::new(Arc::clone(name), Arc::clone(&self.instruments));
            series.show_zeros();
            Arc::new(series)
        };
        let entry = self.tools.entry(Arc::clone(name)).or_insert_with(new);
        Arc::clone(entry.value())
    }

    /// The series of a name that has them: a worker registered it once, or the configuration names it.
    pub(crate) fn known(&self, name: &str) -> Option<Arc<ToolSeries>> {
        let known = self.tools.get(name)?;
        Some(Arc::clone(known.value()))
    }

    /// Tools of the configuration that have series of their own.
    fn named(&self) -> impl Iterator<Item = &Arc<str>> {
        let named = self.named.iter();
        named.filter(|tool| self.tools.contains_key(*tool))
    }

    /// The series of calls of tools that there are not.
    pub(crate) fn no_tool(&self) -> &Arc<ToolSeries> {
        &self.none
    }

    pub(crate) fn batch_started(&self) {
        self.batches_started.add(1);
    }

    pub(crate) fn turned_away(&self, why: TurnedAway) {
        self.instruments.turned_away.add(1, &[why.label()]);
    }

    /// A batch has ended.
    pub(crate) fn batch_ended(&self, ending: Ending, elapsed: Duration) {
        let of = &*self.instruments;
        of.batches.add(1, &[ending.label()]);
        of.batch.record(elapsed.as_secs_f64(), &[]);
    }

    pub(crate) fn undelivered(&self) {
        self.undelivered.add(1);
    }

    /// A piped turn is over.
    pub(crate) fn provider_turn(&self, turn: &Turn) {
        let dialect = turn.dialect.map_or("unknown", Dialect::name);
        let labels = [
            KeyValue::new("dialect", dialect),
            KeyValue::new("end", turn.end.name()),
        ];
        self.instruments.provider_turns.add(1, &labels);
        for why in turn.calls.iter().filter_map(|call| call.void) {
            let labels = [KeyValue::new("reason", why.name())];
            self.instruments.provider_dropped.add(1, &labels);
        }
    }

    pub(crate) fn progress_dropped_at_agent(&self, messages: usize) {
        self.dropped_at_agent
            .add(u64::try_from(messages).unwrap_or(u64::MAX));
    }

    pub(crate) fn progress_dropped_at_batch(&self) {
        self.dropped_at_batch.add(1);
    }

    /// A worker has a session; it is away until its stream is taken up.
    pub(crate) fn worker_came(&self, seat: Arc<Seat>) -> Presence {
        self.present.enter(seat)
    }

    pub(crate) fn worker_left(&self, why: Left) {
        self.instruments.workers_left.add(1, &[why.label()]);
    }

    pub(crate) fn stream_broke(&self) {
        self.streams_broken.add(1);
    }

    pub(crate) fn beat_missed(&self) {
        self.beats_missed.add(1);
    }

    pub(crate) fn worker_stalled(&self) {
        self.worker_stalls.add(1);
    }

    pub(crate) fn outcome_fenced(&self) {
        self.outcomes_fenced.add(1);
    }

    /// The text, with the gauges as `read` finds them.
    fn encode(&self, read: impl FnOnce() -> Readings) -> Result<String, Error> {
        let registry = self.registry.lock();
        let readings = read();
        *self.readings.write() = readings;
        Ok(TextEncoder::new().encode_to_string(&registry.gather())?)
    }
}

impl Instruments {
    fn new(meter: &Meter) -> Self {
        Self {
            calls: counter(meter, &table::CALLS),
            attempts: counter(meter, &table::ATTEMPTS),
            retries: counter(meter, &table::RETRIES),
            early_starts: counter(meter, &table::EARLY_STARTS),
            early_discarded: counter(meter, &table::EARLY_DISCARDED),
            leases_fenced: counter(meter, &table::LEASES_FENCED),
            hold: histogram(meter, &table::HOLD_SECONDS),
            limit: histogram(meter, &table::LIMIT_SECONDS),
            slot: histogram(meter, &table::SLOT_SECONDS),
            run: histogram(meter, &table::RUN_SECONDS),
            batch: histogram(meter, &table::BATCH_SECONDS),
            batches: counter(meter, &table::BATCHES),
            turned_away: counter(meter, &table::BATCHES_TURNED_AWAY),
            workers_left: counter(meter, &table::WORKERS_LEFT),
            provider_turns: counter(meter, &table::PROVIDER_TURNS),
            provider_dropped: counter(meter, &table::PROVIDER_DROPPED),
        }
    }

    /// So that what has never happened is seen to be none.
    fn show_zeros(&self) {
        for ending in Ending::ALL {
            self.batches.add(0, &[ending.label()]);
        }
        for why in TurnedAway::ALL {
            self.turned_away.add(0, &[why.label()]);
        }
        for why in Left::ALL {
            self.workers_left.add(0, &[why.label()]);
        }
    }
}

fn counter(meter: &Meter, metric: &Metric) -> Counter<u64> {
    debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
    meter
        .u64_counter(metric.name)
        .with_description(metric.meaning)
        .with_unit(metric.unit)
        .build()
}

fn histogram(meter: &Meter, metric: &Metric) -> Histogram<f64> {
    debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
    meter
        .f64_histogram(metric.name)
        .with_description(metric.meaning)
        .with_unit(metric.unit)
        .build()
}

/// Up-down counters, not gauges: the SDK would go on showing a gauge's last value of a tool that is long forgotten.
fn gauges(meter: &Meter, readings: &Arc<RwLock<Readings>>) {
    let show = |metric: &'static Metric| {
        let readings = Arc::clone(readings);
        move |observer: &dyn opentelemetry::metrics::AsyncInstrument<f64>| {
            for (value, labels) in readings.read().of(metric.name) {
                observer.observe(*value, labels);
            }
        }
    };
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Gauge) {
        // The callback is the meter's; the instrument itself is of no more use.
        let _ = meter
            .f64_observable_up_down_counter(metric.name)
            .with_description(metric.meaning)
            .with_unit(metric.unit)
            .with_callback(show(metric))
            .build();
    }
    // Counted where spans are handed over, which may be before there are metrics.
    let metric = &table::SPANS_DROPPED;
    let _ = meter
        .f64_observable_counter(metric.name)
        .with_description(metric.meaning)
        .with_unit(metric.unit)
        .with_callback(show(metric))
        .build();
}

/// The buckets of an instrument, and room for all label values that it can have.
fn stream(instrument: &Instrument, max_tools: usize) -> Option<Stream> {
    let metric = METRICS
        .iter()
        .find(|metric| metric.name == instrument.name())?;
    let values = metric.labels.iter().map(|label| match *label {
        // A few more, for those that came at the same time.
        "tool" => max_tools + 66,
        "outcome" => OUTCOMES,
        _ => 16,
    });
    let stream = Stream::builder().with_cardinality_limit(values.product::<usize>());
    let stream = match metric.kind {
        Kind::Histogram => stream.with_aggregation(Aggregation::ExplicitBucketHistogram {
            boundaries: SECONDS.to_vec(),
            record_min_max: false,
        }),
        Kind::Counter | Kind::Gauge => stream,
    };
    let built = stream.build();
    debug_assert!(built.is_ok(), "the table's streams can be built");
    built.ok()
}

#[cfg(test)]
mod tests;
