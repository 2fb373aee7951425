//! `toolpool worker`: the ready adapters.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use toolpool_worker::{Shutdown, Worker as PoolWorker, demo, exec};

use super::{BrokerAddress, parse_duration};
use crate::signals::{self, Signals};
use crate::telemetry::{Export, WORKER_QUEUE};

/// Run a worker, which serves tools
///
/// SIGTERM or SIGINT drains it: it takes no new call and leaves when the broker has the outcomes of those that run. A second
/// signal ends it at once, with 128 and the signal's number as its exit code. SIGUSR1 has it log what it does at `debug`,
/// SIGUSR2 what it logged at its start.
///
/// Traces go, over gRPC, to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names (`http://…`, `https://…`); OpenTelemetry's
/// other variables hold too.
#[derive(Args)]
pub(crate) struct Worker {
    #[command(subcommand)]
    adapter: Adapter,
}

#[derive(Subcommand)]
enum Adapter {
    /// Serve commands as tools
    Exec {
        /// A TOML file that describes the tools
        #[arg(long, value_name = "FILE")]
        tools: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Serve a few tools that need nothing but this machine, to try things with
    Demo {
        /// The folder that the file tools can see
        #[arg(long, value_name = "DIR", default_value = ".")]
        root: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct Common {
    #[command(flatten)]
    broker: BrokerAddress,
    /// Calls that it runs at the same time
    #[arg(long, value_name = "CALLS")]
    slots: Option<u32>,
    /// The worker's name, unique in the pool [default: made of the host and the process]
    #[arg(long)]
    id: Option<String>,
    /// What operators see beside the name; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// How long running calls may go on after the first signal
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    drain_grace: Duration,
    /// End when stdin does
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

impl Worker {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (tools, slots, common) = match self.adapter {
            Adapter::Exec {
                tools: path,
                common,
            } => {
                let config = exec::Config::load(&path)?;
                let slots = common.slots.or(config.slots());
                (config.into_tools(), slots, common)
            }
            Adapter::Demo { root, common } => {
                let tools = demo::tools(&root)?;
                (tools, common.slots, common)
            }
        };
        let mut builder = PoolWorker::builder(common.broker.url()).drain_grace(common.drain_grace);
        if let Some(slots) = slots {
            builder = builder.slots(slots);
        }
        if let Some(id) = common.id {
            builder = builder.id(id);
        }
        builder = common
            .labels
            .into_iter()
            .fold(builder, |builder, (key, value)| builder.label(key, value));
        let worker = builder
            .tools(tools)
            .version(env!("CARGO_PKG_VERSION"))
            .build()?;

        let export = Export::start("toolpool-worker", WORKER_QUEUE)?;
        if let Some(export) = &export {
            export.install();
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let code = runtime.block_on(async {
            let signals = Signals::watch(common.exit_with_parent)?;
            signals::change_log()?;
            let shutdown = Shutdown {
                drain: signals.drain.clone(),
                now: signals.now.clone(),
            };
            signals.run(worker.run(shutdown)).await
        });
        // A tool that blocks its thread is not waited for.
        runtime.shutdown_background();
        if let Some(export) = export {
            export.finish();
        }
        code
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write a label as KEY=VALUE".to_owned()),
    }
}
