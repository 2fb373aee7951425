use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use toolpool_broker::{Config, Shutdown};

use super::agent::{self, Load, Said};
use super::relay;
use super::worker::{self, Answer, Seat};

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = listener.local_addr().unwrap();
    (listener, server)
}

async fn relay() -> SocketAddr {
    let (listener, server) = listen().await;
    tokio::spawn(relay::serve(listener));
    server
}

async fn broker() -> SocketAddr {
    let (listener, server) = listen().await;
    let run = toolpool_broker::run(Config::default(), listener, Shutdown::default());
    tokio::spawn(run);
    server
}

/// Two workers, an agent, and real sockets; the agent itself checks that each call has one result.
async fn check(server: SocketAddr, batch: u32, open: u32, calls: u64) {
    let (registered, mut ready) = mpsc::channel(2);
    for id in ["a", "b"] {
        let seat = Seat {
            id: id.into(),
            tools: vec!["noop".into()],
            slots: 16,
            answer: Answer::AtOnce,
        };
        let channel = super::dial(server).await.unwrap();
        let registered = registered.clone();
        tokio::spawn(worker::join(channel, seat, move || {
            registered.try_send(()).unwrap();
            Ok(())
        }));
        ready.recv().await.unwrap();
    }

    let load = Load {
        tool: "noop".into(),
        batch,
        open,
        warm_up_ms: 0,
        window_ms: 0,
        calls: Some(calls),
    };
    let mut said = Vec::new();
    let channel = super::dial(server).await.unwrap();
    let tally = agent::load(channel, load, |what| {
        said.push(what);
        Ok(())
    })
    .await
    .unwrap();

    assert!(tally.calls >= calls, "{tally:?}");
    assert_eq!(tally.calls, tally.batches * u64::from(batch));
    assert!(
        tally.p50_us > 0.0 && tally.p50_us <= tally.p99_us,
        "{tally:?}"
    );
    assert!(matches!(said.first(), Some(Said::Start)));
    assert!(matches!(said.last(), Some(Said::End)));
}

#[tokio::test]
async fn the_relay_gives_one_result_for_each_call_of_a_batch() {
    check(relay().await, 8, 1, 400).await;
}

#[tokio::test]
async fn the_relay_keeps_open_batches_apart() {
    check(relay().await, 32, 16, 10_000).await;
}

#[tokio::test]
async fn the_broker_takes_the_same_agent_and_workers() {
    check(broker().await, 32, 16, 10_000).await;
}
