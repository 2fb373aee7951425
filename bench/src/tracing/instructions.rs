//! Instructions of the whole broker process, counted by valgrind's callgrind: they do not depend on what else runs.

use std::path::Path;

use anyhow::{Context, ensure};

use super::{Args, Program, Tracing};
use crate::measure::{TOOL, count, tally};
use crate::role::agent::Load;

/// Two runs, so that what starting and ending take is taken off.
const FEW: u64 = 2_000;

pub(super) async fn per_call(
    args: &Args,
    program: &Program,
    tracing: Tracing,
) -> anyhow::Result<f64> {
    let (few, fewer_calls) = run(args, program, tracing, FEW).await?;
    let (many, calls) = run(args, program, tracing, FEW + args.instructions_of).await?;
    Ok((count(many) - count(few)) / (count(calls) - count(fewer_calls)))
}

/// Instructions, and the calls that were run for them.
async fn run(
    args: &Args,
    program: &Program,
    tracing: Tracing,
    calls: u64,
) -> anyhow::Result<(u64, u64)> {
    let profile = std::env::temp_dir().join(format!("toolpool-bench-{}", std::process::id()));
    let under = [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        "--quiet".to_owned(),
        format!("--callgrind-out-file={}", profile.display()),
    ];
    let mut stand = program.stand(tracing, &under).await?;
    stand.add_workers(args.workers.into()).await?;
    let load = Load {
        tool: TOOL.into(),
        batch: args.batch,
        open: 1,
        warm_up_ms: 0,
        window_ms: 0,
        calls: Some(calls),
    };
    let mut agent = stand.agent(&load)?;
    agent.line("start").await?;
    while agent.next().await?.0 != "end" {}
    let tally = tally(&agent.line("tally").await?)?;
    agent.end().await?;
    stand.drain().await?;
    let counted = read(&profile);
    let removed = std::fs::remove_file(&profile);
    let counted = counted?;
    removed?;
    Ok((counted, tally.calls))
}

/// The sum over all threads.
fn read(profile: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(profile).context("callgrind wrote nothing")?;
    let sums = text.lines().filter_map(|line| {
        line.strip_prefix("totals:")
            .or_else(|| line.strip_prefix("summary:"))
    });
    let sum = sums.filter_map(|sum| sum.trim().parse().ok()).max();
    let sum: u64 = sum.context("callgrind wrote no sum")?;
    ensure!(sum > 0, "callgrind counted nothing");
    Ok(sum)
}
