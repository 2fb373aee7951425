//! Traces of which something was dropped: the rest of a batch's spans, its root among them, would look like all of it.

use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::SpanData;

/// Traces that have begun and not ended, each to the batch's root or a worker's run, which come last.
///
/// A broker's batches come one after another, so these are few.
#[derive(Debug, Default)]
pub(super) struct Torn(Vec<TraceId>);

impl Torn {
    /// Those that these spans begin and do not end.
    pub(super) fn add(&mut self, spans: &[SpanData]) {
        for span in spans {
            let trace = span.span_context.trace_id();
            if is_last(span) {
                self.0.retain(|of| *of != trace);
            } else if !self.0.contains(&trace) {
                self.0.push(trace);
            }
        }
    }

    /// Those too.
    pub(super) fn join(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Takes their rest out of what comes next, and forgets those of which nothing came. Returns how many spans it took.
    pub(super) fn take_out(&mut self, spans: &mut Vec<SpanData>) -> usize {
        if self.0.is_empty() {
            return 0;
        }
        let before = spans.len();
        let mut torn = std::mem::take(&mut self.0);
        spans.retain(|span| {
            let trace = span.span_context.trace_id();
            let Some(at) = torn.iter().position(|of| *of == trace) else {
                return true;
            };
            self.0.retain(|of| *of != trace);
            if is_last(span) {
                torn.swap_remove(at);
            } else {
                self.0.push(trace);
            }
            false
        });
        before - spans.len()
    }
}

fn is_last(span: &SpanData) -> bool {
    span.span_kind == SpanKind::Server
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanContext;

    use super::*;
    use crate::telemetry::wire::tests::plain;

    fn spans(of: &[(u128, bool)]) -> Vec<SpanData> {
        let span = |&(trace, last): &(u128, bool)| {
            let mut span = plain(1);
            let context = &span.span_context;
            span.span_context = SpanContext::new(
                TraceId::from(trace),
                context.span_id(),
                context.trace_flags(),
                false,
                context.trace_state().clone(),
            );
            if last {
                span.span_kind = SpanKind::Server;
            }
            span
        };
        of.iter().map(span).collect()
    }

    fn left(torn: &mut Torn, of: &[(u128, bool)]) -> Vec<u128> {
        let mut spans = spans(of);
        let came = spans.len();
        let taken = torn.take_out(&mut spans);
        assert_eq!(taken, came - spans.len());
        let trace = |span: &SpanData| u128::from_be_bytes(span.span_context.trace_id().to_bytes());
        spans.iter().map(trace).collect()
    }

    #[test]
    fn the_rest_of_what_was_dropped_goes_too_and_the_traces_next_batch_does_not() {
        let mut torn = Torn::default();
        torn.add(&spans(&[(1, false), (1, true), (2, false), (3, false)]));
        let next = [(2, false), (2, true), (2, false), (1, false), (4, true)];
        assert_eq!(left(&mut torn, &next), [2, 1, 4]);
        // Nothing came of the third: whatever comes of it now is of another batch.
        assert_eq!(left(&mut torn, &[(3, false), (2, true)]), [3, 2]);
        assert!(torn.0.is_empty());
    }

    #[test]
    fn what_goes_on_through_many_is_remembered() {
        let mut torn = Torn::default();
        torn.add(&spans(&[(1, false)]));
        for _ in 0..3 {
            assert!(left(&mut torn, &[(1, false), (1, false)]).is_empty());
            assert_eq!(torn.0.len(), 1);
        }
        assert_eq!(left(&mut torn, &[(1, true), (1, true)]), [1]);
        assert!(torn.0.is_empty());
    }
}
