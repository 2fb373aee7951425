//! Connections that never say what they are.

mod support;

use support::{Broker, seconds, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_connection_without_the_whole_preface_is_closed() {
    let broker = Broker::start();
    for bytes in [0, 1, 12, 23] {
        let mut silent = broker.pipe().await;
        let dialled = Instant::now();
        silent.write_all(&PREFACE[..bytes]).await.unwrap();
        let mut answer = Vec::new();
        let read = within(seconds(11), silent.read_to_end(&mut answer)).await;
        assert!(read.is_some(), "{bytes} bytes: still open");
        assert_eq!(dialled.elapsed(), seconds(10), "{bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn to_send_it_byte_by_byte_is_no_more_time() {
    let broker = Broker::start();
    let mut slow = broker.pipe().await;
    let dialled = Instant::now();
    for byte in &PREFACE[..9] {
        slow.write_all(&[*byte]).await.unwrap();
        sleep(seconds(1)).await;
    }
    let read = within(seconds(11), slow.read_to_end(&mut Vec::new())).await;
    assert!(read.is_some(), "still open");
    assert_eq!(dialled.elapsed(), seconds(10));
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_the_preface_stays() {
    let broker = Broker::start();
    let mut client = broker.client().await;
    let mut raw = broker.pipe().await;
    raw.write_all(&PREFACE[..20]).await.unwrap();
    sleep(seconds(9)).await;
    raw.write_all(&PREFACE[20..]).await.unwrap();
    // An empty SETTINGS frame, which HTTP/2 asks for next.
    raw.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut answer = Vec::new();
    let read = within(seconds(10), raw.read_to_end(&mut answer)).await;
    assert!(read.is_none(), "closed");
    assert!(!answer.is_empty(), "the broker's own SETTINGS");
    sleep(seconds(3_600)).await;
    let listed = client.list_tools(toolpool_proto::v1::ListToolsRequest::default());
    assert!(listed.await.is_ok());
}
