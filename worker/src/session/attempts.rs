//! The attempts that run: each is a task on the tools' runtime, with a way to call it off.

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use opentelemetry::trace::FutureExt as _;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::{self, AbortHandle, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, info_span, warn};

use super::state::Ending;
use crate::{
    Context,
    assignment::{Assignment, LeaseId},
    context::{Links, Progress},
    tool::Handler,
    trace::Trace,
};

/// How a task ended.
pub(super) type Joined = Result<(task::Id, (LeaseId, Ending)), JoinError>;

pub(super) struct Attempts {
    pub(super) tasks: JoinSet<(LeaseId, Ending)>,
    /// Where handlers run: not where the session does, so that one that blocks its thread starves no beat.
    tools: Handle,
    progress: mpsc::Sender<Progress>,
    running: HashMap<LeaseId, Attempt>,
    /// Only for tasks that came to a bad end, which do not say whose they were.
    leases: HashMap<task::Id, LeaseId>,
    cancel_grace: Duration,
    /// Called off, and to be dropped from that moment on; in order. One that has ended since may still be here.
    overdue: VecDeque<(Instant, LeaseId)>,
}

struct Attempt {
    cancel: CancellationToken,
    task: AbortHandle,
    span: Span,
}

impl Attempts {
    pub(super) fn new(
        tools: Handle,
        progress: mpsc::Sender<Progress>,
        cancel_grace: Duration,
    ) -> Self {
        Self {
            tasks: JoinSet::new(),
            tools,
            progress,
            running: HashMap::new(),
            leases: HashMap::new(),
            cancel_grace,
            overdue: VecDeque::new(),
        }
    }

    pub(super) fn start(
        &mut self,
        assignment: Assignment,
        handler: Handler,
        max_result_bytes: u64,
    ) {
        let lease = assignment.lease;
        let span = info_span!(
            "attempt",
            tool = assignment.tool,
            batch.id = assignment.batch_id,
            call.id = assignment.call_id,
            lease.id = %lease,
            trace.id = assignment.trace_id(),
            attempt = assignment.attempt,
        );
        let cancel = CancellationToken::new();
        let trace = Trace::begin(&assignment);
        let links = Links {
            cancel: cancel.clone(),
            progress: self.progress.clone(),
            max_result_bytes,
            trace: trace.clone(),
        };
        let (context, arguments) = Context::of(assignment, links);
        let attempt = async move {
            let run = run(handler, arguments, context);
            let ending = match trace {
                None => run.await,
                Some(trace) => traced(run, &trace).await,
            };
            (lease, ending)
        };
        let task = self
            .tasks
            .spawn_on(attempt.instrument(span.clone()), &self.tools);
        self.leases.insert(task.id(), lease);
        self.running.insert(lease, Attempt { cancel, task, span });
    }

    /// Tells an attempt to end; if it has not in time, [`drop_overdue`](Self::drop_overdue) drops it.
    pub(super) fn cancel(&mut self, lease: LeaseId) {
        if let Some(attempt) = self.running.get(&lease) {
            attempt.cancel.cancel();
            self.overdue
                .push_back((Instant::now() + self.cancel_grace, lease));
        }
    }

    /// When there is something for [`drop_overdue`](Self::drop_overdue) to do.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        self.overdue.front().map(|(moment, _)| *moment)
    }

    /// Drops the attempts that were called off and have not ended in time.
    pub(super) fn drop_overdue(&mut self) {
        let now = Instant::now();
        while let Some((_, lease)) = self.overdue.pop_front_if(|(moment, _)| *moment <= now) {
            if let Some(attempt) = self.running.get(&lease) {
                let grace = self.cancel_grace;
                (attempt.span).in_scope(|| warn!(?grace, "a cancelled tool goes on, dropping it"));
                attempt.task.abort();
            }
        }
    }

    /// Forgets an attempt that has ended, and says how.
    pub(super) fn settled(&mut self, joined: Joined) -> Option<(LeaseId, Ending)> {
        let (lease, ending) = match joined {
            Ok((task, (lease, ending))) => {
                self.leases.remove(&task);
                (lease, ending)
            }
            Err(error) => {
                let lease = self.leases.remove(&error.id())?;
                let ending = match error.try_into_panic() {
                    Ok(panic) => Ending::Panicked(message(&*panic)),
                    Err(_) => Ending::Dropped,
                };
                (lease, ending)
            }
        };
        self.running.remove(&lease);
        Some((lease, ending))
    }
}

/// Runs the handler below the worker's span, which ends with it, also if it is dropped.
async fn traced(run: impl Future<Output = Ending>, trace: &Trace) -> Ending {
    let _dropped = EndsSpan(trace);
    let ending = run.with_context(trace.context()).await;
    match &ending {
        Ending::Returned(result) => trace.returned(result),
        Ending::Panicked(_) => trace.panicked(),
        Ending::Dropped => trace.dropped(),
    }
    ending
}

/// Ends the span of an attempt that is dropped; one that has ended takes nothing more.
struct EndsSpan<'a>(&'a Trace);

impl Drop for EndsSpan<'_> {
    fn drop(&mut self) {
        self.0.dropped();
    }
}

/// Runs the handler. A panic is an ending like any other.
async fn run(handler: Handler, arguments: Bytes, context: Context) -> Ending {
    // The call itself is inside, since a handler may panic before it has made its future. What it shares with other
    // attempts is its own affair, as with any thread that panics.
    let attempt = async move { handler(arguments, context).await };
    match AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(result) => Ending::Returned(result),
        Err(panic) => Ending::Panicked(message(&*panic)),
    }
}

/// What the panic was given to say.
fn message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        return (*message).to_owned();
    }
    match panic.downcast_ref::<String>() {
        Some(message) => message.clone(),
        None => "no message".to_owned(),
    }
}
