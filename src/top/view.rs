//! The screen, drawn from the state and nothing else.

mod panes;
#[cfg(test)]
mod tests;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders};
use tokio::time::Instant;

use super::model::{Model, Pane};
use super::waterfall;
use crate::output::operator::{counted, used};
use crate::output::{cut, human, one_line, width_of};

/// The lines of a pane that are not its rows: the title and the table's heading.
const ABOVE_ROWS: u16 = 2;
const KEYS: &str = "q quit   Tab pane   ↑↓ row   s sort tools   p pause";

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame, model: &Model, now: Instant) {
    let [head, tools, workers, batches, keys] = areas(frame.area(), model);
    header(frame, head, model, now);
    panes::tools(frame, tools, model);
    panes::workers(frame, workers, model);
    draw_batches(frame, batches, model);
    frame.render_widget(Line::from(KEYS).dim(), keys);
}

/// The pane that one is in has the most room; the others what they need of the rest.
fn areas(area: Rect, model: &Model) -> [Rect; 5] {
    let room = area.height.saturating_sub(2);
    let height = |pane: Pane, rows: usize| {
        let most = match model.pane() {
            here if here == pane => room / 2,
            Pane::Batches => room / 4,
            _ => room / 3,
        };
        let rows = u16::try_from(rows.max(1)).unwrap_or(u16::MAX);
        rows.saturating_add(ABOVE_ROWS).min(most)
    };
    let look = model.look();
    Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(height(Pane::Tools, look.lanes.len())),
        Constraint::Length(height(Pane::Workers, look.workers.len())),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area)
}

fn header(frame: &mut Frame, area: Rect, model: &Model, now: Instant) {
    let width = usize::from(area.width);
    let look = model.look();
    let state = match model.silence(now) {
        _ if model.is_paused() => Some("paused".to_owned()),
        Some((since, Some(failure))) => {
            Some(format!("no answer since {}: {failure}", seconds(since)))
        }
        Some((since, None)) => Some(format!("no answer since {}", seconds(since))),
        None => None,
    };
    let count = |of: usize, what| counted(u32::try_from(of).unwrap_or(u32::MAX), what);
    let (in_use, slots) = look.workers.iter().fold((0, 0), |(in_use, slots), worker| {
        (
            in_use + u64::from(used(worker)),
            slots + u64::from(worker.slots),
        )
    });
    let facts = format!(
        "toolpool top  {}  {}, {in_use}/{slots} slots, {}",
        one_line(model.url()),
        count(look.workers.len(), "worker"),
        match look.batches.open {
            1 => "1 batch open".to_owned(),
            open => format!("{open} batches open"),
        },
    );
    // What is wrong comes first where there is not room for both.
    let state = state
        .map(|state| cut(&state, width / 2))
        .unwrap_or_default();
    let facts = cut(&facts, width.saturating_sub(width_of(&state) + 1));
    frame.render_widget(Line::from(facts).bold(), area);
    let style = if model.is_paused() {
        Style::new().yellow().bold()
    } else {
        Style::new().red().bold()
    };
    frame.render_widget(Line::styled(state, style).right_aligned(), area);
}

fn draw_batches(frame: &mut Frame, area: Rect, model: &Model) {
    let pane = pane(model, Pane::Batches, "Batches").title_top(waterfall::legend().right_aligned());
    let inside = pane.inner(area);
    frame.render_widget(pane, area);
    let at = (model.pane() == Pane::Batches).then(|| model.row(Pane::Batches));
    let lines = waterfall::lines(
        &model.look().batches,
        model.row(Pane::Batches),
        at.is_some(),
        inside.width.into(),
        inside.height.into(),
    );
    for (line, row) in lines.into_iter().zip(inside.rows()) {
        frame.render_widget(line, row);
    }
}

/// The frame of a pane: a line above it with its title, which shows whether one is there.
fn pane(model: &Model, pane: Pane, title: &str) -> Block<'static> {
    let style = if model.pane() == pane {
        Style::new().cyan().bold()
    } else {
        Style::new().dim()
    };
    let title = Line::styled(format!(" {title} "), style);
    Block::new()
        .borders(Borders::TOP)
        .border_style(style)
        .title_top(title)
}

/// Whole seconds: what changes all the time is not read.
fn seconds(since: std::time::Duration) -> String {
    match since.as_secs() {
        whole @ ..60 => format!("{whole} s"),
        whole => human(std::time::Duration::from_secs(whole)),
    }
}
