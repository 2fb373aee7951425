//! The trace that an attempt belongs to: the worker's span below the broker's, and the context that a tool runs in.
//!
//! Nothing is recorded unless the process has set up a tracer provider (`opentelemetry::global`); without one the
//! broker's context is handed on as it came.

use std::str::FromStr;

use opentelemetry::{
    Context, KeyValue, global,
    trace::{
        SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
        Tracer,
    },
};

use crate::{Output, ToolError, assignment::Assignment};

/// An attempt's place in its trace. Clones stand for the same span.
#[derive(Clone, Debug)]
pub(crate) struct Trace(Context);

impl Trace {
    /// Begins the span. `None`: the broker told of no trace, or of none that can be read.
    pub(crate) fn begin(assignment: &Assignment) -> Option<Self> {
        let parent = parse(
            assignment.traceparent.as_deref()?,
            assignment.tracestate.as_deref(),
        )?;
        let parent = Context::new().with_remote_span_context(parent);
        let tracer = global::tracer("toolpool-worker");
        // As a server: the broker waits for the outcome.
        let span = tracer
            .span_builder(format!("run {}", assignment.tool))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("gen_ai.tool.name", assignment.tool.clone()),
                KeyValue::new("gen_ai.tool.call.id", assignment.call_id.clone()),
                KeyValue::new("toolpool.batch.id", assignment.batch_id.clone()),
                KeyValue::new("toolpool.attempt.number", i64::from(assignment.attempt)),
                KeyValue::new("toolpool.lease.id", format!("{:016x}", assignment.lease.0)),
            ])
            .start_with_context(&tracer, &parent);
        Some(Self(parent.with_span(span)))
    }

    /// What the tool is to run in.
    pub(crate) fn context(&self) -> Context {
        self.0.clone()
    }

    /// What goes on below it, as a W3C `traceparent`.
    pub(crate) fn parent(&self) -> String {
        let span = self.0.span();
        let context = span.span_context();
        format!(
            "00-{}-{}-{:02x}",
            context.trace_id(),
            context.span_id(),
            context.trace_flags().to_u8()
        )
    }

    /// The `tracestate` that belongs to it, if there is one.
    pub(crate) fn state(&self) -> Option<String> {
        let state = self.0.span().span_context().trace_state().header();
        (!state.is_empty()).then_some(state)
    }

    /// The tool has returned.
    pub(crate) fn returned(&self, result: &Result<Output, ToolError>) {
        if let Err(error) = result {
            let code = error.code().as_str_name();
            let code = code.strip_prefix("ERROR_CODE_").unwrap_or(code);
            self.failed(code.to_ascii_lowercase());
        }
        self.0.span().end();
    }

    /// The tool has panicked.
    pub(crate) fn panicked(&self) {
        self.failed("panic".to_owned());
        self.0.span().end();
    }

    /// The tool was dropped before it had returned.
    pub(crate) fn dropped(&self) {
        self.failed("cancelled".to_owned());
        self.0.span().end();
    }

    /// The message is left out: it may quote the arguments, which no trace holds unless the broker's operator wants it.
    fn failed(&self, kind: String) {
        let span = self.0.span();
        span.set_attribute(KeyValue::new("error.type", kind.clone()));
        span.set_status(Status::error(kind));
    }
}

/// As the broker writes it; it has checked what the agent wrote.
fn parse(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let mut parts = parent.split('-');
    let mut part = |digits| parts.next().filter(|part| part.len() == digits);
    let (_, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        state
            .and_then(|state| TraceState::from_str(state).ok())
            .unwrap_or_default(),
    );
    context.is_valid().then_some(context)
}
