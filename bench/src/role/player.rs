//! An agent whose model writes one turn at its recorded pace.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use toolpool_broker::decode::Decoder;
use toolpool_proto::v1::broker_service_client::BrokerServiceClient;
use toolpool_proto::v1::{
    AgentFrame, Call, Dialect, ExecuteRequest, Open, Seal, agent_frame, batch_frame, call_result,
};

/// Four calls, with the moments at which their events came.
const TURN: &str = include_str!("../../../docs/examples/anthropic.ndjson");
const MAX_EVENT_BYTES: usize = 1 << 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    server: SocketAddr,
    /// Send the calls when the turn is over, as an agent does that has its client put the message together.
    #[arg(long)]
    at_end: bool,
}

/// A line of the turn. Its first one has no event.
#[derive(Deserialize)]
struct Line<'a> {
    at: f64,
    #[serde(borrow)]
    provider_event: Option<&'a RawValue>,
}

/// Something that is sent at a moment of the turn.
struct Step {
    at: Duration,
    frame: agent_frame::Frame,
}

/// Says when the turn was over and when the batch was finished, in milliseconds from the turn's begin.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let events = events()?;
    let end = events.last().context("the turn is empty")?.0;
    let (open, steps) = if args.at_end {
        (Open::default(), at_end(&events, end)?)
    } else {
        let open = Open {
            dialect: Some(Dialect::Anthropic.into()),
            ..Open::default()
        };
        (open, piped(&events))
    };
    let channel = super::dial(args.server).await?;
    let (frames, outbound) = mpsc::channel(64);
    frames.send(packet(agent_frame::Frame::Open(open))).await?;
    let mut client = BrokerServiceClient::new(channel);
    let mut inbound = client
        .execute(ReceiverStream::new(outbound))
        .await?
        .into_inner();
    let mut steps = Some(steps);
    let mut begin = None;
    let mut calls = 0;
    while let Some(packet) = inbound.message().await? {
        for frame in packet.frames {
            match frame.frame.context("an empty frame")? {
                // The stream stands while the model is still reading the prompt: the turn begins now.
                batch_frame::Frame::Accepted(_) => {
                    if let Some(steps) = steps.take() {
                        let now = Instant::now();
                        begin = Some(now);
                        // Ends with the last step, or with the stream that they go to.
                        tokio::spawn(play(now, steps, frames.clone()));
                    }
                }
                batch_frame::Frame::Result(result) => match result.ending {
                    Some(call_result::Ending::Output(_)) => calls += 1,
                    other => bail!("{}: {other:?}", result.id),
                },
                batch_frame::Frame::Finished(_) => {
                    let took = begin.context("finished before it began")?.elapsed();
                    ensure!(calls > 0, "the turn has no calls");
                    super::say(&format!("turn {}", end.as_millis()))?;
                    super::say(&format!("finished {}", took.as_millis()))?;
                    return Ok(());
                }
                batch_frame::Frame::Progress(_) => {}
            }
        }
    }
    bail!("the stream ended before the batch was finished")
}

/// The events of the turn with their moments.
fn events() -> anyhow::Result<Vec<(Duration, &'static str)>> {
    let lines = TURN.lines().map(serde_json::from_str::<Line<'_>>);
    let mut events = Vec::new();
    for line in lines {
        let Line { at, provider_event } = line?;
        if let Some(event) = provider_event {
            events.push((Duration::from_secs_f64(at), event.get()));
        }
    }
    Ok(events)
}

fn piped(events: &[(Duration, &str)]) -> Vec<Step> {
    let step = |(at, event): &(Duration, &str)| Step {
        at: *at,
        frame: agent_frame::Frame::ProviderEvent(Bytes::copy_from_slice(event.as_bytes())),
    };
    events.iter().map(step).collect()
}

/// The same calls, and the seal.
fn at_end(events: &[(Duration, &str)], end: Duration) -> anyhow::Result<Vec<Step>> {
    let mut decoder = Decoder::new(None, MAX_EVENT_BYTES);
    for (_, event) in events {
        decoder.event(event.as_bytes());
    }
    let turn = decoder.finish();
    ensure!(turn.complete, "the turn is not complete");
    let calls = turn.calls.into_iter().map(|call| {
        agent_frame::Frame::Call(Call {
            id: call.id.unwrap_or_default(),
            tool: call.name,
            arguments: call.arguments,
            idempotency_key: None,
        })
    });
    let seal = agent_frame::Frame::Seal(Seal::default());
    let frames = calls.chain([seal]);
    Ok(frames.map(|frame| Step { at: end, frame }).collect())
}

async fn play(begin: Instant, steps: Vec<Step>, frames: mpsc::Sender<ExecuteRequest>) {
    for Step { at, frame } in steps {
        sleep_until(begin + at).await;
        if frames.send(packet(frame)).await.is_err() {
            return;
        }
    }
}

fn packet(frame: agent_frame::Frame) -> ExecuteRequest {
    ExecuteRequest {
        frames: vec![AgentFrame { frame: Some(frame) }],
    }
}
