//! What the benchmark's processes are. Each says on stdout, a line at a time, what its parent waits for.

pub(crate) mod agent;
mod broker;
mod crowd;
mod hoard;
mod mailbox;
mod player;
pub(crate) mod relay;
mod sink;
#[cfg(test)]
mod tests;
pub(crate) mod worker;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

/// The roles; hidden, since only this program starts them.
#[derive(clap::Subcommand)]
pub(crate) enum Role {
    /// Opens batches in a closed loop.
    #[command(hide = true)]
    Agent(agent::Args),
    /// Answers every assignment at once.
    #[command(hide = true)]
    Worker(worker::Args),
    /// The broker under test.
    #[command(hide = true)]
    Broker(broker::Args),
    /// The floor.
    #[command(hide = true)]
    Relay(relay::Args),
    /// Thousands of workers that never answer.
    #[command(hide = true)]
    Crowd(crowd::Args),
    /// An agent whose model writes one turn at its recorded pace.
    #[command(hide = true)]
    Player(player::Args),
    /// An agent whose calls never end.
    #[command(hide = true)]
    Hoard(hoard::Args),
    /// A collector of traces that counts them and throws them away.
    #[command(hide = true)]
    Sink,
}

impl Role {
    /// Plays the role until it is over or the parent is gone.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        end_with_parent()?;
        match self {
            Self::Agent(args) => runtime(1)?.block_on(agent::run(args)),
            Self::Worker(args) => runtime(1)?.block_on(worker::run(args)),
            Self::Broker(args) => runtime(args.threads)?.block_on(broker::run(args)),
            Self::Relay(args) => runtime(args.threads)?.block_on(relay::run()),
            Self::Crowd(args) => runtime(1)?.block_on(crowd::run(args)),
            Self::Player(args) => runtime(1)?.block_on(player::run(args)),
            Self::Hoard(args) => runtime(1)?.block_on(hoard::run(args)),
            Self::Sink => runtime(1)?.block_on(sink::run()),
        }
    }
}

/// The parent holds the other end of our stdin and writes nothing to it: its end is the parent's end.
fn end_with_parent() -> io::Result<()> {
    std::thread::Builder::new()
        .name("parent-watch".into())
        .spawn(|| {
            // Whether by end of file or by an error, the parent cannot be heard any more.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            std::process::exit(0);
        })
        .map(drop)
}

fn runtime(threads: usize) -> io::Result<Runtime> {
    match threads {
        0 | 1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    }
}

/// Tells the parent.
fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// A listener on a port that the system chooses, told to the parent.
async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("cannot listen on a loopback port")?;
    say(&format!("listening {}", listener.local_addr()?))?;
    Ok(listener)
}

async fn dial(server: SocketAddr) -> anyhow::Result<Channel> {
    Endpoint::from_shared(format!("http://{server}"))?
        .connect()
        .await
        .with_context(|| format!("cannot dial {server}"))
}
