//! The catalogue.

use std::time::Duration;

use bytes::Bytes;
use toolpool_proto::v1;

use crate::error::ProtocolError;
use crate::result::optional;
use crate::{Effects, FailureAction};

/// A tool that can be called.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// What a model calls it by.
    pub name: String,
    /// For the model: what the tool does and when to use it. May be empty.
    pub description: String,
    /// JSON Schema of the arguments, as JSON text. Empty means any object.
    pub input_schema: Bytes,
    /// What holds: every field that has a value is set.
    pub policy: Policy,
    /// What the workers registered.
    pub registered_policy: Policy,
    /// Workers that serve it now.
    pub workers: u32,
}

/// What a tool may do and how often. In an effective policy, what is `None` is not limited.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Policy {
    /// What the tool does to the world.
    pub effects: Option<Effects>,
    /// The longest that one attempt may run.
    pub attempt_timeout: Option<Duration>,
    /// The longest from the moment a call may start to its result.
    pub call_timeout: Option<Duration>,
    /// The longest that an attempt may wait for a limit or a slot.
    pub queue_timeout: Option<Duration>,
    /// Attempts in all.
    pub max_attempts: Option<u32>,
    /// The pause before the second attempt.
    pub retry_backoff: Option<Duration>,
    /// Starts per second.
    pub rate: Option<f64>,
    /// Starts that may come at once after a quiet time.
    pub burst: Option<u32>,
    /// Calls that may run at the same time.
    pub max_in_flight: Option<u32>,
    /// What a failure means for the rest of the batch.
    pub on_failure: Option<FailureAction>,
}

impl TryFrom<v1::CatalogueEntry> for Tool {
    type Error = ProtocolError;

    fn try_from(entry: v1::CatalogueEntry) -> Result<Self, ProtocolError> {
        let tool = entry.tool.ok_or(ProtocolError::Missing("entry.tool"))?;
        Ok(Self {
            name: tool.name,
            description: tool.description,
            input_schema: tool.input_schema,
            policy: tool.policy.unwrap_or_default().try_into()?,
            registered_policy: entry.registered_policy.unwrap_or_default().try_into()?,
            workers: entry.workers,
        })
    }
}

impl TryFrom<v1::Policy> for Policy {
    type Error = ProtocolError;

    fn try_from(policy: v1::Policy) -> Result<Self, ProtocolError> {
        Ok(Self {
            effects: policy.effects.map(|_| policy.effects()),
            on_failure: policy.on_failure.map(|_| policy.on_failure()),
            attempt_timeout: optional("policy.attempt_timeout", policy.attempt_timeout)?,
            call_timeout: optional("policy.call_timeout", policy.call_timeout)?,
            queue_timeout: optional("policy.queue_timeout", policy.queue_timeout)?,
            max_attempts: policy.max_attempts,
            retry_backoff: optional("policy.retry_backoff", policy.retry_backoff)?,
            rate: policy.rate,
            burst: policy.burst,
            max_in_flight: policy.max_in_flight,
        })
    }
}
