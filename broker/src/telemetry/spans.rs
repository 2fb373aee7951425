//! A finished batch as spans.
//!
//! ```text
//! the agent's span
//! └─ toolpool.batch                      SERVER
//!    └─ execute_tool {tool}              INTERNAL, one for each call; duplicates too. Without {tool} where there is no such tool
//!       ├─ hold                          until the turn was sealed
//!       ├─ wait for limit                toolpool.limit says which
//!       ├─ wait for slot                 or for a worker at all
//!       └─ attempt {n}                   CLIENT; the worker's span is its child
//! ```
//!
//! An attempt is a `CLIENT` and not a `PRODUCER`: the broker waits for its outcome, and the worker's span lies within it.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opentelemetry::trace::{SpanId, SpanKind, Status as SpanStatus};
use opentelemetry::{InstrumentationScope, Key, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;
use tonic::Status;
use toolpool_proto::v1;

use super::Trace;
use crate::batch::{CallReport, Duplicate, Ended, Report, Tried, first_line};
use crate::call_error::{CallError, Code, Effect};
use crate::id::BatchId;
use crate::ingest::dialect::Dialect;
use crate::lane::lease::Limit;
use crate::output::Output;

/// As much of a call's arguments, and of its result, as an attribute holds.
const MAX_CONTENT_BYTES: usize = 8 * 1024;

/// A batch that is over.
pub(crate) struct Finished<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) batch: &'a BatchId,
    pub(crate) accepted: Instant,
    pub(crate) accepted_at: SystemTime,
    pub(crate) report: &'a Report,
    pub(crate) end: BatchEnd<'a>,
    /// Of a provider's stream that was piped in.
    pub(crate) dialect: Option<Dialect>,
    /// The calls' arguments by position, if they, the results and errors' messages are to be told.
    pub(crate) arguments: Option<Vec<Option<Bytes>>>,
}

/// What its agent gets.
#[derive(Clone, Copy)]
pub(crate) enum BatchEnd<'a> {
    Results,
    Refused(&'a Status),
    /// Nobody is there.
    Unread,
}

/// Makes the spans, parents after their children, so that one which is there has all that belongs to it.
pub(super) fn make(
    finished: &Finished<'_>,
    scope: &InstrumentationScope,
    spans: &mut Vec<SpanData>,
) {
    let mut maker = Maker {
        finished,
        scope,
        spans,
    };
    for call in &finished.report.calls {
        maker.call(call);
    }
    for duplicate in &finished.report.duplicates {
        maker.duplicate(duplicate);
    }
    maker.batch();
}

struct Maker<'a> {
    finished: &'a Finished<'a>,
    scope: &'a InstrumentationScope,
    spans: &'a mut Vec<SpanData>,
}

/// What differs from span to span.
struct Draft {
    id: SpanId,
    parent: SpanId,
    kind: SpanKind,
    name: Cow<'static, str>,
    /// Since the batch's acceptance.
    from: Duration,
    to: Duration,
    attributes: Vec<KeyValue>,
    status: SpanStatus,
}

impl Maker<'_> {
    fn batch(&mut self) {
        let Finished {
            trace,
            batch,
            report,
            ..
        } = self.finished;
        let mut attributes = vec![
            text("rpc.system", "grpc"),
            text("toolpool.batch.id", batch.to_string()),
            number("toolpool.batch.calls", report.calls.len()),
            number("toolpool.batch.succeeded", report.succeeded()),
        ];
        if !report.duplicates.is_empty() {
            attributes.push(number("toolpool.batch.duplicates", report.duplicates.len()));
        }
        if let Some(end) = report.turn_end {
            attributes.push(text("toolpool.turn.end", end.name()));
        }
        if let Some(dialect) = self.finished.dialect {
            attributes.push(text("toolpool.dialect", dialect.name()));
        }
        let status = match self.finished.end {
            BatchEnd::Results => SpanStatus::Unset,
            BatchEnd::Refused(status) => {
                let code = i64::from(i32::from(status.code()));
                attributes.push(KeyValue::new("rpc.grpc.status_code", code));
                attributes.push(text("error.type", "refused"));
                self.error("refused", status.message())
            }
            BatchEnd::Unread => {
                attributes.push(text("error.type", "agent_gone"));
                SpanStatus::error("the agent went away")
            }
        };
        self.span(Draft {
            id: trace.span(),
            parent: trace.parent().unwrap_or(SpanId::INVALID),
            kind: SpanKind::Server,
            name: "toolpool.batch".into(),
            from: Duration::ZERO,
            to: report.elapsed,
            attributes,
            status,
        });
    }

    fn call(&mut self, call: &CallReport) {
        let ledger = &call.ledger;
        let started = [ledger.started_early, ledger.block_complete];
        let from = started.into_iter().flatten().min();
        let from = from.unwrap_or(ledger.block_began);
        let to = started
            .into_iter()
            .flatten()
            .fold(ledger.ended, Duration::max);
        let id = new_id();
        self.waits_in_the_batch(call, id);
        for tried in &call.tried {
            self.tried(call, tried, id);
        }
        let mut attributes = call_attributes(&call.tool, &call.id.to_string(), call.position);
        attributes.push(number("toolpool.call.attempts", ledger.attempts as usize));
        if ledger.started_early.is_some() {
            attributes.push(KeyValue::new("toolpool.call.started_early", true));
        }
        if let Some(worker) = &ledger.worker {
            attributes.push(text("toolpool.worker.id", worker.to_string()));
        }
        if let Some(arguments) = &self.finished.arguments {
            if let Some(Some(arguments)) = arguments.get(call.position) {
                let arguments = clip(&String::from_utf8_lossy(arguments));
                attributes.push(text("gen_ai.tool.call.arguments", arguments));
            }
            if let Ok(output) = &call.result {
                attributes.push(text("gen_ai.tool.call.result", rendered(output)));
            }
        }
        let status = match &call.result {
            Ok(_) => SpanStatus::Unset,
            Err(error) => self.failed(error, &mut attributes),
        };
        let parent = self.finished.trace.span();
        self.span(Draft {
            id,
            parent,
            kind: SpanKind::Internal,
            name: call_name(call),
            from,
            to,
            attributes,
            status,
        });
    }

    fn duplicate(&mut self, duplicate: &Duplicate) {
        let mut attributes = call_attributes(
            &duplicate.tool,
            &duplicate.id.to_string(),
            duplicate.position,
        );
        let status = self.failed(&duplicate.error, &mut attributes);
        let parent = self.finished.trace.span();
        self.span(Draft {
            id: new_id(),
            parent,
            kind: SpanKind::Internal,
            name: format!("execute_tool {}", duplicate.tool).into(),
            from: duplicate.came,
            to: duplicate.came,
            attributes,
            status,
        });
    }

    /// Until its lane was asked for the first time: the hold, then the fan-out.
    fn waits_in_the_batch(&mut self, call: &CallReport, parent: SpanId) {
        let ledger = &call.ledger;
        let Some(mut at) = ledger.started_early.or(ledger.block_complete) else {
            return;
        };
        if let Some(held) = ledger.held {
            self.wait("hold", at, held, parent, None);
            at += held;
        }
        let first = call.tried.first();
        let offered = first.map_or(ledger.ended, |tried| self.since_accepted(tried.offered));
        let limit = Some(Limit::MaxParallel);
        self.wait(
            "wait for limit",
            at,
            offered.saturating_sub(at),
            parent,
            limit,
        );
    }

    /// A lane knows how long an attempt waited for what, not in which turns it did: the limit comes first here.
    fn tried(&mut self, call: &CallReport, tried: &Tried, parent: SpanId) {
        let offered = self.since_accepted(tried.offered);
        let waits = tried.waits;
        let limit = waits.limited_by;
        self.wait("wait for limit", offered, waits.limit, parent, limit);
        let at = offered + waits.limit;
        self.wait("wait for slot", at, waits.slot, parent, None);
        let (Some(sent), Some((ended, how))) = (&tried.sent, &tried.ended) else {
            return;
        };
        let number = i64::from(tried.number);
        let mut attributes = vec![
            KeyValue::new("toolpool.attempt.number", number),
            text("toolpool.worker.id", sent.worker.to_string()),
            text("toolpool.lease.id", sent.lease.to_string()),
            text("gen_ai.tool.name", call.tool.clone()),
        ];
        let (ending, status) = match how {
            Ended::Output => ("output", SpanStatus::Unset),
            Ended::Failed { code, message } => {
                attributes.push(text("error.type", code.name()));
                let ending = match code {
                    Code::Timeout(_) => "timeout",
                    Code::Cancelled | Code::Aborted | Code::Incomplete => "called_off",
                    _ => "failed",
                };
                (ending, self.error(code.name(), message))
            }
            Ended::Lost => {
                attributes.push(text("error.type", Code::WorkerLost.name()));
                ("worker_lost", SpanStatus::error("the worker was lost"))
            }
            Ended::NotSent => (
                "not_sent",
                SpanStatus::error("it did not reach the worker; it does not count"),
            ),
        };
        attributes.push(text("toolpool.attempt.ending", ending));
        let draft = Draft {
            id: tried.span.into(),
            parent,
            kind: SpanKind::Client,
            name: format!("attempt {number}").into(),
            from: self.since_accepted(sent.at),
            to: self.since_accepted(*ended),
            attributes,
            status,
        };
        self.span(draft);
    }

    fn wait(
        &mut self,
        name: &'static str,
        from: Duration,
        time: Duration,
        parent: SpanId,
        limit: Option<Limit>,
    ) {
        if time.is_zero() {
            return;
        }
        let attribute = limit.map(|limit| text("toolpool.limit", limit.name()));
        self.span(Draft {
            id: new_id(),
            parent,
            kind: SpanKind::Internal,
            name: name.into(),
            from,
            to: from + time,
            attributes: attribute.into_iter().collect(),
            status: SpanStatus::Unset,
        });
    }

    /// What a failed call's span says of its error.
    fn failed(&self, error: &CallError, attributes: &mut Vec<KeyValue>) -> SpanStatus {
        let effect = match error.effect {
            Effect::NotStarted => "not_started",
            Effect::Maybe => "maybe",
            Effect::Done => "done",
        };
        attributes.extend([
            text("error.type", error.code.name()),
            text("toolpool.call.effect", effect),
        ]);
        if let Code::Timeout(scope) = error.code {
            attributes.push(text("toolpool.timeout.scope", scope.name()));
        }
        self.error(error.code.name(), &error.message)
    }

    /// A message may quote what the call was given, so it is content like that.
    fn error(&self, code: &'static str, message: &str) -> SpanStatus {
        match self.finished.arguments {
            Some(_) => SpanStatus::error(first_line(message).to_owned()),
            None => SpanStatus::error(code),
        }
    }

    fn since_accepted(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.finished.accepted)
    }

    fn span(&mut self, draft: Draft) {
        let trace = self.finished.trace;
        let is_batch = draft.id == trace.span();
        self.spans.push(SpanData {
            span_context: trace.span_context(draft.id),
            parent_span_id: draft.parent,
            parent_span_is_remote: is_batch && trace.parent().is_some(),
            span_kind: draft.kind,
            name: draft.name,
            start_time: self.finished.accepted_at + draft.from,
            end_time: self.finished.accepted_at + draft.to,
            attributes: draft.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: draft.status,
            instrumentation_scope: self.scope.clone(),
        });
    }
}

fn new_id() -> SpanId {
    SpanId::from(fastrand::u64(1..))
}

/// Without the tool's name where there is no such tool: a model may make up any number of them, and backends list names.
fn call_name(call: &CallReport) -> Cow<'static, str> {
    match &call.result {
        Err(error) if error.code == Code::UnknownTool => "execute_tool".into(),
        _ => format!("execute_tool {}", call.tool).into(),
    }
}

/// The semantic conventions for generative AI want the first four.
fn call_attributes(tool: &str, id: &str, position: usize) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(12);
    attributes.extend([
        text("gen_ai.operation.name", "execute_tool"),
        text("gen_ai.tool.name", tool.to_owned()),
        text("gen_ai.tool.call.id", id.to_owned()),
        text("gen_ai.tool.type", "function"),
        number("toolpool.call.position", position),
    ]);
    attributes
}

fn rendered(output: &Output) -> String {
    use v1::content::Kind;
    let mut all = String::new();
    for content in output.content() {
        if all.len() >= MAX_CONTENT_BYTES {
            break;
        }
        match &content.kind {
            Some(Kind::Text(text)) => all.push_str(&clip(text)),
            Some(Kind::Json(json)) => {
                let most = json.len().min(MAX_CONTENT_BYTES);
                all.push_str(&String::from_utf8_lossy(&json[..most]));
            }
            Some(Kind::Blob(blob)) => {
                // Writing to a string cannot fail.
                let _ = write!(all, "[{} bytes of {}]", blob.data.len(), blob.media_type);
            }
            None => {}
        }
    }
    clip(&all)
}

fn clip(content: &str) -> String {
    content[..content.floor_char_boundary(MAX_CONTENT_BYTES)].to_owned()
}

fn text(key: &'static str, value: impl Into<opentelemetry::StringValue>) -> KeyValue {
    KeyValue::new(Key::from_static_str(key), Value::String(value.into()))
}

fn number(key: &'static str, value: usize) -> KeyValue {
    KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
}
