//! What a call costs a broker that has a lot else on its mind, beside an empty one.
//!
//! Over real sockets: beside the measured tool's two workers there are thousands that never answer, some idle with
//! other tools, some that serve the measured tool too and have their only slot taken; and a queue of calls of a tool
//! that none of them will ever finish. An empty broker runs beside it and is measured in turn.

use std::time::Duration;

use anyhow::ensure;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::child::Child;
use crate::measure::{Reading, Server, Stand, TOOL, mebibytes};
use crate::procfs;
use crate::report;
use crate::role::agent::Load;

const STUCK_TOOL: &str = "stuck";
const SETTINGS: [&str; 3] = [
    "max_open_batches=20000",
    "max_queued_per_tool=200000",
    "batch_timeout=1h",
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Worker processes of the measured tool.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Threads of the broker's runtime; 1 is the current-thread flavour.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Rounds in which every broker is measured once.
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// A small crowd, measured once: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What a broker has on its mind.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Burden {
    /// Half of them idle with other tools, half busy with a stuck call.
    pub(crate) workers: u32,
    pub(crate) tools: u32,
    /// Stuck calls that wait.
    pub(crate) queued: u32,
}

impl Burden {
    const fn new(workers: u32, tools: u32, queued: u32) -> Self {
        Self {
            workers,
            tools,
            queued,
        }
    }
}

const BURDENS: [Burden; 3] = [
    Burden::new(0, 0, 0),
    Burden::new(1_000, 100, 10_000),
    Burden::new(10_000, 1_000, 100_000),
];
const QUICK_BURDENS: [Burden; 2] = [Burden::new(0, 0, 0), Burden::new(200, 20, 1_000)];
/// Calls a batch, and batches open at a time.
const LOADS: [(u32, u32); 4] = [(1, 1), (8, 1), (1, 64), (8, 64)];

/// What the measured tool's calls cost under one burden and one load.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) burden: Burden,
    pub(crate) batch: u32,
    pub(crate) open: u32,
    /// Without the background.
    pub(crate) reading: Reading,
    /// Medians of each round's own ratio to the empty broker.
    pub(crate) ratio: Reading,
    /// CPU seconds a second with no load at all: beats.
    pub(crate) background: f64,
    pub(crate) memory_mib: f64,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let burdens: &[Burden] = if args.quick { &QUICK_BURDENS } else { &BURDENS };
    let mut brokers = Vec::new();
    for &burden in burdens {
        report::note(&format!(
            "{} workers, {} queued calls …",
            burden.workers, burden.queued
        ));
        brokers.push(Broker::start(args, burden).await?);
    }
    let mut rows = Vec::new();
    for (batch, open) in LOADS {
        report::note(&format!("batches of {batch}, {open} open …"));
        rows.extend(measure(args, &mut brokers, batch, open).await?);
    }
    for broker in brokers {
        broker.end().await?;
    }
    if args.json {
        report::json(&rows)
    } else {
        report::flat(&rows)
    }
}

/// A broker with its burden.
struct Broker {
    burden: Burden,
    stand: Stand,
    extras: Vec<Child>,
    background: f64,
    memory_mib: f64,
}

impl Broker {
    async fn start(args: &Args, burden: Burden) -> anyhow::Result<Self> {
        let mut stand = Stand::start(Server::Broker, args.threads, &SETTINGS).await?;
        let mut extras = Vec::new();
        if burden.workers > 0 {
            let busy = burden.workers / 2;
            let crowd = [
                ("--idle", (burden.workers - busy).to_string()),
                ("--tools", burden.tools.to_string()),
                ("--busy", busy.to_string()),
                ("--busy-tool", STUCK_TOOL.into()),
                ("--busy-tool", TOOL.into()),
            ];
            extras.push(stand.extra("crowd", &crowd, "ready").await?);
            // Those that find a slot fill the crowd; the others wait.
            let hoard = [
                ("--tool", STUCK_TOOL.into()),
                ("--calls", (burden.queued + busy).to_string()),
            ];
            extras.push(stand.extra("hoard", &hoard, "held").await?);
        }
        stand.add_workers(args.workers.into()).await?;
        let mut broker = Self {
            burden,
            stand,
            extras,
            background: 0.0,
            memory_mib: 0.0,
        };
        broker.settle(args).await?;
        Ok(broker)
    }

    /// Waits until what the burden set going is over, then measures what it costs to do nothing.
    async fn settle(&mut self, args: &Args) -> anyhow::Result<()> {
        sleep(Duration::from_secs(1)).await;
        let (began, before) = (Instant::now(), self.stand.cpu()?);
        sleep(Duration::from_secs(if args.quick { 1 } else { 10 })).await;
        let cpu = self.stand.cpu()?.saturating_sub(before);
        self.background = cpu.as_secs_f64() / began.elapsed().as_secs_f64();
        let memory = procfs::resident_memory(self.stand.server.pid()?)?;
        self.memory_mib = mebibytes(memory);
        Ok(())
    }

    async fn end(self) -> anyhow::Result<()> {
        for extra in self.extras {
            extra.end().await?;
        }
        self.stand.end().await
    }

    async fn load(&mut self, load: &Load) -> anyhow::Result<Reading> {
        let mut reading = self.stand.load(load).await?;
        for extra in &mut self.extras {
            extra.must_live()?;
        }
        let background = self.background / reading.calls_per_second * 1e5;
        ensure!(
            background < reading.cpu_seconds_per_100k_calls,
            "the background costs more than the load"
        );
        reading.cpu_seconds_per_100k_calls -= background;
        Ok(reading)
    }
}

impl Stand {
    async fn extra(
        &self,
        role: &'static str,
        options: &[(&str, String)],
        done: &str,
    ) -> anyhow::Result<Child> {
        let options = options
            .iter()
            .flat_map(|(option, value)| [(*option).to_owned(), value.clone()]);
        let mut extra = Child::spawn(role, [self.address.clone()].into_iter().chain(options))?;
        extra.line(done).await?;
        Ok(extra)
    }
}

/// One load on every broker in turn.
async fn measure(
    args: &Args,
    brokers: &mut [Broker],
    batch: u32,
    open: u32,
) -> anyhow::Result<Vec<Row>> {
    let (rounds, window_ms) = if args.quick {
        (1, 300)
    } else {
        (args.rounds, 1500)
    };
    let load = Load {
        tool: TOOL.into(),
        batch,
        open,
        warm_up_ms: 300,
        window_ms,
        calls: None,
    };
    let mut readings = vec![Vec::new(); brokers.len()];
    for _ in 0..rounds {
        for (broker, readings) in brokers.iter_mut().zip(&mut readings) {
            readings.push(broker.load(&load).await?);
        }
    }
    let rows = brokers.iter().zip(&readings).map(|(broker, own)| {
        let pairs = own.iter().zip(&readings[0]);
        Row {
            burden: broker.burden,
            batch,
            open,
            reading: Reading::median(own.iter().copied()),
            ratio: Reading::median(pairs.map(|(own, empty)| own.ratio_to(empty))),
            background: broker.background,
            memory_mib: broker.memory_mib,
        }
    });
    Ok(rows.collect())
}

/// The worst of the medians, beside the empty broker.
pub(crate) struct Worst {
    pub(crate) p50: f64,
    pub(crate) cpu: f64,
}

impl Worst {
    pub(crate) fn of(rows: &[Row]) -> Self {
        let mut worst = Self { p50: 0.0, cpu: 0.0 };
        for row in rows.iter().filter(|row| row.burden.workers > 0) {
            worst.p50 = worst.p50.max(row.ratio.p50_us);
            // With one batch open the CPU mostly falls asleep and wakes up, which says more of the machine.
            if row.open > 1 {
                worst.cpu = worst.cpu.max(row.ratio.cpu_seconds_per_100k_calls);
            }
        }
        worst
    }
}
