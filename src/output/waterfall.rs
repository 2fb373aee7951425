//! The chart of a batch: a bar for each call, over the batch's time.

use std::ops::Range;
use std::time::Duration;

use toolpool_client::{FinishedBatch, TimeLedger};

use super::{Paint, cut, human, one_line, width_of};

/// The least and the most columns that the bars take.
const BAR: Range<usize> = 20..80;
/// Names are cut to this.
const LONGEST_NAME: usize = 24;
/// What is left of a call's id at least.
const LEAST_ID: usize = 6;

/// What a call was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Streaming,
    Held,
    Waiting,
    /// It runs, and its block is not complete.
    Early,
    Running,
}

impl Phase {
    pub(crate) const ALL: [Self; 5] = [
        Self::Streaming,
        Self::Held,
        Self::Waiting,
        Self::Early,
        Self::Running,
    ];

    /// What its stretch of a bar is drawn with.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Streaming => "░",
            Self::Held => "·",
            Self::Waiting => "▒",
            Self::Early => "▓",
            Self::Running => "█",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Streaming => "the model writes it",
            Self::Held => "held for the seal",
            Self::Waiting => "waiting",
            Self::Early => "started early",
            Self::Running => "running",
        }
    }
}

/// The lines of the chart in a terminal of `width` columns.
pub(super) fn lines(batch: &FinishedBatch, width: usize, paint: Paint) -> Vec<String> {
    let longest = LONGEST_NAME.max(width / 4);
    let results = batch.results().iter();
    let names: Vec<_> = results
        .map(|result| call_name(&result.id, &result.tool, longest))
        .collect();
    let label = names.iter().map(|name| width_of(name)).max().unwrap_or(0);
    // The rest of the line: two spaces, a mark, a space, two bars at the edges, a space, the time.
    let columns = width.saturating_sub(label + 17).clamp(BAR.start, BAR.end);
    let whole = batch.summary.elapsed;

    let mut results = batch.results().iter();
    let any_early = results.any(|result| result.ledger.started_early.is_some());
    let explained = Phase::ALL.iter();
    let explained = explained.filter(|phase| any_early || **phase != Phase::Early);
    let legend: Vec<_> = explained
        .map(|phase| format!("{} {}", phase.mark(), phase.name()))
        .collect();
    let mut lines = vec![paint.dim(&format!("  {:label$}    {}", "", legend.join("   ")))];
    for (result, name) in batch.results().iter().zip(&names) {
        let mark = match result.outcome {
            Ok(_) => paint.green("✓"),
            Err(_) => paint.red("✗"),
        };
        let bar = bar(
            &result.ledger,
            whole,
            columns,
            paint,
            result.outcome.is_ok(),
        );
        let took = result
            .ledger
            .ran
            .map_or_else(|| "not run".to_owned(), human);
        lines.push(format!("  {name:label$} {mark} │{bar}│ {took:>8}"));
    }
    lines.push(paint.dim(&format!("  {:label$}    0{:>columns$}", "", human(whole))));
    lines
}

/// The call's id and tool in at most so many columns. Providers' long ids differ in their ends, so those are what is kept.
pub(crate) fn call_name(id: &str, tool: &str, longest: usize) -> String {
    let (id, tool) = (one_line(id), one_line(tool));
    let room = longest.saturating_sub(width_of(&tool) + 1).max(LEAST_ID);
    let id = match width_of(&id).checked_sub(room) {
        Some(over @ 1..) => {
            let end: String = id.chars().skip(over + 1).collect();
            format!("…{end}")
        }
        _ => id,
    };
    cut(&format!("{id} {tool}"), longest)
}

fn bar(ledger: &TimeLedger, whole: Duration, columns: usize, paint: Paint, ok: bool) -> String {
    let stretches = stretches(ledger, whole, columns).into_iter();
    let painted = stretches.map(|(phase, columns)| {
        let Some(phase) = phase else {
            return " ".repeat(columns);
        };
        let marks = phase.mark().repeat(columns);
        match phase {
            Phase::Streaming | Phase::Held => paint.dim(&marks),
            Phase::Waiting => paint.yellow(&marks),
            Phase::Early | Phase::Running if ok => paint.green(&marks),
            Phase::Early | Phase::Running => paint.red(&marks),
        }
    });
    painted.collect()
}

/// What a bar of at least one column shows, from left to right: stretches of a phase, or of nothing, and their columns.
pub(crate) fn stretches(
    ledger: &TimeLedger,
    whole: Duration,
    columns: usize,
) -> Vec<(Option<Phase>, usize)> {
    let mut bar = vec![None; columns];
    // Running comes last, and so is seen even where it shares its cell.
    for (phase, from, to) in phases(ledger) {
        bar[cells(from, to, whole, columns)].fill(Some(phase));
    }
    let stretches = bar.chunk_by(|one, next| one == next);
    stretches
        .map(|stretch| (stretch[0], stretch.len()))
        .collect()
}

/// What the call was doing when, in order, with no overlap. Phases that it did not go through are left out.
fn phases(ledger: &TimeLedger) -> Vec<(Phase, Duration, Duration)> {
    let complete = ledger.block_complete.unwrap_or(ledger.ended);
    let let_go = match ledger.started_early {
        Some(early) => early,
        None => complete + ledger.held.unwrap_or_default(),
    };
    let let_go = let_go.min(ledger.ended);
    let written = complete.min(let_go);
    let waited = ledger.limit_wait.is_some() || ledger.slot_wait.is_some() || ledger.attempts > 1;
    let ran_from = match ledger.ran {
        Some(ran) if waited => ledger.ended.saturating_sub(ran).max(let_go),
        // The way to the worker is too short to be seen.
        Some(_) => let_go,
        // What a call did after its block was complete, if it never ran, was waiting.
        None => ledger.ended,
    };
    // The same as `ran_from` unless it was started early; and it may have ended before its block did.
    let early_until = complete.clamp(ran_from, ledger.ended);
    let mut phases = vec![
        (Phase::Streaming, ledger.block_began.min(written), written),
        (Phase::Held, written, let_go),
        (Phase::Waiting, let_go, ran_from),
        (Phase::Early, ran_from, early_until),
    ];
    phases.retain(|(_, from, to)| from < to);
    if ledger.ran.is_some() && (early_until < ledger.ended || early_until == ran_from) {
        phases.push((Phase::Running, early_until, ledger.ended));
    }
    phases
}

/// The cells that a stretch of time covers; at least one.
fn cells(from: Duration, to: Duration, whole: Duration, columns: usize) -> Range<usize> {
    let cell = |at: Duration| {
        let share = at.as_micros() * columns as u128 / whole.as_micros().max(1);
        usize::try_from(share).unwrap_or(columns).min(columns)
    };
    let start = cell(from).min(columns - 1);
    start..cell(to).max(start + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn drawn(ledger: &TimeLedger) -> String {
        bar(ledger, ms(1000), 20, Paint::new(false), true)
    }

    #[test]
    fn a_long_id_leaves_room_for_the_tool() {
        let named = |id, tool| call_name(id, tool, 24);
        assert_eq!(named("call_1", "calculate"), "call_1 calculate");
        assert_eq!(
            named("toolu_01NSvzUVvSLq", "stock_report"),
            "…NSvzUVvSLq stock_report"
        );
        assert_eq!(
            named("toolu_01NSvzUVvSLq", "a_tool_with_a_long_name"),
            "…VvSLq a_tool_with_a_lo…"
        );
    }

    #[test]
    fn a_call_is_written_then_waits_then_runs() {
        let ledger = TimeLedger {
            block_began: ms(100),
            block_complete: Some(ms(300)),
            slot_wait: Some(ms(100)),
            ran: Some(ms(400)),
            ended: ms(800),
            ..TimeLedger::default()
        };
        assert_eq!(drawn(&ledger), "  ░░░░▒▒████████    ");
    }

    #[test]
    fn a_call_with_side_effects_is_held() {
        let ledger = TimeLedger {
            block_complete: Some(ms(200)),
            held: Some(ms(300)),
            ran: Some(ms(500)),
            ended: ms(1000),
            ..TimeLedger::default()
        };
        assert_eq!(drawn(&ledger), "░░░░······██████████");
    }

    #[test]
    fn a_call_that_never_ran_has_no_running_bar() {
        let ledger = TimeLedger {
            block_began: ms(500),
            ended: ms(1000),
            ..TimeLedger::default()
        };
        assert_eq!(drawn(&ledger), "          ░░░░░░░░░░");
    }

    #[test]
    fn a_short_run_is_still_seen() {
        let ledger = TimeLedger {
            block_began: ms(1000),
            block_complete: Some(ms(1000)),
            ran: Some(Duration::ZERO),
            ended: ms(1000),
            ..TimeLedger::default()
        };
        assert_eq!(drawn(&ledger), "                   █");
        let zero = bar(
            &TimeLedger::default(),
            Duration::ZERO,
            20,
            Paint::new(false),
            true,
        );
        assert_eq!(zero.chars().count(), 20);
    }

    #[test]
    fn a_call_that_failed_before_any_worker_was_only_written() {
        let ledger = TimeLedger {
            block_complete: Some(ms(500)),
            ended: ms(500),
            ..TimeLedger::default()
        };
        assert_eq!(drawn(&ledger), "░░░░░░░░░░          ");
    }

    #[test]
    fn a_call_that_was_started_early_runs_while_it_is_written() {
        let mut ledger = TimeLedger {
            block_began: ms(100),
            started_early: Some(ms(300)),
            block_complete: Some(ms(600)),
            ran: Some(ms(500)),
            ended: ms(800),
            ..TimeLedger::default()
        };
        assert_eq!(drawn(&ledger), "  ░░░░▓▓▓▓▓▓████    ");
        ledger.ended = ms(500);
        assert_eq!(drawn(&ledger), "  ░░░░▓▓▓▓          ");
        ledger.ran = None;
        assert_eq!(drawn(&ledger), "  ░░░░▒▒▒▒          ");
    }

    #[test]
    fn phases_never_overlap() {
        // More wait than there was time: a ledger that does not add up still gives a chart.
        let ledger = TimeLedger {
            block_began: ms(900),
            block_complete: Some(ms(950)),
            held: Some(ms(5000)),
            ran: Some(ms(5000)),
            ended: ms(1000),
            ..TimeLedger::default()
        };
        let phases = phases(&ledger);
        assert!(
            phases.windows(2).all(|pair| pair[0].2 <= pair[1].1),
            "{phases:?}"
        );
        assert_eq!(drawn(&ledger).chars().count(), 20);
    }
}
