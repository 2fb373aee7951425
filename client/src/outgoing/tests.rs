//! How frames leave in packets, and when the stream ends.

use futures_util::{FutureExt, StreamExt};

use super::*;

fn delta(length: usize) -> Frame {
    Frame::BlockDelta(v1::BlockDelta {
        index: 0,
        fragment: vec![b' '; length].into(),
    })
}

fn seal() -> Frame {
    Frame::Seal(v1::Seal::default())
}

/// How many frames the next packet has; `None` when none is ready.
fn ready(packets: &mut Outgoing) -> Option<usize> {
    let packet = packets.next().now_or_never()?;
    Some(packet.map_or(0, |packet| packet.frames.len()))
}

#[test]
fn what_is_ready_leaves_in_one_packet() {
    let (frames, mut packets) = channel(v1::Open::default());
    for _ in 0..10 {
        frames.try_send(delta(1)).unwrap();
    }
    assert_eq!(ready(&mut packets), Some(11), "the open and ten deltas");
    assert_eq!(ready(&mut packets), None);
    frames.try_send(delta(1)).unwrap();
    assert_eq!(ready(&mut packets), Some(1), "a frame alone does not wait");
}

#[test]
fn a_packet_does_not_grow_past_its_limit() {
    let (frames, mut packets) = channel(v1::Open::default());
    for _ in 0..3 {
        frames.try_send(delta(PACKET_BYTES)).unwrap();
    }
    assert_eq!(ready(&mut packets), Some(2), "the open and one delta");
    assert_eq!(ready(&mut packets), Some(1));
}

#[test]
fn the_stream_ends_after_the_seal() {
    let (frames, mut packets) = channel(v1::Open::default());
    frames.try_send(seal()).unwrap();
    assert_eq!(ready(&mut packets), Some(2));
    assert_eq!(ready(&mut packets), Some(0), "the half-close");
}

#[test]
fn without_a_seal_a_dropped_sender_does_not_end_the_stream() {
    let (frames, mut packets) = channel(v1::Open::default());
    assert_eq!(ready(&mut packets), Some(1));
    drop(frames);
    assert_eq!(ready(&mut packets), None);
}
