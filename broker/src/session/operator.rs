//! What operators ask of a session: a look at its worker, and to take it out.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use toolpool_proto::v1;

use super::{Reason, Session, Visit};
use crate::id::{BatchId, CallId, InstanceId, LeaseId, WorkerId};
use crate::lane::lease::Lease;
use crate::metrics::WorkerState;

/// Leases that are shown of one worker.
const MOST_LEASES: usize = 100;

/// A worker at one moment.
#[derive(Debug)]
pub(crate) struct WorkerView {
    pub(crate) worker: WorkerId,
    pub(crate) instance: InstanceId,
    pub(crate) version: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) state: WorkerState,
    pub(crate) slots: usize,
    pub(crate) slots_free: usize,
    /// Sorted.
    pub(crate) tools: Vec<Arc<str>>,
    pub(crate) known_for: Duration,
    /// Since it was last heard of, or its stream broke.
    pub(crate) silent_for: Duration,
    /// The oldest first.
    pub(crate) leases: Vec<LeaseView>,
    pub(crate) leases_total: usize,
    pub(crate) taken_out: bool,
}

/// A call that is with a worker.
#[derive(Debug)]
pub(crate) struct LeaseView {
    pub(crate) id: LeaseId,
    pub(crate) batch: BatchId,
    pub(crate) call: CallId,
    pub(crate) tool: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) time_left: Duration,
    pub(crate) started: bool,
    pub(crate) fenced: bool,
}

impl Session {
    pub(super) fn visit(&mut self, visit: Visit) -> ControlFlow<Reason> {
        match visit {
            Visit::Joining(joining) => return self.joining(*joining),
            // Whoever asked may have lost patience.
            Visit::Look(reply) => drop(reply.send(self.view(Instant::now()))),
            Visit::Drain(reply) => {
                self.take_out();
                drop(reply.send(self.view(Instant::now())));
            }
        }
        ControlFlow::Continue(())
    }

    /// For good: a worker that comes back after a break is asked again.
    fn take_out(&mut self) {
        if self.is_taken_out {
            return;
        }
        tracing::info!(worker.id = %self.worker, leases = self.leases.len(), "an operator takes the worker out");
        let is_away = self.outbound.is_none();
        self.stop_assigning();
        self.is_taken_out = true;
        self.taken_out.add(self.instance.clone());
        if is_away {
            self.presence.set(WorkerState::Away);
        } else {
            self.ask_to_leave();
        }
    }

    pub(super) fn ask_to_leave(&mut self) {
        let drain = v1::Drain { leave: true };
        self.outbox.push(v1::pool_frame::Frame::Drain(drain));
    }

    fn view(&self, now: Instant) -> WorkerView {
        let names = self.tools.iter().map(|tool| Arc::clone(tool.lane.tool()));
        let mut tools: Vec<_> = names.collect();
        tools.sort_unstable();
        // Ids are given in order.
        let mut oldest: Vec<&Lease> = self.leases.values().collect();
        oldest.sort_unstable_by_key(|lease| lease.id);
        oldest.truncate(MOST_LEASES);
        WorkerView {
            worker: self.worker.clone(),
            instance: self.instance.clone(),
            version: self.version.clone(),
            labels: self.labels.clone(),
            state: self.presence.state(),
            slots: self.seat.total(),
            slots_free: self.seat.free(),
            tools,
            known_for: now.saturating_duration_since(self.came),
            silent_for: now.saturating_duration_since(self.heard),
            leases: oldest.into_iter().map(|lease| of(lease, now)).collect(),
            leases_total: self.leases.len(),
            taken_out: self.is_taken_out,
        }
    }
}

fn of(lease: &Lease, now: Instant) -> LeaseView {
    let call = lease.call();
    LeaseView {
        id: lease.id,
        batch: call.batch.clone(),
        call: call.id.clone(),
        tool: Arc::clone(&call.tool),
        attempt: lease.attempt.number,
        time_left: lease.deadline.saturating_duration_since(now),
        started: lease.has_started(),
        fenced: lease.is_fenced(),
    }
}
