//! Rates from hand-made pairs of looks, orders, and what keys do to the state.

use super::*;
use crate::output::operator::samples::{batch, busy_lane, lane, worker};
use crate::top::look::Batches;

fn look(lanes: Vec<LaneStatus>) -> Look {
    Look {
        lanes,
        ..Look::default()
    }
}

fn model(now: Instant) -> Model {
    Model::new("http://broker:7401".to_owned(), Duration::from_secs(1), now)
}

fn names(model: &Model) -> Vec<&str> {
    model.lanes().into_iter().map(tool).collect()
}

#[tokio::test(start_paused = true)]
async fn rates_are_what_ended_between_two_looks() {
    let start = Instant::now();
    let mut model = model(start);
    model.take(look(vec![lane("search", 1_000, 100)]), start);
    assert_eq!(model.rates("search"), None, "of one look nothing follows");

    let later = start + Duration::from_secs(2);
    model.take(
        look(vec![lane("fetch", 50, 0), lane("search", 1_030, 101)]),
        later,
    );
    let expected = Rates {
        calls: 15.0,
        failed: 0.5,
    };
    assert_eq!(model.rates("search"), Some(expected));
    assert_eq!(model.rates("fetch"), None, "it was not there before");

    let later = later + Duration::from_millis(500);
    model.take(
        look(vec![lane("fetch", 51, 1), lane("search", 3, 0)]),
        later,
    );
    let expected = Rates {
        calls: 2.0,
        failed: 2.0,
    };
    assert_eq!(model.rates("fetch"), Some(expected));
    assert_eq!(model.rates("search"), None, "the broker was started anew");
    model.take(look(vec![lane("search", 4, 0)]), later);
    assert_eq!(model.rates("search"), None, "no time went by");
}

#[tokio::test(start_paused = true)]
async fn tools_are_sorted_by_what_is_asked_for() {
    let start = Instant::now();
    let mut model = model(start);
    let mut slow = lane("b_slow", 0, 0);
    slow.recent_runs = busy_lane("", 0, 0).recent_runs;
    let lanes = |ended| {
        let queued = LaneStatus {
            queued: 3,
            ..lane("c_queued", 0, 0)
        };
        look(vec![
            queued,
            lane("d_often", ended, 0),
            slow.clone(),
            lane("a_quiet", 0, 0),
        ])
    };
    model.take(lanes(0), start);
    model.take(lanes(9), start + Duration::from_secs(1));
    assert_eq!(names(&model), ["a_quiet", "b_slow", "c_queued", "d_often"]);
    for (sort, first) in [
        (Sort::Calls, "d_often"),
        (Sort::Queued, "c_queued"),
        (Sort::P90, "b_slow"),
        (Sort::Name, "a_quiet"),
    ] {
        model.act(Action::Sort, start);
        assert_eq!(model.sort(), sort);
        assert_eq!(names(&model)[0], first, "{sort:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn panes_go_round_and_rows_stay_within_them() {
    let start = Instant::now();
    let mut model = model(start);
    let full = Look {
        workers: vec![worker("w-1"), worker("w-2")],
        lanes: vec![lane("search", 0, 0)],
        batches: Batches {
            oldest: vec![batch("b-1"), batch("b-2")],
            latest: vec![batch("b-9")],
            open: 9,
        },
    };
    assert_eq!(full.batches.between(), 6);
    model.take(full, start);
    model.act(Action::Rows(1), start);
    assert_eq!(model.row(Pane::Tools), 0, "there is only one");
    model.act(Action::NextPane, start);
    model.act(Action::Rows(isize::MAX), start);
    assert_eq!((model.pane(), model.row(Pane::Workers)), (Pane::Workers, 1));
    model.act(Action::NextPane, start);
    model.act(Action::Rows(2), start);
    assert_eq!((model.pane(), model.row(Pane::Batches)), (Pane::Batches, 2));
    model.act(Action::Rows(-1), start);
    assert_eq!(model.row(Pane::Batches), 1, "what was too far is not kept");
    model.act(Action::NextPane, start);
    assert_eq!(model.pane(), Pane::Tools);
    model.act(Action::PreviousPane, start);
    assert_eq!(model.pane(), Pane::Batches);
    model.take(Look::default(), start);
    assert_eq!(model.row(Pane::Batches), 0, "they are gone");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_is_said_to_be() {
    let start = Instant::now();
    let mut model = model(start);
    model.take(look(vec![lane("search", 0, 0)]), start);
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(model.silence(at(2)), None);
    assert_eq!(model.silence(at(3)), Some((Duration::from_secs(3), None)));
    model.no_answer(&Status::unavailable("connection\nrefused"));
    let said = Some((Duration::from_secs(1), Some("connection refused")));
    assert_eq!(model.silence(at(1)), said);
    assert_eq!(names(&model), ["search"], "what it showed last stays");
    model.take(look(Vec::new()), at(4));
    assert_eq!(model.silence(at(4)), None);
}

#[tokio::test(start_paused = true)]
async fn a_pause_keeps_the_picture_and_is_no_silence() {
    let start = Instant::now();
    let mut model = model(start);
    model.take(look(vec![lane("search", 0, 0)]), start);
    model.act(Action::Pause, start);
    assert!(model.is_paused());
    let later = start + Duration::from_mins(1);
    model.take(look(Vec::new()), later);
    assert_eq!(names(&model), ["search"], "a look that was under way");
    assert_eq!(model.silence(later), None);
    model.act(Action::Pause, later);
    assert_eq!(model.silence(later), None, "nobody had asked");
    model.take(look(vec![lane("search", 60, 0)]), later);
    let rates = model.rates("search").unwrap();
    assert!((rates.calls - 1.0).abs() < 1e-9, "{rates:?}");
}
