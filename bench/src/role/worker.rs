//! A bare worker: the stubs and nothing else. It answers at once, or after a time, and ignores what it need not know.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::bail;
use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_stream::Stream;
use tonic::transport::Channel;
use toolpool_proto::v1::worker_pool_service_client::WorkerPoolServiceClient;
use toolpool_proto::v1::{
    Beat, Content, Effects, JoinRequest, Outcome, Output, Policy, PoolFrame, Register, Registered,
    Tool, WorkerFrame, content, outcome, pool_frame, worker_frame,
};

use super::mailbox::Mailbox;

/// The most that the broker permits: two such workers have room for 64 batches of 256.
const SLOTS: u32 = 10_000;
const INPUT_SCHEMA: &[u8] =
    br#"{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}"#;
/// Of tools whose calls a model has written.
const ANY_INPUT: &[u8] = br#"{"type":"object"}"#;
/// Stuck calls wait in the queue for as long as a measurement may take.
const CALL_TIMEOUT_SECONDS: i64 = 3600;

#[derive(clap::Args)]
pub(crate) struct Args {
    server: SocketAddr,
    /// The worker's id.
    #[arg(long)]
    id: String,
    /// A tool, and how long it takes if it does not answer at once.
    #[arg(long = "tool", value_name = "TOOL[=MILLISECONDS]", required = true, value_parser = served)]
    tools: Vec<Served>,
}

#[derive(Clone, Debug)]
struct Served {
    name: String,
    takes: Option<Duration>,
}

fn served(text: &str) -> anyhow::Result<Served> {
    let (name, takes) = match text.split_once('=') {
        Some((name, takes)) => (name, Some(Duration::from_millis(takes.parse()?))),
        None => (text, None),
    };
    Ok(Served {
        name: name.into(),
        takes,
    })
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let times = args.tools.iter();
    let times = times.filter_map(|tool| Some((tool.name.clone(), tool.takes?)));
    let times: HashMap<String, Duration> = times.collect();
    let seat = Seat {
        id: args.id,
        tools: args.tools.into_iter().map(|tool| tool.name).collect(),
        slots: SLOTS,
        answer: if times.is_empty() {
            Answer::AtOnce
        } else {
            Answer::After(times)
        },
    };
    let channel = super::dial(args.server).await?;
    join(channel, seat, || super::say("ready")).await
}

/// What a worker joins as.
pub(super) struct Seat {
    pub(super) id: String,
    pub(super) tools: Vec<String>,
    pub(super) slots: u32,
    pub(super) answer: Answer,
}

pub(super) enum Answer {
    AtOnce,
    /// By tool.
    After(HashMap<String, Duration>),
    Never,
}

impl Seat {
    fn register(&self) -> Register {
        let schema = match self.answer {
            Answer::AtOnce | Answer::Never => INPUT_SCHEMA,
            Answer::After(_) => ANY_INPUT,
        };
        Register {
            instance_id: format!("{}-{}", self.id, std::process::id()),
            worker_id: self.id.clone(),
            tools: self.tools.iter().map(|name| tool(name, schema)).collect(),
            slots: self.slots,
            ..Register::default()
        }
    }
}

fn tool(name: &str, schema: &'static [u8]) -> Tool {
    Tool {
        name: name.into(),
        description: "Does nothing.".into(),
        input_schema: Bytes::from_static(schema),
        policy: Some(Policy {
            effects: Some(Effects::ReadOnly.into()),
            call_timeout: Some(prost_types::Duration {
                seconds: CALL_TIMEOUT_SECONDS,
                nanos: 0,
            }),
            ..Policy::default()
        }),
    }
}

/// Serves for as long as the stream lives; an end of the stream is an error.
pub(super) async fn join(
    channel: Channel,
    seat: Seat,
    mut registered: impl FnMut() -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let outbox = Arc::new(Mailbox::default());
    outbox.push(worker(worker_frame::Frame::Register(seat.register())));
    let mut inbound = WorkerPoolServiceClient::new(channel)
        .join(Outbound(Arc::clone(&outbox)))
        .await?
        .into_inner();
    let mut beat = beat_every(Duration::from_secs(5));
    loop {
        let packet = tokio::select! {
            biased;
            packet = inbound.message() => packet?,
            _ = beat.tick() => {
                outbox.push(worker(worker_frame::Frame::Beat(Beat {})));
                continue;
            }
        };
        let Some(packet) = packet else {
            bail!("the server has ended the worker's stream");
        };
        let mut outcomes = Vec::with_capacity(packet.frames.len());
        for PoolFrame { frame } in packet.frames {
            match frame {
                Some(pool_frame::Frame::Assignment(assignment)) => match &seat.answer {
                    Answer::AtOnce => outcomes.push(nothing(assignment.lease_id)),
                    Answer::After(times) => {
                        let takes = times.get(&assignment.tool).copied().unwrap_or_default();
                        let outbox = Arc::clone(&outbox);
                        // Ends with the process.
                        tokio::spawn(async move {
                            sleep(takes).await;
                            outbox.push(nothing(assignment.lease_id));
                        });
                    }
                    Answer::Never => {}
                },
                Some(pool_frame::Frame::Registered(terms)) => {
                    beat = beat_every(interval(&terms));
                    registered()?;
                }
                _ => {}
            }
        }
        // The outbox is read by another task, after all that is ready here: many outcomes, one packet.
        if !outcomes.is_empty() {
            outbox.extend(outcomes);
        }
    }
}

fn beat_every(period: Duration) -> tokio::time::Interval {
    let mut beat = interval_at(Instant::now() + period, period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat
}

fn interval(terms: &Registered) -> Duration {
    terms
        .beat_interval
        .and_then(|interval| Duration::try_from(interval).ok())
        .filter(|interval| !interval.is_zero())
        .unwrap_or(Duration::from_secs(5))
}

fn nothing(lease_id: u64) -> WorkerFrame {
    let content = Content {
        kind: Some(content::Kind::Text("ok".into())),
    };
    worker(worker_frame::Frame::Outcome(Outcome {
        lease_id,
        ending: Some(outcome::Ending::Output(Output {
            content: vec![content],
        })),
    }))
}

fn worker(frame: worker_frame::Frame) -> WorkerFrame {
    WorkerFrame { frame: Some(frame) }
}

/// Hands out all that is in the outbox as one packet.
struct Outbound(Arc<Mailbox<WorkerFrame>>);

impl Stream for Outbound {
    type Item = JoinRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<JoinRequest>> {
        self.0
            .poll_take(context)
            .map(|frames| Some(JoinRequest { frames }))
    }
}
