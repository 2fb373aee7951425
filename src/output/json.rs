//! The finished batch and the catalogue for machines; below it, what operators ask for.

pub(crate) mod operator;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use toolpool_client::{
    CallError, CallResult, Content, Effect, ErrorCode, FinishedBatch, Policy, TimeLedger, Tool,
    Turn, TurnEnd,
};

/// A finished batch. Durations are milliseconds, moments are counted from the batch's acceptance; what is absent on the
/// wire is absent here.
pub(crate) fn batch(batch: &FinishedBatch) -> Value {
    let summary = &batch.summary;
    let mut fields = json!({
        "batch_id": summary.batch_id,
        "calls": summary.calls,
        "succeeded": summary.succeeded,
        "accepted_at": humantime::format_rfc3339_millis(summary.accepted_at).to_string(),
        "elapsed_ms": millis(summary.elapsed),
        "summed_run_ms": millis(summary.summed_run),
        "results": batch.results().iter().map(result).collect::<Vec<_>>(),
        "duplicates": summary.duplicates.iter().map(|duplicate| json!({
            "id": duplicate.id,
            "tool": duplicate.tool,
            "position": duplicate.position,
            "error": error(&duplicate.error),
        })).collect::<Vec<_>>(),
    });
    if let Some(of) = &batch.turn {
        fields["turn"] = turn(of);
    }
    if let Some(trace) = &summary.trace_id {
        fields["trace_id"] = json!(trace);
    }
    fields
}

/// The catalogue.
pub(crate) fn tools(tools: &[Tool]) -> Value {
    tools.iter().map(tool).collect()
}

fn tool(tool: &Tool) -> Value {
    json!({
        "name": tool.name,
        "description": tool.description,
        "input_schema": parsed(&tool.input_schema),
        "policy": policy(&tool.policy),
        "registered_policy": policy(&tool.registered_policy),
        "workers": tool.workers,
    })
}

/// The code's name in the protocol, without the prefix that all have: `TOOL_FAILED`.
pub(crate) fn code_name(code: ErrorCode) -> &'static str {
    bare("ERROR_CODE_", code.as_str_name())
}

/// The effect's name, without the prefix that all have: `NOT_STARTED`.
pub(crate) fn effect_name(effect: Effect) -> &'static str {
    bare("EFFECT_", effect.as_str_name())
}

fn bare(prefix: &str, name: &'static str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn result(result: &CallResult) -> Value {
    let mut fields = json!({
        "id": result.id,
        "tool": result.tool,
        "position": result.position,
        "ledger": ledger(&result.ledger),
    });
    match &result.outcome {
        Ok(output) => fields["output"] = output.content.iter().map(content).collect(),
        Err(failed) => fields["error"] = error(failed),
    }
    if let Some(id) = &result.provider_id {
        fields["provider_id"] = id.as_str().into();
    }
    if let Some(signature) = &result.thought_signature {
        fields["thought_signature"] = signature.as_str().into();
    }
    fields
}

/// What is known of a provider's turn; its answer as JSON.
fn turn(turn: &Turn) -> Value {
    let dropped = turn.dropped.iter().map(|call| {
        Value::from(present([
            ("id", Some(call.id.clone().into())),
            ("provider_id", call.provider_id.clone().map(Value::from)),
            ("tool", Some(call.tool.clone().into())),
            ("position", Some(call.position.into())),
            (
                "reason",
                Some(bare("DROP_REASON_", call.reason.as_str_name()).into()),
            ),
        ]))
    });
    let not_ours = turn.not_ours.iter().map(|call| {
        Value::from(present([
            ("provider_id", call.provider_id.clone().map(Value::from)),
            ("tool", Some(call.tool.clone().into())),
            ("position", Some(call.position.into())),
            (
                "owner",
                Some(bare("OWNER_", call.owner.as_str_name()).into()),
            ),
        ]))
    });
    let end = match turn.end {
        TurnEnd::Complete => "COMPLETE",
        TurnEnd::Truncated => "TRUNCATED",
        TurnEnd::Aborted => "ABORTED",
    };
    present([
        (
            "dialect",
            turn.dialect
                .map(|dialect| bare("DIALECT_", dialect.as_str_name()).into()),
        ),
        ("turn_end", Some(end.into())),
        ("stop_reason", turn.stop_reason.clone().map(Value::from)),
        ("error", turn.error.clone().map(Value::from)),
        ("answer", Some(parsed(&turn.answer))),
        ("dropped", Some(dropped.collect())),
        ("not_ours", Some(not_ours.collect())),
    ])
    .into()
}

fn content(content: &Content) -> Value {
    match content {
        Content::Text(text) => json!({ "text": text }),
        Content::Json(text) => json!({ "json": parsed(text) }),
        Content::Blob { media_type, data } => {
            json!({ "blob": { "media_type": media_type, "base64": STANDARD.encode(data) } })
        }
        _ => json!({}),
    }
}

fn error(error: &CallError) -> Value {
    let mut fields = present([
        ("retry_after_ms", error.retry_after.map(millis)),
        (
            "timeout",
            error
                .timeout
                .map(|scope| bare("TIMEOUT_SCOPE_", scope.as_str_name()).into()),
        ),
    ]);
    fields.insert("code".to_owned(), code_name(error.code).into());
    fields.insert("message".to_owned(), error.message.clone().into());
    fields.insert("retryable".to_owned(), error.retryable.into());
    fields.insert("effect".to_owned(), effect_name(error.effect).into());
    if !error.violations.is_empty() {
        let violations = error.violations.iter();
        let violations = violations
            .map(|one| json!({ "path": one.path, "message": one.message }))
            .collect();
        fields.insert("violations".to_owned(), violations);
    }
    if !error.near_names.is_empty() {
        fields.insert("near_names".to_owned(), error.near_names.clone().into());
    }
    fields.into()
}

fn ledger(ledger: &TimeLedger) -> Value {
    present([
        ("block_began_ms", Some(millis(ledger.block_began))),
        ("block_complete_ms", ledger.block_complete.map(millis)),
        ("started_early_ms", ledger.started_early.map(millis)),
        ("held_ms", ledger.held.map(millis)),
        ("limit_wait_ms", ledger.limit_wait.map(millis)),
        (
            "limited_by",
            ledger
                .limited_by
                .map(|limit| bare("LIMIT_", limit.as_str_name()).into()),
        ),
        ("slot_wait_ms", ledger.slot_wait.map(millis)),
        ("ran_ms", ledger.ran.map(millis)),
        ("ended_ms", Some(millis(ledger.ended))),
        ("attempts", Some(ledger.attempts.into())),
        ("worker_id", ledger.worker_id.clone().map(Value::from)),
    ])
    .into()
}

fn policy(policy: &Policy) -> Value {
    present([
        (
            "effects",
            policy
                .effects
                .map(|effects| bare("EFFECTS_", effects.as_str_name()).into()),
        ),
        ("attempt_timeout_ms", policy.attempt_timeout.map(millis)),
        ("call_timeout_ms", policy.call_timeout.map(millis)),
        ("queue_timeout_ms", policy.queue_timeout.map(millis)),
        ("max_attempts", policy.max_attempts.map(Value::from)),
        ("retry_backoff_ms", policy.retry_backoff.map(millis)),
        ("rate", policy.rate.map(Value::from)),
        ("burst", policy.burst.map(Value::from)),
        ("max_in_flight", policy.max_in_flight.map(Value::from)),
        (
            "on_failure",
            policy
                .on_failure
                .map(|action| bare("FAILURE_ACTION_", action.as_str_name()).into()),
        ),
    ])
    .into()
}

fn present<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let fields = fields.into_iter();
    fields
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn millis(duration: Duration) -> Value {
    // To the microsecond: more digits than that say nothing.
    ((duration.as_secs_f64() * 1e6).round() / 1e3).into()
}

/// JSON text as a value; if it is none, as the text it is.
fn parsed(text: &[u8]) -> Value {
    let text = if text.is_empty() { b"{}" } else { text };
    serde_json::from_slice(text)
        .unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_stays_absent() {
        let ledger = ledger(&TimeLedger {
            ended: Duration::from_nanos(1_234_567),
            ..TimeLedger::default()
        });
        let expected = json!({ "block_began_ms": 0.0, "ended_ms": 1.235, "attempts": 0 });
        assert_eq!(ledger, expected);
    }

    #[test]
    fn every_kind_of_content_has_its_form() {
        let blob = Content::Blob {
            media_type: "image/png".to_owned(),
            data: vec![1, 2, 3].into(),
        };
        let blob = content(&blob);
        assert_eq!(blob["blob"]["base64"], "AQID");
        assert_eq!(
            content(&Content::Json("[1]".into())),
            json!({ "json": [1] })
        );
        assert_eq!(
            content(&Content::Text("a".to_owned())),
            json!({ "text": "a" })
        );
    }

    #[test]
    fn codes_go_by_their_short_names() {
        assert_eq!(code_name(ErrorCode::ToolFailed), "TOOL_FAILED");
        assert_eq!(effect_name(Effect::NotStarted), "NOT_STARTED");
    }
}
