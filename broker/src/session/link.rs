//! The stream to the worker: taken up, broken off, taken up again; and what that means for its leases.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::time::Instant;
use tonic::Status;
use toolpool_proto::v1;

use super::outbox::Outbox;
use super::{Joining, Reason, Session, refuse};
use crate::catalogue;
use crate::grpc::convert;
use crate::id::LeaseId;
use crate::lane::lease::Ending;
use crate::metrics::{Left, WorkerState};

impl Session {
    pub(super) fn joining(&mut self, joining: Joining) -> ControlFlow<Reason> {
        if joining.register.instance == self.instance {
            if self.outbound.is_some() {
                // The worker knows best that its old stream is dead.
                self.detach("the worker dialled again");
            }
            return if self.attach(joining) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break((
                    Left::Refused,
                    "the worker came back as one that cannot be served",
                ))
            };
        }
        if self.outbound.is_some() {
            let text = format!(
                "register.worker_id {} is that of another live worker",
                self.worker
            );
            refuse(
                &self.worker,
                &joining.link.outbound,
                Status::already_exists(text),
            );
            return ControlFlow::Continue(());
        }
        // A new process under the old name: what the old one had is lost, and it can dial in as soon as we are gone.
        refuse(
            &self.worker,
            &joining.link.outbound,
            Status::unavailable("the worker's earlier life is being cleared away; dial again"),
        );
        ControlFlow::Break((Left::Restarted, "the worker was restarted"))
    }

    /// Takes the stream up. On `false` the worker has been refused, with the reason.
    pub(super) fn attach(&mut self, joining: Joining) -> bool {
        let Joining { register, link } = joining;
        if register.slots != self.seat.total() {
            let text = format!(
                "register.slots was {} and cannot change to {}",
                self.seat.total(),
                register.slots
            );
            refuse(&self.worker, &link.outbound, Status::invalid_argument(text));
            return false;
        }
        self.tools = match self.context.catalogue.register(register.tools) {
            Ok(tools) => tools,
            Err(error @ catalogue::Error::TooMany(_)) => {
                refuse(
                    &self.worker,
                    &link.outbound,
                    Status::resource_exhausted(error.to_string()),
                );
                return false;
            }
            Err(error) => {
                refuse(
                    &self.worker,
                    &link.outbound,
                    Status::invalid_argument(format!("register.{error}")),
                );
                return false;
            }
        };
        self.heard = Instant::now();
        self.worker_drains = false;
        self.told_of_drain = false;
        self.outbox = Outbox::default();
        self.outbox
            .push(v1::pool_frame::Frame::Registered(self.registered()));
        self.reconcile(&register.running);
        self.inbound = Some(link.inbound);
        self.outbound = Some(link.outbound);
        if self.is_taken_out {
            self.presence.set(WorkerState::Draining);
            self.ask_to_leave();
        } else {
            self.presence.set(WorkerState::Connected);
        }
        tracing::info!(
            worker.id = %self.worker, slots = register.slots, tools = self.tools.len(), version = %register.version,
            labels = ?register.labels, leases.adopted = self.leases.len(), "worker joined"
        );
        // First to the worker: `registered` must be on its way before the first assignment is.
        self.flush();
        if self.is_taken_out {
            return true;
        }
        for tool in &self.tools {
            tool.lane.join(Arc::clone(&self.seat));
        }
        true
    }

    pub(super) fn registered(&self) -> v1::Registered {
        let config = &self.context.config;
        v1::Registered {
            beat_interval: Some(convert::to_wire(config.beat_interval)),
            missed_beats: u32::try_from(config.missed_beats).unwrap_or(u32::MAX),
            reconnect_grace: Some(convert::to_wire(config.reconnect_grace)),
            max_result_bytes: config.max_result_bytes as u64,
        }
    }

    /// Holds our leases against those that the worker says it has.
    pub(super) fn reconcile(&mut self, running: &[LeaseId]) {
        for id in running {
            match self.leases.get(id) {
                None => self
                    .outbox
                    .push(v1::pool_frame::Frame::Revoked(v1::Revoked {
                        lease_id: id.0,
                    })),
                Some(lease) if lease.is_fenced() => {
                    self.outbox
                        .push(v1::pool_frame::Frame::Cancel(v1::Cancel { lease_id: id.0 }));
                }
                Some(_) => {}
            }
        }
        // The same process does not know of the others: their assignments never arrived, so they did not run. Unless it
        // said itself that it ran them: then it has forgotten them, and what they did is not known.
        let named: HashSet<LeaseId> = running.iter().copied().collect();
        let unknown: Vec<LeaseId> = self
            .leases
            .keys()
            .filter(|id| !named.contains(id))
            .copied()
            .collect();
        for id in unknown {
            if let Some(lease) = self.leases.remove(&id) {
                let lost = lease.has_started();
                lease.settle(if lost { Ending::Lost } else { Ending::NotSent });
            }
        }
    }

    /// The stream is broken. What may run elsewhere does so now; the rest waits for the worker to come back.
    pub(super) fn detach(&mut self, why: &str) {
        tracing::warn!(worker.id = %self.worker, leases = self.leases.len(), reason = why, "worker's stream broke");
        self.context.metrics.stream_broke();
        self.presence.set(WorkerState::Away);
        self.inbound = None;
        self.outbound = None;
        self.heard = Instant::now();
        self.leave_lanes();
        self.give_back_unsent();
        for lease in self.leases.values_mut() {
            if lease.may_run_again() {
                // Told, not dropped: its slot is in use until the worker says otherwise.
                lease.give_up();
            }
        }
    }

    /// Empties the outbox. Assignments in it never left, so their calls did not run.
    pub(super) fn give_back_unsent(&mut self) {
        let outbox = std::mem::take(&mut self.outbox);
        for id in outbox.unsent() {
            if let Some(lease) = self.leases.remove(&id) {
                lease.settle(Ending::NotSent);
            }
        }
    }
}
