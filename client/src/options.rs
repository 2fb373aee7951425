//! What an agent may say about a connection and about a batch.

use std::num::NonZeroU32;
use std::time::Duration;

use toolpool_proto::v1;

use crate::Dialect;

/// How a broker is reached.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    pub(crate) connect_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl ConnectOptions {
    /// The longest that opening a batch, or any other request, tries to reach a broker, all attempts and the pauses
    /// between them together. Default: 10 s. With zero there is no attempt that can succeed.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
}

/// What becomes of a batch whose agent goes away before it is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Calls that run are cancelled, the others never start.
    Cancel,
    /// Calls that are complete and not held run to their end; nobody gets the results. Held calls never start.
    Finish,
}

/// How the model's turn ended. A block that is still open then ends as
/// [`ErrorCode::Incomplete`](crate::ErrorCode::Incomplete) in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnEnd {
    /// The model came to its end.
    Complete,
    /// Cut by a token limit, a filter or an error. Held calls are not run; those that run go on.
    Truncated,
    /// The agent gave the turn up. Every call that has not ended is called off.
    Aborted,
}

impl From<TurnEnd> for v1::TurnEnd {
    fn from(end: TurnEnd) -> Self {
        match end {
            TurnEnd::Complete => Self::Complete,
            TurnEnd::Truncated => Self::Truncated,
            TurnEnd::Aborted => Self::Aborted,
        }
    }
}

/// How a batch is to be run. What is not set is the broker's to choose.
#[derive(Debug, Clone, Default)]
pub struct BatchOptions {
    batch_id: Option<String>,
    deadline: Option<Duration>,
    max_parallel: Option<NonZeroU32>,
    on_disconnect: Option<OnDisconnect>,
    progress: bool,
    dialect: Option<Dialect>,
    local_tools: Vec<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl BatchOptions {
    /// 1 to 128 printable ASCII characters, unique among the broker's open batches. Not set: the broker makes one.
    #[must_use]
    pub fn batch_id(mut self, id: impl Into<String>) -> Self {
        self.batch_id = Some(id.into());
        self
    }

    /// Time for the whole batch, counted from its acceptance. What is still running then ends as a timeout.
    #[must_use]
    pub fn deadline(mut self, left: Duration) -> Self {
        self.deadline = Some(left);
        self
    }

    /// Calls of this batch that may run at the same time; 1 is one at a time, strictly in the model's order.
    #[must_use]
    pub fn max_parallel(mut self, calls: NonZeroU32) -> Self {
        self.max_parallel = Some(calls);
        self
    }

    /// What becomes of the batch if the agent goes away. Not set: [`OnDisconnect::Cancel`].
    #[must_use]
    pub fn on_disconnect(mut self, action: OnDisconnect) -> Self {
        self.on_disconnect = Some(action);
        self
    }

    /// Whether the broker tells what goes on while the batch runs. Not set: no.
    #[must_use]
    pub fn progress(mut self, wanted: bool) -> Self {
        self.progress = wanted;
        self
    }

    /// The agent will pipe its provider's stream in, with [`Batch::provider_data`](crate::Batch::provider_data), instead
    /// of blocks and calls. [`Dialect::Auto`]: the stream tells by itself. Not set: it will not.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = Some(dialect);
        self
    }

    /// Tools that the agent runs itself, by the names that the model knows them by; their calls are passed over. Only
    /// together with [`BatchOptions::dialect`].
    #[must_use]
    pub fn local_tools(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.local_tools = names.into_iter().map(Into::into).collect();
        self
    }

    /// The agent's span as a W3C `traceparent`: the batch becomes its child. The current context of OpenTelemetry is not
    /// looked up; whoever has one writes it down here. Not set, or malformed: the batch begins a trace of its own, if its
    /// broker traces.
    #[must_use]
    pub fn traceparent(mut self, context: impl Into<String>) -> Self {
        self.traceparent = Some(context.into());
        self
    }

    /// The W3C `tracestate` that belongs to [`BatchOptions::traceparent`]; it is passed on as it is.
    #[must_use]
    pub fn tracestate(mut self, state: impl Into<String>) -> Self {
        self.tracestate = Some(state.into());
        self
    }

    pub(crate) fn has_batch_id(&self) -> bool {
        self.batch_id.is_some()
    }

    pub(crate) fn to_open(&self) -> v1::Open {
        v1::Open {
            batch_id: self.batch_id.clone(),
            // Longer than the wire can say is longer than the broker's own limit, which then holds.
            deadline: self.deadline.and_then(|left| left.try_into().ok()),
            max_parallel: self.max_parallel.map(NonZeroU32::get),
            on_disconnect: self.on_disconnect.map(|action| {
                let action = match action {
                    OnDisconnect::Cancel => v1::OnDisconnect::Cancel,
                    OnDisconnect::Finish => v1::OnDisconnect::Finish,
                };
                action.into()
            }),
            progress: self.progress,
            dialect: self.dialect.map(Into::into),
            local_tools: self.local_tools.clone(),
            traceparent: self.traceparent.clone(),
            tracestate: self.tracestate.clone(),
        }
    }
}
