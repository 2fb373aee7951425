//! The one task that owns a worker's stream and its leases.
//!
//! It waits for what comes first, hands it to `State`, and does what `State` decides. It outlives the stream: while
//! the broker is away, attempts run on and their outcomes wait.

mod attempts;
mod backoff;
mod cut;
mod dial;
pub(crate) mod state;
mod stream;

use std::{collections::HashMap, future::pending, pin::Pin, time::Duration};

use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::{Code, transport::Endpoint};
use toolpool_proto::v1::{self as proto, pool_frame::Frame};
use tracing::{Instrument, debug, error, info, info_span, warn};

pub(crate) use self::dial::Connector;
use self::{
    attempts::{Attempts, Joined},
    backoff::Backoff,
    dial::{Connected, Dialled},
    state::{Action, Drain, Ending, State},
    stream::{Loss, Stream},
};
use crate::{
    Error, Shutdown,
    assignment::{Assignment, LeaseId},
    context::Progress,
    tool::Handler,
};

/// What one packet holds at most, unless one frame alone is larger.
const MAX_PACKET: usize = 1024 * 1024;
/// Words of progress that wait for the session. Full: they are lost.
const PROGRESS_BUFFER: usize = 256;
/// A stream that was up for this long was a good one: the next dial is quick.
const STABLE: Duration = Duration::from_secs(10);
/// The longest that the last goodbye may take.
const LEAVE: Duration = Duration::from_secs(1);

pub(crate) struct Settings {
    pub(crate) endpoint: Endpoint,
    pub(crate) connector: Connector,
    /// Without the leases.
    pub(crate) register: proto::Register,
    pub(crate) handlers: HashMap<String, Handler>,
    pub(crate) drain_grace: Duration,
    pub(crate) cancel_grace: Duration,
}

pub(crate) struct Session {
    settings: Settings,
    shutdown: Shutdown,
    state: State,
    link: Link,
    backoff: Backoff,
    /// What was last said at warn of a broker that is away, so that it is said once.
    warned: Option<Code>,
    phase: Phase,
    attempts: Attempts,
    progress: mpsc::Receiver<Progress>,
}

enum Phase {
    Serving,
    /// Until then, what runs may finish.
    Draining(Instant),
    /// Until then, what was cancelled may end.
    Ending(Instant),
}

enum Link {
    /// Until then, nothing is tried.
    Down(Instant),
    Connecting(Dialling<Connected>),
    /// The broker may have heard of this worker, and may assign to it.
    Joining(Dialling<Dialled>),
    Up(Box<Stream>),
}

type Dialling<T> = Pin<Box<dyn Future<Output = Result<T, dial::Error>> + Send>>;

enum LinkEvent {
    Redial,
    Connected(Connected),
    Registered(Dialled),
    Failed(dial::Error),
    Stream(stream::Event),
}

enum Event {
    Now,
    Drain,
    Link(LinkEvent),
    Ended(Joined),
    Progress(Progress),
    CancelGraceOver,
    PhaseOver,
}

impl Session {
    /// `tools`: the runtime on which the handlers run.
    pub(crate) fn new(settings: Settings, shutdown: Shutdown, tools: Handle) -> Self {
        let slots = usize::try_from(settings.register.slots).unwrap_or(usize::MAX);
        let (sender, progress) = mpsc::channel(PROGRESS_BUFFER);
        Self {
            state: State::new(slots, settings.handlers.keys().cloned()),
            attempts: Attempts::new(tools, sender, settings.cancel_grace),
            settings,
            shutdown,
            link: Link::Down(Instant::now()),
            backoff: Backoff::new(),
            warned: None,
            phase: Phase::Serving,
            progress,
        }
    }

    /// Serves until the shutdown, or until the broker refuses this worker for good.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let span = info_span!("worker", worker.id = %self.settings.register.worker_id);
        async {
            let result = self.serve().await;
            self.leave().await;
            result
        }
        .instrument(span)
        .await
    }

    async fn serve(&mut self) -> Result<(), Error> {
        while !self.is_drained() {
            match self.next().await {
                Event::Drain => self.drain(),
                Event::Link(event) => self.on_link(event)?,
                Event::Ended(joined) => self.on_ended(joined),
                Event::Progress(progress) => {
                    self.state.progressed(progress.lease, progress.progress);
                }
                Event::CancelGraceOver => self.attempts.drop_overdue(),
                Event::PhaseOver => self.next_phase(),
                Event::Now => return Ok(()),
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Event {
        let has_news = self.state.has_news();
        let overdue_at = self.attempts.overdue_at();
        tokio::select! {
            () = self.shutdown.now.cancelled() => Event::Now,
            () = self.shutdown.drain.cancelled(), if self.state.drain_state() == Drain::No => Event::Drain,
            event = self.link.next(has_news) => Event::Link(event),
            Some(joined) = self.attempts.tasks.join_next_with_id() => Event::Ended(joined),
            Some(progress) = self.progress.recv() => Event::Progress(progress),
            () = at(overdue_at) => Event::CancelGraceOver,
            () = at(self.phase.ends_at()) => Event::PhaseOver,
        }
    }

    /// Whether a worker that drains has nothing left to do, and will get nothing more.
    fn is_drained(&self) -> bool {
        let will_get_no_more = match (self.state.drain_state(), &self.link) {
            (Drain::No, _) => false,
            (_, Link::Down(_) | Link::Connecting(_)) | (Drain::Heard, Link::Up(_)) => true,
            (_, Link::Joining(_) | Link::Up(_)) => false,
        };
        will_get_no_more && self.state.is_idle()
    }

    fn drain(&mut self) {
        debug!(grace = ?self.settings.drain_grace, "draining");
        self.state.drain();
        self.phase = Phase::Draining(Instant::now() + self.settings.drain_grace);
    }

    fn next_phase(&mut self) {
        match self.phase {
            Phase::Serving => {}
            Phase::Draining(_) => {
                warn!("the drain grace is over, cancelling what still runs");
                self.phase = Phase::Ending(Instant::now() + self.settings.cancel_grace + LEAVE);
                for action in self.state.cancel_all() {
                    self.act(action);
                }
            }
            Phase::Ending(_) => {
                warn!("leaving before every outcome was acknowledged");
                self.shutdown.now.cancel();
            }
        }
    }

    fn on_ended(&mut self, joined: Joined) {
        // What a tool said before it ended comes before its end.
        while let Ok(progress) = self.progress.try_recv() {
            self.state.progressed(progress.lease, progress.progress);
        }
        if let Some((lease, ending)) = self.attempts.settled(joined)
            && let Some(action) = self.state.ended(lease, ending)
        {
            self.act(action);
        }
    }

    fn on_link(&mut self, event: LinkEvent) -> Result<(), Error> {
        match event {
            LinkEvent::Redial => self.redial(),
            LinkEvent::Connected(connected) => self.join(connected),
            LinkEvent::Registered(dialled) => self.on_registered(dialled),
            LinkEvent::Failed(error) => return self.on_dial_failed(&error),
            LinkEvent::Stream(stream::Event::Packet(packet)) => self.on_packet(packet.frames),
            LinkEvent::Stream(stream::Event::Room) => self.send(),
            LinkEvent::Stream(stream::Event::Beat) => self.state.beat(),
            LinkEvent::Stream(stream::Event::Lost(loss)) => return self.on_lost(&loss),
        }
        if self.state.is_flooded() && matches!(self.link, Link::Up(_)) {
            return self.on_lost(&Loss::Flooded);
        }
        Ok(())
    }

    fn redial(&mut self) {
        let connecting = dial::connect(
            self.settings.endpoint.clone(),
            self.settings.connector.clone(),
        );
        self.link = Link::Connecting(Box::pin(connecting));
    }

    fn join(&mut self, connected: Connected) {
        let register = proto::Register {
            running_leases: self.state.leases(),
            ..self.settings.register.clone()
        };
        self.link = Link::Joining(Box::pin(dial::join(connected, register)));
    }

    fn on_registered(&mut self, dialled: Dialled) {
        info!(endpoint = %self.settings.endpoint.uri(), "registered");
        self.warned = None;
        self.state.registered(dialled.max_result_bytes);
        self.link = Link::Up(dialled.stream);
        self.on_packet(dialled.frames);
    }

    fn on_dial_failed(&mut self, error: &dial::Error) -> Result<(), Error> {
        if let dial::Error::Refused(status) = error
            && status.code() == Code::InvalidArgument
        {
            return Err(Error::Refused {
                message: status.message().to_owned(),
            });
        }
        self.link = Link::Down(Instant::now() + self.backoff.next());
        // A broker that is not there yet is normal: said once for each reason.
        if self.warned == Some(error.code()) {
            debug!(error = error as &dyn std::error::Error, "still no broker");
        } else {
            warn!(
                endpoint = %self.settings.endpoint.uri(),
                error = error as &dyn std::error::Error,
                "waiting for the broker"
            );
            self.warned = Some(error.code());
        }
        Ok(())
    }

    fn on_lost(&mut self, loss: &Loss) -> Result<(), Error> {
        if let Loss::Broken(status) = loss
            && status.code() == Code::InvalidArgument
        {
            return Err(Error::Refused {
                message: status.message().to_owned(),
            });
        }
        warn!(
            error = loss as &dyn std::error::Error,
            leases = self.state.leases().len(),
            "broker lost, dialling again"
        );
        if let Link::Up(stream) = &self.link
            && stream.age() >= STABLE
        {
            self.backoff.reset();
        }
        self.link = Link::Down(Instant::now() + self.backoff.next());
        Ok(())
    }

    fn on_packet(&mut self, frames: Vec<proto::PoolFrame>) {
        let received = Instant::now();
        for frame in frames {
            let action = match frame.frame {
                Some(Frame::Assignment(assignment)) => self
                    .state
                    .assign(Assignment::from_proto(assignment, received)),
                Some(Frame::Cancel(cancel)) => self.state.cancel(LeaseId(cancel.lease_id)),
                Some(Frame::Revoked(revoked)) => self.state.revoke(LeaseId(revoked.lease_id)),
                Some(Frame::DrainAck(_)) => {
                    self.state.drain_acknowledged();
                    None
                }
                Some(Frame::OutcomeAck(ack)) => {
                    self.state.acknowledge(LeaseId(ack.lease_id));
                    None
                }
                Some(Frame::Drain(drain)) if drain.leave => {
                    info!("an operator takes this worker out, draining");
                    if self.state.drain_state() == Drain::No {
                        self.drain();
                    }
                    None
                }
                Some(Frame::Drain(_)) => {
                    info!("the broker drains, serving on until it ends the stream");
                    None
                }
                // A beat has said all by coming; a second `registered` says nothing new; unknown frames are skipped.
                Some(Frame::Beat(_) | Frame::Registered(_)) | None => None,
            };
            if let Some(action) = action {
                self.act(action);
            }
        }
    }

    /// Sends one packet with all that is ready.
    fn send(&mut self) {
        while let Some(joined) = self.attempts.tasks.try_join_next_with_id() {
            self.on_ended(joined);
        }
        let Link::Up(stream) = &mut self.link else {
            return;
        };
        let frames = self.state.packet(MAX_PACKET);
        if !frames.is_empty() {
            stream.send(frames);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start(assignment) => self.start(assignment),
            Action::Cancel(lease) => self.attempts.cancel(lease),
        }
    }

    fn start(&mut self, assignment: Assignment) {
        let Some(handler) = self.settings.handlers.get(&assignment.tool) else {
            // `State` knows the same tools, so this is a fault of ours.
            error!(tool = assignment.tool, lease.id = %assignment.lease, "no handler for an assignment");
            if let Some(action) = self.state.ended(assignment.lease, Ending::Dropped) {
                self.act(action);
            }
            return;
        };
        self.attempts.start(
            assignment,
            Handler::clone(handler),
            self.state.max_result_bytes(),
        );
    }

    /// Says goodbye, and drops what still runs.
    async fn leave(self) {
        let deadline = Instant::now() + LEAVE;
        let mut tasks = self.attempts.tasks;
        tasks.abort_all();
        // So that what the attempts hold (processes, say) is let go of before this returns.
        let dropped = async { while tasks.join_next().await.is_some() {} };
        let goodbye = async {
            if let Link::Up(stream) = self.link {
                stream.leave(deadline).await;
            }
        };
        let _ = tokio::join!(timeout_at(deadline, dropped), goodbye);
        // An attempt that blocks its thread cannot be dropped; it is left to its runtime.
        tasks.detach_all();
        info!("left");
    }
}

impl Phase {
    fn ends_at(&self) -> Option<Instant> {
        match self {
            Self::Serving => None,
            Self::Draining(until) | Self::Ending(until) => Some(*until),
        }
    }
}

impl Link {
    /// Waits for what comes first. Cancel safe.
    async fn next(&mut self, has_news: bool) -> LinkEvent {
        match self {
            Self::Down(until) => {
                sleep_until(*until).await;
                LinkEvent::Redial
            }
            Self::Connecting(connecting) => match connecting.await {
                Ok(connected) => LinkEvent::Connected(connected),
                Err(error) => LinkEvent::Failed(error),
            },
            Self::Joining(joining) => match joining.await {
                Ok(dialled) => LinkEvent::Registered(dialled),
                Err(error) => LinkEvent::Failed(error),
            },
            Self::Up(stream) => LinkEvent::Stream(stream.next(has_news).await),
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
