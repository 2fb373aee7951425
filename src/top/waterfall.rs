//! Open batches as lines of the screen: a heading for each, and a bar for each of its calls over the batch's time so far.

use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Span};
use toolpool_proto::v1;
use v1::{BatchStatus, CallPhase, CallStatus};

use super::look::Batches;
use crate::output::operator::words::phase;
use crate::output::operator::{counts, lasted, ledger, time, turn};
use crate::output::waterfall::{Phase, call_name, stretches};
use crate::output::{compact, cut, json, one_line, width_of};

/// The most calls of a batch that one has not gone to.
const CALLS_IN_SHORT: usize = 6;
/// The columns of a call's phase, or of the code of one that failed.
const PROGRESS: usize = 11;
/// The columns of a time.
const TIME: usize = 6;

/// What the marks of the bars mean, in less room than the chart of a finished batch takes for it.
pub(super) fn legend() -> Line<'static> {
    let mut spans = Vec::new();
    for phase in Phase::ALL {
        let short = match phase {
            Phase::Streaming => "written",
            Phase::Held => "held",
            Phase::Waiting => "waits",
            Phase::Early => "early",
            Phase::Running => "runs",
        };
        spans.push(Span::from(" "));
        spans.push(Span::styled(phase.mark(), style(phase, true)));
        spans.push(Span::from(format!(" {short} ")).dim());
    }
    Line::from(spans)
}

/// The lines from the batch `first` on, at most `height` of `width` columns. Of that batch all calls are shown, and it is
/// marked if one is `here`.
pub(super) fn lines(
    batches: &Batches,
    first: usize,
    here: bool,
    width: usize,
    height: usize,
) -> Vec<Line<'static>> {
    let Batches { oldest, latest, .. } = batches;
    if oldest.is_empty() && latest.is_empty() {
        return vec![Line::from("no batch is open").dim()];
    }
    let mut lines = Vec::new();
    let all = oldest.iter().chain(latest).enumerate();
    for (number, batch) in all.skip(first) {
        if number == oldest.len() && batches.between() > 0 && number > first {
            let between = format!("… {} more …", batches.between());
            lines.push(Line::from(between).dim().centered());
        }
        let chosen = number == first;
        lines.push(heading(batch, chosen && here, width));
        let most = if chosen { usize::MAX } else { CALLS_IN_SHORT };
        calls(&mut lines, batch, most, width);
        if lines.len() >= height {
            break;
        }
    }
    lines.truncate(height);
    lines
}

fn heading(batch: &BatchStatus, here: bool, width: usize) -> Line<'static> {
    let id = one_line(&batch.batch_id);
    let counts = counts(batch);
    // What matters most comes first: there may not be room for all of it.
    let facts = if batch.delivering {
        vec![counts]
    } else {
        vec![
            format!("open {}", lasted(batch.open_for)),
            counts,
            format!("turn {}", turn(batch)),
            format!("{} left", lasted(batch.time_left)),
            format!("agent silent {}", lasted(batch.agent_silent_for)),
        ]
    };
    let facts = facts.join(", ");
    let facts = cut(&facts, width.saturating_sub(width_of(&id) + 2));
    let id = if here {
        Span::from(id).reversed()
    } else {
        Span::from(id).bold()
    };
    Line::from(vec![id, Span::from("  "), Span::from(facts)])
}

fn calls(lines: &mut Vec<Line<'static>>, batch: &BatchStatus, most: usize, width: usize) {
    // Names in a quarter of the width; the rest of the line: spaces, the phase, two bars at the edges, the time.
    let names = (width / 4).max(12);
    let columns = width
        .saturating_sub(2 + names + 1 + PROGRESS + 4 + TIME)
        .max(8);
    let shown = batch.calls.iter().take(most);
    lines.extend(shown.map(|call| line(call, batch, names, columns)));
    let all: u32 = batch.phases.iter().map(|count| count.calls).sum();
    let all = usize::try_from(all)
        .unwrap_or(usize::MAX)
        .max(batch.calls.len());
    if let more @ 1.. = all - batch.calls.len().min(most) {
        lines.push(Line::from(format!("  … and {more} more calls")).dim());
    }
}

fn line(call: &CallStatus, batch: &BatchStatus, names: usize, columns: usize) -> Line<'static> {
    let name = call_name(&call.call_id, &call.tool, names);
    let progress = match call.error {
        Some(_) => json::code_name(call.error()),
        None => phase(call.phase()),
    };
    let progress = cut(progress, PROGRESS);
    let ledger = ledger(call, batch);
    let whole = time(batch.open_for).unwrap_or_default();
    let mut spans = vec![
        Span::from(format!("  {name:names$} ")),
        Span::styled(format!("{progress:PROGRESS$}"), standing(call)),
        Span::from(" │"),
    ];
    let ok = call.error.is_none();
    for (phase, columns) in stretches(&ledger, whole, columns) {
        spans.push(match phase {
            Some(phase) => Span::styled(phase.mark().repeat(columns), style(phase, ok)),
            None => Span::from(" ".repeat(columns)),
        });
    }
    let since = compact(ledger.ended.saturating_sub(ledger.block_began));
    spans.push(Span::from(format!("│ {since:>TIME$}")));
    Line::from(spans)
}

/// The colours of the chart of a finished batch.
fn style(phase: Phase, ok: bool) -> Style {
    match phase {
        Phase::Streaming | Phase::Held => Style::new().dim(),
        Phase::Waiting => Style::new().yellow(),
        Phase::Early | Phase::Running if ok => Style::new().green(),
        Phase::Early | Phase::Running => Style::new().red(),
    }
}

fn standing(call: &CallStatus) -> Style {
    match call.phase() {
        _ if call.error.is_some() => Style::new().red(),
        CallPhase::Running | CallPhase::Parked | CallPhase::Ended => Style::new().green(),
        CallPhase::Ready | CallPhase::Queued | CallPhase::Backoff => Style::new().yellow(),
        CallPhase::Streaming | CallPhase::Held | CallPhase::Unspecified => Style::new().dim(),
    }
}
