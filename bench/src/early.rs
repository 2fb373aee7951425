//! What starting early is worth: a turn is played at its recorded pace, once piped into the broker as the model writes
//! it, once with the same calls sent when it is over. Same broker, same worker, over loopback sockets.

use serde::Serialize;

use crate::child::Child;
use crate::measure::{Server, Stand};
use crate::report;
use crate::stats::median;

/// What the tools of the turn take, in milliseconds: each is `READ_ONLY`.
const TOOLS: [&str; 3] = ["stock_report=800", "look_up_product=500", "calculate=300"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds of both ways, of which the medians count.
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Milliseconds, from the turn's begin.
#[derive(Debug, Serialize)]
pub(crate) struct Early {
    /// The turn's end.
    pub(crate) turn: f64,
    /// The finished batch, piped.
    pub(crate) piped: f64,
    /// The finished batch, with the calls sent at the turn's end.
    pub(crate) at_end: f64,
    /// Of the time that the tools take after the turn where nothing starts early, the part that they do not take where
    /// it does.
    pub(crate) hidden: f64,
}

pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let mut stand = Stand::start(Server::Broker, 1, &[]).await?;
    stand.add_worker("worker", &TOOLS).await?;
    let mut rounds = Vec::new();
    for _ in 0..args.rounds {
        let (turn, piped) = play(&stand.address, false).await?;
        let (_, at_end) = play(&stand.address, true).await?;
        rounds.push(Early {
            turn,
            piped,
            at_end,
            hidden: (at_end - piped) / (at_end - turn),
        });
    }
    stand.end().await?;
    let of = |field: fn(&Early) -> f64| median(rounds.iter().map(field));
    let early = Early {
        turn: of(|round| round.turn),
        piped: of(|round| round.piped),
        at_end: of(|round| round.at_end),
        hidden: of(|round| round.hidden),
    };
    if args.json {
        return report::json(&early);
    }
    report::early(&early)
}

/// When the turn was over, and when its batch was finished.
async fn play(server: &str, at_end: bool) -> anyhow::Result<(f64, f64)> {
    let args = [server].into_iter().chain(at_end.then_some("--at-end"));
    let mut player = Child::spawn("player", args.map(String::from))?;
    let turn = player.line("turn").await?.parse()?;
    let finished = player.line("finished").await?.parse()?;
    player.end().await?;
    Ok((turn, finished))
}
