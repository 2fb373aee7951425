//! The way of spans to the collector: OTLP over gRPC, on a runtime of its own.
//!
//! An export comes to an end within its time. From the second try in a row that fails until one succeeds, the broker is told
//! to spare spans, and of a backlog only the end is tried: what cannot be sent should cost nothing either. What a collector
//! finds wrong with one message is no outage.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Body as HttpBody, StdError};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;
use toolpool_broker::{Seldom, SpanRoom};

use super::gzip::Gzip;
use super::target::Target;
use super::torn::Torn;
use super::wire::{self, Message};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// As often as OpenTelemetry's exporters do it.
const TRIES: u32 = 4;
/// Before the second of them: an idle connection that was closed is mended by dialling again.
const REDIAL: Duration = Duration::from_millis(10);
/// Before the third; twice as long before each next, and up to half as much more or less.
const RETRY: Duration = Duration::from_millis(200);
/// What goes wrong again and again is said once in this time.
const SAY_AGAIN: Duration = Duration::from_mins(1);
/// Of what the collector says, in the log; bytes.
const MOST_TEXT: usize = 1024;
/// A collector that asks for more is tried again after this.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Sends what the SDK's queue gives it.
#[derive(Debug)]
pub(super) struct Exporter {
    runtime: Handle,
    sender: Arc<Sender>,
    torn: Mutex<Torn>,
}

#[derive(Debug)]
struct Sender {
    target: Target,
    /// Its part of each message.
    resource: Vec<u8>,
    /// Before the third try.
    retry: Duration,
    channel: Mutex<Channel>,
    /// Nothing gets through. The broker spares spans meanwhile.
    outage: Arc<AtomicBool>,
    /// Until when the collector wants to be left alone.
    not_before: Mutex<Option<Instant>>,
    said: Mutex<Said>,
    room: Arc<SpanRoom>,
}

/// What has been said of the way to the collector.
#[derive(Debug, Default)]
struct Said {
    /// That spans are lost, and not yet that they no longer are.
    lost: bool,
    losses: Seldom,
    /// That some of those that arrive are not taken.
    rejections: Seldom,
    /// That those that are taken are not as it wants them.
    warnings: Seldom,
}

impl Said {
    /// Whether it is to be said that spans are lost no longer. The next loss is news then.
    fn is_over(&mut self) -> bool {
        let was_lost = std::mem::take(&mut self.lost);
        if was_lost {
            self.losses = Seldom::default();
        }
        was_lost
    }

    /// Whether it is to be said that spans are lost; then it counts as said.
    fn is_loss_due(&mut self) -> bool {
        let is_due = self.losses.is_due(SAY_AGAIN, Instant::now());
        self.lost |= is_due;
        is_due
    }
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    partial: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    why: String,
}

impl Exporter {
    /// It dials when there is something to send. `resource` is its part of each message: [`wire::resource`]. `outage` is set
    /// while nothing gets through.
    pub(super) fn new(
        target: Target,
        resource: Vec<u8>,
        runtime: &Handle,
        outage: Arc<AtomicBool>,
        room: Arc<SpanRoom>,
    ) -> Self {
        let _entered = runtime.enter();
        let channel = Mutex::new(target.connect());
        let sender = Arc::new(Sender {
            target,
            resource,
            retry: RETRY,
            channel,
            outage,
            not_before: Mutex::new(None),
            said: Mutex::default(),
            room,
        });
        Self {
            runtime: runtime.clone(),
            sender,
            torn: Mutex::default(),
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let sender = &self.sender;
        sender.room.give_back(batch.len());
        sender.room.unsent(self.torn.lock().take_out(&mut batch));
        let spans = batch.len();
        if spans == 0 {
            return Ok(());
        }
        let mut begun = Torn::default();
        begun.add(&batch);
        if sender.spares(spans) {
            sender.room.unsent(spans);
            self.torn.lock().join(begun);
            return Ok(());
        }
        // On this thread, the queue's own; the runtime's is free for the connection meanwhile.
        let messages = wire::messages(&sender.resource, &batch);
        drop(batch);
        let sending = self.runtime.spawn(Arc::clone(sender).send_all(messages));
        let sent = sending.await.unwrap_or_else(|error| Sent {
            lost: spans,
            failure: Some(Status::internal(error.to_string())),
        });
        sender.room.unsent(sent.lost);
        let Some(failure) = sent.failure else {
            return Ok(());
        };
        self.torn.lock().join(begun);
        Err(OTelSdkError::InternalFailure(reason(&failure)))
    }
}

/// What became of the spans of one export.
#[derive(Debug, Default)]
struct Sent {
    lost: usize,
    failure: Option<Status>,
}

impl Sender {
    /// Whether these need not be tried: of a backlog in an outage only the end is, and whoever wants to be left alone is.
    fn spares(&self, spans: usize) -> bool {
        let not_before = *self.not_before.lock();
        self.outage.load(Ordering::Relaxed)
            && (self.room.waiting() >= spans || not_before.is_some_and(|at| Instant::now() < at))
    }

    async fn send_all(self: Arc<Self>, messages: Vec<Message>) -> Sent {
        let deadline = Instant::now() + self.target.timeout;
        let mut all = Sent::default();
        for Message { spans, bytes } in messages {
            if all
                .failure
                .as_ref()
                .is_some_and(|status| !is_about_one(status))
            {
                all.lost += spans;
                continue;
            }
            match self.send(bytes, deadline).await {
                Ok(response) => all.lost += self.arrived(spans, &response),
                Err(status) => {
                    self.failed(spans, &status);
                    all.lost += spans;
                    all.failure = Some(status);
                }
            }
        }
        all
    }

    /// How many the collector did not take all the same.
    fn arrived(&self, spans: usize, response: &Response) -> usize {
        self.outage.store(false, Ordering::Relaxed);
        if self.said.lock().is_over() {
            let dropped: u64 = self.room.dropped().iter().map(|(_, spans)| spans).sum();
            tracing::warn!(dropped, "traces are exported again");
        }
        let none = PartialSuccess::default();
        let partial = response.partial.as_ref().unwrap_or(&none);
        let rejected = usize::try_from(partial.rejected).unwrap_or_default();
        let rejected = rejected.min(spans);
        if *partial != none {
            let why = clipped(&partial.why);
            if rejected > 0 {
                self.rejected(rejected, why);
            } else if (self.said.lock().warnings).is_due(SAY_AGAIN, Instant::now()) {
                tracing::warn!(why, "the collector took all spans, with a warning");
            }
        }
        rejected
    }

    fn failed(&self, spans: usize, status: &Status) {
        if is_about_one(status) {
            // Somebody is there.
            self.outage.store(false, Ordering::Relaxed);
            self.rejected(spans, &reason(status));
        } else if self.said.lock().is_loss_due() {
            tracing::warn!(
                endpoint = self.target.url, error = %reason(status), code = ?status.code(), spans,
                "traces cannot be exported; more are dropped, and counted, until they can"
            );
        }
    }

    fn rejected(&self, spans: usize, why: &str) {
        let mut said = self.said.lock();
        if said.rejections.is_due(SAY_AGAIN, Instant::now()) {
            tracing::warn!(
                spans,
                why,
                "the collector rejects spans; they are dropped, and counted"
            );
        }
    }

    /// In an outage that is known of once; else what may get better is tried again, as long as there is time.
    async fn send(&self, message: Bytes, deadline: Instant) -> Result<Response, Status> {
        let mut tries = 0;
        let most = if self.outage.load(Ordering::Relaxed) {
            1
        } else {
            TRIES
        };
        let mut backoff = REDIAL;
        loop {
            let sent = tokio::time::timeout_at(deadline, self.send_once(message.clone(), deadline));
            let status = match sent.await {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(status)) => status,
                Err(_) => {
                    // Whoever does not answer may not be there any more; the next try dials.
                    *self.channel.lock() = self.target.connect();
                    Status::deadline_exceeded("the collector did not answer in time")
                }
            };
            if is_about_one(&status) {
                return Err(status);
            }
            tries += 1;
            let now = Instant::now();
            let pause = pause(&status, backoff);
            let again = now + pause.unwrap_or_default();
            if tries == most || pause.is_none() || again >= deadline {
                *self.not_before.lock() = wanted_pause(&status).map(|pause| now + pause);
                self.outage.store(true, Ordering::Relaxed);
                return Err(status);
            }
            if tries > 1 {
                self.outage.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep_until(again).await;
            backoff = if tries == 1 { self.retry } else { backoff * 2 };
        }
    }

    async fn send_once(&self, message: Bytes, deadline: Instant) -> Result<Response, Status> {
        let channel = self.channel.lock().clone();
        let mut request = Request::new(message);
        *request.metadata_mut() = self.target.headers.clone();
        // For the collector, to give up what nobody waits for; ours comes first.
        let left = deadline.saturating_duration_since(Instant::now());
        request.set_timeout(left + Duration::from_secs(1));
        if self.target.gzip {
            export(Gzip(channel), request).await
        } else {
            export(channel, request).await
        }
    }
}

async fn export<S>(service: S, request: Request<Bytes>) -> Result<Response, Status>
where
    S: GrpcService<
            Body,
            Error: Into<StdError>,
            ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError>> + Send + 'static,
        >,
{
    let mut grpc = Grpc::new(service);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.into().to_string()))?;
    // `Bytes` are a message with one field, the first; so is `ExportTraceServiceRequest`.
    let codec = ProstCodec::<Bytes, Response>::default();
    let path = PathAndQuery::from_static(EXPORT);
    Ok(grpc.unary(request, path, codec).await?.into_inner())
}

/// What it says, and what lies at the bottom of it.
fn reason(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    let cause = cause.map(ToString::to_string);
    let message = clipped(status.message());
    match cause.filter(|cause| cause != status.message()) {
        Some(cause) => format!("{message}: {}", clipped(&cause)),
        None => message.to_owned(),
    }
}

/// What the collector says may be long.
fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(MOST_TEXT)]
}

/// What the collector asks for, as far as it is heeded.
fn wanted_pause(status: &Status) -> Option<Duration> {
    let told = status.get_details_retry_info()?.retry_delay?;
    Some(told.min(LONGEST_PAUSE))
}

/// Before the next try; `None`: it would fare no better. The codes are OTLP's: see "Failures" in its specification.
fn pause(status: &Status, backoff: Duration) -> Option<Duration> {
    let told = wanted_pause(status);
    match status.code() {
        Code::ResourceExhausted => told,
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Some(told.unwrap_or_else(|| backoff.mul_f64(0.5 + fastrand::f64()))),
        // A connection that broke has the codes that its library gives it.
        _ if status.source().is_some() => Some(backoff),
        _ => None,
    }
}

/// Whether another message may well be taken. One that is too large for gRPC is `RESOURCE_EXHAUSTED` too.
fn is_about_one(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition => true,
        Code::ResourceExhausted => wanted_pause(status).is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
