//! From the first block to the finished batch: what runs when, and one result for each id.

use tokio::time::sleep;
use toolpool_proto::v1::{self, ErrorCode, Policy, TurnEnd};

use super::look_up_and_send;
use crate::support::agent::{call, delta, seal, start, whole};
use crate::support::worker::{answer, error, once, read_only, register, side_effecting, tool};
use crate::support::{Broker, millis, seconds, settle, time, within};

#[tokio::test(start_paused = true)]
async fn every_id_gets_one_result_whatever_becomes_of_its_call() {
    let broker = Broker::start_with(|config| config.no_worker_wait = seconds(1));
    sleep(seconds(1)).await;
    let vanishes = broker.worker("v", 9, [side_effecting("vanish")]).await;
    let tools = [
        tool("ok", once()),
        tool("fails", once()),
        tool("hangs", once()),
        side_effecting("send"),
    ];
    let mut worker = broker.worker("w", 9, tools).await;
    let mut gone = broker.worker("g", 1, [read_only("gone")]).await;
    gone.half_close();
    let agent = broker.agent().await;
    for (id, tool, arguments) in [
        ("1", "ok", "{}"),
        ("2", "fails", "{}"),
        ("3", "hangs", "{}"),
        ("4", "send", "{}"),
        ("5", "ok", "{"),
        ("6", "nobody", "{}"),
        ("7", "gone", "{}"),
        ("1", "ok", "{}"),
    ] {
        agent.call(id, tool, arguments).await;
    }
    agent.call("9", "vanish", "{}").await;
    agent.start(0, "10", "ok").await;
    agent.seal().await;
    let mut vanishes = vanishes;
    vanishes.assignment().await;
    vanishes.cut();
    for assignment in worker.assignments(4).await {
        match &*assignment.tool {
            "hangs" => {}
            "fails" => {
                let no = error(ErrorCode::ToolFailed, "no");
                worker.fail(&assignment, no).await;
            }
            _ => worker.answer(&assignment, "done").await,
        }
    }
    let batch = agent.finished().await.unwrap();
    let ids: Vec<_> = batch.results.iter().map(|result| &*result.id).collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "9", "10"]);
    assert_eq!(batch.succeeded(), ["1", "4"]);
    let codes = ["2", "3", "5", "6", "7", "9", "10"].map(|id| batch.error(id).code());
    let expected = [
        ErrorCode::ToolFailed,
        ErrorCode::Timeout,
        ErrorCode::InvalidArguments,
        ErrorCode::UnknownTool,
        ErrorCode::NoWorker,
        ErrorCode::OutcomeUnknown,
        ErrorCode::Incomplete,
    ];
    assert_eq!(codes, expected);
    assert_eq!(batch.summary.duplicates.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn arguments_reach_the_tool_as_the_model_wrote_them_however_they_were_cut() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, 9, v1::Open::default()).await;
    let text = r#" {"q" : "naïve 🦀 café", "n":1.50} "#;
    agent
        .send_all([start(7, "a", "look_up"), start(2, "b", "look_up")])
        .await;
    for byte in text.as_bytes() {
        agent.send_all([delta(7, [*byte]), delta(2, "")]).await;
    }
    agent.stop(2).await;
    agent.stop(7).await;
    let empty = worker.assignment().await;
    assert_eq!(
        (&*empty.call_id, &*empty.arguments),
        ("b", b"{}".as_slice())
    );
    let exact = worker.assignment().await;
    assert_eq!((&*exact.call_id, &*exact.arguments), ("a", text.as_bytes()));
    for nothing in ["null", " \n"] {
        agent.block(2, nothing, "look_up", nothing).await;
        assert_eq!(worker.assignment().await.arguments, "{}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_can_do_no_harm_starts_while_later_blocks_still_stream() {
    let broker = Broker::start();
    let idempotent = Policy {
        effects: Some(v1::Effects::Idempotent.into()),
        ..Default::default()
    };
    let tools = [read_only("look_up"), tool("put", idempotent)];
    let mut worker = broker.worker("w", 9, tools).await;
    let agent = broker.agent().await;
    agent.start(0, "a", "look_up").await;
    agent.start(1, "b", "put").await;
    agent.delta(0, "{").await;
    worker.expect_no_assignment().await;
    agent.delta(0, "}").await;
    worker.expect_no_assignment().await;
    agent.stop(0).await;
    let first = worker.assignment().await;
    assert_eq!(first.call_id, "a");
    agent.stop(1).await;
    let second = worker.assignment().await;
    assert_eq!(second.call_id, "b");
    worker.answer(&first, "done").await;
    worker.answer(&second, "done").await;
    agent.start(2, "c", "look_up").await;
    sleep(seconds(1)).await;
    agent.stop(2).await;
    worker.answer_next("done").await;
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b", "c"]);
    assert_eq!(batch.ledger("a").held, None);
    assert_eq!(
        time(batch.ledger("c").block_complete),
        seconds(1) + millis(2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_side_effecting_call_is_held_until_the_turn_is_sealed() {
    let broker = Broker::start();
    for half_close in [false, true] {
        let mut worker = broker
            .join(register(
                &format!("w-{half_close}"),
                9,
                [side_effecting("send")],
            ))
            .await
            .unwrap();
        let mut agent = broker.agent().await;
        agent.call("a", "send", "{}").await;
        worker.expect_no_assignment_within(seconds(30)).await;
        if half_close {
            agent.half_close();
        } else {
            agent.seal().await;
        }
        worker.answer_next("sent").await;
        let batch = agent.finished().await.unwrap();
        assert_eq!(batch.text("a"), "sent");
        let held = time(batch.ledger("a").held);
        assert!(held >= seconds(30) && held < seconds(31), "{held:?}");
        worker.half_close();
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_held_runs_after_a_seal_that_is_not_complete() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let mut worker = broker.worker("w", 9, tools).await;
    for end in [TurnEnd::Truncated, TurnEnd::Aborted] {
        let agent = broker.agent().await;
        agent.call("a", "send", "{}").await;
        settle().await;
        agent.seal_as(end).await;
        worker.expect_no_assignment_within(seconds(5)).await;
        assert!(agent.finished().await.unwrap().succeeded().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn results_come_together_once_the_last_call_has_ended() {
    let broker = Broker::start();
    let (mut worker, mut agent) = look_up_and_send(&broker, 9, v1::Open::default()).await;
    for id in ["a", "b", "c"] {
        agent.call(id, "look_up", "{}").await;
    }
    let assignments = worker.assignments(3).await;
    for last in [2, 0] {
        worker.answer(&assignments[last], "done").await;
    }
    assert!(within(seconds(1), agent.frame()).await.is_none());
    worker.answer(&assignments[1], "done").await;
    // Not yet: more may come.
    assert!(within(seconds(1), agent.frame()).await.is_none());
    agent.seal().await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(batch.succeeded(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_complete_turn_in_one_request_ends_as_the_same_turn_streamed() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let _worker = broker.worker("w", 9, tools).await.serve(seconds(1));
    sleep(seconds(10)).await;
    let calls = [
        ("a", "send", "{}"),
        ("b", "look_up", r#"{"q":1}"#),
        ("c", "nobody", "{}"),
        ("b", "look_up", "{}"),
        ("d", "look_up", "{"),
    ];
    let streamed = broker.run(&calls).await;
    let request = v1::ExecuteBatchRequest {
        calls: calls
            .iter()
            .map(|(id, tool, arguments)| whole(id, tool, arguments))
            .collect(),
        ..Default::default()
    };
    let at_once = broker.execute_batch(request.clone()).await.unwrap();
    assert_eq!(streamed.results, at_once.results);
    assert_eq!(streamed.summary.duplicates, at_once.summary.duplicates);
    assert_eq!(streamed.elapsed(), at_once.elapsed());

    let truncated = v1::ExecuteBatchRequest {
        open: Some(v1::Open {
            batch_id: Some("mine".to_owned()),
            ..Default::default()
        }),
        seal: Some(v1::Seal {
            turn_end: Some(TurnEnd::Truncated.into()),
        }),
        ..request
    };
    let batch = broker.execute_batch(truncated).await.unwrap();
    assert_eq!(batch.summary.batch_id, "mine");
    assert_eq!(batch.error("a").code(), ErrorCode::TruncatedTurn);
    assert_eq!(batch.text("b"), "done");
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_nothing_is_finished_at_once() {
    let broker = Broker::start();
    assert_eq!(broker.run(&[]).await.summary.calls, 0);
    let nothing = v1::ExecuteBatchRequest::default();
    let batch = broker.execute_batch(nothing).await.unwrap();
    assert_eq!(batch.summary.calls, 0);
}

#[tokio::test(start_paused = true)]
async fn frames_in_one_packet_are_taken_as_if_each_had_come_alone() {
    let broker = Broker::start();
    let tools = [read_only("look_up"), side_effecting("send")];
    let mut worker = broker.worker("w", 9, tools).await;
    let turn = vec![
        v1::agent_frame::Frame::Open(v1::Open::default()),
        call("a", "send", "{}"),
        start(0, "b", "look_up"),
        delta(0, "{}"),
        v1::agent_frame::Frame::BlockStop(v1::BlockStop { index: 0 }),
        seal(TurnEnd::Complete),
    ];
    let agent = broker.open_with(turn, |_| ()).await.unwrap();
    let assignments = worker.assignments(2).await;
    let outcomes = assignments
        .iter()
        .map(|of| answer(of.lease_id, &of.call_id));
    worker.link.send_all(outcomes).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!((batch.text("a"), batch.text("b")), ("a", "b"));
}
