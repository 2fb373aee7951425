//! The way of spans to the collector: OTLP over gRPC, on a runtime of its own.
//!
//! An export always comes to an end within its time. From the first try that fails until one succeeds, the broker is told to
//! spare spans, and of a backlog only the end is tried: what cannot be sent should cost nothing either.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;
use toolpool_broker::SpanRoom;

use super::target::Target;
use super::wire::{self, Message};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// After a first try, as OpenTelemetry's exporters do it.
const RETRIES: u32 = 3;
/// Before the first of them; twice as long before each next, and up to half as much more or less.
const RETRY: Duration = Duration::from_millis(200);

/// Sends what the SDK's queue gives it.
#[derive(Debug)]
pub(super) struct Exporter {
    runtime: Handle,
    sender: Arc<Sender>,
}

#[derive(Debug)]
struct Sender {
    target: Target,
    /// Its part of each message: [`wire::resource`].
    resource: Vec<u8>,
    channel: Mutex<Channel>,
    /// The last try failed. The broker spares spans meanwhile.
    fails: Arc<AtomicBool>,
    /// It has been said that spans are lost.
    said: AtomicBool,
    /// It has been said that some of those that arrive are not taken.
    said_rejected: AtomicBool,
    room: Arc<SpanRoom>,
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
    /// It dials when there is something to send. `fails` is set while nothing gets through.
    pub(super) fn new(
        target: Target,
        resource: Vec<u8>,
        runtime: &Handle,
        fails: Arc<AtomicBool>,
        room: Arc<SpanRoom>,
    ) -> Self {
        let _entered = runtime.enter();
        let channel = Mutex::new(target.endpoint.connect_lazy());
        let sender = Arc::new(Sender {
            target,
            resource,
            channel,
            fails,
            said: AtomicBool::new(false),
            said_rejected: AtomicBool::new(false),
            room,
        });
        Self {
            runtime: runtime.clone(),
            sender,
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sender = &self.sender;
        let spans = batch.len();
        sender.room.give_back(spans);
        if sender.fails.load(Ordering::Relaxed) && sender.room.waiting() >= spans {
            sender.room.unsent(spans);
            return Ok(());
        }
        // On this thread, the queue's own; the runtime's is free for the connection meanwhile.
        let messages = wire::messages(&sender.resource, &batch);
        drop(batch);
        let sending = self.runtime.spawn(Arc::clone(sender).send_all(messages));
        match sending.await {
            Ok(sent) => sent.map_err(|status| OTelSdkError::InternalFailure(reason(&status))),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        }
    }
}

impl Sender {
    async fn send_all(self: Arc<Self>, messages: Vec<Message>) -> Result<(), Status> {
        let mut all = Ok(());
        for Message { spans, bytes } in messages {
            let sent = tokio::time::timeout(self.target.timeout, self.send(bytes)).await;
            let sent = sent.unwrap_or_else(|_| {
                self.fails.store(true, Ordering::Relaxed);
                // Whoever does not answer may not be there any more; the next try dials.
                *self.channel.lock() = self.target.endpoint.connect_lazy();
                Err(Status::deadline_exceeded(
                    "the collector did not answer in time",
                ))
            });
            match sent {
                Ok(response) => self.arrived(spans, response),
                Err(status) => {
                    self.room.unsent(spans);
                    if !self.said.swap(true, Ordering::Relaxed) {
                        tracing::warn!(error = %reason(&status), code = ?status.code(), spans, "traces cannot be exported; more are dropped, and counted, until they can");
                    }
                    all = Err(status);
                }
            }
        }
        all
    }

    fn arrived(&self, spans: usize, response: Response) {
        self.fails.store(false, Ordering::Relaxed);
        if self.said.swap(false, Ordering::Relaxed) {
            tracing::warn!("traces are exported again");
        }
        let partial = response.partial.unwrap_or_default();
        let rejected = usize::try_from(partial.rejected).unwrap_or_default();
        self.room.unsent(rejected.min(spans));
        if rejected == 0 {
            self.said_rejected.store(false, Ordering::Relaxed);
        } else if !self.said_rejected.swap(true, Ordering::Relaxed) {
            tracing::warn!(spans = rejected, why = %partial.why, "the collector rejects spans; they are dropped, and counted");
        }
    }

    async fn send(&self, message: Bytes) -> Result<Response, Status> {
        // In an outage that is known of, one try shows whether it is over.
        let is_known = self.fails.load(Ordering::Relaxed);
        let mut retries = if is_known { 0 } else { RETRIES };
        let mut backoff = RETRY;
        loop {
            let status = match self.send_once(message.clone()).await {
                Ok(response) => return Ok(response),
                Err(status) => status,
            };
            self.fails.store(true, Ordering::Relaxed);
            match pause(&status, backoff) {
                Some(pause) if retries > 0 => tokio::time::sleep(pause).await,
                _ => return Err(status),
            }
            retries -= 1;
            backoff *= 2;
        }
    }

    async fn send_once(&self, message: Bytes) -> Result<Response, Status> {
        let mut grpc = Grpc::new(self.channel.lock().clone());
        if let Some(encoding) = self.target.compression {
            grpc = grpc.send_compressed(encoding);
        }
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(message);
        *request.metadata_mut() = self.target.headers.clone();
        // `Bytes` are a message with one field, the first; so is `ExportTraceServiceRequest`.
        let codec = ProstCodec::<Bytes, Response>::default();
        let path = PathAndQuery::from_static(EXPORT);
        Ok(grpc.unary(request, path, codec).await?.into_inner())
    }
}

/// What it says, and what lies at the bottom of it.
fn reason(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    let cause = cause.map(ToString::to_string);
    match cause.filter(|cause| cause != status.message()) {
        Some(cause) => format!("{}: {cause}", status.message()),
        None => status.message().to_owned(),
    }
}

/// Before the next try; `None`: it would fare no better. The codes are OTLP's: see "Failures" in its specification.
fn pause(status: &Status, backoff: Duration) -> Option<Duration> {
    let told = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    match status.code() {
        Code::ResourceExhausted => told,
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Some(told.unwrap_or_else(|| backoff.mul_f64(0.5 + fastrand::f64()))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
