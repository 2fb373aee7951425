//! What the agent is told: progress while it keeps up, and the finished batch.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::TraceId;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tonic::Status;
use toolpool_proto::v1;
use toolpool_proto::v1::batch_frame::Frame;

use super::provider::Provider;
use super::{End, Route, Task};
use crate::batch::{CallReport, EndedCall, Report};
use crate::call_error::{CallError, Code};
use crate::catalogue::Catalogue;
use crate::grpc::delivery::{Gone, Outlet};
use crate::grpc::{PACKET_BYTES, convert};
use crate::id::BatchId;
use crate::ingest::Position;
use crate::ingest::dialect::{Answered, Turn};
use crate::metrics::{Metrics, ToolSeries};
use crate::telemetry::{BatchEnd, Finished, Trace};

/// A finished batch up to this size leaves in one packet, and is not waited for.
const SMALL_BYTES: usize = 64 << 10;

impl Task {
    /// Sends the progress that has come together; a reader that does not keep up misses it.
    pub(super) fn tell(&mut self) {
        if !self.progress.is_empty() {
            let frames = std::mem::take(&mut self.progress);
            let sent = self.out.try_send(Ok(v1::ExecuteResponse { frames }));
            if let Err(TrySendError::Full(Ok(packet))) = sent {
                let mut frames = packet.frames;
                let many = frames.len();
                // What the stream is taken for is told all the same, later.
                frames.retain(|frame| matches!(frame.frame, Some(Frame::Accepted(_))));
                self.metrics.progress_dropped_at_agent(many - frames.len());
                self.progress = frames;
            }
        }
    }

    /// Counts a call as soon as it has its result, and logs how it failed: its batch may go on for long.
    pub(super) fn count(&self, position: Position) {
        let Some(call) = self.batch.ended_call(position) else {
            if let Some(duplicate) = self.batch.duplicate_at(position) {
                let error = Some(&duplicate.error);
                unrouted(&self.catalogue, &self.metrics, &duplicate.tool).outcome(error);
            }
            return;
        };
        match self.routes.get(position) {
            Some(Some(route)) => route.lane.series().call(&call),
            _ => unrouted(&self.catalogue, &self.metrics, call.tool).call(&call),
        }
        if let Some(error) = call.error {
            let trace = self.trace.as_deref();
            log_failure(&self.id, trace.and_then(Trace::id_to_tell), &call, error);
        }
    }

    pub(super) async fn deliver(self: Box<Self>, end: End) {
        let Self {
            id,
            batch,
            inbox,
            provider,
            out,
            accepted,
            accepted_at,
            metrics,
            routes,
            config,
            telemetry,
            trace,
            ..
        } = *self;
        // Nobody is to wait for an answer from here any more.
        drop(inbox);
        let report = batch.into_report(Instant::now());
        let trace_id = trace.as_ref().and_then(|trace| trace.id_to_tell());
        log(&id, trace_id, &report, &end);
        metrics.batch_ended(end.kind(), report.elapsed);
        if let Some(trace) = trace.as_deref().filter(|trace| trace.is_recorded()) {
            let arguments = |route: Option<Route>| Some(route?.call.arguments.clone());
            telemetry.finished(&Finished {
                trace,
                batch: &id,
                accepted,
                accepted_at,
                report: &report,
                end: match &end {
                    End::Finished => BatchEnd::Results,
                    End::Refused(status) => BatchEnd::Refused(status),
                    End::Unread => BatchEnd::Unread,
                },
                dialect: provider.as_ref().and_then(Provider::dialect),
                arguments: (config.trace_content)
                    .then(|| routes.into_iter().map(arguments).collect()),
            });
        }
        let packets = match end {
            End::Unread => return,
            End::Refused(status) => vec![Err(status)],
            End::Finished => {
                let told =
                    provider.map(|provider| provider.finish(&report, config.max_answer_bytes));
                if let Some((turn, _)) = &told {
                    metrics.provider_turn(turn);
                }
                packets(
                    (&id, trace_id.map(|id| id.to_string())),
                    accepted_at,
                    report,
                    told,
                )
            }
        };
        if let Err(Unread) = send(&out, packets, config.delivery_timeout).await {
            metrics.undelivered();
            let trace_id = trace_id.map(tracing::field::display);
            tracing::warn!(
                batch.id = %id, trace.id = trace_id,
                "the agent does not read its finished batch; given up"
            );
        }
    }
}

/// The agent does not read.
struct Unread;

/// Each packet has its time: a reader that is slow, but reads, gets everything. Nobody waits for one that is gone.
async fn send(
    out: &Outlet,
    packets: Vec<Result<v1::ExecuteResponse, Status>>,
    time: Duration,
) -> Result<(), Unread> {
    // What is small rides along; of what is not, no more leaves here than the agent reads.
    let is_large = packets.len() > 1;
    for packet in packets {
        let sent = async {
            if is_large {
                out.hand_over(packet).await
            } else {
                out.send(packet).await
            }
        };
        match tokio::time::timeout(time, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(Gone)) => return Ok(()),
            Err(_) => return Err(Unread),
        }
    }
    Ok(())
}

fn log(id: &BatchId, trace_id: Option<TraceId>, report: &Report, end: &End) {
    let trace_id = trace_id.map(tracing::field::display);
    let trace_id = trace_id.as_ref();
    tracing::debug!(
        batch.id = %id, trace.id = trace_id, calls = report.calls.len(), succeeded = report.succeeded(),
        elapsed = ?report.elapsed, "batch finished"
    );
    if let End::Refused(status) = end {
        tracing::info!(
            batch.id = %id, trace.id = trace_id, code = ?status.code(), reason = status.message(), "batch refused"
        );
    }
}

fn log_failure(id: &BatchId, trace_id: Option<TraceId>, call: &EndedCall<'_>, error: &CallError) {
    let trace_id = trace_id.map(tracing::field::display);
    let worker = call.worker.map(tracing::field::display);
    if error.code == Code::OutcomeUnknown {
        // Somebody has to look whether it happened: not only whoever has turned the log up before.
        tracing::warn!(
            batch.id = %id, trace.id = trace_id, call.id = %call.id, worker.id = worker, tool = call.tool,
            "a call with side effects was lost with its worker"
        );
    } else {
        // What went wrong is the agent's to handle; here it is for whoever turns the log up to look for it.
        tracing::debug!(
            batch.id = %id, trace.id = trace_id, call.id = %call.id, worker.id = worker, tool = call.tool,
            code = ?error.code, attempts = call.attempts, ran = ?call.ran, "call failed"
        );
    }
}

/// The series of a call that was refused before it had a way. Its tool's name is the model's, and may be anything.
fn unrouted(catalogue: &Catalogue, metrics: &Metrics, name: &str) -> Arc<ToolSeries> {
    match catalogue.find_as_called(name) {
        Some(tool) => Arc::clone(tool.lane.series()),
        None => (metrics.known(name)).unwrap_or_else(|| Arc::clone(metrics.no_tool())),
    }
}

/// All results and the last frame, in packets of a size that every client takes unless one result alone is larger.
fn packets(
    (id, trace_id): (&BatchId, Option<String>),
    accepted_at: SystemTime,
    mut report: Report,
    told: Option<(Turn, v1::Turn)>,
) -> Vec<Result<v1::ExecuteResponse, Status>> {
    let (turn, told) = told.unzip();
    let finished = v1::Finished {
        trace_id,
        ..convert::finished(id, accepted_at, &report, told)
    };
    let mut frames = Vec::with_capacity(report.calls.len() + 1);
    let (mut packets, mut bytes) = (Vec::with_capacity(1), 0);
    let of = |call: &CallReport| turn.as_ref()?.calls.get(call.position);
    if turn.is_some() {
        // The model's order need not be that in which the calls began.
        (report.calls).sort_by_key(|call| of(call).map_or(call.position, |of| of.position));
    }
    for call in report.calls {
        let of = of(&call);
        let size = call.about_bytes() + of.map_or(0, Answered::about_bytes);
        if bytes > 0 && bytes + size > PACKET_BYTES {
            let frames = std::mem::take(&mut frames);
            packets.push(Ok(v1::ExecuteResponse { frames }));
            bytes = 0;
        }
        bytes += size;
        let result = convert::result(call, of);
        frames.push(convert::batch_frame(Frame::Result(result)));
    }
    // Alone, it is asked for once all before it have left: until then the batch is open.
    if bytes > SMALL_BYTES || !packets.is_empty() {
        packets.push(Ok(v1::ExecuteResponse {
            frames: std::mem::take(&mut frames),
        }));
    }
    frames.push(convert::batch_frame(Frame::Finished(finished)));
    packets.push(Ok(v1::ExecuteResponse { frames }));
    packets
}
