//! A closed loop of batches: each of the open ones is followed by the next as soon as it is finished.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_stream::Stream;
use tonic::transport::Channel;
use toolpool_proto::v1::broker_service_client::BrokerServiceClient;
use toolpool_proto::v1::{
    AgentFrame, BatchFrame, BlockDelta, BlockStart, BlockStop, CallResult, ExecuteRequest, Open,
    Seal, agent_frame, batch_frame, call_result,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    server: SocketAddr,
    #[command(flatten)]
    pub(super) load: Load,
}

/// What the agent does and for how long.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Load {
    #[arg(long)]
    pub(crate) tool: String,
    /// Calls a batch.
    #[arg(long)]
    pub(crate) batch: u32,
    /// Batches open at a time.
    #[arg(long)]
    pub(crate) open: u32,
    #[arg(long)]
    pub(crate) warm_up_ms: u64,
    /// The measured time, where it is not counted in calls.
    #[arg(long)]
    pub(crate) window_ms: u64,
    /// Measure this many calls, however long they take, and tell the count as it grows.
    #[arg(long)]
    pub(crate) calls: Option<u64>,
}

/// What an agent says, each on a line of its own.
pub(super) enum Said {
    /// The measured time begins.
    Start,
    /// Calls so far in the measured time.
    Calls(u64),
    /// The measured time is over.
    End,
}

/// What the agent counted in the measured time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) batches: u64,
    pub(crate) seconds: f64,
    /// From the last block's stop to the finished batch.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let channel = super::dial(args.server).await?;
    let tally = load(channel, args.load, |said| match said {
        Said::Start => super::say("start"),
        Said::Calls(calls) => super::say(&format!("calls {calls}")),
        Said::End => super::say("end"),
    })
    .await?;
    super::say(&format!("tally {}", serde_json::to_string(&tally)?))?;
    Ok(())
}

/// Runs the load and counts it. Any result that is missing, repeated or not an output is an error.
pub(super) async fn load(
    channel: Channel,
    load: Load,
    mut say: impl FnMut(Said) -> std::io::Result<()>,
) -> anyhow::Result<Tally> {
    let run = Arc::new(Run {
        phase: AtomicU8::new(WARM_UP),
        calls: AtomicU64::new(0),
        target: load.calls.unwrap_or(u64::MAX),
        reached: Notify::new(),
        template: Template::new(&load.tool, load.batch),
    });
    let mut loops = JoinSet::new();
    for _ in 0..load.open {
        loops.spawn(Arc::clone(&run).batches(channel.clone()));
    }
    let mut conduct = std::pin::pin!(run.conduct(&load, &mut say));
    let mut latency = histogram()?;
    let mut seconds = None;
    while seconds.is_none() || !loops.is_empty() {
        tokio::select! {
            elapsed = &mut conduct, if seconds.is_none() => seconds = Some(elapsed?.as_secs_f64()),
            Some(measured) = loops.join_next() => latency.add(measured??)?,
        }
    }
    Ok(Tally {
        calls: latency.len() * u64::from(load.batch),
        batches: latency.len(),
        seconds: seconds.unwrap_or_default(),
        p50_us: microseconds(latency.value_at_quantile(0.5)),
        p99_us: microseconds(latency.value_at_quantile(0.99)),
    })
}

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const OVER: u8 = 2;

/// What the loops of one agent share.
struct Run {
    phase: AtomicU8,
    calls: AtomicU64,
    target: u64,
    reached: Notify,
    template: Template,
}

impl Run {
    /// Leads through the phases; gives how long the measured one took.
    async fn conduct(
        &self,
        load: &Load,
        say: &mut impl FnMut(Said) -> std::io::Result<()>,
    ) -> anyhow::Result<Duration> {
        sleep(Duration::from_millis(load.warm_up_ms)).await;
        let began = Instant::now();
        self.phase.store(MEASURE, Ordering::Relaxed);
        say(Said::Start)?;
        if load.calls.is_some() {
            loop {
                tokio::select! {
                    () = self.reached.notified() => break,
                    () = sleep(Duration::from_millis(100)) => {
                        say(Said::Calls(self.calls.load(Ordering::Relaxed)))?;
                    }
                }
            }
        } else {
            sleep(Duration::from_millis(load.window_ms)).await;
        }
        self.phase.store(OVER, Ordering::Relaxed);
        let elapsed = began.elapsed();
        say(Said::End)?;
        Ok(elapsed)
    }

    /// One batch after the other; gives the latencies of those that were finished in the measured time.
    async fn batches(self: Arc<Self>, channel: Channel) -> anyhow::Result<Histogram<u64>> {
        let mut client = BrokerServiceClient::new(channel);
        let mut latency = histogram()?;
        loop {
            let took = self.template.batch(&mut client).await?;
            match self.phase.load(Ordering::Relaxed) {
                WARM_UP => {}
                MEASURE => {
                    latency.record(u64::try_from(took.as_nanos())?)?;
                    let calls = self.template.size() as u64;
                    let before = self.calls.fetch_add(calls, Ordering::Relaxed);
                    if before < self.target && before + calls >= self.target {
                        self.reached.notify_one();
                    }
                }
                _ => return Ok(latency),
            }
        }
    }
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    const MINUTE_IN_NANOSECONDS: u64 = 60_000_000_000;
    Ok(Histogram::new_with_max(MINUTE_IN_NANOSECONDS, 3)?)
}

#[expect(clippy::cast_precision_loss, reason = "a latency is far below 2^52 ns")]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

/// The turn that is played over and over.
struct Template {
    ids: Vec<String>,
    blocks: ExecuteRequest,
}

impl Template {
    fn new(tool: &str, calls: u32) -> Self {
        let ids: Vec<String> = (0..calls).map(|n| format!("call_{n:04}")).collect();
        let mut frames = Vec::with_capacity(ids.len() * 3 + 1);
        for (index, id) in (0..).zip(&ids) {
            frames.extend(block(index, id, tool));
        }
        frames.push(agent(agent_frame::Frame::Seal(Seal::default())));
        Self {
            ids,
            blocks: ExecuteRequest { frames },
        }
    }

    fn size(&self) -> usize {
        self.ids.len()
    }

    /// Plays the turn once; gives the time from the last block's stop to the finished batch.
    ///
    /// The stream is accepted before the blocks go out, as it is when a model takes its time to write them: the time
    /// measured is that of the calls, without that of opening a stream.
    async fn batch(&self, client: &mut BrokerServiceClient<Channel>) -> anyhow::Result<Duration> {
        let (accepted, blocks) = oneshot::channel();
        let sent = Arc::new(OnceLock::new());
        let turn = Turn {
            open: Some(open(false)),
            blocks: Some(blocks),
            sent: Arc::clone(&sent),
        };
        let mut accepted = Some((accepted, self.blocks.clone()));
        let mut gather = Gather::new(&self.ids);
        let mut took = None;
        let mut inbound = client.execute(turn).await?.into_inner();
        while let Some(packet) = inbound.message().await? {
            for BatchFrame { frame } in packet.frames {
                match frame.context("an empty frame")? {
                    batch_frame::Frame::Accepted(_) => {
                        let (accepted, blocks) = accepted.take().context("accepted twice")?;
                        accepted
                            .send(blocks)
                            .map_err(|_| anyhow!("the agent's stream was dropped"))?;
                    }
                    batch_frame::Frame::Result(result) => gather.take(&result)?,
                    batch_frame::Frame::Finished(_) => {
                        let sent = sent.get().context("finished before the last block")?;
                        took = Some(sent.elapsed());
                    }
                    batch_frame::Frame::Progress(_) => bail!("progress that nobody asked for"),
                }
            }
        }
        gather.finish()?;
        took.context("the stream ended before the batch was finished")
    }
}

/// Sees to it that each call has exactly one result, and that it is an output.
struct Gather<'a> {
    ids: &'a [String],
    seen: Vec<bool>,
    missing: usize,
}

impl<'a> Gather<'a> {
    fn new(ids: &'a [String]) -> Self {
        Self {
            ids,
            seen: vec![false; ids.len()],
            missing: ids.len(),
        }
    }

    fn take(&mut self, result: &CallResult) -> anyhow::Result<()> {
        let position = usize::try_from(result.position)?;
        let id = self.ids.get(position).map(String::as_str);
        ensure!(id == Some(&result.id), "{} is in a wrong place", result.id);
        ensure!(!self.seen[position], "{} has two results", result.id);
        match &result.ending {
            Some(call_result::Ending::Output(_)) => {}
            Some(call_result::Ending::Error(error)) => {
                bail!(
                    "{} failed with {:?}: {}",
                    result.id,
                    error.code(),
                    error.message
                )
            }
            None => bail!("{} has an empty result", result.id),
        }
        self.seen[position] = true;
        self.missing -= 1;
        Ok(())
    }

    fn finish(&self) -> anyhow::Result<()> {
        ensure!(self.missing == 0, "{} calls have no result", self.missing);
        Ok(())
    }
}

/// The agent's side of one stream: opens, waits to be accepted, sends all blocks and the seal in one packet.
struct Turn {
    open: Option<ExecuteRequest>,
    /// None once they are sent.
    blocks: Option<oneshot::Receiver<ExecuteRequest>>,
    sent: Arc<OnceLock<Instant>>,
}

impl Stream for Turn {
    type Item = ExecuteRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<ExecuteRequest>> {
        if let Some(open) = self.open.take() {
            return Poll::Ready(Some(open));
        }
        let Some(blocks) = &mut self.blocks else {
            return Poll::Ready(None);
        };
        let packet = ready!(Pin::new(blocks).poll(context)).ok();
        self.blocks = None;
        // Nobody else sets it.
        let _ = self.sent.set(Instant::now());
        Poll::Ready(packet)
    }
}

pub(super) fn open(progress: bool) -> ExecuteRequest {
    let open = Open {
        progress,
        ..Open::default()
    };
    ExecuteRequest {
        frames: vec![agent(agent_frame::Frame::Open(open))],
    }
}

/// One call as a model streams it.
pub(super) fn block(index: u32, id: &str, tool: &str) -> [AgentFrame; 3] {
    let start = BlockStart {
        index,
        id: id.into(),
        tool: tool.into(),
        ..BlockStart::default()
    };
    let fragment = Bytes::from(format!(r#"{{"n":{index}}}"#));
    [
        agent(agent_frame::Frame::BlockStart(start)),
        agent(agent_frame::Frame::BlockDelta(BlockDelta {
            index,
            fragment,
        })),
        agent(agent_frame::Frame::BlockStop(BlockStop { index })),
    ]
}

fn agent(frame: agent_frame::Frame) -> AgentFrame {
    AgentFrame { frame: Some(frame) }
}
