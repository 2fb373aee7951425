//! What the user sees.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::decoders::Speed;
use crate::early::Early;
use crate::flat::{Row, Worst};
use crate::measure::Reading;
use crate::pairs::Cell;
use crate::soak::Soak;
use crate::tracing::Cost;

pub(crate) fn line(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout().lock(), "{line}")?)
}

pub(crate) fn json(report: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(report)?)
}

/// Tells somebody at a terminal what goes on.
pub(crate) fn note(note: &str) {
    if io::stderr().is_terminal() {
        // Progress is a courtesy: nothing depends on it.
        let _ = writeln!(io::stderr().lock(), "{note}");
    }
}

pub(crate) fn comparison_head() -> anyhow::Result<()> {
    line(&format!(
        "{:>5} {:>5}  {:<7}{:>10} {:>10} {:>10} {:>11} {:>10}",
        "batch", "open", "", "calls/s", "p50 µs", "p99 µs", "CPU s/100k", "peak MiB"
    ))
}

pub(crate) fn comparison_cell(cell: &Cell, base: &str, other: &str) -> anyhow::Result<()> {
    let place = format!("{:>5} {:>5}", cell.batch, cell.open);
    let rest = format!("{:>11}", "");
    line(&format!("{place}  {base:<7}{}", absolute(&cell.base)))?;
    line(&format!("{rest}  {other:<7}{}", absolute(&cell.other)))?;
    line(&format!("{rest}  {:<7}{}", "ratio", ratio(&cell.ratio)))
}

fn absolute(reading: &Reading) -> String {
    format!(
        "{:>10.0} {:>10.1} {:>10.1} {:>11.2} {:>10.1}",
        reading.calls_per_second,
        reading.p50_us,
        reading.p99_us,
        reading.cpu_seconds_per_100k_calls,
        reading.peak_memory_mib,
    )
}

fn ratio(ratio: &Reading) -> String {
    format!(
        "{:>10.2} {:>10.2} {:>10.2} {:>11.2} {:>10.2}",
        ratio.calls_per_second,
        ratio.p50_us,
        ratio.p99_us,
        ratio.cpu_seconds_per_100k_calls,
        ratio.peak_memory_mib,
    )
}

pub(crate) fn flat(rows: &[Row]) -> anyhow::Result<()> {
    line(&format!(
        "{:>5} {:>5} {:>8} {:>6} {:>8} {:>9} {:>6} {:>11} {:>6} {:>8} {:>9}",
        "batch",
        "open",
        "workers",
        "tools",
        "queued",
        "p50 µs",
        "ratio",
        "CPU s/100k",
        "ratio",
        "RSS MiB",
        "idle CPU",
    ))?;
    for row in rows {
        line(&format!(
            "{:>5} {:>5} {:>8} {:>6} {:>8} {:>9.1} {:>6.2} {:>11.2} {:>6.2} {:>8.1} {:>8.1}%",
            row.batch,
            row.open,
            row.burden.workers,
            row.burden.tools,
            row.burden.queued,
            row.reading.p50_us,
            row.ratio.p50_us,
            row.reading.cpu_seconds_per_100k_calls,
            row.ratio.cpu_seconds_per_100k_calls,
            row.memory_mib,
            row.background * 100.0,
        ))?;
    }
    let Worst { p50, cpu } = Worst::of(rows);
    line(&format!(
        "at worst, beside the empty broker: p50 {p50:.2} times; CPU a call, at 64 open, {cpu:.2} times (idle CPU taken off)",
    ))
}

pub(crate) fn soak(soak: &Soak) -> anyhow::Result<()> {
    line(&format!(
        "{} calls, {:.0} a second, {:.2} CPU seconds per 100,000",
        soak.calls, soak.reading.calls_per_second, soak.reading.cpu_seconds_per_100k_calls,
    ))?;
    line(&format!(
        "resident memory: {:.1} MiB in the first quarter, {:.1} MiB in the last; slope {:+.1} KiB per 100,000 calls; peak {:.1} MiB",
        soak.first_quarter_mib,
        soak.last_quarter_mib,
        soak.slope_kib_per_100k_calls,
        soak.reading.peak_memory_mib,
    ))?;
    line(if soak.flat { "flat" } else { "NOT flat" })
}

pub(crate) fn speed_head() -> anyhow::Result<()> {
    line(&format!(
        "{:<17} {:<9} {:>6} {:>9} {:>6} {:>13} {:>15}",
        "dialect", "text", "turns", "bytes", "calls", "4 KiB, MB/s", "by event, MB/s"
    ))
}

pub(crate) fn speed(speed: &Speed) -> anyhow::Result<()> {
    line(&format!(
        "{:<17} {:<9} {:>6} {:>9} {:>6} {:>13.0} {:>15.0}",
        speed.dialect,
        speed.source.to_text(),
        speed.turns,
        speed.bytes,
        speed.calls,
        speed.by_piece,
        speed.by_event,
    ))
}

pub(crate) fn early(early: &Early) -> anyhow::Result<()> {
    let Early {
        turn,
        piped,
        at_end,
        hidden,
    } = early;
    line(&format!(
        "the model writes the turn in                {turn:>6.0} ms"
    ))?;
    line(&format!(
        "finished, calls sent at the turn's end      {at_end:>6.0} ms, {:.0} after it",
        at_end - turn
    ))?;
    line(&format!(
        "finished, the turn piped as it is written   {piped:>6.0} ms, {:.0} after it",
        piped - turn
    ))?;
    line(&format!(
        "starting early saves {:.0} ms: {:.0}% of the time that the tools take after the turn",
        at_end - piped,
        hidden * 100.0
    ))
}

pub(crate) fn tracing(costs: &[Cost]) -> anyhow::Result<()> {
    line(&format!(
        "{:<7}{:>10} {:>6} {:>11} {:>6} {:>13} {:>6}  {:>9} {:>9} {:>9} {:>11}",
        "traces",
        "calls/s",
        "ratio",
        "CPU s/100k",
        "ratio",
        "instr. a call",
        "ratio",
        "MiB begin",
        "MiB end",
        "MiB peak",
        "spans/call"
    ))?;
    let off = costs.first().and_then(|off| off.instructions_per_call);
    for cost in costs {
        let instructions = cost.instructions_per_call.unwrap_or_default();
        let memory = cost.soak.as_ref().map_or([0.0; 3], |soak| {
            [
                soak.first_quarter_mib,
                soak.last_quarter_mib,
                soak.reading.peak_memory_mib,
            ]
        });
        line(&format!(
            "{:<7}{:>10.0} {:>6.3} {:>11.3} {:>6.3} {:>13.0} {:>6.3}  {:>9.1} {:>9.1} {:>9.1} {:>11.2}",
            cost.tracing.name(),
            cost.reading.calls_per_second,
            cost.ratio.calls_per_second,
            cost.reading.cpu_seconds_per_100k_calls,
            cost.ratio.cpu_seconds_per_100k_calls,
            instructions,
            instructions / off.unwrap_or(1.0),
            memory[0],
            memory[1],
            memory[2],
            cost.spans_per_call.unwrap_or_default(),
        ))?;
    }
    Ok(())
}
