//! The leases of a worker, and what is to be said of them: plain code, without I/O or a clock.
//!
//! What it promises: at most `slots` attempts run, whatever the broker sends; every lease that is not revoked has
//! exactly one outcome, kept and sent again on each new stream until the broker acknowledges it; of a revoked lease
//! nothing more is said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message;
use toolpool_proto::v1::{self as proto, outcome, worker_frame::Frame};

use crate::{
    Output, ToolError,
    assignment::{Assignment, LeaseId},
    output,
};

/// Outcomes beyond the slots that may wait for the broker's acknowledgement. A broker that takes more without
/// acknowledging breaks the protocol.
const UNACKNOWLEDGED: usize = 4096;

/// What the session has to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Action {
    /// Run this.
    Start(Assignment),
    /// Tell the attempt to end, and end it if it does not.
    Cancel(LeaseId),
}

/// How an attempt ended, before it is known whether anybody wants to hear of it.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The handler returned.
    Returned(Result<Output, ToolError>),
    /// The handler panicked, with this message.
    Panicked(String),
    /// The attempt was dropped before its handler returned.
    Dropped,
}

#[derive(Debug)]
pub(crate) struct State {
    slots: usize,
    tools: BTreeSet<String>,
    max_result_bytes: u64,
    /// Leases without an outcome: what the broker counts against the slots.
    live: BTreeMap<LeaseId, Live>,
    /// Outcomes that are not acknowledged.
    ended: BTreeMap<LeaseId, Ended>,
    /// Revoked attempts that have not ended yet. They still take up room.
    revoked: BTreeSet<LeaseId>,
    /// Assignments whose room is still taken up by a revoked attempt, in order. Their leases are `Waiting`.
    waiting: VecDeque<Assignment>,
    /// Outcomes to be sent on this stream, in order. A lease may have gone since.
    outbox: VecDeque<LeaseId>,
    /// The latest word of each lease that runs.
    progress: BTreeMap<LeaseId, proto::ToolProgress>,
    /// Leases that began to run and have not been said to.
    started: BTreeSet<LeaseId>,
    beat_due: bool,
    drain: Drain,
    outcomes: u64,
}

#[derive(Debug)]
enum Live {
    Waiting,
    Running { cancelled: bool },
}

/// An outcome that is not acknowledged.
#[derive(Debug)]
struct Ended {
    outcome: proto::Outcome,
    /// Where it stands in the order in which outcomes came to be.
    order: u64,
}

/// How far the word that this worker drains has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Drain {
    /// The worker does not drain.
    No,
    /// Not said on this stream yet.
    Due,
    /// Said; an assignment may have crossed it.
    Sent,
    /// Acknowledged: nothing more will be assigned on this stream.
    Heard,
}

impl State {
    pub(crate) fn new(slots: usize, tools: impl IntoIterator<Item = String>) -> Self {
        Self {
            slots,
            tools: tools.into_iter().collect(),
            max_result_bytes: u64::MAX,
            live: BTreeMap::new(),
            ended: BTreeMap::new(),
            revoked: BTreeSet::new(),
            waiting: VecDeque::new(),
            outbox: VecDeque::new(),
            progress: BTreeMap::new(),
            started: BTreeSet::new(),
            beat_due: false,
            drain: Drain::No,
            outcomes: 0,
        }
    }

    /// The leases to be named at `register`.
    pub(crate) fn leases(&self) -> Vec<u64> {
        self.live
            .keys()
            .chain(self.ended.keys())
            .map(|lease| lease.0)
            .collect()
    }

    pub(crate) fn max_result_bytes(&self) -> u64 {
        self.max_result_bytes
    }

    /// A new stream is up: everything that is not acknowledged is to be said again.
    pub(crate) fn registered(&mut self, max_result_bytes: u64) {
        self.max_result_bytes = max_result_bytes;
        self.beat_due = false;
        if self.drain != Drain::No {
            self.drain = Drain::Due;
        }
        let mut unacknowledged = Vec::new();
        for (lease, ended) in &mut self.ended {
            fit(&mut ended.outcome, max_result_bytes);
            unacknowledged.push((ended.order, *lease));
        }
        unacknowledged.sort_unstable();
        self.outbox = unacknowledged.into_iter().map(|(_, lease)| lease).collect();
    }

    /// The broker wants this to run.
    pub(crate) fn assign(&mut self, assignment: Assignment) -> Option<Action> {
        let lease = assignment.lease;
        if self.is_held(lease) {
            return None;
        }
        let refusal = if !self.tools.contains(&assignment.tool) {
            Some(format!(
                "This worker has no tool named {:?}.",
                assignment.tool
            ))
        } else if self.live.len() >= self.slots {
            Some(format!(
                "All {} slots of this worker are taken.",
                self.slots
            ))
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.settle(
                lease,
                Err(ToolError::failed(refusal).effect_not_started().retryable()),
            );
            return None;
        }
        if self.running() >= self.slots {
            self.live.insert(lease, Live::Waiting);
            self.waiting.push_back(assignment);
            return None;
        }
        Some(self.start(assignment))
    }

    /// The broker wants this lease to end, and its outcome.
    pub(crate) fn cancel(&mut self, lease: LeaseId) -> Option<Action> {
        match self.live.get_mut(&lease)? {
            Live::Running { cancelled: true } => None,
            Live::Running { cancelled } => {
                *cancelled = true;
                Some(Action::Cancel(lease))
            }
            Live::Waiting => {
                self.waiting.retain(|assignment| assignment.lease != lease);
                self.settle(lease, Err(ToolError::cancelled().effect_not_started()));
                None
            }
        }
    }

    /// The worker wants every lease to end.
    pub(crate) fn cancel_all(&mut self) -> Vec<Action> {
        let leases: Vec<_> = self.live.keys().copied().collect();
        leases
            .into_iter()
            .filter_map(|lease| self.cancel(lease))
            .collect()
    }

    /// The lease is not valid any more: nothing more is to be said of it.
    pub(crate) fn revoke(&mut self, lease: LeaseId) -> Option<Action> {
        self.progress.remove(&lease);
        self.started.remove(&lease);
        self.ended.remove(&lease);
        match self.live.remove(&lease)? {
            Live::Running { cancelled } => {
                self.revoked.insert(lease);
                (!cancelled).then_some(Action::Cancel(lease))
            }
            Live::Waiting => {
                self.waiting.retain(|assignment| assignment.lease != lease);
                None
            }
        }
    }

    /// The broker has the outcome.
    pub(crate) fn acknowledge(&mut self, lease: LeaseId) {
        // Only what has ended can be acknowledged: a lease that runs would lose its outcome.
        self.ended.remove(&lease);
    }

    /// The broker has heard that this worker drains.
    pub(crate) fn drain_acknowledged(&mut self) {
        if self.drain == Drain::Sent {
            self.drain = Drain::Heard;
        }
    }

    /// An attempt has ended, which may make room for one that waits.
    pub(crate) fn ended(&mut self, lease: LeaseId, ending: Ending) -> Option<Action> {
        if !self.revoked.remove(&lease) {
            let Some(Live::Running { cancelled }) = self.live.get(&lease) else {
                return None;
            };
            let result = if *cancelled {
                Err(after_cancel(&ending))
            } else {
                result(ending)
            };
            self.settle(lease, result);
        }
        if self.running() >= self.slots {
            return None;
        }
        self.waiting
            .pop_front()
            .map(|assignment| self.start(assignment))
    }

    /// A tool says how far it has come. Only the latest word is kept.
    pub(crate) fn progressed(&mut self, lease: LeaseId, progress: proto::ToolProgress) {
        if let Some(Live::Running { cancelled: false }) = self.live.get(&lease) {
            self.progress.insert(lease, progress);
        }
    }

    pub(crate) fn beat(&mut self) {
        self.beat_due = true;
    }

    /// This worker takes no new work from here on.
    pub(crate) fn drain(&mut self) {
        if self.drain == Drain::No {
            self.drain = Drain::Due;
        }
    }

    pub(crate) fn drain_state(&self) -> Drain {
        self.drain
    }

    /// Nothing runs, and no outcome waits for its acknowledgement.
    pub(crate) fn is_idle(&self) -> bool {
        self.live.is_empty() && self.ended.is_empty()
    }

    /// Whether the broker takes outcomes and acknowledges none.
    pub(crate) fn is_flooded(&self) -> bool {
        self.ended.len() > self.slots.saturating_add(UNACKNOWLEDGED)
    }

    /// Whether there is something worth a packet. That a lease has started is not: it goes along with what is.
    pub(crate) fn has_news(&self) -> bool {
        self.beat_due
            || self.drain == Drain::Due
            || !self.outbox.is_empty()
            || !self.progress.is_empty()
    }

    /// What is to be said now, as frames of at most `limit` bytes together, or one frame that is larger. The rest is
    /// for the next packet.
    pub(crate) fn packet(&mut self, limit: usize) -> Vec<proto::WorkerFrame> {
        let mut packet = Packet {
            frames: Vec::new(),
            size: 0,
            limit,
        };
        if self.drain == Drain::Due {
            packet.push(Frame::Drain(proto::Drain { leave: false }));
            self.drain = Drain::Sent;
        }
        while packet.has_room()
            && let Some((lease, progress)) = self.progress.pop_first()
        {
            packet.push(Frame::Progress(proto::LeaseProgress {
                lease_id: lease.0,
                progress: Some(progress),
            }));
        }
        while let Some(lease) = self.outbox.front() {
            if let Some(ended) = self.ended.get(lease) {
                if !packet.fits(&ended.outcome) {
                    return packet.frames;
                }
                packet.push(Frame::Outcome(ended.outcome.clone()));
            }
            self.outbox.pop_front();
        }
        while packet.has_room()
            && let Some(lease) = self.started.pop_first()
        {
            packet.push(Frame::Started(proto::LeaseStarted { lease_id: lease.0 }));
        }
        if self.beat_due && packet.frames.is_empty() {
            packet.push(Frame::Beat(proto::Beat {}));
        }
        // Any packet is a sign of life.
        self.beat_due = false;
        packet.frames
    }

    fn start(&mut self, assignment: Assignment) -> Action {
        self.live
            .insert(assignment.lease, Live::Running { cancelled: false });
        self.started.insert(assignment.lease);
        Action::Start(assignment)
    }

    fn settle(&mut self, lease: LeaseId, result: Result<Output, ToolError>) {
        let ending = match result {
            Ok(output) => outcome::Ending::Output(output.into_proto()),
            Err(error) => outcome::Ending::Error(error.into_proto()),
        };
        let mut outcome = proto::Outcome {
            lease_id: lease.0,
            ending: Some(ending),
        };
        fit(&mut outcome, self.max_result_bytes);
        self.outcomes += 1;
        let ended = Ended {
            outcome,
            order: self.outcomes,
        };
        self.live.remove(&lease);
        self.ended.insert(lease, ended);
        // The outcome says it.
        self.started.remove(&lease);
        self.outbox.push_back(lease);
    }

    fn is_held(&self, lease: LeaseId) -> bool {
        self.live.contains_key(&lease)
            || self.ended.contains_key(&lease)
            || self.revoked.contains(&lease)
    }

    /// Attempts that run, those of revoked leases included.
    fn running(&self) -> usize {
        self.live.len() - self.waiting.len() + self.revoked.len()
    }
}

/// A packet that is being filled.
struct Packet {
    frames: Vec<proto::WorkerFrame>,
    size: usize,
    limit: usize,
}

impl Packet {
    fn has_room(&self) -> bool {
        self.size < self.limit
    }

    fn fits(&self, outcome: &proto::Outcome) -> bool {
        self.frames.is_empty() || self.size + outcome.encoded_len() <= self.limit
    }

    fn push(&mut self, frame: Frame) {
        let frame = proto::WorkerFrame { frame: Some(frame) };
        self.size += frame.encoded_len();
        self.frames.push(frame);
    }
}

fn result(ending: Ending) -> Result<Output, ToolError> {
    match ending {
        Ending::Returned(result) => result,
        Ending::Panicked(message) => {
            Err(ToolError::failed(format!("The tool panicked: {message}")))
        }
        Ending::Dropped => Err(ToolError::failed(
            "The worker dropped the call before the tool had ended.",
        )),
    }
}

/// Whatever the handler said, the call was called off; what is left to say is how far it came.
fn after_cancel(ending: &Ending) -> ToolError {
    match ending {
        Ending::Returned(Ok(_)) => ToolError::cancelled().effect_done(),
        Ending::Returned(Err(_)) | Ending::Panicked(_) | Ending::Dropped => ToolError::cancelled(),
    }
}

/// Puts an error in the place of an output that the broker would not take.
fn fit(outcome: &mut proto::Outcome, limit: u64) {
    let Some(outcome::Ending::Output(output)) = &outcome.ending else {
        return;
    };
    let size = output::size(output);
    if size > limit {
        let message =
            format!("The output has {size} bytes; the limit is {limit}. Ask for less at a time.");
        let error = ToolError::result_too_large(message).effect_done();
        outcome.ending = Some(outcome::Ending::Error(error.into_proto()));
    }
}

#[cfg(test)]
mod tests;
