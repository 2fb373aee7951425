//! Two servers under the same loads, in pairs taken in turn, so that what disturbs the machine disturbs both.

use serde::Serialize;

use crate::measure::{Reading, Server, Stand, TOOL};
use crate::report;
use crate::role::agent::Load;
use crate::stats::median;

/// Which loads, and how long.
#[derive(clap::Args)]
pub(crate) struct Scope {
    /// Calls a batch.
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,256",
          value_parser = clap::value_parser!(u32).range(1..=256))]
    batches: Vec<u32>,
    /// Batches open at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,64",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    open: Vec<u32>,
    /// Worker processes.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Pairs for each batch size and number of open batches.
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u16).range(1..=99))]
    pairs: u16,
    /// Measure once and shortly: shows that it works, and no more.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Scope {
    fn load(&self, batch: u32, open: u32) -> Load {
        let (warm_up_ms, window_ms) = if self.quick { (100, 200) } else { (200, 850) };
        Load {
            tool: TOOL.into(),
            batch,
            open,
            warm_up_ms,
            window_ms,
            calls: None,
        }
    }
}

/// One of the two.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) server: Server,
    pub(crate) threads: usize,
}

/// What one load cost the two.
#[derive(Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) batch: u32,
    pub(crate) open: u32,
    /// Medians of the pairs.
    pub(crate) base: Reading,
    pub(crate) other: Reading,
    /// Medians of each pair's own ratio of the other to the base.
    pub(crate) ratio: Reading,
    pub(crate) pairs: Vec<[Reading; 2]>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) base: Contender,
    pub(crate) other: Contender,
    pub(crate) workers: u16,
    pub(crate) cells: Vec<Cell>,
}

/// Measures every load in turn; prints each as it is done, unless JSON is wanted.
pub(crate) async fn run(
    scope: &Scope,
    base: Contender,
    other: Contender,
) -> anyhow::Result<Comparison> {
    let mut cells = Vec::new();
    if !scope.json {
        report::comparison_head()?;
    }
    for &open in &scope.open {
        for &batch in &scope.batches {
            let cell = cell(scope, batch, open, [base, other]).await?;
            if !scope.json {
                report::comparison_cell(&cell, base.name, other.name)?;
            }
            cells.push(cell);
        }
    }
    Ok(Comparison {
        base,
        other,
        workers: scope.workers,
        cells,
    })
}

async fn cell(
    scope: &Scope,
    batch: u32,
    open: u32,
    contenders: [Contender; 2],
) -> anyhow::Result<Cell> {
    let load = scope.load(batch, open);
    let mut pairs = Vec::new();
    for _ in 0..if scope.quick { 1 } else { scope.pairs } {
        let base = once(scope, &load, contenders[0]).await?;
        let other = once(scope, &load, contenders[1]).await?;
        pairs.push([base, other]);
    }
    Ok(Cell {
        batch,
        open,
        base: Reading::median(pairs.iter().map(|[base, _]| *base)),
        other: Reading::median(pairs.iter().map(|[_, other]| *other)),
        ratio: Reading::median(pairs.iter().map(|[base, other]| other.ratio_to(base))),
        pairs,
    })
}

/// In fresh processes, so that the peak of memory is this load's own.
async fn once(scope: &Scope, load: &Load, contender: Contender) -> anyhow::Result<Reading> {
    let mut stand = Stand::start(contender.server, contender.threads, &[]).await?;
    stand.add_workers(scope.workers.into()).await?;
    let reading = stand.load(load).await?;
    stand.end().await?;
    Ok(reading)
}

impl Reading {
    /// Field by field.
    pub(crate) fn median(readings: impl IntoIterator<Item = Self>) -> Self {
        let readings: Vec<Self> = readings.into_iter().collect();
        let of = |field: fn(&Self) -> f64| median(readings.iter().map(field));
        Self {
            calls_per_second: of(|reading| reading.calls_per_second),
            p50_us: of(|reading| reading.p50_us),
            p99_us: of(|reading| reading.p99_us),
            cpu_seconds_per_100k_calls: of(|reading| reading.cpu_seconds_per_100k_calls),
            peak_memory_mib: of(|reading| reading.peak_memory_mib),
        }
    }

    /// Field by field.
    pub(crate) fn ratio_to(&self, base: &Self) -> Self {
        Self {
            calls_per_second: self.calls_per_second / base.calls_per_second,
            p50_us: self.p50_us / base.p50_us,
            p99_us: self.p99_us / base.p99_us,
            cpu_seconds_per_100k_calls: self.cpu_seconds_per_100k_calls
                / base.cpu_seconds_per_100k_calls,
            peak_memory_mib: self.peak_memory_mib / base.peak_memory_mib,
        }
    }
}
