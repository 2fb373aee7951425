//! The tables of the screen: the tools and the workers.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table, TableState};
use toolpool_proto::v1;
use v1::{LaneStatus, WorkerState, WorkerStatus};

use super::super::model::{Model, Pane};
use super::pane;
use crate::output::one_line;
use crate::output::operator::words::state;
use crate::output::operator::{blocked, lasted, slots, tool, used};

/// The columns of a bar that shows a worker's slots.
const SLOTS: u32 = 14;

/// The tools: how often they are called, what they wait for, how long they take.
pub(super) fn tools(frame: &mut Frame, area: Rect, model: &Model) {
    let pane = pane(
        model,
        Pane::Tools,
        &format!("Tools by {}", model.sort().name()),
    );
    if model.look().lanes.is_empty() {
        return nothing(frame, area, pane, "no tools yet");
    }
    let heading = [
        "TOOL",
        "CALLS/S",
        "FAIL/S",
        "FLIGHT",
        "QUEUE",
        "NEED",
        "WAITS FOR",
        "MEDIAN",
        "P90",
        "MAX",
    ];
    let widths = [
        Constraint::Min(10),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(4),
        Constraint::Length(15),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
    ];
    let heading = heading
        .into_iter()
        .enumerate()
        .map(|(column, name)| match column {
            0 | 6 => Cell::from(name),
            _ => number(name.to_owned()),
        });
    let rows = model.lanes().into_iter().map(|lane| lane_row(lane, model));
    let table = Table::new(rows, widths)
        .header(Row::new(heading).dim())
        .block(pane);
    render(frame, area, table, model, Pane::Tools);
}

fn lane_row(lane: &LaneStatus, model: &Model) -> Row<'static> {
    let rates = model.rates(tool(lane));
    let calls = rates.map(|rates| rates.calls);
    let failed = rates.map(|rates| rates.failed);
    let recent = lane.recent_runs.unwrap_or_default();
    let waits = Cell::from(blocked(lane));
    Row::new([
        Cell::from(one_line(tool(lane))),
        number(rate(calls)),
        match failed {
            Some(some) if some > 0.0 => number(rate(failed)).red(),
            _ => number(rate(failed)),
        },
        number(lane.in_flight.to_string()),
        number(lane.queued.to_string()),
        number(lane.slots_needed.to_string()),
        if lane.blocked.is_some() {
            waits.yellow()
        } else {
            waits
        },
        number(lasted(recent.median)),
        number(lasted(recent.p90)),
        number(lasted(recent.longest)),
    ])
}

/// The workers: how they are doing, and how many of their slots are in use.
pub(super) fn workers(frame: &mut Frame, area: Rect, model: &Model) {
    let pane = pane(model, Pane::Workers, "Workers");
    let workers = &model.look().workers;
    if workers.is_empty() {
        return nothing(frame, area, pane, "no worker is here");
    }
    let heading = ["WORKER", "STATE", "SLOTS", "", "SILENT FOR", "KNOWN FOR"];
    let widths = [
        Constraint::Min(16),
        Constraint::Length(9),
        Constraint::Length(14),
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(9),
    ];
    let heading = heading
        .into_iter()
        .enumerate()
        .map(|(column, name)| match column {
            4.. => number(name.to_owned()),
            _ => Cell::from(name),
        });
    let rows = workers.iter().map(worker_row);
    let table = Table::new(rows, widths)
        .header(Row::new(heading).dim())
        .block(pane);
    render(frame, area, table, model, Pane::Workers);
}

fn worker_row(worker: &WorkerStatus) -> Row<'static> {
    let style = match worker.state() {
        WorkerState::Connected => Style::new().green(),
        WorkerState::Draining => Style::new().yellow(),
        WorkerState::Away => Style::new().red(),
        WorkerState::Unspecified => Style::new().dim(),
    };
    Row::new([
        Cell::from(one_line(&worker.worker_id)),
        Cell::from(state(worker)).style(style),
        Cell::from(bar(worker)).green(),
        Cell::from(slots(worker)),
        number(lasted(worker.silent_for)),
        number(lasted(worker.known_for)),
    ])
}

/// Full only if all slots are in use, and empty only if none is.
fn bar(worker: &WorkerStatus) -> String {
    let (used, slots) = (u64::from(used(worker)), u64::from(worker.slots.max(1)));
    let most = u64::from(SLOTS);
    let full = match used * most / slots {
        0 if used > 0 => 1,
        full => full.min(most),
    };
    let columns = |of: u64| usize::try_from(of).unwrap_or(0);
    "█".repeat(columns(full)) + &"░".repeat(columns(most - full))
}

fn render(frame: &mut Frame, area: Rect, table: Table<'_>, model: &Model, pane: Pane) {
    let here = model.pane() == pane;
    let table = if here {
        table.row_highlight_style(Style::new().reversed())
    } else {
        table
    };
    let mut state = TableState::new().with_selected(model.row(pane));
    frame.render_stateful_widget(table, area, &mut state);
}

fn nothing(frame: &mut Frame, area: Rect, pane: ratatui::widgets::Block<'_>, why: &'static str) {
    let inside = pane.inner(area);
    frame.render_widget(pane, area);
    frame.render_widget(Line::from(why).dim(), inside);
}

fn number(text: String) -> Cell<'static> {
    Cell::from(Text::from(text).right_aligned())
}

fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate < 100.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}
