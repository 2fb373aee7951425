//! Traces to a collector, over OTLP and gRPC, as OpenTelemetry's usual variables say.
//!
//! On when `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, unless `OTEL_SDK_DISABLED` is
//! `true` or `OTEL_TRACES_EXPORTER` is `none`. Spans wait in a bounded queue (`OTEL_BSP_MAX_QUEUE_SIZE`) and are sent by
//! a thread and a runtime of their own, so that a collector that is slow or dead costs those that find no room, and
//! nothing else. Of the broker's, a batch's find room together or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use opentelemetry::{Key, global};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    self, BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData, SpanProcessor,
};
use tokio::runtime::{Handle, Runtime};
use toolpool_broker::{Sampling, SpanRoom, Telemetry};

/// Spans that wait at most, where no variable says it: a broker's come a batch at a time, and batches may end at once. An empty
/// queue takes some 370 bytes a span.
pub(crate) const BROKER_QUEUE: usize = 32_768;
/// The same of a worker, which makes one for each attempt.
pub(crate) const WORKER_QUEUE: usize = 8_192;
/// How long what has not been sent may hold up the end of the process.
const LAST_EXPORT: Duration = Duration::from_secs(2);
/// Beyond the exporter's own time (`OTEL_EXPORTER_OTLP_TIMEOUT`), in case that it does not keep to it.
const EXPORT_SLACK: Duration = Duration::from_secs(5);

/// The way to the collector.
pub(crate) struct Export {
    processor: Shared,
    room: Arc<SpanRoom>,
    /// It has been said that nothing arrives.
    fails: Arc<AtomicBool>,
    resource: Resource,
    runtime: Runtime,
}

impl Export {
    /// `None`: it is not wanted. `service` and `queue`: the process's name, and how many spans may wait, where no variable says it.
    pub(crate) fn start(service: &'static str, queue: usize) -> Result<Option<Self>> {
        if !is_wanted() {
            return Ok(None);
        }
        let protocol = for_traces("PROTOCOL");
        if let Some((name, protocol)) = protocol.filter(|(_, protocol)| protocol != "grpc") {
            bail!("{name} is {protocol}; traces can be exported over grpc only");
        }
        warn_of_the_unheeded();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()
            .context("cannot start the runtime that exports traces")?;
        let exporter = {
            let _entered = runtime.enter();
            SpanExporter::builder()
                .with_tonic()
                .build()
                .context("cannot export traces; they go over gRPC without TLS, to http://…")?
        };
        let fails = Arc::new(AtomicBool::new(false));
        let queue = queue_size(queue);
        let room = Arc::new(SpanRoom::new(queue));
        let exporter = Watched {
            exporter: Arc::new(exporter),
            runtime: runtime.handle().clone(),
            timeout: export_timeout() + EXPORT_SLACK,
            fails: Arc::clone(&fails),
            room: Arc::clone(&room),
        };
        let config = BatchConfigBuilder::default().with_max_queue_size(queue);
        let mut processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config.build())
            .build();
        let resource = resource(service);
        processor.set_resource(&resource);
        Ok(Some(Self {
            processor: Shared(Arc::new(processor)),
            room,
            fails,
            resource,
            runtime,
        }))
    }

    /// For the broker, which makes its spans itself.
    pub(crate) fn broker(&self) -> Telemetry {
        Telemetry::default()
            .with_traces(self.processor.clone(), sampling())
            .sparing_while(Arc::clone(&self.fails))
            .with_room(Arc::clone(&self.room))
    }

    /// For everything else in this process that uses OpenTelemetry: the worker, and tools.
    pub(crate) fn install(&self) {
        let provider = SdkTracerProvider::builder()
            .with_resource(self.resource.clone())
            .with_span_processor(OneByOne {
                processor: self.processor.clone(),
                room: Arc::clone(&self.room),
            })
            .build();
        global::set_tracer_provider(provider);
    }

    /// Sends what is left, for a moment. Must be called outside of any runtime.
    pub(crate) fn finish(self) {
        let sent = self.processor.0.shutdown_with_timeout(LAST_EXPORT);
        if let Err(error) = sent
            && !self.fails.load(Ordering::Relaxed)
        {
            tracing::warn!(%error, "the last traces could not be exported");
        }
        self.runtime.shutdown_background();
    }
}

/// One processor for all that make spans.
#[derive(Clone, Debug)]
struct Shared(Arc<BatchSpanProcessor>);

impl SpanProcessor for Shared {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    /// Whoever has made it ends it.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What comes without a batch takes its room by itself.
#[derive(Debug)]
struct OneByOne {
    processor: Shared,
    room: Arc<SpanRoom>,
}

impl SpanProcessor for OneByOne {
    fn on_start(&self, span: &mut Span, context: &opentelemetry::Context) {
        self.processor.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        // The queue does not take one that is not sampled.
        if span.span_context.is_sampled() && self.room.take(1) {
            self.processor.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }
}

/// An exporter that works on a runtime of its own, always comes to an end, and says once that it fails.
#[derive(Debug)]
struct Watched<E> {
    exporter: Arc<E>,
    runtime: Handle,
    timeout: Duration,
    fails: Arc<AtomicBool>,
    room: Arc<SpanRoom>,
}

impl<E: trace::SpanExporter + 'static> trace::SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.room.give_back(spans);
        // To make messages of a backlog takes as much as to send them; while nothing gets through, only its end is tried.
        if self.fails.load(Ordering::Relaxed) && self.room.waiting() >= spans {
            self.room.unsent(spans);
            return Ok(());
        }
        let exporter = Arc::clone(&self.exporter);
        let timeout = self.timeout;
        let sending = self.runtime.spawn(async move {
            let sent = tokio::time::timeout(timeout, exporter.export(batch)).await;
            sent.unwrap_or(Err(OTelSdkError::Timeout(timeout)))
        });
        let result = match sending.await {
            Ok(result) => result,
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        };
        if result.is_err() {
            self.room.unsent(spans);
        }
        match &result {
            Ok(()) if self.fails.swap(false, Ordering::Relaxed) => {
                tracing::warn!("traces are exported again");
            }
            Err(error) if !self.fails.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, spans, "traces cannot be exported; more are dropped, and counted, until they can");
            }
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Nothing is under way yet.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

fn is_wanted() -> bool {
    let endpoint = for_traces("ENDPOINT");
    let disabled =
        variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let none = variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    endpoint.is_some() && !disabled && !none
}

fn warn_of_the_unheeded() {
    if let Some((variable, value)) = for_traces("COMPRESSION")
        && !value.eq_ignore_ascii_case("none")
    {
        tracing::warn!(
            variable,
            value,
            "spans are sent without compression; the variable is not heeded"
        );
    }
    if let Some(value) = variable("OTEL_TRACES_EXPORTER")
        && value != "otlp"
    {
        tracing::warn!(
            value,
            "OTEL_TRACES_EXPORTER is not heeded; spans are sent over OTLP"
        );
    }
}

/// One that is empty counts as not set, as the standard wants it.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What is set for traces alone, or else for all that is exported; and by which variable.
fn for_traces(what: &str) -> Option<(String, String)> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
    names.iter().find_map(|begin| {
        let name = format!("{begin}{what}");
        variable(&name).map(|value| (name, value))
    })
}

fn queue_size(default: usize) -> usize {
    let set = variable("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|spans| spans.parse().ok());
    set.filter(|spans| *spans > 0).unwrap_or(default)
}

fn export_timeout() -> Duration {
    let set = for_traces("TIMEOUT");
    let millis = set.and_then(|(_, millis)| millis.parse().ok());
    Duration::from_millis(millis.unwrap_or(10_000))
}

/// What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say.
fn resource(service: &'static str) -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&Key::from_static_str("service.name"));
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        return told;
    }
    Resource::builder().with_service_name(service).build()
}

/// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say; what they do not say, or say wrong, is the standard's
/// default.
fn sampling() -> Sampling {
    let argument = variable("OTEL_TRACES_SAMPLER_ARG");
    sampler(
        variable("OTEL_TRACES_SAMPLER").as_deref(),
        argument.as_deref(),
    )
}

fn sampler(name: Option<&str>, argument: Option<&str>) -> Sampling {
    let (parent_based, name) = match name.map(|name| (name.strip_prefix("parentbased_"), name)) {
        Some((Some(root), _)) => (true, root),
        Some((None, name)) => (false, name),
        None => return Sampling::ALWAYS,
    };
    let ratio = match name {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match argument.map(str::parse::<f64>) {
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                tracing::warn!(
                    argument,
                    "OTEL_TRACES_SAMPLER_ARG is no part from 0 to 1; every batch is traced"
                );
                1.0
            }
        },
        _ => {
            tracing::warn!(
                sampler = name,
                "OTEL_TRACES_SAMPLER is not known; parentbased_always_on is taken"
            );
            return Sampling::ALWAYS;
        }
    };
    Sampling {
        parent_based,
        ratio,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use opentelemetry_sdk::trace::SpanExporter as _;

    /// A collector that takes connections and never answers.
    #[derive(Debug)]
    struct Hangs;

    impl trace::SpanExporter for Hangs {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_never_answers_is_given_up() {
        let watched = Watched {
            exporter: Arc::new(Hangs),
            runtime: Handle::current(),
            timeout: Duration::from_secs(15),
            fails: Arc::default(),
            room: Arc::new(SpanRoom::new(1)),
        };
        let given_up = watched.export(Vec::new()).await;
        assert!(
            matches!(given_up, Err(OTelSdkError::Timeout(_))),
            "{given_up:?}"
        );
        assert!(watched.fails.load(Ordering::Relaxed));
    }

    /// A collector that refuses, and how often it was asked.
    #[derive(Debug, Default)]
    struct Refuses(AtomicUsize);

    impl trace::SpanExporter for Refuses {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(OTelSdkError::InternalFailure("refused".to_owned()))
        }
    }

    fn span() -> SpanData {
        SpanData {
            span_context: opentelemetry::trace::SpanContext::empty_context(),
            parent_span_id: opentelemetry::trace::SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: opentelemetry::trace::SpanKind::Internal,
            name: "span".into(),
            start_time: std::time::SystemTime::UNIX_EPOCH,
            end_time: std::time::SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: trace::SpanEvents::default(),
            links: trace::SpanLinks::default(),
            status: opentelemetry::trace::Status::Unset,
            instrumentation_scope: opentelemetry::InstrumentationScope::default(),
        }
    }

    #[tokio::test]
    async fn of_a_backlog_only_the_end_is_tried_while_nothing_gets_through() {
        let watched = Watched {
            exporter: Arc::new(Refuses::default()),
            runtime: Handle::current(),
            timeout: Duration::from_secs(15),
            fails: Arc::default(),
            room: Arc::new(SpanRoom::new(8)),
        };
        assert!(watched.room.take(8));
        for _ in 0..4 {
            let _ = watched.export(vec![span(), span()]).await;
        }
        assert_eq!(watched.room.waiting(), 0);
        let asked = watched.exporter.0.load(Ordering::Relaxed);
        assert_eq!(asked, 2, "the first, which failed, and the last");
    }

    #[test]
    fn samplers_are_known_by_their_standard_names() {
        for (name, argument, parent_based, ratio) in [
            (None, None, true, 1.0),
            (Some("always_on"), None, false, 1.0),
            (Some("always_off"), None, false, 0.0),
            (Some("traceidratio"), Some("0.25"), false, 0.25),
            (Some("parentbased_always_on"), None, true, 1.0),
            (Some("parentbased_always_off"), None, true, 0.0),
            (Some("parentbased_traceidratio"), Some("0.1"), true, 0.1),
            (Some("parentbased_traceidratio"), Some("x"), true, 1.0),
            (Some("jaeger_remote"), None, true, 1.0),
        ] {
            let expected = Sampling {
                parent_based,
                ratio,
            };
            assert_eq!(sampler(name, argument), expected, "{name:?}");
        }
    }
}
