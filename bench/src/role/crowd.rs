//! Thousands of workers on few connections. None of them ever answers.

use std::io;
use std::net::SocketAddr;

use anyhow::Context;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::worker::{self, Answer, Seat};

/// Below the streams that a gRPC server usually allows on a connection.
const WORKERS_PER_CONNECTION: u32 = 100;
const TOOLS_PER_IDLE_WORKER: u32 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    server: SocketAddr,
    /// Workers with nothing to do, each of which serves three of the other tools.
    #[arg(long)]
    idle: u32,
    /// Other tools.
    #[arg(long)]
    tools: u32,
    /// Workers with one slot, which serve each `--busy-tool`.
    #[arg(long)]
    busy: u32,
    #[arg(long)]
    busy_tool: Vec<String>,
}

/// Says `ready` when all have joined, and fails as soon as one loses its stream.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let total = args.idle + args.busy;
    let (registered, mut ready) = mpsc::channel(usize::try_from(total)?.max(1));
    let mut sessions = JoinSet::new();
    let mut channel = None;
    for n in 0..total {
        if n.is_multiple_of(WORKERS_PER_CONNECTION) {
            channel = Some(super::dial(args.server).await?);
        }
        let channel = channel.clone().context("no connection")?;
        let registered = registered.clone();
        sessions.spawn(worker::join(channel, args.seat(n), move || {
            registered.try_send(()).map_err(io::Error::other)
        }));
    }
    let mut joined = 0;
    loop {
        tokio::select! {
            Some(()) = ready.recv() => {
                joined += 1;
                if joined == total {
                    super::say("ready")?;
                }
            }
            Some(left) = sessions.join_next() => left??,
            else => return Ok(()),
        }
    }
}

impl Args {
    fn seat(&self, n: u32) -> Seat {
        let (tools, slots) = if n < self.idle {
            let first = n * TOOLS_PER_IDLE_WORKER;
            let tools = first..first + TOOLS_PER_IDLE_WORKER;
            let tools = tools.map(|tool| format!("other-{}", tool % self.tools));
            (tools.collect(), 16)
        } else {
            (self.busy_tool.clone(), 1)
        };
        Seat {
            id: format!("crowd-{n}"),
            tools,
            slots,
            answer: Answer::Never,
        }
    }
}
