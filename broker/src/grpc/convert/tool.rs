//! Tools and their policies, as registered and as listed.

use std::sync::Arc;

use toolpool_proto::v1;

use super::{Malformed, duration, malformed, many, to_wire};
use crate::catalogue::{Definition, Tool};
use crate::policy::{Effects, FailureAction, Policy, PolicyPatch};
use crate::tool_format::Format;

pub(super) fn definition(tool: v1::Tool) -> Result<Definition, Malformed> {
    let policy = tool
        .policy
        .map(|policy| patch(&tool.name, policy))
        .transpose()?
        .unwrap_or_default();
    let name = Arc::from(tool.name);
    Ok(Definition {
        name,
        description: tool.description,
        input_schema: tool.input_schema,
        policy,
    })
}

fn patch(tool: &str, policy: v1::Policy) -> Result<PolicyPatch, Malformed> {
    let field = |name: &str| format!("register.tools[{tool}].policy.{name}");
    let time = |name: &str, time: Option<prost_types::Duration>| {
        time.map(|time| duration(&field(name), time)).transpose()
    };
    let effects = match policy.effects.map(v1::Effects::try_from) {
        None => None,
        Some(Ok(v1::Effects::ReadOnly)) => Some(Effects::ReadOnly),
        Some(Ok(v1::Effects::Idempotent)) => Some(Effects::Idempotent),
        Some(Ok(v1::Effects::SideEffecting)) => Some(Effects::SideEffecting),
        Some(_) => return malformed(format!("{} is not one of its values", field("effects"))),
    };
    let on_failure = match policy.on_failure.map(v1::FailureAction::try_from) {
        None => None,
        Some(Ok(v1::FailureAction::Return)) => Some(FailureAction::Return),
        Some(Ok(v1::FailureAction::AbortBatch)) => Some(FailureAction::AbortBatch),
        Some(_) => return malformed(format!("{} is not one of its values", field("on_failure"))),
    };
    Ok(PolicyPatch {
        effects,
        attempt_timeout: time("attempt_timeout", policy.attempt_timeout)?,
        call_timeout: time("call_timeout", policy.call_timeout)?,
        queue_timeout: time("queue_timeout", policy.queue_timeout)?,
        max_attempts: policy.max_attempts,
        retry_backoff: time("retry_backoff", policy.retry_backoff)?,
        rate: policy.rate,
        burst: policy.burst,
        max_in_flight: policy.max_in_flight,
        on_failure,
    })
}

/// The format that tools are wanted in.
pub(crate) fn tool_format(format: i32) -> Result<Format, Malformed> {
    Ok(match v1::Dialect::try_from(format) {
        Ok(v1::Dialect::Anthropic) => Format::Anthropic,
        Ok(v1::Dialect::OpenaiChat) => Format::OpenAiChat,
        Ok(v1::Dialect::OpenaiResponses) => Format::OpenAiResponses,
        Ok(v1::Dialect::Gemini) => Format::Gemini,
        Ok(v1::Dialect::Bedrock) => Format::Bedrock,
        Ok(v1::Dialect::Cohere) => Format::Cohere,
        Ok(v1::Dialect::Ollama) => Format::Ollama,
        Ok(v1::Dialect::Auto) => {
            return malformed(
                "format is DIALECT_AUTO; there is no stream here to find it out from",
            );
        }
        Ok(v1::Dialect::VercelUi) => {
            return malformed(
                "format is DIALECT_VERCEL_UI, which has no value for tools; permitted are the formats of providers",
            );
        }
        Ok(v1::Dialect::Unspecified) | Err(_) => {
            return malformed(
                "format is not one of its values; leave it out if the tools are not wanted in a provider's format",
            );
        }
    })
}

/// A tool as the catalogue lists it.
pub(crate) fn catalogue_entry(tool: &Tool) -> v1::CatalogueEntry {
    let revision = tool.revision();
    let definition = &revision.definition;
    v1::CatalogueEntry {
        tool: Some(v1::Tool {
            name: definition.name.to_string(),
            description: definition.description.clone(),
            input_schema: definition.input_schema.clone(),
            policy: Some(effective_policy(&revision.policy)),
        }),
        registered_policy: Some(registered_policy(&definition.policy)),
        workers: many(tool.lane.workers()),
    }
}

fn effective_policy(policy: &Policy) -> v1::Policy {
    v1::Policy {
        effects: Some(effects(policy.effects).into()),
        attempt_timeout: Some(to_wire(policy.attempt_timeout)),
        call_timeout: Some(to_wire(policy.call_timeout)),
        queue_timeout: Some(to_wire(policy.queue_timeout)),
        max_attempts: Some(policy.max_attempts.get()),
        retry_backoff: Some(to_wire(policy.retry_backoff)),
        rate: policy.rate.map(|rate| rate.per_second),
        burst: policy.rate.map(|rate| rate.burst.get()),
        max_in_flight: policy.max_in_flight.map(std::num::NonZeroU32::get),
        on_failure: Some(failure_action(policy.on_failure).into()),
    }
}

fn registered_policy(policy: &PolicyPatch) -> v1::Policy {
    v1::Policy {
        effects: policy.effects.map(|value| effects(value).into()),
        attempt_timeout: policy.attempt_timeout.map(to_wire),
        call_timeout: policy.call_timeout.map(to_wire),
        queue_timeout: policy.queue_timeout.map(to_wire),
        max_attempts: policy.max_attempts,
        retry_backoff: policy.retry_backoff.map(to_wire),
        rate: policy.rate,
        burst: policy.burst,
        max_in_flight: policy.max_in_flight,
        on_failure: policy.on_failure.map(|value| failure_action(value).into()),
    }
}

fn effects(effects: Effects) -> v1::Effects {
    match effects {
        Effects::ReadOnly => v1::Effects::ReadOnly,
        Effects::Idempotent => v1::Effects::Idempotent,
        Effects::SideEffecting => v1::Effects::SideEffecting,
    }
}

fn failure_action(action: FailureAction) -> v1::FailureAction {
    match action {
        FailureAction::Return => v1::FailureAction::Return,
        FailureAction::AbortBatch => v1::FailureAction::AbortBatch,
    }
}
