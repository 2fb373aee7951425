//! What is written is what the library would have sent.

use std::collections::VecDeque;
use std::time::Duration;

use opentelemetry::StringValue;
use opentelemetry::trace::{Event, TraceFlags, TraceId, TraceState};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn a_text() -> impl Strategy<Value = String> {
    // Lengths that one, two and three bytes say.
    let long = prop_oneof![4 => 125..131_usize, 1 => 16_380..16_390_usize];
    prop_oneof![
        8 => "[ -~à-ü]{0,8}",
        1 => long.prop_map(|length| "x".repeat(length)),
    ]
}

fn an_array() -> impl Strategy<Value = Array> {
    let text = a_text().prop_map(StringValue::from);
    prop_oneof![
        vec(text, 0..3).prop_map(Array::String),
        vec(any::<bool>(), 0..3).prop_map(Array::Bool),
        vec(any::<i64>(), 0..3).prop_map(Array::I64),
        vec(-1e9..1e9, 0..3).prop_map(Array::F64),
    ]
}

fn a_value() -> impl Strategy<Value = super::Value> {
    prop_oneof![
        a_text().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::F64),
        an_array().prop_map(Value::Array),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let pair = (a_text(), a_value()).prop_map(|(key, value)| KeyValue::new(key, value));
    vec(pair, 0..4)
}

fn a_context() -> impl Strategy<Value = SpanContext> {
    let ids = (any::<u128>(), any::<u64>(), any::<u8>());
    (ids, any::<bool>(), option::of("[a-z]{1,5}")).prop_map(
        |((trace, span, flags), is_remote, state)| {
            let pairs = state.iter().map(|state| (state.as_str(), "1"));
            let state = TraceState::from_key_value(pairs).unwrap();
            SpanContext::new(
                TraceId::from(trace),
                SpanId::from(span),
                TraceFlags::new(flags),
                is_remote,
                state,
            )
        },
    )
}

fn a_time() -> impl Strategy<Value = SystemTime> {
    let seconds = prop_oneof![Just(0), 0..10_000_000_000_u64];
    (seconds, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| UNIX_EPOCH + Duration::new(seconds, nanos))
}

fn a_kind() -> impl Strategy<Value = SpanKind> {
    prop_oneof![
        Just(SpanKind::Internal),
        Just(SpanKind::Server),
        Just(SpanKind::Client),
        Just(SpanKind::Producer),
        Just(SpanKind::Consumer),
    ]
}

fn a_status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Unset),
        Just(Status::Ok),
        a_text().prop_map(Status::error),
    ]
}

fn events() -> impl Strategy<Value = SpanEvents> {
    let event = (a_text(), a_time(), attributes(), 0..300_u32)
        .prop_map(|(name, time, attributes, dropped)| Event::new(name, time, attributes, dropped));
    (vec(event, 0..3), 0..300_u32).prop_map(|(events, dropped)| {
        let mut all = SpanEvents::default();
        all.events = events;
        all.dropped_count = dropped;
        all
    })
}

fn links() -> impl Strategy<Value = SpanLinks> {
    let link = (a_context(), attributes(), 0..300_u32)
        .prop_map(|(context, attributes, dropped)| Link::new(context, attributes, dropped));
    (vec(link, 0..3), 0..300_u32).prop_map(|(links, dropped)| {
        let mut all = SpanLinks::default();
        all.links = links;
        all.dropped_count = dropped;
        all
    })
}

fn a_scope() -> impl Strategy<Value = InstrumentationScope> {
    (0..3_usize).prop_map(|which| {
        let scope = InstrumentationScope::builder(["a", "b", ""][which]);
        match which {
            0 => scope.with_version("1.0").build(),
            1 => scope
                .with_schema_url("http://schema")
                .with_attributes([KeyValue::new("is", true)])
                .build(),
            _ => scope.build(),
        }
    })
}

fn a_span() -> impl Strategy<Value = SpanData> {
    let place = (a_context(), any::<u64>(), any::<bool>(), a_kind());
    let times = (a_text(), a_time(), a_time());
    let more = (attributes(), 0..300_u32, events(), links());
    (place, times, more, a_status(), a_scope()).prop_map(|(place, times, more, status, scope)| {
        SpanData {
            span_context: place.0,
            parent_span_id: if place.1 % 3 == 0 {
                SpanId::INVALID
            } else {
                SpanId::from(place.1)
            },
            parent_span_is_remote: place.2,
            span_kind: place.3,
            name: times.0.into(),
            start_time: times.1,
            end_time: times.2,
            attributes: more.0,
            dropped_attributes_count: more.1,
            events: more.2,
            links: more.3,
            status,
            instrumentation_scope: scope,
        }
    })
}

fn a_resource() -> Resource {
    Resource::builder_empty()
        .with_schema_url([KeyValue::new("service.name", "test")], "http://schema")
        .build()
}

/// As the collector reads it.
fn read(message: &Message) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(&*message.bytes.encode_to_vec()).unwrap()
}

fn by_the_library(spans: Vec<SpanData>) -> ExportTraceServiceRequest {
    let resource = ResourceAttributesWithSchema::from(&a_resource());
    ExportTraceServiceRequest {
        resource_spans: group_spans_by_resource_and_scope(spans, &resource),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_spans_are_sent_as_the_library_would(spans in vec(a_span(), 1..6)) {
        let messages = messages(&resource(&a_resource()), &spans);
        prop_assert_eq!(messages.len(), 1);
        prop_assert_eq!(messages[0].spans, spans.len());
        prop_assert_eq!(read(&messages[0]), by_the_library(spans));
    }
}

/// A span with nothing special.
pub(in crate::telemetry) fn plain(id: u64) -> SpanData {
    SpanData {
        span_context: SpanContext::new(
            TraceId::from(1),
            SpanId::from(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        ),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: "a span".into(),
        start_time: UNIX_EPOCH,
        end_time: UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::default(),
    }
}

#[test]
fn what_is_too_much_for_one_message_goes_in_several() {
    let content = "x".repeat(FULL / 4 + 1);
    let mut spans = Vec::new();
    let mut expected = VecDeque::new();
    for id in 1..=10_u64 {
        let mut span = plain(id);
        span.attributes = vec![KeyValue::new("content", content.clone())];
        expected.push_back(Span::from(span.clone()));
        spans.push(span);
    }
    let messages = messages(&resource(&a_resource()), &spans);
    let counts: Vec<_> = messages.iter().map(|message| message.spans).collect();
    assert_eq!(counts, [4, 4, 2]);
    for message in &messages {
        assert!(message.bytes.len() < 2 * FULL);
        let mut read = read(message).resource_spans;
        let spans = read.remove(0).scope_spans.remove(0).spans;
        assert_eq!(spans.len(), message.spans);
        for span in spans {
            assert_eq!(Some(span), expected.pop_front());
        }
    }
    assert!(expected.is_empty() && super::messages(&[], &[]).is_empty());
}
