//! The table: the broker beside the floor.

use crate::decoders;
use crate::measure::Server;
use crate::pairs::{self, Cell, Contender, Scope};
use crate::report;

/// The batch size that the bars are set for.
const BAR_BATCH: u32 = 8;
const BAR_P50: f64 = 1.5;
const BAR_CPU: f64 = 2.0;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    scope: Scope,
    /// Threads of the broker's and of the relay's runtime; 1 is the current-thread flavour.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Compare the relay with itself: what differs then is noise.
    #[arg(long)]
    null: bool,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let contender = |name, server| Contender {
        name,
        server,
        threads: args.threads,
    };
    let base = contender("relay", Server::Relay);
    let other = if args.null {
        contender("again", Server::Relay)
    } else {
        contender("broker", Server::Broker)
    };
    let comparison = pairs::run(&args.scope, base, other).await?;
    if args.scope.json {
        return report::json(&comparison);
    }
    if args.scope.quick {
        decoders::run(&decoders::Args::quick())?;
    }
    for cell in comparison
        .cells
        .iter()
        .filter(|cell| cell.batch == BAR_BATCH)
    {
        report::line(&verdict(cell))?;
    }
    Ok(())
}

fn verdict(cell: &Cell) -> String {
    let against = |ratio: f64, bar: f64| {
        let word = if ratio <= bar { "within" } else { "over" };
        format!("{ratio:.2} times the floor, {word} {bar}")
    };
    format!(
        "batch of {BAR_BATCH}, {} open: p50 {}; CPU {}",
        cell.open,
        against(cell.ratio.p50_us, BAR_P50),
        against(cell.ratio.cpu_seconds_per_100k_calls, BAR_CPU),
    )
}
