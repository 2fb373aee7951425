//! Memory through a great many calls.

use serde::Serialize;

use crate::measure::{Reading, Server, Stand, TOOL, count, mebibytes, tally};
use crate::procfs;
use crate::report;
use crate::role::agent::Load;
use crate::stats::{median, slope};

/// What may be added from the first quarter to the last before it counts as growth.
const SLACK_RATIO: f64 = 1.05;
const SLACK_MIB: f64 = 1.0;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Calls to run after the warm-up.
    #[arg(long, default_value = "1000000", value_parser = clap::value_parser!(u64).range(1000..))]
    calls: u64,
    /// Calls a batch.
    #[arg(long, default_value = "32", value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// Batches open at a time.
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u32).range(1..=1000))]
    open: u32,
    /// Worker processes.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Threads of the runtime; 1 is the current-thread flavour.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Whose memory.
    #[arg(long, value_enum, default_value = "broker")]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Soak {
    pub(crate) server: Server,
    pub(crate) calls: u64,
    pub(crate) reading: Reading,
    /// Medians of the resident memory.
    pub(crate) first_quarter_mib: f64,
    pub(crate) last_quarter_mib: f64,
    pub(crate) slope_kib_per_100k_calls: f64,
    pub(crate) flat: bool,
    /// Calls so far, and the memory at that moment.
    pub(crate) samples: Vec<(f64, f64)>,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let stand = Stand::start(args.server, args.threads, &[]).await?;
    let soak = watch(args, stand).await?;
    if args.json {
        report::json(&soak)
    } else {
        report::soak(&soak)
    }
}

/// Runs the calls on a server that has no workers yet, and ends it.
pub(crate) async fn watch(args: &Args, mut stand: Stand) -> anyhow::Result<Soak> {
    stand.add_workers(args.workers.into()).await?;
    let load = Load {
        tool: TOOL.into(),
        batch: args.batch,
        open: args.open,
        warm_up_ms: 1000,
        window_ms: 0,
        calls: Some(args.calls),
    };
    let mut agent = stand.agent(&load)?;
    agent.line("start").await?;
    let before = stand.cpu()?;
    let mut samples = Vec::new();
    loop {
        let (word, rest) = agent.next().await?;
        if word == "end" {
            break;
        }
        let memory = procfs::resident_memory(stand.server.pid()?)?;
        samples.push((rest.parse()?, mebibytes(memory)));
    }
    let cpu = stand.cpu()?.saturating_sub(before);
    let tally = tally(&agent.line("tally").await?)?;
    let reading = stand.reading(&tally, cpu)?;
    agent.end().await?;
    stand.end().await?;
    Ok(Soak::new(args, reading, samples))
}

impl Args {
    /// So many calls of the broker's.
    pub(crate) fn of_broker(calls: u64, batch: u32, open: u32, workers: u16) -> Self {
        Self {
            calls,
            batch,
            open,
            workers,
            threads: 1,
            server: Server::Broker,
            json: false,
        }
    }
}

impl Soak {
    fn new(args: &Args, reading: Reading, samples: Vec<(f64, f64)>) -> Self {
        let all = count(args.calls);
        let memory_where = |wanted: &dyn Fn(f64) -> bool| {
            let wanted = samples.iter().filter(|(calls, _)| wanted(*calls));
            median(wanted.map(|(_, memory)| *memory))
        };
        let first_quarter_mib = memory_where(&|calls| calls <= all * 0.25);
        let last_quarter_mib = memory_where(&|calls| calls >= all * 0.75);
        Self {
            server: args.server,
            calls: args.calls,
            reading,
            first_quarter_mib,
            last_quarter_mib,
            slope_kib_per_100k_calls: slope(&samples) * 1024.0 * 1e5,
            flat: last_quarter_mib <= first_quarter_mib * SLACK_RATIO + SLACK_MIB,
            samples,
        }
    }
}
