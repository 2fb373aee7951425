//! Runs one batch: the agent's frames, the lanes' notices, the clock and the agent's absence in; results out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use toolpool_proto::v1;
use toolpool_proto::v1::batch_frame::Frame;

use super::{Batch, Command, Cut, Rules};
use crate::catalogue::Catalogue;
use crate::config::Config;
use crate::grpc::convert::{self, Open, Step};
use crate::grpc::delivery::Outlet;
use crate::grpc::status;
use crate::id::BatchId;
use crate::ingest::dialect::Void;
use crate::ingest::{self, Ingest, Position, TurnEnd};
use crate::lane::lease::{Attempt, Call, Dispatch, Notice, Waits};
use crate::lane::queue::BatchKey;
use crate::lane::seat::{Order, Seat};
use crate::lane::{Lane, Offer};
use crate::mailbox::{Address, Mailbox, mailbox};
use crate::metrics::{self, Metrics};
use crate::registry::Place;
use crate::telemetry::{Telemetry, Trace};

mod inbound;
mod outbound;
mod provider;
#[cfg(test)]
mod tests;
mod view;

use provider::Provider;

/// Notices that can be under way for one call at once: the end of an old lease, the beginning and the end of a new
/// one, and one to spare.
const NOTICES_PER_CALL: usize = 4;
/// And as much again for what a tool says of itself, which may be dropped.
const NOTICE_ROOM: usize = 2;

/// Unknown names of one batch for which close ones are looked up: each look-up goes through the whole catalogue.
const MOST_SUGGESTIONS: u8 = 8;

/// Everything that a batch is opened with.
pub(crate) struct Opened {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) open: Open,
    pub(crate) key: BatchKey,
    pub(crate) place: Place,
    /// By the RPC's own deadline, if it has one.
    pub(crate) rpc_deadline: Option<Instant>,
    pub(crate) config: Arc<Config>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) telemetry: Telemetry,
    /// Time is up for every batch: the broker is going down.
    pub(crate) expire: CancellationToken,
    pub(crate) out: Outlet,
    /// As [`Task::mailbox`] makes it.
    pub(crate) mailbox: (Address<Notice>, Mailbox<Notice>),
}

/// Where more of the turn comes from.
pub(crate) enum Inbound {
    Stream(Box<Streaming<v1::ExecuteRequest>>),
    /// All has come.
    Nothing,
}

/// One batch at work.
pub(crate) struct Task {
    id: BatchId,
    key: BatchKey,
    batch: Batch,
    ingest: Ingest,
    /// The provider's stream, if the agent pipes that in.
    provider: Option<Provider>,
    /// By position.
    routes: Vec<Option<Route>>,
    notices: Address<Notice>,
    inbox: Mailbox<Notice>,
    /// Notices that were read and are to be applied; kept for its room.
    unread: Vec<Notice>,
    out: Outlet,
    /// Progress that leaves with the next packet.
    progress: Vec<v1::BatchFrame>,
    accepted: Instant,
    accepted_at: SystemTime,
    /// When the agent was last heard of.
    heard: Instant,
    finish_on_disconnect: bool,
    /// Unknown names for which close ones may still be looked up.
    suggestions: u8,
    metrics: Arc<Metrics>,
    config: Arc<Config>,
    catalogue: Arc<Catalogue>,
    telemetry: Telemetry,
    trace: Option<Arc<Trace>>,
    expire: CancellationToken,
    _place: Place,
}

/// A call's way to its worker.
struct Route {
    lane: Arc<Lane>,
    call: Arc<Call>,
    /// Where its present lease is.
    seat: Option<Arc<Seat>>,
}

enum Event {
    Notices,
    Agent(Result<Option<v1::ExecuteRequest>, Status>),
    Time,
    AgentGone,
    Expired,
}

/// How a batch came to its end.
enum End {
    Finished,
    /// The agent broke the protocol; it gets this and no batch.
    Refused(Status),
    /// Nobody is there to read it.
    Unread,
}

impl End {
    fn kind(&self) -> metrics::Ending {
        match self {
            Self::Finished => metrics::Ending::Finished,
            Self::Refused(_) => metrics::Ending::Refused,
            Self::Unread => metrics::Ending::Unread,
        }
    }
}

impl Task {
    /// With room for all that can be under way for a batch at once.
    pub(crate) fn mailbox(config: &Config) -> (Address<Notice>, Mailbox<Notice>) {
        mailbox(NOTICE_ROOM * NOTICES_PER_CALL * config.max_calls_per_batch)
    }

    /// Boxed, since its future would hold it more than once and is copied several times until it runs.
    pub(crate) fn new(opened: Opened) -> Box<Self> {
        let Opened {
            metrics,
            open,
            key,
            place,
            rpc_deadline,
            config,
            catalogue,
            telemetry,
            expire,
            out,
            mailbox: (notices, inbox),
        } = opened;
        let trace = telemetry.trace(open.agent);
        let accepted = Instant::now();
        let time = open
            .deadline
            .unwrap_or(Duration::MAX)
            .min(config.batch_timeout);
        let deadline = accepted + time;
        let rules = Rules {
            max_parallel: open
                .max_parallel
                .unwrap_or(config.max_parallel)
                .min(config.max_parallel),
            max_output_bytes: config.max_batch_bytes,
            deadline: rpc_deadline.map_or(deadline, |rpc| rpc.min(deadline)),
            progress: open.progress,
            traced: trace.as_ref().is_some_and(|trace| trace.is_recorded()),
        };
        let limits = ingest::Limits {
            calls: config.max_calls_per_batch,
            arguments_bytes: config.max_arguments_bytes,
            batch_bytes: config.max_batch_bytes,
        };
        let provider = open
            .provider
            .map(|named| Provider::new(named, &open.batch, &config, limits.ids()));
        Box::new(Self {
            id: open.batch,
            key,
            batch: Batch::new(rules, accepted),
            ingest: Ingest::new(limits),
            provider,
            routes: Vec::new(),
            notices,
            inbox,
            unread: Vec::new(),
            out,
            progress: Vec::new(),
            accepted,
            accepted_at: SystemTime::now(),
            heard: accepted,
            finish_on_disconnect: open.finish_on_disconnect,
            suggestions: MOST_SUGGESTIONS,
            metrics,
            config,
            catalogue,
            telemetry,
            trace,
            expire,
            _place: place,
        })
    }

    /// Runs the batch to its end and delivers it. `first` has come with `open`.
    pub(crate) async fn run(mut self: Box<Self>, first: Vec<Step>, mut inbound: Inbound) {
        let mut end = self.take_in(first.into_iter().map(Ok));
        self.accept();
        if matches!(inbound, Inbound::Nothing) && end.is_none() {
            self.seal();
        }
        self.close_if_refused(end.as_ref());
        self.carry_out();
        let out = self.out.clone();
        let expire = self.expire.clone();
        let timer = tokio::time::sleep_until(self.due());
        let (gone, expired) = (out.closed(), expire.cancelled());
        tokio::pin!(timer, gone, expired);
        let mut absent = false;
        let mut all_came = matches!(inbound, Inbound::Nothing);
        while !self.batch.is_finished() {
            let event = tokio::select! {
                // Notices first: whoever ends calls must know of all that have started.
                biased;
                () = self.inbox.collect(&mut self.unread) => Event::Notices,
                packet = next_packet(&mut inbound), if !all_came && self.reads_on() => Event::Agent(packet),
                () = &mut gone, if !absent => Event::AgentGone,
                () = &mut timer => Event::Time,
                () = &mut expired => Event::Expired,
            };
            let now = Instant::now();
            match event {
                Event::Notices => self.apply_notices(now),
                Event::Agent(Ok(Some(packet))) => end = self.packet(packet, now),
                Event::Agent(Ok(None)) => {
                    all_came = true;
                    self.seal();
                }
                Event::Agent(Err(error)) if let Some(refusal) = status::unreadable(&error) => {
                    end = Some(End::Refused(refusal));
                }
                Event::Agent(Err(_)) | Event::AgentGone => {
                    absent = true;
                    end = Some(End::Unread);
                    self.agent_gone(now);
                }
                Event::Time => self.time(now),
                Event::Expired => {
                    self.close(Cut::Cancelled("the broker is going down"), now);
                }
            }
            self.close_if_refused(end.as_ref());
            self.carry_out();
            self.set_timer(timer.as_mut());
        }
        self.deliver(end.unwrap_or(End::Finished)).await;
    }

    /// Says that the batch is open, and what its stream is taken for as far as that is known.
    fn accept(&mut self) {
        let dialect = self.provider.as_mut().and_then(Provider::tell);
        let accepted = v1::Accepted {
            batch_id: self.id.to_string(),
            dialect: dialect.map(|dialect| convert::dialect(dialect).into()),
        };
        self.progress
            .push(convert::batch_frame(Frame::Accepted(accepted)));
    }

    /// After the seal nothing may come, but for the end of a provider's stream: its agent must not be made to wait until
    /// the calls have ended to get rid of it.
    fn reads_on(&self) -> bool {
        !self.ingest.is_sealed() || self.provider.is_some()
    }

    fn apply_notices(&mut self, now: Instant) {
        let mut notices = std::mem::take(&mut self.unread);
        for notice in notices.drain(..) {
            self.apply_notice(notice, now);
        }
        self.unread = notices;
    }

    fn apply_notice(&mut self, notice: Notice, now: Instant) {
        match notice {
            Notice::Dispatched(dispatch) => self.dispatched(dispatch),
            Notice::Refused {
                position,
                waits,
                refusal,
            } => self.batch.refused(position, refusal, waits, now),
            Notice::Settled {
                position,
                lease,
                ending,
            } => self.batch.settled(position, lease, ending, now),
            Notice::Progress {
                position,
                lease,
                message,
                fraction,
            } => {
                self.batch.tool_progress(position, lease, message, fraction);
            }
            Notice::Look(look) => self.look(*look, now),
        }
    }

    fn dispatched(&mut self, dispatch: Dispatch) {
        let Dispatch {
            position,
            lease,
            seat,
            waits,
            at,
            deadline,
        } = dispatch;
        self.batch
            .dispatched(position, (lease, &seat.worker), waits, (at, deadline));
        if let Some(Some(route)) = self.routes.get_mut(position) {
            route.seat = Some(seat);
        }
    }

    fn agent_gone(&mut self, now: Instant) {
        if self.finish_on_disconnect {
            self.stop_reading("the agent went away");
            self.batch.abandon(now);
        } else {
            self.close(Cut::Cancelled("the agent went away"), now);
        }
    }

    fn close_if_refused(&mut self, end: Option<&End>) {
        if let Some(End::Refused(_)) = end {
            let cut = Cut::Cancelled("the agent broke the protocol");
            self.close(cut, Instant::now());
        }
    }

    fn close(&mut self, cut: Cut, now: Instant) {
        self.stop_reading("the batch was ended before the turn was");
        self.batch.close(cut, now);
    }

    /// Nothing that still comes counts. Returns the blocks that had not stopped.
    fn stop_reading(&mut self, why: &str) -> Vec<Position> {
        let mut unfinished = Vec::new();
        self.ingest.seal(TurnEnd::Truncated, &mut |event| {
            if let ingest::Event::Sealed(_, open) = event {
                unfinished = open;
            }
        });
        if let Some(provider) = &mut self.provider {
            provider.cut(why);
            for &position in &unfinished {
                provider.drop_call(position, Void::Incomplete);
            }
        }
        unfinished
    }

    fn time(&mut self, now: Instant) {
        if self.silence_due().is_some_and(|due| now >= due) {
            let unfinished = self.stop_reading("the agent fell silent in the middle of a call");
            let why = "was never complete: the agent fell silent in the middle of it";
            self.batch.seal(TurnEnd::Truncated, &unfinished, why, now);
        }
        if self.batch.is_out_of_time(now) {
            self.stop_reading("the time of the batch was over");
        }
        self.batch.tick(now);
    }

    /// Does what the batch wants done, until it wants nothing more.
    fn carry_out(&mut self) {
        let now = Instant::now();
        if self.provider.as_ref().is_some_and(Provider::has_news) {
            self.accept();
        }
        while let Some(command) = self.batch.next_command() {
            match command {
                Command::Offer {
                    position,
                    number,
                    wait_until,
                    call_deadline,
                    span,
                } => {
                    let Some(Some(route)) = self.routes.get(position) else {
                        continue;
                    };
                    let attempt = Attempt {
                        call: Arc::clone(&route.call),
                        number,
                        wait_until,
                        call_deadline,
                        span,
                    };
                    match route.lane.offer(attempt, now) {
                        Offer::Dispatched(dispatch) => self.dispatched(dispatch),
                        Offer::Queued(ticket) => self.batch.queued(position, ticket, wait_until),
                        Offer::Refused(refusal) => {
                            self.batch.refused(position, refusal, Waits::default(), now);
                        }
                    }
                }
                Command::Withdraw { position, ticket } => {
                    let Some(Some(route)) = self.routes.get(position) else {
                        continue;
                    };
                    let found = route.lane.withdraw(ticket, now);
                    self.batch.withdrawn(position, found, now);
                }
                Command::Cancel { position, lease } => {
                    if let Some(Some(Route {
                        seat: Some(seat), ..
                    })) = self.routes.get(position)
                    {
                        // A session that is gone has settled the lease already.
                        drop(seat.order(Order::Cancel(lease)));
                    }
                }
                Command::Count { position } => self.count(position),
                Command::Tell { position, progress } => {
                    if let Some(id) = self.batch.id_of(position) {
                        self.progress.push(convert::progress(
                            id,
                            self.accepted.elapsed(),
                            progress,
                        ));
                    }
                }
            }
        }
        self.tell();
    }

    fn silence_due(&self) -> Option<Instant> {
        self.ingest
            .in_mid_block()
            .then(|| self.heard + self.config.agent_silence)
    }

    fn due(&self) -> Instant {
        let due = self.batch.next_due();
        self.silence_due().map_or(due, |silence| silence.min(due))
    }

    /// Moves the timer only to an earlier moment; one that fires early finds nothing to do and is set anew.
    fn set_timer(&self, timer: Pin<&mut Sleep>) {
        let due = self.due();
        if due < timer.deadline() || timer.is_elapsed() {
            timer.reset(due);
        }
    }
}

async fn next_packet(inbound: &mut Inbound) -> Result<Option<v1::ExecuteRequest>, Status> {
    match inbound {
        Inbound::Stream(stream) => stream.message().await,
        Inbound::Nothing => std::future::pending().await,
    }
}
