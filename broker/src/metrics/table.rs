//! Every metric there is. The instruments are made from this table, and tests hold what the broker shows, and what alerts
//! and dashboards ask for, against it.

/// What a metric measures, and how to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As Prometheus shows it; a histogram's series have `_bucket`, `_sum` and `_count` after it.
    pub name: &'static str,
    /// How its values relate to each other.
    pub kind: Kind,
    /// In UCUM's words, such as `s` or `{call}`.
    pub unit: &'static str,
    /// The labels that its series have, `le` apart.
    pub labels: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
}

/// How a metric's values relate to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows, and begins at zero with the process.
    Counter,
    /// As it is when it is read.
    Gauge,
    /// How many were how long.
    Histogram,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident = $name:literal, $unit:literal, [$($label:literal),*], $meaning:literal;)+) => {
        $(pub(crate) const $id: Metric = Metric {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            meaning: $meaning,
        };)+

        /// Every metric there is.
        pub const METRICS: &[Metric] = &[$($id),+];
    };
}

/// The upper bounds of histograms' buckets, in seconds.
pub const SECONDS: [f64; 19] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0, 600.0,
];

metrics! {
    BATCHES_STARTED: Counter = "toolpool_batches_started_total", "{batch}", [],
        "Batches that were opened.";
    BATCHES: Counter = "toolpool_batches_total", "{batch}", ["ending"],
        "Batches that ended: finished, refused (the agent broke the protocol) or unread (nobody was there to read it).";
    BATCHES_TURNED_AWAY: Counter = "toolpool_batches_turned_away_total", "{batch}", ["reason"],
        "Batches that were not opened: full (max_open_batches), draining, taken (the id is in use) or malformed.";
    BATCHES_OPEN: Gauge = "toolpool_batches_open", "{batch}", [],
        "Batches that are open.";
    BATCH_SECONDS: Histogram = "toolpool_batch_duration_seconds", "s", [],
        "From a batch's acceptance to its last result.";
    UNDELIVERED: Counter = "toolpool_batches_undelivered_total", "{batch}", [],
        "Finished batches that were given up, since their agent did not read them within delivery_timeout.";

    CALLS: Counter = "toolpool_calls_total", "{call}", ["tool", "outcome"],
        "Calls that have their result: ok, or the error's code.";
    HOLD_SECONDS: Histogram = "toolpool_call_hold_seconds", "s", ["tool"],
        "How long calls that were held waited for their turn's seal.";
    LIMIT_SECONDS: Histogram = "toolpool_call_limit_wait_seconds", "s", ["tool", "limit"],
        "How long calls that met a limit waited for it: rate, in_flight, pause or max_parallel, whichever cost the most.";
    SLOT_SECONDS: Histogram = "toolpool_call_slot_wait_seconds", "s", ["tool"],
        "How long calls that found no slot free waited for one, or for a worker at all.";
    RUN_SECONDS: Histogram = "toolpool_call_run_seconds", "s", ["tool"],
        "How long calls ran on their worker, as the broker sees it; of several attempts the last.";
    QUEUED: Gauge = "toolpool_calls_queued", "{call}", ["tool"],
        "Calls that wait for a limit or a slot.";
    IN_FLIGHT: Gauge = "toolpool_calls_in_flight", "{call}", ["tool"],
        "Calls that have a slot on a worker, also those that were called off and have not stopped yet.";
    ATTEMPTS: Counter = "toolpool_attempts_total", "{attempt}", ["tool"],
        "Attempts that reached a worker.";
    RETRIES: Counter = "toolpool_retries_total", "{attempt}", ["tool"],
        "Attempts after a call's first.";
    EARLY_STARTS: Counter = "toolpool_early_starts_total", "{call}", ["tool"],
        "Calls that were started before their block was complete.";
    EARLY_DISCARDED: Counter = "toolpool_early_starts_discarded_total", "{call}", ["tool"],
        "Early starts that were thrown away, since their block never became a call.";

    SLOTS_NEEDED: Gauge = "toolpool_slots_needed", "{slot}", ["tool"],
        "Slots that the tool could use now: its calls in flight and those that wait for a slot and that its rate lets start within 15 s. Scale on it.";
    TOOL_WORKERS: Gauge = "toolpool_tool_workers", "{worker}", ["tool"],
        "Workers that serve the tool.";
    IN_FLIGHT_LIMIT: Gauge = "toolpool_in_flight_limit", "{call}", ["tool"],
        "Calls that may be in flight at once (max_in_flight of the tool); absent without such a limit. Hold toolpool_calls_in_flight against it.";
    RATE_LIMIT: Gauge = "toolpool_rate_limit", "{attempt}/s", ["tool"],
        "Starts a second that the tool's rate permits; absent without one. Hold the rate of toolpool_attempts_total against it.";
    RATE_USED: Gauge = "toolpool_rate_burst_used_ratio", "1", ["tool"],
        "The share of the tool's burst that is used up, in whole tokens: 1 exactly while the next call must wait.";
    TOOLS: Gauge = "toolpool_tools", "{tool}", [],
        "Tools that the broker knows.";

    WORKERS: Gauge = "toolpool_workers", "{worker}", ["state"],
        "Workers: connected, draining, or away (their stream broke, and they may still come back).";
    SLOTS: Gauge = "toolpool_slots", "{slot}", ["state"],
        "Slots of all workers: used, or free on a worker that is connected.";
    WORKERS_LEFT: Counter = "toolpool_workers_left_total", "{worker}", ["reason"],
        "Workers whose session ended: closed (by the worker), lost (did not come back), restarted, refused or shutdown.";
    STREAMS_BROKEN: Counter = "toolpool_worker_streams_broken_total", "{stream}", [],
        "Streams of workers that broke; the worker may have come back.";
    BEATS_MISSED: Counter = "toolpool_beats_missed_total", "{beat}", [],
        "Beat intervals in which nothing was heard of a worker that is connected.";
    LEASES_FENCED: Counter = "toolpool_leases_fenced_total", "{lease}", ["tool"],
        "Leases that were ended for the batch before the worker did: time over, cancelled, given up.";
    OUTCOMES_FENCED: Counter = "toolpool_outcomes_fenced_total", "{outcome}", [],
        "Outcomes that were turned away, since their lease had ended.";

    PROGRESS_DROPPED: Counter = "toolpool_progress_dropped_total", "{message}", ["at"],
        "Progress that was dropped: at the agent (it does not read fast enough) or at the batch (it is busy).";
    WORKER_STALLS: Counter = "toolpool_worker_stalls_total", "{stall}", [],
        "Times that a worker's connection took no more for a while.";

    PROVIDER_TURNS: Counter = "toolpool_provider_turns_total", "{turn}", ["dialect", "end"],
        "Piped turns of finished batches: complete, truncated or aborted.";
    PROVIDER_DROPPED: Counter = "toolpool_provider_calls_dropped_total", "{call}", ["reason"],
        "Calls of piped turns that turned out to be none: incomplete, not_json, withdrawn, superseded or unreadable.";

    SPANS_DROPPED: Counter = "toolpool_spans_dropped_total", "{span}", ["reason"],
        "Spans of the broker that were dropped: full (a whole batch's, since they found no room in the queue) or unsent (the collector did not take them).";

    DRAINING: Gauge = "toolpool_draining", "1", [],
        "1 while the broker drains, else 0.";
    BUILD: Gauge = "toolpool_build_info", "1", ["version"],
        "Always 1; the version of the broker that runs.";
}
