//! Reaching the broker: what is tried again, and what is not.

mod support;

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};
use toolpool_client::{BatchOptions, Client, ConnectOptions, Error, ProtocolError};

use support::{broker, broker_with, page, queued};

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_not_there_yet_is_dialled_again() {
    let (mut broker, client) = broker();
    broker.refuse_connections(4);
    let (batch, _turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    assert_eq!(batch.unwrap().id(), "b-1");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_comes_is_given_up_in_time() {
    let (broker, client) = broker();
    broker.refuse_connections(u32::MAX);
    let began = Instant::now();
    let error = client.batch(BatchOptions::default()).await.unwrap_err();
    assert!(!error.may_have_run());
    let Error::Connect { attempts, .. } = error else {
        panic!("{error:?}");
    };
    assert!((6..40).contains(&attempts), "{attempts} attempts");
    assert!(began.elapsed() <= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_broker_may_be_waited_for_without_end() {
    let options = ConnectOptions::default().connect_timeout(Duration::MAX);
    let (mut broker, client) = broker_with(options);
    broker.refuse_connections(100);
    let (batch, _turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    assert!(batch.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_says_nothing_is_given_up_in_time() {
    let (mut broker, client) = broker();
    let began = Instant::now();
    let silent = async {
        let _turn = broker.turn().await.answer_with_nothing();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        opened = client.batch(BatchOptions::default()) => opened.unwrap_err(),
        () = silent => unreachable!(),
    };
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_draining_broker_is_asked_again_before_accepted() {
    let (mut broker, client) = broker();
    let answer = async {
        broker.turn().await.refuse(Status::unavailable("draining"));
        broker.take().await
    };
    let (batch, _turn) = tokio::join!(client.batch(BatchOptions::default()), answer);
    assert!(batch.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_before_accepted_is_made_again() {
    let (mut broker, client) = broker();
    let answer = async {
        let _turn = broker.turn().await;
        broker.cut();
        broker.take().await
    };
    let (batch, _turn) = tokio::join!(client.batch(BatchOptions::default()), answer);
    assert!(batch.is_ok());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_after_accepted() {
    let (mut broker, client) = broker();
    let (batch, turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    let mut batch = batch.unwrap();
    batch.call("a", "place_order", "{}").await.unwrap();
    turn.send([queued("a")]).await;
    batch.next_progress().await.unwrap();
    broker.cut();
    let error = batch.finish().await.unwrap_err();
    assert!(matches!(error, Error::Disconnected { .. }), "{error:?}");
    assert!(error.may_have_run());
    assert!(broker.is_idle());
}

#[tokio::test(start_paused = true)]
async fn the_next_batch_after_a_lost_connection_is_a_new_one() {
    let (mut broker, client) = broker();
    let (lost, _turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    broker.cut();
    drop(lost);
    let (batch, _turn) = tokio::join!(client.batch(BatchOptions::default()), broker.take());
    assert!(batch.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_asked_again() {
    for code in [
        Code::InvalidArgument,
        Code::AlreadyExists,
        Code::ResourceExhausted,
    ] {
        let (mut broker, client) = broker();
        let answer = async { broker.turn().await.refuse(Status::new(code, "no")) };
        let options = BatchOptions::default().batch_id("mine");
        let (batch, ()) = tokio::join!(client.batch(options), answer);
        let error = batch.unwrap_err();
        assert!(!error.may_have_run());
        assert!(
            matches!(error, Error::Refused { code: seen, .. } if seen == code),
            "{error:?}"
        );
        assert!(broker.is_idle());
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_the_lost_attempt_still_holds_is_waited_for() {
    let (mut broker, client) = broker();
    let answer = async {
        let _lost = broker.turn().await;
        broker.cut();
        broker.turn().await.refuse(Status::already_exists("mine"));
        broker.take().await
    };
    let options = BatchOptions::default().batch_id("mine");
    let (batch, _turn) = tokio::join!(client.batch(options), answer);
    assert!(batch.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_is_asked_for_until_the_broker_is_there() {
    let (broker, client) = broker();
    broker.refuse_connections(3);
    let tools = client.tools().await.unwrap();
    assert_eq!(tools[0].name, "add");
    assert_eq!(tools[0].workers, 2);
}

#[tokio::test(start_paused = true)]
async fn the_catalogue_is_read_to_its_last_page() {
    let (broker, client) = broker();
    broker.catalogue([
        ("", page(["add", "find"], "find")),
        ("find", page([], "half")),
        ("half", page(["hash"], "")),
    ]);
    let tools = client.tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["add", "find", "hash"]);
}

#[tokio::test(start_paused = true)]
async fn a_catalogue_that_goes_round_in_a_circle_is_given_up() {
    let (broker, client) = broker();
    broker.catalogue([
        ("", page(["add"], "a")),
        ("a", page(["find"], "b")),
        ("b", page(["hash"], "a")),
    ]);
    let error = client.tools().await.unwrap_err();
    let Error::Protocol(ProtocolError::PageAgain(token)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(token, "a");
}

#[tokio::test]
async fn what_is_no_address_is_said_at_once() {
    for address in ["", "http://", "https://broker:7400", "unix:///tmp/b", "a b"] {
        let client = Client::lazy(address, ConnectOptions::default());
        assert!(matches!(client, Err(Error::Endpoint { .. })), "{address}");
    }
    for address in [
        "127.0.0.1:7400",
        "http://broker:7400",
        "[::1]:7400",
        "broker",
    ] {
        assert!(
            Client::lazy(address, ConnectOptions::default()).is_ok(),
            "{address}"
        );
    }
}
