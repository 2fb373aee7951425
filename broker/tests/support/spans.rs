//! What a broker tells of its batches, kept for the test to look at.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use toolpool_broker::{Config, Sampling, Telemetry};

use super::Broker;

/// Every span so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Broker {
    /// With settings of the test's own, and with its spans kept.
    pub(crate) fn start_traced(
        sampling: Sampling,
        change: impl FnOnce(&mut Config),
    ) -> (Self, Spans) {
        let spans = Spans::default();
        let telemetry = Telemetry::default().with_traces(spans.clone(), sampling);
        (Self::start_telling(telemetry, change), spans)
    }
}

impl Spans {
    pub(crate) fn all(&self) -> Vec<SpanData> {
        self.0.lock().unwrap().clone()
    }

    /// The only one of that name.
    #[track_caller]
    pub(crate) fn one(&self, name: &str) -> SpanData {
        let mut named = self.all().into_iter().filter(|span| span.name == name);
        match (named.next(), named.next()) {
            (Some(span), None) => span,
            (None, _) => panic!("no span {name} among {:?}", self.names()),
            _ => panic!("more than one span {name} among {:?}", self.names()),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.all()
            .iter()
            .map(|span| span.name.to_string())
            .collect()
    }

    /// The span of the call under an id.
    #[track_caller]
    pub(crate) fn call(&self, id: &str) -> SpanData {
        let all = self.all();
        let call = all
            .into_iter()
            .find(|span| attribute(span, "gen_ai.tool.call.id").as_deref() == Some(id));
        call.unwrap_or_else(|| panic!("no span of call {id} among {:?}", self.names()))
    }

    /// The names of a span's children, by their beginnings.
    pub(crate) fn below(&self, parent: &SpanData) -> Vec<String> {
        let children = self.children(parent.span_context.span_id());
        children.iter().map(|span| span.name.to_string()).collect()
    }

    /// The child of that name.
    #[track_caller]
    pub(crate) fn child(&self, parent: &SpanData, name: &str) -> SpanData {
        let children = self.children(parent.span_context.span_id());
        let child = children.into_iter().find(|span| span.name == name);
        child.unwrap_or_else(|| panic!("no {name} among {:?}", self.below(parent)))
    }

    fn children(&self, parent: SpanId) -> Vec<SpanData> {
        let mut children = self.all();
        children.retain(|span| span.parent_span_id == parent);
        children.sort_by_key(|span| span.start_time);
        children
    }

    /// What holds for every trace: it hangs together, children lie within their parents, and no id is used twice.
    #[track_caller]
    pub(crate) fn check(&self) {
        let all = self.all();
        let mut ids: Vec<_> = all.iter().map(|span| span.span_context.span_id()).collect();
        ids.sort_unstable_by_key(|id| id.to_bytes());
        ids.dedup();
        assert_eq!(ids.len(), all.len(), "a span's id was used twice");
        for span in &all {
            assert!(span.span_context.is_sampled() && span.span_context.is_valid());
            assert!(span.start_time <= span.end_time, "{span:?}");
            if span.span_kind == SpanKind::Server {
                continue;
            }
            let parent = all
                .iter()
                .find(|of| of.span_context.span_id() == span.parent_span_id);
            let parent = parent.unwrap_or_else(|| panic!("{} is an orphan", span.name));
            assert_eq!(
                parent.span_context.trace_id(),
                span.span_context.trace_id(),
                "{span:?}"
            );
            assert!(
                parent.start_time <= span.start_time && span.end_time <= parent.end_time,
                "{} is not within {}: {span:?} {parent:?}",
                span.name,
                parent.name
            );
        }
    }
}

/// An attribute as text.
pub(crate) fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|of| of.key.as_str() == key)?;
    Some(match &found.value {
        Value::String(text) => text.to_string(),
        other => other.to_string(),
    })
}

/// When it began, from the beginning of another, and how long it took; in milliseconds.
pub(crate) fn times(span: &SpanData, since: &SpanData) -> (u128, u128) {
    let time = |from: SystemTime, to: SystemTime| to.duration_since(from).unwrap().as_millis();
    (
        time(since.start_time, span.start_time),
        time(span.start_time, span.end_time),
    )
}

/// The text of a span's status, if it is an error.
pub(crate) fn failure(span: &SpanData) -> Option<String> {
    match &span.status {
        Status::Error { description } => Some(description.to_string()),
        _ => None,
    }
}
