//! The commands, a file each.

mod admin;
mod batches;
mod broker;
mod call;
mod demo;
mod drain;
mod replay;
mod tools;
mod top;
mod wait;
mod why;
mod worker;
mod workers;

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use tonic::{Code, Status};
use toolpool_client::{Client, ConnectOptions, Error};

pub(crate) use self::admin::Admin;
pub(crate) use self::workers::list as workers;

/// What `toolpool` can do.
#[derive(Subcommand)]
pub(crate) enum Command {
    Broker(broker::Broker),
    Worker(worker::Worker),
    Call(call::Call),
    Tools(tools::Tools),
    Replay(replay::Replay),
    Demo(demo::Demo),
    Workers(workers::Workers),
    Batches(batches::Batches),
    Why(why::Why),
    Top(top::Top),
    Drain(drain::Drain),
}

impl Command {
    /// Whether it stays until it is asked to go.
    pub(crate) fn is_service(&self) -> bool {
        matches!(self, Self::Broker(_) | Self::Worker(_))
    }

    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Broker(broker) => broker.run(),
            Self::Worker(worker) => worker.run(),
            Self::Call(call) => on_one_thread(call.run()),
            Self::Tools(tools) => on_one_thread(tools.run()),
            Self::Replay(replay) => on_one_thread(replay.run()),
            Self::Demo(demo) => on_one_thread(demo.run()),
            Self::Workers(workers) => on_one_thread(workers.run()),
            Self::Batches(batches) => on_one_thread(batches.run()),
            Self::Why(why) => on_one_thread(why.run()),
            Self::Top(top) => on_one_thread(top.run()),
            Self::Drain(drain) => on_one_thread(drain.run()),
        }
    }
}

/// Where the broker is.
#[derive(Args)]
struct BrokerAddress {
    /// The broker's address [default: `http://127.0.0.1:7400`]
    #[arg(long, value_name = "URL", env = "TOOLPOOL_BROKER")]
    broker: Option<String>,
}

impl BrokerAddress {
    /// The longest that a command at a prompt waits for a broker.
    const PATIENCE: Duration = Duration::from_secs(3);
    const DEFAULT: &str = "http://127.0.0.1:7400";

    fn url(&self) -> &str {
        self.broker.as_deref().unwrap_or(Self::DEFAULT)
    }

    async fn connect(&self) -> Result<Client> {
        let options = ConnectOptions::default().connect_timeout(Self::PATIENCE);
        let client = Client::connect_with(self.url(), options).await;
        client.map_err(|error| self.explain(error))
    }

    /// Says what to do about it.
    fn explain(&self, error: Error) -> anyhow::Error {
        let advice = match &error {
            Error::Endpoint { .. } => {
                "give the broker's address with --broker, such as http://127.0.0.1:7400".to_owned()
            }
            Error::Connect { source, .. } if let Some(said) = of_the_broker(&**source) => format!(
                "the broker at {} takes nothing for now: {}",
                self.url(),
                crate::output::one_line(said)
            ),
            Error::Connect { .. } => format!(
                "no broker answers at {}; start one with `toolpool broker`, or give its address with --broker or in \
                 TOOLPOOL_BROKER",
                self.url()
            ),
            Error::Refused {
                code: Code::Unimplemented,
                ..
            } => {
                return anyhow!(
                    "what answers at {} is no broker's port for agents and workers: it may be the broker's admin port, or a \
                     broker of an older version",
                    self.url()
                );
            }
            _ => return error.into(),
        };
        anyhow!(error).context(advice)
    }
}

/// What the broker itself said; `None`: the way to it failed.
fn of_the_broker<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a str> {
    let status = error.downcast_ref::<Status>()?;
    (!admin::is_transport(status)).then(|| status.message())
}

/// The value of a flag that is a time.
fn parse_duration(text: &str) -> Result<Duration, String> {
    toolpool_broker::config::parse_duration(text)
}

fn on_one_thread(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(command)
}

/// The most that is read of one file or of stdin: the largest arguments that a broker can be set to take.
const MOST_READ: u64 = 256 << 20;

/// Reads all there is; something without an end is an error instead of all the memory.
fn read_bounded(from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST_READ + 1).read_to_end(&mut bytes)?;
    anyhow::ensure!(bytes.len() as u64 <= MOST_READ, "it is larger than 256 MiB");
    Ok(bytes)
}
