//! Traces to a collector, over OTLP and gRPC, as OpenTelemetry's usual variables say.
//!
//! On when `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, unless `OTEL_SDK_DISABLED` is
//! `true` or `OTEL_TRACES_EXPORTER` is `none`. Spans wait in a bounded queue (`OTEL_BSP_MAX_QUEUE_SIZE`) and are sent by
//! a thread and a runtime of their own, so that a collector that is slow or dead costs those that find no room, and
//! nothing else. Of the broker's, a batch's find room together or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use opentelemetry::global;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanProcessor,
};
use tokio::runtime::Runtime;
use toolpool_broker::{SpanRoom, Telemetry};

mod exporter;
mod gzip;
mod target;
mod tls;
mod torn;
mod variables;
mod wire;

use exporter::Exporter;
use target::Target;

/// Spans that wait at most, where no variable says it: a broker's come a batch at a time, and batches may end at once. An empty
/// queue takes some 370 bytes a span.
pub(crate) const BROKER_QUEUE: usize = 32_768;
/// The same of a worker, which makes one for each attempt.
pub(crate) const WORKER_QUEUE: usize = 8_192;
/// How long what has not been sent may hold up the end of the process.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// The way to the collector.
pub(crate) struct Export {
    processor: Shared,
    room: Arc<SpanRoom>,
    /// Nothing gets through.
    outage: Arc<AtomicBool>,
    resource: Resource,
    runtime: Runtime,
}

impl Export {
    /// `None`: it is not wanted. `service` and `queue`: the process's name, and how many spans may wait, where no variable says it.
    pub(crate) fn start(service: &'static str, queue: usize) -> Result<Option<Self>> {
        let Some(target) = Target::of_variables()? else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()
            .context("cannot start the runtime that exports traces")?;
        let outage = Arc::new(AtomicBool::new(false));
        let queue = variables::queue_size(queue);
        let room = Arc::new(SpanRoom::new(queue));
        let resource = variables::resource(service);
        let exporter = Exporter::new(
            target,
            wire::resource(&resource),
            runtime.handle(),
            Arc::clone(&outage),
            Arc::clone(&room),
        );
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(queue)
            .with_scheduled_delay(variables::schedule_delay())
            .with_max_export_batch_size(variables::export_batch());
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config.build())
            .build();
        Ok(Some(Self {
            processor: Shared(Arc::new(processor)),
            room,
            outage,
            resource,
            runtime,
        }))
    }

    /// For the broker, which makes its spans itself.
    pub(crate) fn broker(&self) -> Telemetry {
        Telemetry::default()
            .with_traces(self.processor.clone(), variables::sampling())
            .sparing_while(Arc::clone(&self.outage))
            .with_room(Arc::clone(&self.room))
    }

    /// For everything else in this process that uses OpenTelemetry: the worker, and tools. What a broker has decided holds,
    /// whatever the sampler; where it does not trace, the sampler's ratio does.
    pub(crate) fn install(&self) {
        let ratio = Sampler::TraceIdRatioBased(variables::sampling().ratio);
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
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
            && !self.outage.load(Ordering::Relaxed)
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
