//! The stream to the broker while it is up: what comes in, what may go out, and whether anybody is there.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout_at},
};
use tokio_util::sync::DropGuard;
use tonic::{Status, Streaming};
use toolpool_proto::v1 as proto;

const SHORTEST_BEAT: Duration = Duration::from_millis(1);
const LONGEST_SILENCE: Duration = Duration::from_hours(24);

/// A stream on which this worker is registered. Dropping it breaks the connection; [`Stream::leave`] ends it.
pub(super) struct Stream {
    /// First, so that it is dropped first: see `cut`.
    _cut: DropGuard,
    outbound: mpsc::Sender<proto::JoinRequest>,
    inbound: Streaming<proto::JoinResponse>,
    beat: Interval,
    /// The longest that the broker may say nothing.
    silence: Duration,
    heard: Instant,
    up_since: Instant,
}

pub(super) enum Event {
    /// The broker sent something.
    Packet(proto::JoinResponse),
    /// There is room for a packet.
    Room,
    /// A sign of life is due.
    Beat,
    /// The stream is over.
    Lost(Loss),
}

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Loss {
    #[error("the broker ended the stream")]
    Ended,
    #[error("the stream broke")]
    Broken(#[source] Box<Status>),
    #[error("the broker has been silent for {0:?}")]
    Silent(Duration),
    #[error("the broker acknowledges no outcomes")]
    Flooded,
}

impl Stream {
    pub(super) fn new(
        cut: DropGuard,
        outbound: mpsc::Sender<proto::JoinRequest>,
        inbound: Streaming<proto::JoinResponse>,
        beat_interval: Duration,
        missed_beats: u32,
        now: Instant,
    ) -> Self {
        let beat_interval = beat_interval.clamp(SHORTEST_BEAT, LONGEST_SILENCE);
        let mut beat = interval_at(now + beat_interval, beat_interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = beat_interval
            .saturating_mul(missed_beats.saturating_add(1))
            .min(LONGEST_SILENCE);
        Self {
            _cut: cut,
            outbound,
            inbound,
            beat,
            silence,
            heard: now,
            up_since: now,
        }
    }

    /// Waits for what comes first. `has_news`: whether room for a packet is wanted. Cancel safe.
    pub(super) async fn next(&mut self, has_news: bool) -> Event {
        let event = tokio::select! {
            message = self.inbound.message() => match message {
                Ok(Some(packet)) => Event::Packet(packet),
                Ok(None) => Event::Lost(Loss::Ended),
                Err(status) => Event::Lost(Loss::Broken(Box::new(status))),
            },
            // An error means that the stream is breaking, which `inbound` tells better.
            Ok(_) = self.outbound.reserve(), if has_news => Event::Room,
            _ = self.beat.tick() => Event::Beat,
            () = sleep_until(self.heard + self.silence) => Event::Lost(Loss::Silent(self.silence)),
        };
        if let Event::Packet(_) = event {
            self.heard = Instant::now();
        }
        event
    }

    /// Sends a packet, for which there must be room.
    pub(super) fn send(&mut self, frames: Vec<proto::WorkerFrame>) {
        // Nobody else sends, so the room that was seen is still there; and if the stream has just broken, all that
        // counts is said again on the next one.
        let _ = self.outbound.try_send(proto::JoinRequest { frames });
    }

    /// How long the stream has been up.
    pub(super) fn age(&self) -> Duration {
        self.up_since.elapsed()
    }

    /// Half-closes: the worker is gone for good. Waits, until `deadline` at the latest, for the broker to end its side,
    /// so that the half-close is not lost with the connection.
    pub(super) async fn leave(mut self, deadline: Instant) {
        drop(self.outbound);
        let ended = async { while let Ok(Some(_)) = self.inbound.message().await {} };
        let _ = timeout_at(deadline, ended).await;
    }
}
