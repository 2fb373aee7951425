//! An agent whose calls never end: it fills a queue and keeps it full.

use std::collections::HashSet;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use toolpool_proto::v1::broker_service_client::BrokerServiceClient;
use toolpool_proto::v1::{BatchFrame, ExecuteRequest, batch_frame, call_progress};

use super::agent;

const BATCHES_PER_CONNECTION: u32 = 100;
const CALLS_PER_BATCH: u32 = 256;

#[derive(clap::Args)]
pub(crate) struct Args {
    server: SocketAddr,
    #[arg(long)]
    tool: String,
    /// Calls to hold, in batches of 256.
    #[arg(long)]
    calls: u32,
}

/// Says `held` when the broker has told of every call that it waits or runs, and fails as soon as one ends.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let (told, mut holding) = mpsc::channel(256);
    let mut batches = JoinSet::new();
    let mut channel = None;
    let mut left = args.calls;
    while left > 0 {
        let opened = u32::try_from(batches.len())?;
        if opened.is_multiple_of(BATCHES_PER_CONNECTION) {
            channel = Some(super::dial(args.server).await?);
        }
        let channel = channel.clone().context("no connection")?;
        let calls = left.min(CALLS_PER_BATCH);
        batches.spawn(hold(channel, args.tool.clone(), calls, told.clone()));
        left -= calls;
    }
    let mut held = 0;
    loop {
        tokio::select! {
            Some(calls) = holding.recv() => {
                held += calls;
                if held == args.calls {
                    super::say(&format!("held {held}"))?;
                }
            }
            Some(ended) = batches.join_next() => ended??,
            else => return Ok(()),
        }
    }
}

async fn hold(
    channel: Channel,
    tool: String,
    calls: u32,
    told: mpsc::Sender<u32>,
) -> anyhow::Result<()> {
    let blocks = (0..calls).flat_map(|n| agent::block(n, &format!("call_{n:04}"), &tool));
    let blocks = ExecuteRequest {
        frames: blocks.collect(),
    };
    let mut inbound = BrokerServiceClient::new(channel)
        .execute(tokio_stream::iter([agent::open(true), blocks]))
        .await?
        .into_inner();
    let mut seen = HashSet::new();
    while let Some(packet) = inbound.message().await? {
        for BatchFrame { frame } in packet.frames {
            match frame {
                Some(batch_frame::Frame::Accepted(_)) | None => {}
                Some(batch_frame::Frame::Progress(progress)) => match progress.event {
                    Some(call_progress::Event::Ended(ended)) => {
                        bail!("a held call has ended: {:?}", ended.error());
                    }
                    _ => {
                        seen.insert(progress.id);
                    }
                },
                Some(frame) => bail!("a batch of held calls has ended: {frame:?}"),
            }
        }
        if u32::try_from(seen.len())? == calls {
            seen = HashSet::new();
            told.send(calls).await?;
        }
    }
    bail!("the stream of a held batch has ended")
}
