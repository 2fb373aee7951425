//! How fast a provider's stream is read: framing, decoder and `ingest`, without a broker around them.

mod turns;

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use toolpool_broker::decode::{Decoder, Dialect};

use crate::measure::count;
use crate::report;
use crate::stats::median;
use turns::{Source, Turns};

/// As much as a TCP segment or two bring at a time.
const PIECE_BYTES: usize = 4096;
const MAX_EVENT_BYTES: usize = 16 << 20;
/// What a connection of one gigabit a second brings, and a bit: no stream of a model is near it.
const BAR: f64 = 200.0;

/// Fewer only show that it works.
const ROUNDS_FOR_A_VERDICT: u16 = 3;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A folder with recorded streams in `streams/`; without it a made-up turn of each dialect is read.
    #[arg(long, env = "TOOLPOOL_CORPUS", value_name = "FOLDER")]
    corpus: Option<PathBuf>,
    /// Read only the dialects whose name contains this.
    #[arg(long, default_value = "", value_name = "NAME")]
    only: String,
    /// Rounds of each dialect, of which the median counts.
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// The least time of a round.
    #[arg(long, default_value = "200", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    round_ms: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Shows that it works, and no more.
    pub(crate) fn quick() -> Self {
        Self {
            corpus: None,
            only: String::new(),
            rounds: 1,
            round_ms: 5,
            json: false,
        }
    }
}

/// How fast one dialect is, in millions of bytes a second.
#[derive(Debug, Serialize)]
pub(crate) struct Speed {
    pub(crate) dialect: &'static str,
    pub(crate) source: Source,
    pub(crate) turns: usize,
    pub(crate) bytes: usize,
    pub(crate) calls: usize,
    pub(crate) by_piece: f64,
    pub(crate) by_event: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut speeds = Vec::new();
    if !args.json {
        report::speed_head()?;
    }
    let mut all = turns::all(args.corpus.as_deref())?;
    let names: Vec<_> = all.iter().map(|turns| turns.name).collect();
    all.retain(|turns| turns.name.contains(&args.only));
    anyhow::ensure!(
        !all.is_empty(),
        "no dialect has {} in its name; there are {}",
        args.only,
        names.join(", ")
    );
    for turns in all {
        let by_event = turns.texts.iter().map(|text| turns::events(text)).collect();
        let by_piece = (turns.texts.iter())
            .map(|text| text.chunks(PIECE_BYTES).collect())
            .collect();
        let speed = Speed {
            dialect: turns.name,
            source: turns.source,
            turns: turns.texts.len(),
            bytes: turns.texts.iter().map(Vec::len).sum(),
            calls: read(&by_piece, turns.dialect),
            by_piece: args.speed(&turns, &by_piece),
            by_event: args.speed(&turns, &by_event),
        };
        if !args.json {
            report::speed(&speed)?;
        }
        speeds.push(speed);
    }
    if args.json {
        return report::json(&speeds);
    }
    if args.rounds < ROUNDS_FOR_A_VERDICT {
        return Ok(());
    }
    let slowest = (speeds
        .iter()
        .map(|speed| speed.by_piece.min(speed.by_event)))
    .fold(f64::INFINITY, f64::min);
    let word = if slowest >= BAR { "above" } else { "below" };
    report::line(&format!("the slowest: {slowest:.0} MB/s, {word} {BAR}"))
}

/// A turn, in pieces.
type Pieces<'a> = Vec<&'a [u8]>;

impl Args {
    fn speed(&self, turns: &Turns, pieces: &Vec<Pieces<'_>>) -> f64 {
        let bytes: usize = turns.texts.iter().map(Vec::len).sum();
        let least = Duration::from_millis(self.round_ms.into());
        let rounds = (0..self.rounds).map(|_| {
            let start = Instant::now();
            let mut times = 0;
            while start.elapsed() < least {
                // Nothing of it can be left out, since nobody can tell what becomes of the count.
                black_box(read(black_box(pieces), turns.dialect));
                times += 1;
            }
            count(times * bytes as u64) / start.elapsed().as_secs_f64() / 1e6
        });
        median(rounds)
    }
}

/// Reads every turn, and counts its calls.
fn read(turns: &Vec<Pieces<'_>>, dialect: Dialect) -> usize {
    let mut calls = 0;
    for pieces in turns {
        let mut decoder = Decoder::new(Some(dialect), MAX_EVENT_BYTES);
        for piece in pieces {
            decoder.bytes(piece);
        }
        calls += decoder.finish().calls.len();
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialect_that_is_not_there_is_no_success() {
        let mut args = Args::quick();
        args.only = "nosuch".to_owned();
        let error = run(&args).unwrap_err().to_string();
        assert!(error.starts_with("no dialect has nosuch"), "{error}");
        for turns in turns::all(None).unwrap() {
            assert!(error.contains(turns.name), "{error}");
        }
    }
}
