//! A turn that is under way: what reaches the broker, and what comes back.

mod support;

use tonic::{Code, Status};
use toolpool_client::{BatchOptions, Call, Dialect, DropReason, Error, Over, Owner, TurnEnd};
use toolpool_proto::v1::batch_frame::Frame as Answer;
use toolpool_proto::v1::{self, agent_frame::Frame};

use support::{broker, finished, queued, result};

fn turn_end(frame: &Frame) -> Option<v1::TurnEnd> {
    match frame {
        Frame::Seal(seal) => Some(seal.turn_end()),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_go_in_and_results_come_back_by_id() {
    let (mut broker, client) = broker();
    let agent = async {
        let mut batch = client.batch(BatchOptions::default()).await.unwrap();
        assert_eq!(batch.id(), "b-1");
        batch.start(0, "call_1", "search").await.unwrap();
        batch.delta(0, "{}").await.unwrap();
        batch.stop(0).await.unwrap();
        batch.call("call_2", "add", "{}").await.unwrap();
        batch.finish().await.unwrap()
    };
    let answer = async {
        let mut turn = broker.take().await;
        let frames = turn.rest().await;
        assert!(matches!(&frames[0], Frame::BlockStart(start) if start.id == "call_1"));
        assert!(matches!(&frames[3], Frame::Call(call) if call.id == "call_2"));
        assert_eq!(turn_end(&frames[4]), Some(v1::TurnEnd::Complete));
        turn.send([result("call_2", 1), result("call_1", 0), finished(2)])
            .await;
    };
    let (batch, ()) = tokio::join!(agent, answer);
    assert_eq!(batch.results()[0].id, "call_1");
    assert_eq!(batch.get("call_2").unwrap().position, 1);
}

#[tokio::test(start_paused = true)]
async fn a_providers_stream_goes_in_and_its_turn_comes_back() {
    let (mut broker, client) = broker();
    let agent = async {
        let options = BatchOptions::default()
            .dialect(Dialect::Auto)
            .local_tools(["mine"])
            .progress(true);
        let mut batch = client.batch(options).await.unwrap();
        assert_eq!(batch.dialect(), None);
        batch.provider_data("data: {\"ty").await.unwrap();
        batch.provider_event("{}").await.unwrap();
        batch.next_progress().await.unwrap();
        assert_eq!(batch.dialect(), Some(Dialect::Anthropic));
        batch.finish_truncated().await.unwrap()
    };
    let answer = async {
        let mut turn = broker.take().await;
        assert_eq!(turn.open.dialect(), v1::Dialect::Auto);
        assert_eq!(turn.open.local_tools, ["mine"]);
        let told = v1::Accepted {
            batch_id: "b-1".to_owned(),
            dialect: Some(v1::Dialect::Anthropic.into()),
        };
        turn.send([Answer::Accepted(told), queued("call_1")]).await;
        let frames = turn.rest().await;
        assert!(matches!(&frames[0], Frame::ProviderData(bytes) if bytes == "data: {\"ty"));
        assert!(matches!(&frames[1], Frame::ProviderEvent(json) if json == "{}"));
        assert_eq!(turn_end(&frames[2]), Some(v1::TurnEnd::Truncated));
        let Answer::Finished(mut end) = finished(1) else {
            panic!("`finished` is what it is called");
        };
        end.turn = Some(v1::Turn {
            dialect: Some(v1::Dialect::Anthropic.into()),
            turn_end: v1::TurnEnd::Truncated.into(),
            error: Some("it broke off".to_owned()),
            answer: "[1]".into(),
            dropped: vec![v1::DroppedCall {
                id: "call_2".to_owned(),
                reason: v1::DropReason::Superseded.into(),
                ..v1::DroppedCall::default()
            }],
            not_ours: vec![v1::PassedOverCall {
                provider_id: Some("toolu_1".to_owned()),
                tool: "mine".to_owned(),
                position: 1,
                owner: v1::Owner::Agent.into(),
            }],
            ..v1::Turn::default()
        });
        turn.send([result("call_1", 0), Answer::Finished(end)])
            .await;
    };
    let (batch, ()) = tokio::join!(agent, answer);
    let turn = batch.turn.unwrap();
    assert_eq!(turn.dialect, Some(Dialect::Anthropic));
    assert_eq!(turn.end, TurnEnd::Truncated);
    assert_eq!(turn.stop_reason, None);
    assert_eq!(turn.error.as_deref(), Some("it broke off"));
    assert_eq!(turn.answer, "[1]");
    assert_eq!(turn.dropped[0].id, "call_2");
    assert_eq!(turn.dropped[0].reason, DropReason::Superseded);
    let mine = &turn.not_ours[0];
    assert_eq!(mine.provider_id.as_deref(), Some("toolu_1"));
    assert_eq!(
        (&*mine.tool, mine.position, mine.owner),
        ("mine", 1, Owner::Agent)
    );
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_ready_together_leave_together() {
    let (mut broker, client) = broker();
    let (batch, mut turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let mut batch = batch.unwrap();
    batch.start(0, "call_1", "search").await.unwrap();
    for _ in 0..20 {
        batch.delta(0, " ").await.unwrap();
    }
    batch.stop(0).await.unwrap();
    assert_eq!(turn.packet().await.unwrap().len(), 22);
}

#[tokio::test(start_paused = true)]
async fn a_turn_can_end_in_three_ways() {
    for expected in [
        v1::TurnEnd::Complete,
        v1::TurnEnd::Truncated,
        v1::TurnEnd::Aborted,
    ] {
        let (mut broker, client) = broker();
        let agent = async {
            let batch = client.batch(BatchOptions::default()).await.unwrap();
            match expected {
                v1::TurnEnd::Truncated => batch.finish_truncated().await,
                v1::TurnEnd::Aborted => batch.abort().await,
                _ => batch.finish().await,
            }
        };
        let answer = async {
            let mut turn = broker.take().await;
            let frames = turn.rest().await;
            turn.finish(&[]).await;
            turn_end(&frames[0])
        };
        let (batch, seen) = tokio::join!(agent, answer);
        assert!(batch.unwrap().results().is_empty());
        assert_eq!(seen, Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn complete_calls_are_a_batch_too() {
    let (mut broker, client) = broker();
    let calls = [
        Call::new("a", "add", "{}").idempotency_key("k"),
        Call::new("b", "add", "{}"),
    ];
    let answer = async {
        // `take` checks that no call comes before `accepted`.
        let mut turn = broker.take().await;
        let frames = turn.rest().await;
        assert!(matches!(&frames[0], Frame::Call(call) if call.idempotency_key() == "k"));
        turn.finish(&["a", "b"]).await;
    };
    let (batch, ()) = tokio::join!(client.execute(calls), answer);
    assert!(batch.unwrap().all_succeeded());
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_while_the_batch_runs() {
    let (mut broker, client) = broker();
    let (batch, turn) = tokio::join!(
        client.batch(BatchOptions::default().progress(true)),
        broker.take()
    );
    let mut batch = batch.unwrap();
    turn.send([queued("a"), queued("b")]).await;
    assert_eq!(batch.next_progress().await.unwrap().unwrap().id, "a");
    batch.seal(TurnEnd::Complete).await.unwrap();
    assert_eq!(batch.next_progress().await.unwrap().unwrap().id, "b");
    turn.finish(&["a", "b"]).await;
    assert_eq!(batch.next_progress().await.unwrap(), None);
    assert!(batch.is_finished());
    assert_eq!(batch.finish().await.unwrap().results().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_two_halves_work_apart() {
    let (mut broker, client) = broker();
    let (batch, mut turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let (mut writer, reader) = batch.unwrap().split();
    writer.push(Call::new("a", "add", "{}")).await.unwrap();
    writer.seal(TurnEnd::Truncated).await.unwrap();
    let frames = turn.rest().await;
    assert_eq!(turn_end(&frames[1]), Some(v1::TurnEnd::Truncated));
    turn.finish(&["a"]).await;
    assert!(reader.finished().await.unwrap().get("a").is_some());
}

#[tokio::test(start_paused = true)]
async fn dropping_a_batch_resets_the_stream_and_never_seals_it() {
    let (mut broker, client) = broker();
    let (batch, mut turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    drop(batch);
    assert!(turn.is_reset().await);

    let (batch, mut turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let mut batch = batch.unwrap();
    batch.call("a", "place_order", "{}").await.unwrap();
    drop(batch);
    assert!(turn.is_reset().await, "with a frame on its way");
}

#[tokio::test(start_paused = true)]
async fn dropping_either_half_resets_the_stream() {
    let (mut broker, client) = broker();
    let (batch, mut turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let (writer, reader) = batch.unwrap().split();
    drop(writer);
    assert!(turn.is_reset().await);
    assert!(matches!(
        reader.finished().await,
        Err(Error::Disconnected { .. } | Error::Ended { .. })
    ));

    let (batch, mut turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let (mut writer, reader) = batch.unwrap().split();
    drop(reader);
    assert!(turn.is_reset().await);
    while writer.delta(0, " ").await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_wait_for_the_results_resets_the_stream() {
    let (mut broker, client) = broker();
    let (batch, turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let waiting = tokio::spawn(batch.unwrap().finish());
    let mut turn = turn;
    assert_eq!(turn.rest().await.len(), 1, "the seal");
    waiting.abort();
    // The request is at its end, so the reset shows on the answer: nobody takes it.
    while !turn.is_abandoned() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_opening_resets_the_stream() {
    let (mut broker, client) = broker();
    let opening = tokio::spawn(async move { client.batch(BatchOptions::default()).await });
    let mut turn = broker.turn().await.answer_with_nothing();
    opening.abort();
    assert!(turn.is_reset().await);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_after_the_broker_finished_goes_nowhere() {
    let (mut broker, client) = broker();
    let (batch, turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let mut batch = batch.unwrap();
    batch.start(0, "a", "add").await.unwrap();
    turn.finish(&["a"]).await;
    drop(turn);
    // More than the connection can hold: only the end of the batch lets this through.
    for _ in 0..1000 {
        batch.delta(0, vec![b' '; 4096]).await.unwrap();
    }
    assert!(batch.is_finished());
    assert!(batch.finish().await.unwrap().get("a").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_waits_is_freed_when_its_reader_goes() {
    let (mut broker, client) = broker();
    let (batch, _turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let (mut writer, reader) = batch.unwrap().split();
    let writing = tokio::spawn(async move {
        loop {
            if let Err(over) = writer.delta(0, vec![b' '; 4096]).await {
                return over;
            }
        }
    });
    // Nothing reads on the other side, so the writer comes to a stand.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!writing.is_finished());
    drop(reader);
    assert_eq!(writing.await.unwrap(), Over);
}

#[tokio::test(start_paused = true)]
async fn a_status_after_accepted_ends_the_batch() {
    let (mut broker, client) = broker();
    let (batch, turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    turn.fail(Status::invalid_argument("block_delta.index: no such block"))
        .await;
    let error = batch.unwrap().finish().await.unwrap_err();
    assert!(error.may_have_run());
    let Error::Ended { code, message, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(message, "block_delta.index: no such block");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_too_early_breaks_the_protocol() {
    let (mut broker, client) = broker();
    let (batch, turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    drop(turn);
    let error = batch.unwrap().finish().await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
}
