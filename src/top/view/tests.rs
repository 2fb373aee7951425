//! Screens to the letter.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use tonic::Status;

use super::super::input::Action;
use super::super::look::{Batches, Look};
use super::*;
use crate::output::operator::samples::{batch, busy_lane, lane, sealed_batch, worker};

fn look(ended: u64) -> Look {
    let mut away = worker("w-2");
    away.state = toolpool_proto::v1::WorkerState::Away.into();
    away.slots_free = 0;
    Look {
        workers: vec![worker("w-1"), away],
        lanes: vec![
            lane("fetch", ended / 2, 0),
            busy_lane("search", ended, ended / 10),
        ],
        batches: Batches {
            oldest: vec![batch("b-1"), sealed_batch("b-2")],
            latest: vec![sealed_batch("b-12")],
            open: 12,
        },
    }
}

/// After two looks, a second apart.
fn model(now: Instant) -> Model {
    let second = Duration::from_secs(1);
    let mut model = Model::new("http://127.0.0.1:7401".to_owned(), second, now - second);
    model.take(look(0), now - second);
    model.take(look(30), now);
    model
}

fn screen(model: &Model, now: Instant, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, now)).unwrap();
    let shown = terminal.backend().to_string();
    let lines = shown
        .lines()
        .map(|line| line.trim_matches('"').trim_end().to_owned());
    lines.collect()
}

#[tokio::test(start_paused = true)]
async fn all_of_it_has_room_in_80_columns_and_24_lines() {
    let now = Instant::now() + Duration::from_secs(5);
    assert_eq!(
        screen(&model(now), now, 80, 24),
        [
            "toolpool top  http://127.0.0.1:7401  2 workers, 5/8 slots, 12 batches open",
            " Tools by name ─────────────────────────────────────────────────────────────────",
            "TOOL       CALLS/S FAIL/S FLIGHT QUEUE NEED WAITS FOR       MEDIAN    P90    MAX",
            "fetch         15.0    0.0      0     0    0 -                    -      -      -",
            "search        30.0    3.0      2     3    4 rate 3.0s        120ms   1.5s  1m02s",
            " Workers ───────────────────────────────────────────────────────────────────────",
            "WORKER                   STATE     SLOTS                    SILENT FOR KNOWN FOR",
            "w-1                      connected ███░░░░░░░░░░░ 1/4             1.2s     2h01m",
            "w-2                      away      ██████████████ 4/4             1.2s     2h01m",
            " Batches ────────────────────────── ░ written  · held  ▒ waits  ▓ early  █ runs",
            "b-1  open 10s, 1 streaming, 1 held, 1 queued, 1 running, 1 ended, turn streamin…",
            "  call_1 fetch         TOOL_FAILED │░░░░░░░██████████████               │   6.0s",
            "  call_2 search        running     │░░░░░░░▒▒▒▒▒▒▒▒▒▒▒▒▒▒███████████████│    10s",
            "  call_3 search        queued      │░░░░░░░▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒│    10s",
            "  call_4 order         held        │░░░░░░░·····························│    10s",
            "  call_5 fetch         streaming   │                                ░░░░│   1.0s",
            "b-2  open 10s, 1 running, turn complete, 9m50s left, agent silent 400ms",
            "  call_1 search        running     │░░░█████████████████████████████████│    10s",
            "                                   … 9 more …",
            "b-12  open 10s, 1 running, turn complete, 9m50s left, agent silent 400ms",
            "  call_1 search        running     │░░░█████████████████████████████████│    10s",
            "",
            "",
            "q quit   Tab pane   ↑↓ row   s sort tools   p pause",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_pane_that_one_is_in_has_the_room_and_the_batch_its_calls() {
    let now = Instant::now() + Duration::from_secs(5);
    let mut model = model(now);
    model.act(Action::PreviousPane, now);
    model.act(Action::Rows(1), now);
    model.no_answer(&Status::unavailable("tcp connect error"));
    assert_eq!(
        screen(&model, now + Duration::from_secs(3), 100, 20),
        [
            "toolpool top  http://127.0.0.1:7401  2 workers, 5/8 slots, 1… no answer since 3 s: tcp connect error",
            " Tools by name ─────────────────────────────────────────────────────────────────────────────────────",
            "TOOL                           CALLS/S FAIL/S FLIGHT QUEUE NEED WAITS FOR       MEDIAN    P90    MAX",
            "fetch                             15.0    0.0      0     0    0 -                    -      -      -",
            "search                            30.0    3.0      2     3    4 rate 3.0s        120ms   1.5s  1m02s",
            " Workers ───────────────────────────────────────────────────────────────────────────────────────────",
            "WORKER                                       STATE     SLOTS                    SILENT FOR KNOWN FOR",
            "w-1                                          connected ███░░░░░░░░░░░ 1/4             1.2s     2h01m",
            "w-2                                          away      ██████████████ 4/4             1.2s     2h01m",
            " Batches ────────────────────────────────────────────── ░ written  · held  ▒ waits  ▓ early  █ runs",
            "b-2  open 10s, 1 running, turn complete, 9m50s left, agent silent 400ms",
            "  call_1 search             running     │░░░░░██████████████████████████████████████████████│    10s",
            "                                             … 9 more …",
            "b-12  open 10s, 1 running, turn complete, 9m50s left, agent silent 400ms",
            "  call_1 search             running     │░░░░░██████████████████████████████████████████████│    10s",
            "",
            "",
            "",
            "",
            "q quit   Tab pane   ↑↓ row   s sort tools   p pause",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_seen_where_one_is() {
    let now = Instant::now();
    let mut model = Model::new(String::new(), Duration::from_secs(1), now);
    let lanes = (10..50).map(|number| lane(&format!("tool_{number}"), 0, 0));
    let full = Look {
        lanes: lanes.collect(),
        ..look(0)
    };
    model.take(full, now);
    let shown = |model: &Model| -> Vec<String> {
        let drawn = screen(model, now, 80, 24).into_iter();
        let names = drawn.filter_map(|line| line.get(..7).map(str::to_owned));
        names.filter(|name| name.starts_with("tool_")).collect()
    };
    let first = shown(&model);
    assert_eq!((first.len(), &*first[0]), (9, "tool_10"));
    model.act(Action::Rows(isize::MAX), now);
    let last = shown(&model);
    assert_eq!((last.len(), &*last[8]), (9, "tool_49"));
    model.act(Action::PreviousPane, now);
    let in_short = shown(&model);
    assert_eq!((in_short.len(), &*in_short[2]), (3, "tool_49"));
}

#[tokio::test(start_paused = true)]
async fn an_empty_broker_has_a_screen_too() {
    let now = Instant::now();
    let mut model = Model::new(
        "http://127.0.0.1:7401".to_owned(),
        Duration::from_secs(1),
        now,
    );
    model.take(Look::default(), now);
    model.act(Action::Pause, now);
    assert_eq!(
        screen(&model, now, 60, 12),
        [
            "toolpool top  http://127.0.0.1:7401  0 workers, 0/0…  paused",
            " Tools by name ─────────────────────────────────────────────",
            "no tools yet",
            "",
            " Workers ───────────────────────────────────────────────────",
            "no worker is here",
            "",
            " Batches ────── ░ written  · held  ▒ waits  ▓ early  █ runs",
            "no batch is open",
            "",
            "",
            "q quit   Tab pane   ↑↓ row   s sort tools   p pause",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_screen_of_any_size_can_be_drawn_on() {
    let now = Instant::now() + Duration::from_secs(5);
    let mut model = model(now);
    for _pane in 0..3 {
        for (width, height) in [(1, 1), (5, 3), (20, 6), (300, 2), (10, 80), (400, 120)] {
            let shown = screen(&model, now, width, height);
            assert_eq!(shown.len(), usize::from(height));
        }
        model.act(Action::NextPane, now);
    }
}
