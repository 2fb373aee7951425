//! How a tool says that it failed.

use std::{error::Error, fmt, time::Duration};

use toolpool_proto::v1 as proto;

use crate::text;

const MAX_MESSAGE: usize = 16 * 1024;
const MAX_VIOLATIONS: usize = 64;

/// A call's failure, for the model to read and for the broker to act on.
///
/// Write the message for a model: plain sentences that say what happened and what to do about it. More than 16 KiB of
/// it is cut off.
///
/// Every [`std::error::Error`] turns into a [`failed`](Self::failed) one with `?`; its message is the error's and those
/// of its sources. (For that reason this type does not implement [`std::error::Error`] itself.)
#[derive(Clone, Debug, PartialEq)]
pub struct ToolError {
    kind: Kind,
    message: String,
    retryable: bool,
    effect: proto::Effect,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Failed,
    InvalidArguments(Vec<proto::Violation>),
    PermissionDenied,
    RateLimited(Duration),
    ResultTooLarge,
    Cancelled,
}

impl ToolError {
    /// The tool ran and failed. Not retryable, and it may have changed something, unless you say otherwise.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message.into(), false, proto::Effect::Maybe)
    }

    /// The arguments are wrong in a way that the schema cannot say. Nothing was started.
    #[must_use]
    pub fn invalid_arguments(message: impl Into<String>) -> Self {
        Self::new(
            Kind::InvalidArguments(Vec::new()),
            message.into(),
            false,
            proto::Effect::NotStarted,
        )
    }

    /// The tool refuses to do this for this caller. Nothing was started.
    #[must_use]
    pub fn permission_denied(message: impl Into<String>) -> Self {
        Self::new(
            Kind::PermissionDenied,
            message.into(),
            false,
            proto::Effect::NotStarted,
        )
    }

    /// The tool asks to be called later: the broker sends it no call, from anyone, for that long. Nothing was started,
    /// and the call may be tried again.
    #[must_use]
    pub fn rate_limited(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(
            Kind::RateLimited(retry_after),
            message.into(),
            true,
            proto::Effect::NotStarted,
        )
    }

    /// There is more output than the limit lets through. Final: it is not retried.
    pub(crate) fn result_too_large(message: impl Into<String>) -> Self {
        Self::new(
            Kind::ResultTooLarge,
            message.into(),
            false,
            proto::Effect::Maybe,
        )
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(
            Kind::Cancelled,
            "The call was cancelled.".to_owned(),
            false,
            proto::Effect::Maybe,
        )
    }

    /// Adds to [`invalid_arguments`](Self::invalid_arguments) one place that is wrong: a JSON Pointer (RFC 6901) into
    /// the arguments, and what is wrong there. At most 64 are kept; other kinds of error have none.
    #[must_use]
    pub fn violation(mut self, path: impl Into<String>, message: impl Into<String>) -> Self {
        if let Kind::InvalidArguments(violations) = &mut self.kind
            && violations.len() < MAX_VIOLATIONS
        {
            let message = text::clipped(message.into(), MAX_MESSAGE / MAX_VIOLATIONS);
            let path = text::clipped(path.into(), MAX_MESSAGE / MAX_VIOLATIONS);
            violations.push(proto::Violation { path, message });
        }
        self
    }

    /// The same call, made again, can succeed: the broker tries again where the tool's policy allows it.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Nothing was changed: the tool had not started its work.
    #[must_use]
    pub fn effect_not_started(mut self) -> Self {
        self.effect = proto::Effect::NotStarted;
        self
    }

    /// The tool did all its work before it failed.
    #[must_use]
    pub fn effect_done(mut self) -> Self {
        self.effect = proto::Effect::Done;
        self
    }

    /// What the model will read.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    fn new(kind: Kind, message: String, retryable: bool, effect: proto::Effect) -> Self {
        let message = text::clipped(message, MAX_MESSAGE);
        Self {
            kind,
            message,
            retryable,
            effect,
        }
    }

    pub(crate) fn code(&self) -> proto::ErrorCode {
        match self.kind {
            Kind::Failed => proto::ErrorCode::ToolFailed,
            Kind::InvalidArguments(_) => proto::ErrorCode::InvalidArguments,
            Kind::PermissionDenied => proto::ErrorCode::PermissionDenied,
            Kind::RateLimited(_) => proto::ErrorCode::RateLimited,
            Kind::ResultTooLarge => proto::ErrorCode::ResultTooLarge,
            Kind::Cancelled => proto::ErrorCode::Cancelled,
        }
    }

    pub(crate) fn into_proto(self) -> proto::CallError {
        let mut error = proto::CallError {
            code: self.code().into(),
            message: self.message,
            retryable: self.retryable,
            effect: self.effect.into(),
            ..proto::CallError::default()
        };
        match self.kind {
            Kind::InvalidArguments(violations) => error.violations = violations,
            Kind::RateLimited(retry_after) => error.retry_after = retry_after.try_into().ok(),
            Kind::Failed | Kind::PermissionDenied | Kind::ResultTooLarge | Kind::Cancelled => {}
        }
        error
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: Error> From<E> for ToolError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut before = message.clone();
        let mut source = error.source();
        while let Some(cause) = source.filter(|_| message.len() <= MAX_MESSAGE) {
            let said = cause.to_string();
            // Many an error says its cause itself.
            if !before.contains(&said) {
                message.extend([": ", &said]);
                before = said;
            }
            source = cause.source();
        }
        Self::failed(message)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn any_error_turns_into_a_failure_that_names_its_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("the index is not readable")]
        struct Index(#[source] io::Error);
        let error = ToolError::from(Index(io::Error::other("disk on fire")));
        assert_eq!(error.message(), "the index is not readable: disk on fire");
        assert_eq!(error.into_proto().code(), proto::ErrorCode::ToolFailed);
    }

    #[test]
    fn a_cause_that_the_error_has_named_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("the index is not readable: {0}")]
        struct Index(#[source] io::Error);
        let error = ToolError::from(Index(io::Error::other("disk on fire")));
        assert_eq!(error.message(), "the index is not readable: disk on fire");
    }

    #[test]
    fn a_message_has_a_limit() {
        let error = ToolError::failed("ü".repeat(MAX_MESSAGE));
        assert!(error.message().len() < MAX_MESSAGE + 64);
    }

    #[test]
    fn violations_go_with_invalid_arguments_only() {
        let error = ToolError::invalid_arguments("No.")
            .violation("/a", "is odd")
            .into_proto();
        assert_eq!(error.violations.len(), 1);
        let error = ToolError::failed("No.")
            .violation("/a", "is odd")
            .into_proto();
        assert!(error.violations.is_empty());
    }
}
