//! What a session has to tell its worker, packed: all that is ready goes into one packet.

use prost::Message;
use tokio::time::Instant;
use toolpool_proto::v1;
use toolpool_proto::v1::pool_frame::Frame;

use super::ACK_DELAY;
use crate::grpc::PACKET_BYTES;
use crate::grpc::convert::pool_frame;
use crate::id::LeaseId;

/// Acknowledgements that go without waiting for company.
const MANY_ACKS: usize = 64;
/// What a frame is taken to be beside its payload.
const FRAME_BYTES: usize = 256;

/// Frames in order. Bounded by the worker's slots: an assignment takes one, and the rest is at most a few a lease.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: Vec<v1::PoolFrame>,
    /// About what they come to, so that an ordinary packet need not be measured.
    bytes: usize,
    /// Outcomes that arrived. They ride with the next packet, or go alone when they are due.
    acks: Vec<LeaseId>,
    acks_due: Option<Instant>,
    hurry: bool,
    stalled: bool,
}

impl Outbox {
    pub(super) fn push(&mut self, frame: Frame) {
        self.bytes += FRAME_BYTES;
        self.frames.push(pool_frame(frame));
    }

    pub(super) fn assign(&mut self, assignment: v1::Assignment) {
        self.bytes += assignment.arguments.len();
        self.push(Frame::Assignment(assignment));
    }

    /// Takes an assignment back that has not left yet.
    pub(super) fn take_back(&mut self, lease: LeaseId) -> bool {
        let place = self
            .frames
            .iter()
            .position(|frame| assigned(frame) == Some(lease));
        place.is_some_and(|place| {
            self.frames.remove(place);
            true
        })
    }

    /// The leases whose assignments have not left.
    pub(super) fn unsent(&self) -> Vec<LeaseId> {
        self.frames.iter().filter_map(assigned).collect()
    }

    pub(super) fn ack(&mut self, lease: LeaseId, now: Instant) {
        self.acks.push(lease);
        self.acks_due.get_or_insert(now + ACK_DELAY);
    }

    /// A worker that drains waits for nothing but acknowledgements.
    pub(super) fn do_not_delay_acks(&mut self) {
        self.hurry = true;
    }

    /// When acknowledgements go alone. Not while the connection takes nothing: then it is room that is waited for.
    pub(super) fn acks_due(&self) -> Option<Instant> {
        self.acks_due.filter(|_| !self.stalled)
    }

    /// Frames that wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len() + self.acks.len()
    }

    /// The connection takes no more for now.
    pub(super) fn stall(&mut self) {
        self.stalled = true;
    }

    pub(super) fn resume(&mut self) {
        self.stalled = false;
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether there is something that should go now.
    pub(super) fn has_packet(&self, now: Instant) -> bool {
        let due = self.hurry
            || self.acks.len() >= MANY_ACKS
            || self.acks_due.is_some_and(|due| now >= due);
        !self.frames.is_empty() || (due && !self.acks.is_empty())
    }

    /// The next packet: all that is ready, or as much of it as makes about [`PACKET_BYTES`].
    pub(super) fn packet(&mut self) -> v1::JoinResponse {
        let many = if self.bytes <= PACKET_BYTES {
            self.frames.len()
        } else {
            self.as_many_as_fit()
        };
        let rest = self.frames.split_off(many);
        let mut frames = std::mem::replace(&mut self.frames, rest);
        self.bytes = if self.frames.is_empty() {
            0
        } else {
            self.bytes
        };
        self.acks_due = None;
        let acks = self
            .acks
            .drain(..)
            .map(|id| v1::OutcomeAck { lease_id: id.0 });
        frames.extend(acks.map(|ack| pool_frame(Frame::OutcomeAck(ack))));
        v1::JoinResponse { frames }
    }

    fn as_many_as_fit(&self) -> usize {
        let mut bytes = 0;
        let fitting = self.frames.iter().take_while(|frame| {
            bytes += frame.encoded_len();
            bytes <= PACKET_BYTES
        });
        // One frame that is larger goes alone.
        fitting.count().max(1)
    }
}

fn assigned(frame: &v1::PoolFrame) -> Option<LeaseId> {
    match &frame.frame {
        Some(Frame::Assignment(assignment)) => Some(LeaseId(assignment.lease_id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(id: u64, bytes: usize) -> v1::Assignment {
        v1::Assignment {
            lease_id: id,
            arguments: vec![b' '; bytes].into(),
            ..Default::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn acknowledgements_wait_for_company_but_not_long() {
        let mut outbox = Outbox::default();
        outbox.ack(LeaseId(1), Instant::now());
        assert!(!outbox.has_packet(Instant::now()));
        assert!(outbox.has_packet(Instant::now() + ACK_DELAY));
        outbox.assign(assignment(2, 1));
        assert!(outbox.has_packet(Instant::now()));
        assert_eq!(outbox.unsent(), [LeaseId(2)]);
        assert_eq!(outbox.packet().frames.len(), 2);
        assert!(outbox.unsent().is_empty());
        outbox.ack(LeaseId(3), Instant::now());
        outbox.do_not_delay_acks();
        assert!(outbox.has_packet(Instant::now()));
    }

    #[test]
    fn a_packet_is_about_a_mebibyte_unless_one_frame_is_more() {
        let mut outbox = Outbox::default();
        for (id, bytes) in [
            (1, 10),
            (2, 3 * PACKET_BYTES),
            (3, PACKET_BYTES / 2),
            (4, PACKET_BYTES / 3),
        ] {
            outbox.assign(assignment(id, bytes));
        }
        let mut sizes = Vec::new();
        while outbox.has_packet(Instant::now()) {
            sizes.push(outbox.packet().frames.len());
        }
        assert_eq!(sizes, [1, 1, 2]);
    }

    #[test]
    fn an_assignment_can_be_taken_back_until_it_has_left() {
        let mut outbox = Outbox::default();
        outbox.assign(assignment(1, 1));
        assert!(outbox.take_back(LeaseId(1)));
        assert!(!outbox.take_back(LeaseId(1)) && !outbox.has_packet(Instant::now()));
    }
}
