//! What traces cost the broker: the very program `toolpool`, without them and with some, in rounds taken in turn.

mod instructions;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde::Serialize;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;

use crate::child::Child;
use crate::measure::{Reading, Stand, TOOL, count};
use crate::report;
use crate::role::agent::Load;
use crate::soak::{self, Soak};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Calls a batch.
    #[arg(long, default_value = "8", value_parser = clap::value_parser!(u32).range(1..=256))]
    batch: u32,
    /// Batches open at a time.
    #[arg(long, default_value = "16", value_parser = clap::value_parser!(u32).range(1..=1000))]
    open: u32,
    /// Worker processes.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Rounds, in each of which every way of tracing has its turn.
    #[arg(long, default_value = "15", value_parser = clap::value_parser!(u16).range(0..=99))]
    rounds: u16,
    /// Calls through which memory is watched; 0 leaves it out.
    #[arg(long, default_value_t = 1_000_000)]
    soak_calls: u64,
    /// Calls whose instructions are counted by callgrind, which takes some seconds for 10,000; 0 leaves it out.
    #[arg(long, default_value_t = 10_000)]
    instructions_of: u64,
    /// The broker's program [default: `toolpool` beside this one]
    #[arg(long)]
    toolpool: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What the broker does about traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Tracing {
    Off,
    /// A tenth of the batches.
    Tenth,
    All,
    /// All, and nobody listens at the collector's address.
    Gone,
}

/// What one way of tracing cost.
#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) tracing: Tracing,
    /// Medians of the rounds.
    pub(crate) reading: Reading,
    /// Medians of each round's own ratio to the broker that does not trace.
    pub(crate) ratio: Reading,
    /// Of a whole process of so many calls more, divided by them.
    pub(crate) instructions_per_call: Option<f64>,
    pub(crate) soak: Option<Soak>,
    /// That the collector got during the soak; a batch makes one, and two for each call that waits for nothing.
    pub(crate) spans_per_call: Option<f64>,
}

impl Tracing {
    const EVERY: [Self; 4] = [Self::Off, Self::Tenth, Self::All, Self::Gone];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Tenth => "10 %",
            Self::All => "100 %",
            Self::Gone => "gone",
        }
    }
}

/// Where spans go.
struct Collectors {
    sink: Child,
    url: String,
    counts: String,
    /// Bound and never listened on: nobody else gets it, and who dials it is refused.
    dead: String,
    _dead: TcpSocket,
}

impl Collectors {
    async fn start() -> anyhow::Result<Self> {
        let mut sink = Child::spawn("sink", [])?;
        let url = format!("http://{}", sink.line("listening").await?);
        let counts = sink.line("listening").await?;
        let dead = TcpSocket::new_v4()?;
        dead.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self {
            sink,
            url,
            counts,
            dead: format!("http://{}", dead.local_addr()?),
            _dead: dead,
        })
    }

    /// Spans that have come so far.
    async fn spans(&self) -> anyhow::Result<u64> {
        let mut told = String::new();
        let mut stream = TcpStream::connect(&self.counts).await?;
        stream.read_to_string(&mut told).await?;
        Ok(told.parse()?)
    }

    fn variables(&self, tracing: Tracing) -> Vec<(&'static str, &str)> {
        let endpoint = match tracing {
            Tracing::Off => return Vec::new(),
            Tracing::Tenth | Tracing::All => &self.url,
            Tracing::Gone => &self.dead,
        };
        let ratio = if tracing == Tracing::Tenth {
            "0.1"
        } else {
            "1"
        };
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", ratio),
        ]
    }
}

/// How a broker is started: the program, and what it runs under.
struct Program {
    toolpool: PathBuf,
    collectors: Collectors,
}

impl Program {
    fn command(&self, tracing: Tracing, under: &[String]) -> Command {
        let mut words: Vec<_> = under.iter().map(Into::into).collect();
        words.push(self.toolpool.clone().into_os_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args([
            "broker",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "off",
            "--log",
            "error",
            "--exit-with-parent",
        ]);
        for (name, _) in std::env::vars_os() {
            // What is set on this machine is no part of the measurement.
            let name = name.to_string_lossy();
            if name.starts_with("OTEL_") || name.starts_with("TOOLPOOL_") {
                command.env_remove(&*name);
            }
        }
        command.envs(self.collectors.variables(tracing));
        command
    }

    /// A broker without workers.
    async fn stand(&self, tracing: Tracing, under: &[String]) -> anyhow::Result<Stand> {
        let mut broker = Child::start("toolpool", &mut self.command(tracing, under))?;
        let told = broker.line("listening").await?;
        let address = told.strip_prefix("on ").context("it says where")?;
        Ok(Stand::of(broker, address.to_owned()))
    }
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let beside =
        || -> anyhow::Result<_> { Ok(std::env::current_exe()?.with_file_name("toolpool")) };
    let toolpool = args.toolpool.clone().map_or_else(beside, Ok)?;
    ensure!(
        toolpool.is_file(),
        "there is no {}; build it with `cargo build --release`, or name it with --toolpool",
        toolpool.display()
    );
    let program = Program {
        toolpool,
        collectors: Collectors::start().await?,
    };
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        report::note(&format!("round {} of {} …", round + 1, args.rounds));
        rounds.push(self::round(args, &program, round.into()).await?);
    }
    let mut costs = Vec::new();
    for (at, tracing) in Tracing::EVERY.into_iter().enumerate() {
        let mut cost = Cost {
            tracing,
            reading: Reading::median(rounds.iter().map(|round| round[at])),
            ratio: Reading::median(rounds.iter().map(|round| round[at].ratio_to(&round[0]))),
            instructions_per_call: None,
            soak: None,
            spans_per_call: None,
        };
        if args.instructions_of > 0 {
            report::note(&format!("instructions, {} …", tracing.name()));
            let counted = instructions::per_call(args, &program, tracing).await?;
            cost.instructions_per_call = Some(counted);
        }
        if args.soak_calls > 0 {
            report::note(&format!("memory, {} …", tracing.name()));
            let calls = args.soak_calls;
            let soak = soak::Args::of_broker(calls, args.batch, args.open, args.workers);
            let before = program.collectors.spans().await?;
            let watched = soak::watch(&soak, program.stand(tracing, &[]).await?).await?;
            let spans = program.collectors.spans().await? - before;
            cost.spans_per_call = Some(count(spans) / count(calls));
            cost.soak = Some(watched);
        }
        costs.push(cost);
    }
    program.collectors.sink.end().await?;
    if args.json {
        return report::json(&costs);
    }
    report::tracing(&costs)
}

/// Each way once, beginning with another one each time.
async fn round(args: &Args, program: &Program, round: usize) -> anyhow::Result<[Reading; 4]> {
    let load = Load {
        tool: TOOL.into(),
        batch: args.batch,
        open: args.open,
        warm_up_ms: 200,
        window_ms: 850,
        calls: None,
    };
    let mut readings = [None; 4];
    for turn in 0..4 {
        let at = (turn + round) % 4;
        let mut stand = program.stand(Tracing::EVERY[at], &[]).await?;
        stand.add_workers(args.workers.into()).await?;
        readings[at] = Some(stand.load(&load).await?);
        stand.end().await?;
    }
    let [Some(off), Some(tenth), Some(all), Some(gone)] = readings else {
        anyhow::bail!("each has had its turn")
    };
    Ok([off, tenth, all, gone])
}
