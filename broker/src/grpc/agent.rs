//! The agent's side: opens batches, lists tools.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use toolpool_proto::v1;
use toolpool_proto::v1::broker_service_server::BrokerService;

use super::convert::{Malformed, Step};
use super::delivery::{Delivery, delivery};
use super::{FIRST_FRAME, convert, listing, status};
use crate::batch::task::{Inbound, Opened, Task};
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::ingest::TurnEnd;
use crate::lane::queue::BatchKey;
use crate::metrics::{Metrics, TurnedAway};
use crate::registry::{Batches, NoPlace, OpenBatch, Room};
use crate::telemetry::{Telemetry, TraceContext};

/// Of an RPC's deadline, the part that is left for the finished batch to travel: a tenth, but no more than this.
const MOST_MARGIN: Duration = Duration::from_millis(250);

/// What batches are opened with.
#[derive(Clone, Debug)]
pub(crate) struct Agents {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: Arc<Config>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) batches: Arc<Batches>,
    pub(crate) keys: Arc<AtomicU64>,
    pub(crate) tasks: TaskTracker,
    pub(crate) telemetry: Telemetry,
    /// No new batches.
    pub(crate) draining: CancellationToken,
    /// Time is up for open ones.
    pub(crate) expire: CancellationToken,
}

/// What an RPC's metadata says.
struct Rpc {
    /// When the batch must have ended.
    deadline: Option<Instant>,
    /// The agent's span.
    agent: Option<TraceContext>,
}

impl Rpc {
    fn of(metadata: &MetadataMap) -> Self {
        Self {
            deadline: rpc_deadline(metadata, Instant::now()),
            agent: TraceContext::of_metadata(metadata),
        }
    }
}

impl Agents {
    /// Room for one more batch.
    fn room(&self) -> Result<Room, Status> {
        self.batches.room().map_err(|none| self.no_place(none))
    }

    fn no_place(&self, why: NoPlace) -> Status {
        self.metrics.turned_away(match why {
            NoPlace::Full(_) => TurnedAway::Full,
            NoPlace::Taken => TurnedAway::Taken,
        });
        status::no_place(why)
    }

    fn malformed(&self, malformed: &Malformed) -> Status {
        self.metrics.turned_away(TurnedAway::Malformed);
        status::malformed(malformed)
    }

    fn open(
        &self,
        room: Room,
        open: v1::Open,
        (first, inbound): (Vec<Step>, Inbound),
        rpc: Rpc,
    ) -> Result<Delivery, Status> {
        if self.draining.is_cancelled() {
            self.metrics.turned_away(TurnedAway::Draining);
            return Err(status::draining());
        }
        let mut open = convert::open(open).map_err(|malformed| self.malformed(&malformed))?;
        open.agent = rpc.agent.or(open.agent);
        let key = BatchKey(self.keys.fetch_add(1, Ordering::Relaxed));
        let mailbox = Task::mailbox(&self.config);
        let handle = OpenBatch {
            key,
            notices: mailbox.0.clone(),
        };
        let place = room.open(&open.batch, handle);
        let place = place.map_err(|none| self.no_place(none))?;
        let (out, response) = delivery();
        self.metrics.batch_started();
        let task = Task::new(Opened {
            metrics: Arc::clone(&self.metrics),
            open,
            key,
            place,
            rpc_deadline: rpc.deadline,
            config: Arc::clone(&self.config),
            catalogue: Arc::clone(&self.catalogue),
            telemetry: self.telemetry.clone(),
            expire: self.expire.clone(),
            out,
            mailbox,
        });
        self.tasks.spawn(task.run(first, inbound));
        Ok(response)
    }
}

#[tonic::async_trait]
impl BrokerService for Agents {
    type ExecuteStream = Delivery;

    async fn execute(
        &self,
        request: Request<Streaming<v1::ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let rpc = Rpc::of(request.metadata());
        // Before the wait for `open`: streams that say nothing count too.
        let room = self.room()?;
        let mut stream = request.into_inner();
        let first = tokio::time::timeout(FIRST_FRAME, next_frames(&mut stream))
            .await
            .map_err(|_| {
                Status::deadline_exceeded(format!("no open frame came within {FIRST_FRAME:?}"))
            })??;
        let mut frames = first.into_iter();
        let Some(v1::AgentFrame {
            frame: Some(v1::agent_frame::Frame::Open(open)),
        }) = frames.next()
        else {
            return Err(Status::invalid_argument("the first frame must be open"));
        };
        let first = frames
            .map(convert::agent_frame)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|malformed| self.malformed(&malformed))?;
        let inbound = Inbound::Stream(Box::new(stream));
        let response = self.open(room, open, (first, inbound), rpc)?;
        Ok(Response::new(response))
    }

    async fn execute_batch(
        &self,
        request: Request<v1::ExecuteBatchRequest>,
    ) -> Result<Response<v1::ExecuteBatchResponse>, Status> {
        let rpc = Rpc::of(request.metadata());
        let room = self.room()?;
        let request = request.into_inner();
        let mut first = request
            .calls
            .into_iter()
            .map(|call| convert::call(call).map(Step::Own))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|malformed| self.malformed(&malformed))?;
        let end = request
            .seal
            .map_or(Ok(TurnEnd::Complete), convert::seal)
            .map_err(|malformed| self.malformed(&malformed))?;
        first.push(Step::Seal(end));
        let open = v1::Open {
            progress: false,
            ..request.open.unwrap_or_default()
        };
        if open.dialect.is_some() {
            return Err(Status::invalid_argument(
                "open.dialect is for Execute: only a stream can be piped in",
            ));
        }
        let mut out = self.open(room, open, (first, Inbound::Nothing), rpc)?;
        let mut response = v1::ExecuteBatchResponse::default();
        while let Some(packet) = out.next().await {
            for frame in packet?.frames {
                match frame.frame {
                    Some(v1::batch_frame::Frame::Result(result)) => response.results.push(result),
                    Some(v1::batch_frame::Frame::Finished(finished)) => {
                        response.finished = Some(finished);
                    }
                    _ => {}
                }
            }
        }
        if response.finished.is_none() {
            return Err(status::not_delivered());
        }
        Ok(Response::new(response))
    }

    async fn list_tools(
        &self,
        request: Request<v1::ListToolsRequest>,
    ) -> Result<Response<v1::ListToolsResponse>, Status> {
        let request = request.into_inner();
        listing::page(&self.catalogue, request)
            .map(Response::new)
            .map_err(|malformed| status::malformed(&malformed))
    }
}

/// The frames of the first packet that has any.
async fn next_frames(
    stream: &mut Streaming<v1::ExecuteRequest>,
) -> Result<Vec<v1::AgentFrame>, Status> {
    loop {
        let message = stream.message().await;
        match message.map_err(|error| status::unreadable(&error).unwrap_or(error))? {
            None => {
                return Err(Status::invalid_argument(
                    "the stream ended before its open frame",
                ));
            }
            Some(packet) if packet.frames.is_empty() => {}
            Some(packet) => return Ok(packet.frames),
        }
    }
}

/// When the batch must have ended by the RPC's own deadline: a little before it, so that the batch arrives in time.
fn rpc_deadline(metadata: &MetadataMap, began: Instant) -> Option<Instant> {
    let time = parse_grpc_timeout(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    began.checked_add(time.saturating_sub((time / 10).min(MOST_MARGIN)))
}

/// At most eight digits and a unit; see "Timeout" in gRPC over HTTP/2.
fn parse_grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3_600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rpc_deadline_is_met_with_a_margin() {
        let mut metadata = MetadataMap::new();
        let now = Instant::now();
        assert_eq!(rpc_deadline(&metadata, now), None);
        metadata.insert("grpc-timeout", "10S".parse().unwrap());
        assert_eq!(
            rpc_deadline(&metadata, now),
            Some(now + Duration::from_millis(9_750))
        );
        metadata.insert("grpc-timeout", "100m".parse().unwrap());
        assert_eq!(
            rpc_deadline(&metadata, now),
            Some(now + Duration::from_millis(90))
        );
        for wrong in ["", "S", "123456789S", "1x", "-1S"] {
            assert_eq!(parse_grpc_timeout(wrong), None, "{wrong}");
        }
    }
}
