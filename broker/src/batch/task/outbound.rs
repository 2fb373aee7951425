//! What the agent is told: progress while it keeps up, and the finished batch.

use std::time::SystemTime;

use tokio::time::Instant;
use tonic::Status;
use toolpool_proto::v1;
use toolpool_proto::v1::batch_frame::Frame;

use super::provider::Provider;
use super::{End, Route, Task};
use crate::batch::Report;
use crate::grpc::{PACKET_BYTES, convert};
use crate::id::BatchId;
use crate::ingest::dialect::Turn;
use crate::telemetry::{BatchEnd, Finished};

impl Task {
    /// Sends the progress that has come together; a reader that does not keep up misses it.
    pub(super) fn tell(&mut self) {
        if !self.progress.is_empty() {
            let frames = std::mem::take(&mut self.progress);
            let _ = self.out.try_send(Ok(v1::ExecuteResponse { frames }));
        }
    }

    pub(super) async fn deliver(self, end: End) {
        let Self {
            id,
            batch,
            provider,
            out,
            accepted,
            accepted_at,
            routes,
            config,
            telemetry,
            trace,
            ..
        } = self;
        let report = batch.into_report(Instant::now());
        tracing::debug!(
            batch.id = %id, calls = report.calls.len(), succeeded = report.succeeded(), elapsed = ?report.elapsed,
            "batch finished"
        );
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
                packets(
                    (&id, trace.and_then(|trace| trace.id_to_tell())),
                    accepted_at,
                    report,
                    told,
                )
            }
        };
        for packet in packets {
            // Each packet has its time: a reader that is slow, but reads, gets everything.
            match tokio::time::timeout(config.delivery_timeout, out.send(packet)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::warn!(batch.id = %id, "the agent does not read its finished batch; given up");
                    return;
                }
            }
        }
    }
}

/// All results and the last frame, in packets of a size that every client takes unless one result alone is larger.
fn packets(
    (id, trace_id): (&BatchId, Option<String>),
    accepted_at: SystemTime,
    report: Report,
    told: Option<(Turn, v1::Turn)>,
) -> Vec<Result<v1::ExecuteResponse, Status>> {
    let (turn, told) = told.unzip();
    let calls = turn.map_or(Vec::new(), |turn| turn.calls);
    let finished = v1::Finished {
        trace_id,
        ..convert::finished(id, accepted_at, &report, told)
    };
    let mut packets = Vec::with_capacity(1);
    let mut frames = Vec::with_capacity(report.calls.len() + 1);
    let mut bytes = 0;
    for call in report.calls {
        let size = call.about_bytes();
        if bytes > 0 && bytes + size > PACKET_BYTES {
            let frames = std::mem::take(&mut frames);
            packets.push(Ok(v1::ExecuteResponse { frames }));
            bytes = 0;
        }
        bytes += size;
        let of = calls.get(call.position);
        frames.push(convert::batch_frame(Frame::Result(convert::result(
            call, of,
        ))));
    }
    frames.push(convert::batch_frame(Frame::Finished(finished)));
    packets.push(Ok(v1::ExecuteResponse { frames }));
    packets
}
