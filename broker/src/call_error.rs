//! How a call fails: the codes, and the texts that a model reads.

use std::time::Duration;

use crate::id::{CallId, WorkerId};
use crate::schema::{Invalid, Violation};

/// The codes of `toolpool.v1.ErrorCode`; each is documented there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Code {
    InvalidArguments,
    UnknownTool,
    NoWorker,
    Overloaded,
    RateLimited,
    Timeout(Scope),
    ToolFailed,
    WorkerLost,
    OutcomeUnknown,
    ResultTooLarge,
    Cancelled,
    Aborted,
    Incomplete,
    TruncatedTurn,
    DuplicateId,
    PermissionDenied,
    Internal,
}

impl Code {
    /// As telemetry has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InvalidArguments => "invalid_arguments",
            Self::UnknownTool => "unknown_tool",
            Self::NoWorker => "no_worker",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::Timeout(_) => "timeout",
            Self::ToolFailed => "tool_failed",
            Self::WorkerLost => "worker_lost",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::ResultTooLarge => "result_too_large",
            Self::Cancelled => "cancelled",
            Self::Aborted => "aborted",
            Self::Incomplete => "incomplete",
            Self::TruncatedTurn => "truncated_turn",
            Self::DuplicateId => "duplicate_id",
            Self::PermissionDenied => "permission_denied",
            Self::Internal => "internal",
        }
    }
}

/// Which clock ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// The wait for a limit or a slot.
    Queue,
    /// One attempt, and none was left.
    Attempt,
    /// The call with all its attempts.
    Call,
    /// The batch.
    Batch,
}

impl Scope {
    /// As telemetry has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Attempt => "attempt",
            Self::Call => "call",
            Self::Batch => "batch",
        }
    }
}

/// Whether a failed call may have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// The tool was not started.
    NotStarted,
    /// It was; how far it came is not known.
    Maybe,
    /// It ran to its end.
    Done,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallError {
    /// What kind of failure.
    pub(crate) code: Code,
    /// For the model: what happened and what to do about it.
    pub(crate) message: String,
    /// Whether the same call, made again, can succeed.
    pub(crate) retryable: bool,
    /// Whether something may have changed.
    pub(crate) effect: Effect,
    /// How long to wait before trying again.
    pub(crate) retry_after: Option<Duration>,
    /// With [`Code::InvalidArguments`].
    pub(crate) violations: Vec<Violation>,
    /// With [`Code::UnknownTool`].
    pub(crate) near_names: Vec<String>,
}

impl CallError {
    /// A failure that started nothing and that a repeat would not mend.
    #[must_use]
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retryable: false,
            effect: Effect::NotStarted,
            retry_after: None,
            violations: Vec::new(),
            near_names: Vec::new(),
        }
    }

    /// The same, as one that a repeat may mend.
    #[must_use]
    pub(crate) fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// The same, with what is known of the effect.
    #[must_use]
    pub(crate) fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// The same, saying too what is known of the effect: what it is of waiting, an earlier attempt may have run.
    #[must_use]
    pub(crate) fn telling_effect(mut self, effect: Effect) -> Self {
        self.message.extend([" ", tell(effect)]);
        self.effect(effect)
    }

    /// The same, with the time after which a repeat makes sense.
    #[must_use]
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self.retryable()
    }

    /// Arguments that cannot be run.
    #[must_use]
    pub(crate) fn invalid_arguments(tool: &str, invalid: Invalid) -> Self {
        match invalid {
            Invalid::NotJson(at) => {
                let why = format!(
                    "The arguments of this call of {tool} are not valid JSON ({at}). They were not repaired and the \
                     call was not run. Send one complete JSON object."
                );
                Self::new(Code::InvalidArguments, why)
            }
            Invalid::Undecided(_) => Self::internal("(none)", Effect::NotStarted),
            Invalid::Violations(violations) => {
                let mut why = format!(
                    "The arguments of this call of {tool} do not satisfy its schema; it was not run."
                );
                for Violation { path, message } in &violations {
                    let path = if path.is_empty() { "(arguments)" } else { path };
                    why.extend(["\n- ", path, ": ", message]);
                }
                let mut error = Self::new(Code::InvalidArguments, why);
                error.violations = violations;
                error
            }
        }
    }

    /// Arguments over the limit.
    #[must_use]
    pub(crate) fn arguments_too_large(tool: &str, limit: usize, effect: Effect) -> Self {
        let ran = tell_early(effect);
        let why = format!(
            "The arguments of this call of {tool} are larger than the limit of {limit} bytes (max_arguments_bytes). \
             {ran} Pass less, or a reference to the data."
        );
        Self::new(Code::InvalidArguments, why).effect(effect)
    }

    /// A name that no worker ever registered.
    #[must_use]
    pub(crate) fn unknown_tool(tool: &str, near_names: Vec<String>) -> Self {
        let mut why = format!("There is no tool named {tool:?}.");
        if !near_names.is_empty() {
            why.extend([" Names that are close: ", &near_names.join(", "), "."]);
        }
        let mut error = Self::new(Code::UnknownTool, why);
        error.near_names = near_names;
        error
    }

    /// A name that no worker has registered, of a broker that has only just started.
    #[must_use]
    pub(crate) fn not_known_yet(
        tool: &str,
        age: Duration,
        left: Duration,
        near_names: Vec<String>,
    ) -> Self {
        let mut error = Self::unknown_tool(tool, near_names).after(left);
        error.code = Code::NoWorker;
        error.message = format!(
            "{} But the broker started only {age:.1?} ago, and its workers may not all be connected yet: the same call \
             may succeed in {left:.1?}.",
            error.message
        );
        error
    }

    /// Known, but nobody serves it.
    #[must_use]
    pub(crate) fn no_worker(tool: &str, waited: Duration) -> Self {
        let why = format!("No worker that serves {tool} is connected (none for {waited:.1?}).");
        Self::new(Code::NoWorker, why).retryable()
    }

    /// A tool's queue is full.
    #[must_use]
    pub(crate) fn queue_full(tool: &str, limit: usize) -> Self {
        let why = format!(
            "{limit} calls of {tool} are waiting already (max_queued_per_tool). Try again later."
        );
        Self::new(Code::Overloaded, why).after(Duration::from_secs(1))
    }

    /// The batch has as many calls as it may.
    #[must_use]
    pub(crate) fn too_many_calls(limit: usize) -> Self {
        let why = format!(
            "A turn may make {limit} calls (max_calls_per_batch); this one came after them and was not run. Ask again \
             for the rest in the next turn."
        );
        Self::new(Code::Overloaded, why).retryable()
    }

    /// The batch's arguments and outputs together are over the limit.
    #[must_use]
    pub(crate) fn batch_too_large(tool: &str, limit: usize, effect: Effect) -> Self {
        let ran = tell_early(effect);
        let why = format!(
            "With this call of {tool}, the arguments of this turn's calls are larger together than {limit} bytes \
             (max_batch_bytes). {ran} Ask again for it in the next turn."
        );
        Self::new(Code::Overloaded, why).effect(effect).retryable()
    }

    /// The rate would not let it start in time.
    #[must_use]
    pub(crate) fn rate_limited(tool: &str, wait: Duration) -> Self {
        let why = format!(
            "{tool} is rate limited and could start this call in {wait:.1?} at the earliest, which is longer than it \
             may wait."
        );
        Self::new(Code::RateLimited, why).after(wait)
    }

    /// The wait for a limit or a slot was too long.
    #[must_use]
    pub(crate) fn queue_timeout(tool: &str, waited_for: &str, after: Duration) -> Self {
        let why =
            format!("This call of {tool} waited {after:.1?} for {waited_for}. Try again later.");
        Self::new(Code::Timeout(Scope::Queue), why).retryable()
    }

    /// A running attempt, a call or its batch ran out of time.
    #[must_use]
    pub(crate) fn timeout(tool: &str, scope: Scope, after: Duration, effect: Effect) -> Self {
        let what = match scope {
            Scope::Queue => "while it waited to start",
            Scope::Attempt => "which is the most that one attempt may take",
            Scope::Call => "which is the most that a call may take with all its attempts",
            Scope::Batch => "when the time of its whole batch was over",
        };
        let why = format!(
            "This call of {tool} was ended after {after:.1?}, {what}. {}",
            tell(effect)
        );
        Self {
            retryable: true,
            effect,
            ..Self::new(Code::Timeout(scope), why)
        }
    }

    /// The worker went away, and the call may not or cannot be tried again.
    #[must_use]
    pub(crate) fn worker_lost(
        tool: &str,
        worker: &WorkerId,
        repeatable: bool,
        attempts: u32,
    ) -> Self {
        if repeatable {
            let why = format!(
                "The worker {worker} was lost while it ran this call of {tool}, and attempt {attempts} was the last. \
                 Running it again is harmless."
            );
            return Self::new(Code::WorkerLost, why)
                .effect(Effect::Maybe)
                .retryable();
        }
        let why = format!(
            "The worker {worker} was lost while it had this call of {tool}. It may or may not have taken effect, and \
             was not run again. Find out before you repeat it."
        );
        Self::new(Code::OutcomeUnknown, why).effect(Effect::Maybe)
    }

    /// It was handed to workers again and again, and reached none.
    #[must_use]
    pub(crate) fn undeliverable(tool: &str, times: u32) -> Self {
        let why = format!(
            "This call of {tool} was sent to a worker {times} times and did not arrive there."
        );
        Self::new(Code::WorkerLost, why).retryable()
    }

    /// An output over a limit.
    #[must_use]
    pub(crate) fn result_too_large(tool: &str, size: usize, limit: usize, setting: &str) -> Self {
        let why = format!(
            "{tool} ran, but its output of {size} bytes is larger than the limit of {limit} bytes ({setting}). Ask \
             for less, or for a reference to the data."
        );
        Self::new(Code::ResultTooLarge, why).effect(Effect::Done)
    }

    /// Called off by the agent or by the broker's end.
    #[must_use]
    pub(crate) fn cancelled(tool: &str, by: &str, effect: Effect) -> Self {
        let why = format!("This call of {tool} was called off: {by}. {}", tell(effect));
        Self {
            retryable: true,
            effect,
            ..Self::new(Code::Cancelled, why)
        }
    }

    /// Called off with its batch.
    #[must_use]
    pub(crate) fn aborted(tool: &str, why: &str, effect: Effect) -> Self {
        Self::new(
            Code::Aborted,
            format!(
                "This call of {tool} was called off: {why}. {}",
                tell(effect)
            ),
        )
        .effect(effect)
    }

    /// A block that is no call. `what` goes on from the call's name; an early start was of a tool that only reads.
    #[must_use]
    pub(crate) fn incomplete(tool: &str, what: &str, effect: Effect, early: bool) -> Self {
        let ran = match effect {
            Effect::Maybe | Effect::Done if !early => {
                "It had been started and may have taken effect; its answer was thrown away."
            }
            _ => tell_early(effect),
        };
        let why = format!("This call of {tool} {what}. {ran}");
        Self::new(Code::Incomplete, why).effect(effect).retryable()
    }

    /// A held call of a turn that was cut.
    #[must_use]
    pub(crate) fn truncated_turn(tool: &str) -> Self {
        let why = format!(
            "The turn that asked for this call of {tool} was cut short, so what else it would have said is not known. \
             The tool has side effects, and the call was not run."
        );
        Self::new(Code::TruncatedTurn, why).retryable()
    }

    /// A second call under a taken id.
    #[must_use]
    pub(crate) fn duplicate_id(id: &CallId, tool: &str) -> Self {
        let why = format!(
            "A call with the id {id} came before in this turn. The result under that id is the first call's; this call \
             of {tool} was not run. Give every call an id of its own."
        );
        Self::new(Code::DuplicateId, why)
    }

    /// A fault of ours; the details are in the log under `incident`.
    #[must_use]
    pub(crate) fn internal(incident: &str, effect: Effect) -> Self {
        let why = format!(
            "The broker failed to run this call; its log has the details under incident {incident}."
        );
        Self::new(Code::Internal, why).effect(effect)
    }
}

/// Of a call whose block never became one.
fn tell_early(effect: Effect) -> &'static str {
    match effect {
        Effect::NotStarted => tell(effect),
        Effect::Maybe | Effect::Done => {
            "It was started early, since it only reads, and its answer was thrown away."
        }
    }
}

fn tell(effect: Effect) -> &'static str {
    match effect {
        Effect::NotStarted => "It was not run.",
        Effect::Maybe => "It was started and may have taken effect.",
        Effect::Done => "It had run to its end.",
    }
}
