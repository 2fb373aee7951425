//! The tables and the JSON of hand-made answers, to the letter.

use serde_json::json;
use toolpool_proto::v1;
use v1::{CallPhase, CallStatus, Explanation, LaneBlock, LaneStatus, TimeLedger};

use super::samples::{batch, busy_lane, lane, ms, sealed_batch, worker};
use super::*;

fn lines(table: &Table) -> Vec<String> {
    table.lines(None, Paint::new(false)).collect()
}

#[test]
fn workers_stand_in_a_table() {
    let mut away = worker("w-2");
    away.state = WorkerState::Away.into();
    away.tools = (0..40).map(|number| format!("tool_{number}")).collect();
    away.version = String::new();
    assert_eq!(
        lines(&workers(&[worker("w-1"), away])),
        [
            "WORKER  STATE      SLOTS  CALLS  KNOWN FOR  SILENT FOR  VERSION  TOOLS",
            "w-1     connected  1/4    1      2h01m      1.2s        1.2      fetch, search",
            "w-2     away       1/4    1      2h01m      1.2s        -        tool_0, tool_1, tool_2, tool_3, tool_4,… (40 in all)",
        ]
    );
}

#[test]
fn leases_say_what_a_worker_has() {
    let mut of = worker("w-1").leases;
    of.push(LeaseStatus {
        fenced: true,
        time_left: ms(0),
        ..of[0].clone()
    });
    of.push(LeaseStatus {
        started: false,
        ..of[0].clone()
    });
    assert_eq!(
        lines(&leases(&of)),
        [
            "LEASE             BATCH  CALL    TOOL    ATTEMPT  TIME LEFT  STATE",
            "0000000000000007  b-1    call_1  search  2        28s        started",
            "0000000000000007  b-1    call_1  search  2        0ms        fenced: over for its batch, the slot is still in use",
            "0000000000000007  b-1    call_1  search  2        28s        sent",
        ]
    );
}

#[test]
fn batches_say_how_far_their_calls_are() {
    let delivering = BatchStatus {
        batch_id: "b-3".to_owned(),
        delivering: true,
        ..BatchStatus::default()
    };
    let no_calls = BatchStatus {
        phases: Vec::new(),
        ..sealed_batch("b-4")
    };
    assert_eq!(
        lines(&batches(&[
            batch("b-1"),
            sealed_batch("b-2"),
            delivering,
            no_calls
        ])),
        [
            "BATCH  OPEN FOR  TIME LEFT  TURN       AGENT SILENT  TRACE                             CALLS",
            "b-1    10s       9m50s      streaming  400ms         0af7651916cd43dd8448eb211c80319c  1 streaming, 1 held, 1 queued, 1 running, 1 ended",
            "b-2    10s       9m50s      complete   400ms         -                                 1 running",
            "b-3    -         -          -          -             -                                 all over; the agent has not read them",
            "b-4    10s       9m50s      complete   400ms         -                                 none yet",
        ]
    );
}

#[test]
fn calls_say_where_their_time_went() {
    assert_eq!(
        lines(&calls(&batch("b-1"))),
        [
            "CALL    TOOL    PHASE              BEGAN     HELD  WAITED       RAN   ATTEMPTS  WORKER  TIME LEFT",
            "call_1  fetch   ended TOOL_FAILED  10s ago   -     -            4.0s  1         w-1     -",
            "call_2  search  running            10s ago   -     4.0s (rate)  4.0s  2         w-1     28s",
            "call_3  search  queued             10s ago   -     8.0s (rate)  -     0         -       52s",
            "call_4  order   held               10s ago   8.0s  -            -     0         -       -",
            "call_5  fetch   streaming          1.0s ago  -     -            -     0         -       -",
        ]
    );
}

#[test]
fn lanes_say_what_they_wait_for() {
    assert_eq!(
        lines(&lanes(&[
            lane("fetch", 10, 1),
            busy_lane("search", 2000, 0)
        ])),
        [
            "TOOL    WORKERS  IN FLIGHT  QUEUED  SLOTS NEEDED  WAITS FOR  ENDED  FAILED  MEDIAN  P90   LONGEST",
            "fetch   2        0          0       0             -          10     1       -       -     -",
            "search  2        2          3       4             rate 3.0s  2000   0       120ms   1.5s  1m02s",
        ]
    );
}

#[test]
fn an_explanation_has_the_call_the_reason_and_the_lane() {
    let explained = Explanation {
        batch_id: "b-1".to_owned(),
        call: batch("b-1").calls.into_iter().nth(2),
        why: "It waits\nfor the tool's rate.\x1b[2J".to_owned(),
        lane: Some(busy_lane("search", 0, 0)),
    };
    assert_eq!(
        explanation(&explained, Paint::new(false)),
        [
            "call_3 search in batch b-1: queued",
            "  It waits for the tool's rate. [2J",
            "  search: 3 queued, 2 in flight, 2 workers, 4 slots needed; the first in its queue waits for the tool's rate, for 3.0s now; looked at again in 250ms",
        ]
    );
}

#[test]
fn names_from_elsewhere_cannot_drive_the_terminal() {
    let mut of = worker("w\x1b[2J-1");
    of.tools = vec!["a\nb".to_owned()];
    let table = lines(&workers(&[of]));
    assert_eq!(table.len(), 2);
    assert!(table[1].starts_with("w [2J-1 "), "{table:?}");
    assert!(table[1].ends_with("  a b"), "{table:?}");
}

#[test]
fn a_call_between_two_attempts_waits() {
    let of = batch("b-1");
    let between = CallStatus {
        phase: CallPhase::Backoff.into(),
        ledger: Some(TimeLedger {
            ran: ms(1_000),
            // Of no meaning for a call that has not ended.
            ended: ms(1),
            ..of.calls[1].ledger.clone().unwrap()
        }),
        ..of.calls[1].clone()
    };
    let ledger = ledger(&between, &of);
    assert_eq!(ledger.ran, None);
    assert_eq!(ledger.ended, Duration::from_secs(10));
}

#[test]
fn every_word_of_the_protocol_has_its_json() {
    let sealed = json::operator::batches(&[sealed_batch("b-2")], 3);
    assert_eq!(
        sealed,
        json!({
            "open": 3,
            "batches": [{
                "batch_id": "b-2",
                "open_for_ms": 10_000.0,
                "time_left_ms": 590_000.0,
                "turn_end": "COMPLETE",
                "delivering": false,
                "phases": [{ "phase": "RUNNING", "calls": 1 }],
                "calls": [{
                    "call_id": "call_1",
                    "tool": "search",
                    "position": 0,
                    "phase": "RUNNING",
                    "ledger": {
                        "block_began_ms": 0.0,
                        "block_complete_ms": 1_000.0,
                        "ran_ms": 9_000.0,
                        "attempts": 1,
                        "worker_id": "w-1",
                    },
                }],
                "agent_silent_for_ms": 400.0,
            }],
        })
    );
    let worker = json::operator::worker(&worker("w-1"));
    assert_eq!(worker["state"], "CONNECTED");
    assert_eq!(worker["labels"], json!({ "zone": "a" }));
    assert_eq!(worker["known_for_ms"], 7_260_000.0);
    assert_eq!(
        worker["leases"],
        json!([{
            "lease_id": "0000000000000007",
            "batch_id": "b-1",
            "call_id": "call_1",
            "tool": "search",
            "attempt": 2,
            "time_left_ms": 28_000.0,
            "started": true,
            "fenced": false,
        }])
    );
    let lane = json::operator::lane(&LaneStatus {
        blocked: Some(LaneBlock::InFlight.into()),
        ..busy_lane("search", 5, 1)
    });
    assert_eq!(lane["tool"]["name"], "search");
    assert_eq!(lane["blocked"], "IN_FLIGHT");
    assert_eq!(lane["recent_runs"]["p90_ms"], 1_500.0);
    let failed = json::operator::batches(&[batch("b-1")], 1);
    assert_eq!(failed["batches"][0]["calls"][0]["error"], "TOOL_FAILED");
}
