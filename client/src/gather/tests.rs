//! Frames of an answer gathered into a finished batch.

use std::time::Duration;

use super::*;
use crate::ErrorCode;
use crate::progress::ProgressEvent;

fn short() -> prost_types::Duration {
    Duration::from_millis(5).try_into().unwrap()
}

fn result(id: &str, position: u32) -> v1::BatchFrame {
    frame(Frame::Result(v1::CallResult {
        id: id.to_owned(),
        tool: "add".to_owned(),
        position,
        ending: Some(v1::call_result::Ending::Output(v1::Output::default())),
        ledger: Some(v1::TimeLedger {
            block_began: Some(short()),
            ended: Some(short()),
            ..v1::TimeLedger::default()
        }),
        ..v1::CallResult::default()
    }))
}

fn finished(calls: u32) -> v1::BatchFrame {
    frame(Frame::Finished(v1::Finished {
        batch_id: "b".to_owned(),
        calls,
        succeeded: calls,
        accepted_at: Some(prost_types::Timestamp::default()),
        elapsed: Some(short()),
        summed_run: Some(short()),
        ..v1::Finished::default()
    }))
}

fn frame(frame: Frame) -> v1::BatchFrame {
    v1::BatchFrame { frame: Some(frame) }
}

/// Takes the frames in order; the last one's step.
fn take(frames: impl IntoIterator<Item = v1::BatchFrame>) -> Result<Step, ProtocolError> {
    let mut gather = Gather::default();
    let mut last = Step::More;
    for frame in frames {
        last = gather.take(frame)?;
    }
    Ok(last)
}

#[test]
fn results_are_in_the_models_order_and_found_by_id() {
    let step = take([result("c", 2), result("a", 0), result("b", 1), finished(3)]);
    let Ok(Step::Finished(batch)) = step else {
        panic!("{step:?}");
    };
    let ids: Vec<_> = batch.results().iter().map(|result| &*result.id).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(batch.get("c").map(|result| result.position), Some(2));
    assert_eq!(batch.get("d"), None);
    assert!(batch.all_succeeded());
}

#[test]
fn a_batch_with_no_calls_is_a_batch() {
    assert!(matches!(take([finished(0)]), Ok(Step::Finished(_))));
}

#[test]
fn what_does_not_add_up_is_turned_away() {
    let second = take([result("a", 0), result("a", 1), finished(2)]);
    assert_eq!(second, Err(ProtocolError::SecondResult("a".to_owned())));
    let missing = take([result("a", 0), finished(2)]);
    assert_eq!(
        missing,
        Err(ProtocolError::Count {
            came: 1,
            counted: 2
        })
    );
    let empty = take([frame(Frame::Result(v1::CallResult::default()))]);
    assert_eq!(empty, Err(ProtocolError::Missing("result.ending")));
}

#[test]
fn a_broker_may_say_later_what_it_takes_a_stream_for() {
    let again = take([frame(Frame::Accepted(v1::Accepted::default()))]);
    assert_eq!(again, Ok(Step::More));
}

#[test]
fn what_this_client_does_not_know_is_skipped() {
    assert_eq!(take([v1::BatchFrame { frame: None }]), Ok(Step::More));
    let newer = v1::CallProgress {
        id: "a".to_owned(),
        event: None,
        at: Some(short()),
    };
    assert_eq!(take([frame(Frame::Progress(newer))]), Ok(Step::More));
}

#[test]
fn progress_is_told() {
    let ended = v1::call_progress::Ended {
        error: Some(v1::ErrorCode::Timeout.into()),
    };
    let progress = v1::CallProgress {
        id: "a".to_owned(),
        event: Some(v1::call_progress::Event::Ended(ended)),
        at: Some(short()),
    };
    let step = take([frame(Frame::Progress(progress))]);
    let Ok(Step::Progress(progress)) = step else {
        panic!("{step:?}");
    };
    let error = Some(ErrorCode::Timeout);
    assert_eq!(progress.event, ProgressEvent::Ended { error });
}
