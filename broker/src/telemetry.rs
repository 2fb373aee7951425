//! What is told to the outside of what the broker does: traces.
//!
//! No span is held open while a batch runs. A batch that is sampled notes the ids and the moments of its attempts, and
//! once it is over its spans are made from the report, all at once: [`spans`]. One that is not sampled costs a branch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanId, SpanKind, TraceFlags, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample, SpanProcessor};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::seldom::Seldom;

pub(crate) mod context;
mod room;
pub(crate) mod spans;

pub(crate) use context::{Trace, TraceContext};
pub use room::SpanRoom;
pub(crate) use spans::{BatchEnd, Finished};

/// While spans do not get through, one batch in this time is traced, which shows when they do again.
const RETRY: Duration = Duration::from_millis(100);

/// Where the broker tells what it does. The default tells nobody.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    traces: Option<Arc<Traces>>,
    outage: Option<Arc<Outage>>,
    room: Option<Arc<SpanRoom>>,
}

/// Which batches are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether the agent's own decision holds, where a batch came with one.
    pub parent_based: bool,
    /// The part of all other batches that is traced, from 0 to 1; decided by the trace's id, as OpenTelemetry does it.
    pub ratio: f64,
}

#[derive(Debug)]
struct Traces {
    processor: Box<dyn SpanProcessor>,
    sampling: Sampling,
    scope: InstrumentationScope,
}

/// Whether it is worth while to trace a batch.
#[derive(Debug)]
struct Outage {
    fails: Arc<AtomicBool>,
    tried: Mutex<Seldom>,
}

impl Telemetry {
    /// Hands the spans of sampled batches to `processor`, on the thread that runs them: it must not block.
    #[must_use]
    pub fn with_traces(
        mut self,
        processor: impl SpanProcessor + 'static,
        sampling: Sampling,
    ) -> Self {
        let scope = InstrumentationScope::builder("toolpool-broker")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        self.traces = Some(Arc::new(Traces {
            processor: Box::new(processor),
            sampling,
            scope,
        }));
        self
    }

    /// As long as `fails` is set, ten batches a second at most are traced: their spans would most likely be dropped.
    #[must_use]
    pub fn sparing_while(mut self, fails: Arc<AtomicBool>) -> Self {
        let tried = Mutex::default();
        self.outage = Some(Arc::new(Outage { fails, tried }));
        self
    }

    /// A batch's spans are handed over together if there is room for all of them, and dropped together if not: a trace
    /// without its root, or without some of its calls, says what is not so. They take their room; the exporter gives it back.
    #[must_use]
    pub fn with_room(mut self, room: Arc<SpanRoom>) -> Self {
        self.room = Some(room);
        self
    }

    /// Spans that were dropped so far, by reason.
    pub(crate) fn spans_dropped(&self) -> [(&'static str, u64); 2] {
        match &self.room {
            Some(room) => room.dropped(),
            None => SpanRoom::new(0).dropped(),
        }
    }

    /// The trace of a new batch. `None`: there is none, and workers are told of none.
    pub(crate) fn trace(&self, agent: Option<TraceContext>) -> Option<Arc<Trace>> {
        let Some(traces) = &self.traces else {
            // Not ours to tell, but not ours to tear either.
            return agent.map(|agent| Arc::new(Trace::passed_on(agent)));
        };
        let span = || SpanId::from(fastrand::u64(1..));
        let samples = |agent: Option<&TraceContext>, trace| {
            let outage = self.outage.as_ref();
            traces.sampling.samples(agent, trace)
                && !outage.is_some_and(|outage| outage.spares(Instant::now()))
        };
        Some(Arc::new(match agent {
            Some(agent) if samples(Some(&agent), agent.trace) => Trace::below(agent, span()),
            // The decision is passed on, so that the worker does not make another one.
            Some(agent) => Trace::passed_on(agent.unsampled()),
            None => {
                let trace = TraceId::from(fastrand::u128(1..));
                if samples(None, trace) {
                    Trace::root(trace, span(), TraceFlags::SAMPLED)
                } else {
                    Trace::root(trace, span(), TraceFlags::default())
                }
            }
        }))
    }

    /// The batch is over.
    pub(crate) fn finished(&self, finished: &Finished<'_>) {
        let Some(traces) = &self.traces else { return };
        let mut spans = Vec::with_capacity(1 + 2 * finished.report.calls.len());
        spans::make(finished, &traces.scope, &mut spans);
        let room = self.room.as_ref();
        if room.is_none_or(|room| room.take(spans.len())) {
            for span in spans {
                traces.processor.on_end(span);
            }
        }
    }
}

impl Outage {
    fn spares(&self, now: Instant) -> bool {
        self.fails.load(Ordering::Relaxed) && !self.tried.lock().is_due(RETRY, now)
    }
}

impl Sampling {
    /// Every batch, but those whose agent decided against it.
    pub const ALWAYS: Self = Self {
        parent_based: true,
        ratio: 1.0,
    };

    fn samples(self, parent: Option<&TraceContext>, trace: TraceId) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.flags.is_sampled(),
            _ => {
                // The SDK's, so that all that see a trace's id decide alike. It reads nothing but that.
                let sampler = Sampler::TraceIdRatioBased(self.ratio);
                let result = sampler.should_sample(None, trace, "", &SpanKind::Server, &[], &[]);
                result.decision == SamplingDecision::RecordAndSample
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_roots_is_sampled_and_the_agents_word_holds_where_there_is_one() {
        let tenth = Sampling {
            parent_based: true,
            ratio: 0.1,
        };
        let mut rng = fastrand::Rng::with_seed(7);
        let sampled = (0..10_000)
            .filter(|_| tenth.samples(None, TraceId::from(rng.u128(1..))))
            .count();
        assert!((900..1_100).contains(&sampled), "{sampled}");
        let agent = |flags: &str| {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            TraceContext::parse(&text, None).unwrap()
        };
        let never = Sampling {
            ratio: 0.0,
            ..tenth
        };
        let yes = agent("01");
        let no = agent("00");
        assert!(never.samples(Some(&yes), yes.trace));
        assert!(!Sampling::ALWAYS.samples(Some(&no), no.trace));
        let own = Sampling {
            parent_based: false,
            ratio: 1.0,
        };
        assert!(own.samples(Some(&no), no.trace));
    }

    #[derive(Debug)]
    struct Nobody;

    impl SpanProcessor for Nobody {
        fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}

        fn on_end(&self, _: opentelemetry_sdk::trace::SpanData) {}

        fn force_flush(&self) -> opentelemetry_sdk::error::OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> opentelemetry_sdk::error::OTelSdkResult {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_an_outage_a_batch_now_and_then_is_traced() {
        let fails = Arc::new(AtomicBool::new(false));
        let telemetry = Telemetry::default()
            .with_traces(Nobody, Sampling::ALWAYS)
            .sparing_while(Arc::clone(&fails));
        let spared = || !telemetry.trace(None).unwrap().is_recorded();
        assert!(!spared() && !spared(), "all is well");
        fails.store(true, Ordering::Relaxed);
        assert!(!spared() && spared() && spared());
        tokio::time::advance(RETRY).await;
        assert!(!spared() && spared());
        fails.store(false, Ordering::Relaxed);
        assert!(!spared() && !spared(), "it is over");
    }

    #[test]
    fn without_traces_the_agents_context_is_passed_on_as_it_is() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let agent = TraceContext::parse(text, Some("a=1,b=2"));
        let trace = Telemetry::default().trace(agent).unwrap();
        assert!(!trace.is_recorded());
        assert_eq!(trace.traceparent(None), text);
        assert_eq!(trace.state(), Some("a=1,b=2"));
        assert!(Telemetry::default().trace(None).is_none());
    }
}
