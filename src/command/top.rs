//! `toolpool top`: a broker, live.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::admin::AdminAddress;
use super::parse_duration;
use crate::output::{Output, operator};
use crate::top::{self, Look};

/// Watch a broker live: its tools, its workers, and the oldest and the latest batches with a bar for each call
///
/// Keys: Tab and arrows move, s sorts the tools (by name, calls/s, queued, p90), p pauses, q ends it. Where stdout is no
/// terminal, what there is at the moment is printed once.
#[derive(Args)]
pub(crate) struct Top {
    #[command(flatten)]
    admin: AdminAddress,
    /// The time from one look at the broker to the next, from 100ms to 1h
    #[arg(long, value_name = "TIME", value_parser = parse_interval, default_value = "1s")]
    interval: Duration,
}

/// The least and the most that one can wait for the next look.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
const MOST_INTERVAL: Duration = Duration::from_hours(1);

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if (LEAST_INTERVAL..=MOST_INTERVAL).contains(&interval) {
        Ok(interval)
    } else {
        Err("it must be from 100ms to 1h".to_owned())
    }
}

impl Top {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let mut admin = self.admin.connect().await?;
        // What is wrong with the address should not be said on a screen that goes away.
        let look = Look::take(&mut admin).await;
        let look = look.map_err(|status| self.admin.explain(status))?;
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if io::stdout().is_terminal() && !dumb {
            top::run(admin, self.admin.url(), look, self.interval).await
        } else {
            print(&mut Output::new(), &look)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(output: &mut Output, look: &Look) -> io::Result<()> {
    if look.lanes.is_empty() {
        output.line("no tools yet")?;
    } else {
        output.table(&operator::lanes(&look.lanes))?;
    }
    output.line("")?;
    if look.workers.is_empty() {
        output.line("no worker is here")?;
    } else {
        output.table(&operator::workers(&look.workers))?;
    }
    output.line("")?;
    let batches = &look.batches;
    if batches.oldest.is_empty() {
        return output.line("no batch is open");
    }
    output.table(&operator::batches(&batches.oldest))?;
    match batches.between() {
        0 => {}
        more => output.line(format!("and {more} more"))?,
    }
    if batches.latest.is_empty() {
        return Ok(());
    }
    output.table(&operator::batches(&batches.latest))
}
