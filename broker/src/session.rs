//! One task for each worker; it alone owns the worker's leases.
//!
//! The session outlives a break of the stream by the reconnect grace, so that a worker which comes back keeps its
//! leases. Leaving it, for whatever reason, drops every lease, and a dropped lease settles itself: no call waits for a
//! worker that is gone.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use toolpool_proto::v1;

use crate::call_error::{self, CallError};
use crate::catalogue::{Catalogue, Tool};
use crate::config::Config;
use crate::grpc::convert::{self, FromWorker, Register};
use crate::grpc::{PACKET_FRAMES, status};
use crate::id::{InstanceId, LeaseId, WorkerId};
use crate::lane::lease::{Ending, Lease};
use crate::lane::seat::{Order, Seat, SeatKey};
use crate::mailbox::Mailbox;
use crate::metrics::{Left, Metrics, Presence, WorkerState};
use crate::registry::TakenOut;

mod link;
mod operator;
mod outbox;

pub(crate) use operator::{LeaseView, WorkerView};
use outbox::Outbox;

/// Packets that may wait for the worker's connection; what is behind them waits in the outbox.
pub(crate) const LINK_PACKETS: usize = 4;

/// A worker's stream, both ways.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
}

/// What the worker sends.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) stream: Streaming<v1::JoinRequest>,
    /// Frames that came in the same packet as `register`.
    pub(crate) early: Vec<v1::WorkerFrame>,
}

/// The way to the worker's connection.
pub(crate) type Outbound = mpsc::Sender<Result<v1::JoinResponse, Status>>;

/// A worker that dials in.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) register: Register,
    pub(crate) link: Link,
}

/// What comes to a session from outside its stream and its lanes.
#[derive(Debug)]
pub(crate) enum Visit {
    /// Its worker has dialled in again.
    Joining(Box<Joining>),
    /// An operator wants to see it.
    Look(oneshot::Sender<WorkerView>),
    /// An operator takes the worker out.
    Drain(oneshot::Sender<WorkerView>),
}

/// What a session needs of the broker.
#[derive(Clone, Debug)]
pub(crate) struct SessionContext {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) config: Arc<Config>,
    pub(crate) catalogue: Arc<Catalogue>,
    /// The broker takes no new batches.
    pub(crate) draining: CancellationToken,
    /// The session must end.
    pub(crate) shutdown: CancellationToken,
}

/// One worker.
pub(crate) struct Session {
    worker: WorkerId,
    instance: InstanceId,
    version: String,
    labels: Vec<(String, String)>,
    seat: Arc<Seat>,
    orders: Mailbox<Order>,
    /// Orders that were read and are to be carried out; kept for its room.
    unread: Vec<Order>,
    visits: mpsc::Receiver<Visit>,
    tools: Vec<Arc<Tool>>,
    leases: FxHashMap<LeaseId, Lease>,
    outbox: Outbox,
    /// Both are there, or neither is: the stream is broken.
    inbound: Option<Inbound>,
    outbound: Option<Outbound>,
    /// When the worker was last heard of; when the link broke, if it is broken.
    heard: Instant,
    came: Instant,
    next_beat: Instant,
    /// The worker takes no new calls.
    worker_drains: bool,
    /// An operator has taken it out: nothing new goes to it, however often it comes back.
    is_taken_out: bool,
    taken_out: TakenOut,
    told_of_drain: bool,
    presence: Presence,
    context: SessionContext,
}

enum Event {
    FromWorker(Option<Result<v1::JoinRequest, Status>>),
    Orders,
    Visit(Option<Visit>),
    Room,
    Time,
    Draining,
    Shutdown,
}

/// Why a session is over: for the metrics, and for the log.
type Reason = (Left, &'static str);

impl Session {
    /// A session for a worker that nobody knows yet. On an error the worker has been told.
    pub(crate) fn new(
        key: SeatKey,
        joining: Joining,
        visits: mpsc::Receiver<Visit>,
        taken_out: TakenOut,
        context: SessionContext,
    ) -> Option<Self> {
        let Register {
            worker,
            instance,
            slots,
            version,
            labels,
            ..
        } = &joining.register;
        let (seat, orders) = Seat::new(key, worker.clone(), *slots);
        let presence = context.metrics.worker_came(Arc::clone(&seat));
        let mut session = Self {
            worker: worker.clone(),
            instance: instance.clone(),
            version: version.clone(),
            labels: labels.clone(),
            seat,
            orders,
            unread: Vec::new(),
            visits,
            tools: Vec::new(),
            leases: FxHashMap::default(),
            outbox: Outbox::default(),
            inbound: None,
            outbound: None,
            heard: Instant::now(),
            came: Instant::now(),
            next_beat: Instant::now() + context.config.beat_interval,
            worker_drains: false,
            is_taken_out: taken_out.has(instance),
            taken_out,
            told_of_drain: false,
            presence,
            context,
        };
        session.attach(joining).then_some(session)
    }

    /// Serves the worker until it is gone or the broker goes down.
    pub(crate) async fn run(mut self) {
        let timer = tokio::time::sleep_until(self.next_due());
        tokio::pin!(timer);
        let draining = self.context.draining.clone();
        let shutdown = self.context.shutdown.clone();
        let (draining, shutdown) = (draining.cancelled(), shutdown.cancelled());
        tokio::pin!(draining, shutdown);
        let reason = loop {
            let event = tokio::select! {
                packet = next_packet(&mut self.inbound), if !self.is_flooded() => Event::FromWorker(packet),
                () = self.orders.collect(&mut self.unread) => Event::Orders,
                visit = self.visits.recv() => Event::Visit(visit),
                () = room(self.outbound.as_ref()), if self.outbox.is_stalled() => Event::Room,
                () = &mut timer => Event::Time,
                () = &mut draining, if !self.told_of_drain => Event::Draining,
                () = &mut shutdown => Event::Shutdown,
            };
            if let ControlFlow::Break(reason) = self.apply(event) {
                break reason;
            }
            self.flush();
            self.set_timer(timer.as_mut());
        };
        self.leave(reason);
    }

    fn apply(&mut self, event: Event) -> ControlFlow<Reason> {
        match event {
            Event::FromWorker(Some(Ok(packet))) => return self.packet(packet),
            Event::FromWorker(Some(Err(error))) => {
                if let Some(refusal) = status::unreadable(&error) {
                    // The worker would send it again after a reconnect; once its leases are revoked it does not.
                    self.refuse_link(refusal);
                    return ControlFlow::Break((
                        Left::Refused,
                        "the worker sent what cannot be read",
                    ));
                }
                self.detach(error.message());
            }
            Event::FromWorker(None) => {
                return ControlFlow::Break((Left::Closed, "the worker closed its stream"));
            }
            Event::Orders => self.carry_out_orders(),
            Event::Visit(Some(visit)) => return self.visit(visit),
            Event::Visit(None) => {
                return ControlFlow::Break((Left::Shutdown, "the broker forgot the worker"));
            }
            Event::Room => self.outbox.resume(),
            Event::Time => return self.tick(Instant::now()),
            Event::Draining => {
                self.told_of_drain = true;
                self.outbox
                    .push(v1::pool_frame::Frame::Drain(v1::Drain { leave: false }));
            }
            Event::Shutdown => {
                // The worker must know which outcomes have arrived.
                self.outbox.do_not_delay_acks();
                self.flush();
                return ControlFlow::Break((Left::Shutdown, "the broker is going down"));
            }
        }
        ControlFlow::Continue(())
    }

    /// Whether the worker says more than it reads: then it is not listened to until it reads again.
    fn is_flooded(&self) -> bool {
        self.outbox.is_stalled() && self.outbox.len() > MOST_UNREAD + 4 * self.seat.total()
    }

    fn packet(&mut self, packet: v1::JoinRequest) -> ControlFlow<Reason> {
        self.heard = Instant::now();
        if packet.frames.len() > PACKET_FRAMES {
            self.refuse_link(status::too_many_frames(packet.frames.len()));
            return ControlFlow::Break((Left::Refused, "the worker broke the protocol"));
        }
        for frame in packet.frames {
            match convert::worker_frame(frame) {
                Ok(frame) => self.frame(frame),
                Err(malformed) => {
                    self.refuse_link(Status::invalid_argument(malformed.to_string()));
                    return ControlFlow::Break((Left::Refused, "the worker broke the protocol"));
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn frame(&mut self, frame: FromWorker) {
        match frame {
            FromWorker::Started(lease) => {
                if let Some(lease) = self.leases.get_mut(&lease) {
                    lease.mark_started();
                }
            }
            FromWorker::Progress {
                lease,
                message,
                fraction,
            } => {
                if let Some(lease) = self.leases.get_mut(&lease) {
                    lease.mark_started();
                    lease.progress(message, fraction);
                }
            }
            FromWorker::Outcome { lease, ending } => self.outcome(lease, ending),
            FromWorker::Beat => {}
            FromWorker::Drain if self.worker_drains => {}
            FromWorker::Drain => {
                tracing::info!(worker.id = %self.worker, "worker drains");
                // After the answer, nothing more goes.
                self.stop_assigning();
                self.worker_drains = true;
                self.outbox
                    .push(v1::pool_frame::Frame::DrainAck(v1::DrainAck {}));
                self.outbox.do_not_delay_acks();
            }
        }
    }

    fn outcome(&mut self, id: LeaseId, ending: Ending) {
        // Acknowledged even if nobody waits for it, or the worker would send it for ever.
        self.outbox.ack(id, self.heard);
        let Some(lease) = self.leases.remove(&id) else {
            self.context.metrics.outcome_fenced();
            tracing::debug!(worker.id = %self.worker, lease.id = %id, "outcome fenced off: its lease has ended");
            return;
        };
        if lease.is_fenced() {
            self.context.metrics.outcome_fenced();
            let call = lease.call();
            tracing::debug!(
                worker.id = %self.worker, lease.id = %id, batch.id = %call.batch, call.id = %call.id,
                trace.id = call.trace.as_ref().and_then(|trace| trace.id_to_tell()).map(tracing::field::display),
                "outcome fenced off: its batch has ended the lease"
            );
        }
        let ending = self.within_limits(&lease, ending);
        if let Ending::Failed(CallError {
            code: call_error::Code::RateLimited,
            retry_after: Some(wait),
            ..
        }) = &ending
        {
            lease.pause_tool(*wait);
        }
        lease.settle(ending);
    }

    fn within_limits(&self, lease: &Lease, ending: Ending) -> Ending {
        let limit = self.context.config.max_result_bytes;
        match ending {
            Ending::Output(output) if output.size() > limit => {
                let tool = &lease.call().tool;
                Ending::Failed(CallError::result_too_large(
                    tool,
                    output.size(),
                    limit,
                    "max_result_bytes",
                ))
            }
            Ending::Failed(mut error) => {
                error.retry_after = error
                    .retry_after
                    .map(|wait| wait.min(self.context.config.max_pause));
                Ending::Failed(error)
            }
            other => other,
        }
    }

    fn carry_out_orders(&mut self) {
        let now = Instant::now();
        let mut orders = std::mem::take(&mut self.unread);
        for order in orders.drain(..) {
            self.order(order, now);
        }
        self.unread = orders;
    }

    fn order(&mut self, order: Order, now: Instant) {
        match order {
            // Dropping it unsent gives the call back to its batch.
            Order::Assign(lease) if self.outbound.is_none() || self.takes_nothing() => drop(lease),
            Order::Assign(mut lease) => {
                let time_left = lease.deadline.saturating_duration_since(now);
                self.outbox.assign(convert::assignment(&lease, time_left));
                lease.mark_sent();
                self.leases.insert(lease.id, lease);
            }
            Order::Cancel(id) => {
                let Some(lease) = self.leases.get_mut(&id) else {
                    return;
                };
                lease.fence();
                if self.outbox.take_back(id) {
                    self.leases.remove(&id);
                } else if self.outbound.is_some() {
                    self.outbox
                        .push(v1::pool_frame::Frame::Cancel(v1::Cancel { lease_id: id.0 }));
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) -> ControlFlow<Reason> {
        let config = &self.context.config;
        if self.outbound.is_none() {
            if now >= self.heard + config.reconnect_grace {
                return ControlFlow::Break((Left::Lost, "the worker did not come back in time"));
            }
            return ControlFlow::Continue(());
        }
        let patience =
            config.beat_interval * u32::try_from(config.missed_beats).unwrap_or(u32::MAX);
        if now >= self.heard + patience {
            self.context.metrics.beat_missed();
            if let Some(outbound) = &self.outbound {
                let late = Status::deadline_exceeded("no sign of life for too many beats");
                let _ = outbound.try_send(Err(late));
            }
            self.detach("beats were missed");
        } else if now >= self.next_beat {
            // A quarter more: the worker's beats have their own time to travel.
            if now > self.heard + config.beat_interval + config.beat_interval / 4 {
                self.context.metrics.beat_missed();
            }
            self.next_beat = now + self.context.config.beat_interval;
            // What waits in a stalled outbox shows as well as a beat that we live, and must not grow with time.
            if !self.outbox.is_stalled() {
                self.outbox.push(v1::pool_frame::Frame::Beat(v1::Beat {}));
            }
        }
        ControlFlow::Continue(())
    }

    fn next_due(&self) -> Instant {
        match self.outbound {
            None => self.heard + self.context.config.reconnect_grace,
            Some(_) => self
                .outbox
                .acks_due()
                .map_or(self.next_beat, |due| due.min(self.next_beat)),
        }
    }

    /// Moves the timer only to an earlier moment; one that fires early finds nothing to do and is set anew.
    fn set_timer(&self, timer: Pin<&mut Sleep>) {
        let due = self.next_due();
        if due < timer.deadline() || timer.is_elapsed() {
            timer.reset(due);
        }
    }

    /// Hands the connection as many packets as it takes.
    fn flush(&mut self) {
        let Some(outbound) = &self.outbound else {
            return;
        };
        let now = Instant::now();
        while self.outbox.has_packet(now) {
            let Ok(room) = outbound.try_reserve() else {
                if !self.outbox.is_stalled() {
                    self.context.metrics.worker_stalled();
                }
                self.outbox.stall();
                return;
            };
            room.send(Ok(self.outbox.packet()));
        }
    }

    fn refuse_link(&self, status: Status) {
        if let Some(outbound) = &self.outbound {
            refuse(&self.worker, outbound, status);
        }
    }

    /// Whether the worker gets no new calls.
    fn takes_nothing(&self) -> bool {
        self.worker_drains || self.is_taken_out
    }

    /// Leaves the lanes. What they gave before goes to the worker first.
    fn stop_assigning(&mut self) {
        self.leave_lanes();
        self.orders.collect_ready(&mut self.unread);
        self.carry_out_orders();
        self.presence.set(WorkerState::Draining);
    }

    fn leave_lanes(&mut self) {
        for tool in &self.tools {
            tool.lane.leave(self.seat.key);
        }
    }

    fn leave(self, (left, reason): Reason) {
        self.context.metrics.worker_left(left);
        tracing::info!(
            worker.id = %self.worker, leases.lost = self.leases.len(), drained = self.worker_drains, reason,
            "worker left"
        );
    }
}

impl Drop for Session {
    /// Whatever ended the session: no lane offers it anything any more, and every lease is settled.
    fn drop(&mut self) {
        self.seat.close();
        self.leave_lanes();
        // Closed before the rest is dropped, so that no order can come in between.
        drop(self.orders.close());
        self.give_back_unsent();
        self.leases.clear();
    }
}

fn refuse(worker: &WorkerId, outbound: &Outbound, status: Status) {
    tracing::warn!(worker.id = %worker, code = ?status.code(), reason = status.message(), "worker refused");
    // A full link drops the reason; the stream ends all the same.
    let _ = outbound.try_send(Err(status));
}

async fn next_packet(inbound: &mut Option<Inbound>) -> Option<Result<v1::JoinRequest, Status>> {
    match inbound {
        None => std::future::pending().await,
        Some(Inbound { early, .. }) if !early.is_empty() => Some(Ok(v1::JoinRequest {
            frames: std::mem::take(early),
        })),
        Some(Inbound { stream, .. }) => stream.message().await.transpose(),
    }
}

/// Until the connection takes another packet.
async fn room(outbound: Option<&Outbound>) {
    match outbound {
        None => std::future::pending().await,
        // A closed one counts as room: the inbound side says why it is closed.
        Some(outbound) => drop(outbound.reserve().await),
    }
}

/// Frames that may wait for a worker that does not read, beside what its slots account for.
const MOST_UNREAD: usize = 1_024;

/// How long acknowledgements may wait for something else to ride with.
const ACK_DELAY: Duration = Duration::from_millis(20);
