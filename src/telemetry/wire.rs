//! Spans as OTLP's protobuf messages.
//!
//! Written straight from the SDK's spans. `opentelemetry-otlp` clones every span and makes a message of it first, with
//! some fifty allocations; that was four fifths of what a traced call cost. A test holds this against its conversion.
//!
//! Field numbers: `opentelemetry/proto/{common,resource,trace}/v1/*.proto`, which are stable.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes};
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{Array, InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// From which on a message takes no more spans: a collector takes 4 MiB by default, and a span may have some KiB of content.
const FULL: usize = 1024 * 1024;

/// `ResourceSpans`, and how many there are.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) spans: usize,
    pub(super) bytes: Bytes,
}

/// As few messages as take them all.
pub(super) fn messages(resource: &[u8], spans: &[SpanData]) -> Vec<Message> {
    let mut messages = Vec::with_capacity(1);
    let mut left = spans;
    while !left.is_empty() {
        let mut scopes = Scopes::default();
        let taken = left.iter().take_while(|span| scopes.take(span)).count();
        let (_, rest) = left.split_at(taken);
        left = rest;
        messages.push(Message {
            spans: taken,
            bytes: scopes.message(resource).into(),
        });
    }
    messages
}

/// The resource's fields of `ResourceSpans`, the same in every message.
pub(super) fn resource(resource: &Resource) -> Vec<u8> {
    let mut fields = Vec::new();
    nested(&mut fields, 1, |to| {
        for (key, value) in resource {
            attribute(to, 1, key.as_str(), value);
        }
    });
    text(&mut fields, 3, resource.schema_url().unwrap_or_default());
    fields
}

/// The spans of one message, by who made them; most are of one scope.
#[derive(Default)]
struct Scopes<'a> {
    scopes: Vec<(&'a InstrumentationScope, Vec<u8>)>,
    bytes: usize,
}

impl<'a> Scopes<'a> {
    /// `false`: it is full, and the span belongs to another message.
    fn take(&mut self, span: &'a SpanData) -> bool {
        if self.bytes >= FULL {
            return false;
        }
        let scope = &span.instrumentation_scope;
        let known = self.scopes.iter().position(|(of, _)| *of == scope);
        let at = known.unwrap_or_else(|| {
            self.scopes.push((scope, Vec::new()));
            self.scopes.len() - 1
        });
        let spans = &mut self.scopes[at].1;
        let before = spans.len();
        nested(spans, 2, |to| self::span(to, span));
        self.bytes += spans.len() - before;
        true
    }

    fn message(self, resource: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(resource.len() + self.bytes + 256);
        message.extend_from_slice(resource);
        for (scope, spans) in &self.scopes {
            nested(&mut message, 2, |to| {
                nested(to, 1, |to| {
                    text(to, 1, scope.name());
                    text(to, 2, scope.version().unwrap_or_default());
                    attributes(to, 3, scope.attributes());
                });
                to.extend_from_slice(spans);
                text(to, 3, scope.schema_url().unwrap_or_default());
            });
        }
        message
    }
}

fn span(to: &mut Vec<u8>, span: &SpanData) {
    let context = &span.span_context;
    ids(to, context);
    if span.parent_span_id != SpanId::INVALID {
        bytes(to, 4, &span.parent_span_id.to_bytes());
    }
    text(to, 5, &span.name);
    number(to, 6, kind(&span.span_kind));
    time(to, 7, span.start_time);
    time(to, 8, span.end_time);
    attributes(to, 9, span.attributes.iter());
    number(to, 10, span.dropped_attributes_count.into());
    for event in span.events.iter() {
        nested(to, 11, |to| {
            time(to, 1, event.timestamp);
            text(to, 2, &event.name);
            attributes(to, 3, event.attributes.iter());
            number(to, 4, event.dropped_attributes_count.into());
        });
    }
    number(to, 12, span.events.dropped_count.into());
    for link in span.links.iter() {
        nested(to, 13, |to| self::link(to, link));
    }
    number(to, 14, span.links.dropped_count.into());
    nested(to, 15, |to| status(to, &span.status));
    flags(to, 16, context, span.parent_span_is_remote);
}

fn link(to: &mut Vec<u8>, link: &Link) {
    let context = &link.span_context;
    ids(to, context);
    attributes(to, 4, link.attributes.iter());
    number(to, 5, link.dropped_attributes_count.into());
    flags(to, 6, context, context.is_remote());
}

/// A span and a link begin alike.
fn ids(to: &mut Vec<u8>, context: &SpanContext) {
    bytes(to, 1, &context.trace_id().to_bytes());
    bytes(to, 2, &context.span_id().to_bytes());
    text(to, 3, &context.trace_state().header());
}

fn kind(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn status(to: &mut Vec<u8>, status: &Status) {
    match status {
        Status::Unset => {}
        Status::Ok => number(to, 3, 1),
        Status::Error { description } => {
            text(to, 2, description);
            number(to, 3, 2);
        }
    }
}

/// The trace's, and in the two bits above whether the context (of a span: its parent's) came from elsewhere.
fn flags(to: &mut Vec<u8>, tag: u32, context: &SpanContext, is_remote: bool) {
    const IS_KNOWN: u32 = 0x100;
    const IS_REMOTE: u32 = 0x200;
    let remote = if is_remote { IS_REMOTE } else { 0 };
    encode_key(tag, WireType::ThirtyTwoBit, to);
    to.put_u32_le(u32::from(context.trace_flags().to_u8()) | IS_KNOWN | remote);
}

fn time(to: &mut Vec<u8>, tag: u32, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    encode_key(tag, WireType::SixtyFourBit, to);
    to.put_u64_le(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
}

fn attributes<'a>(to: &mut Vec<u8>, tag: u32, attributes: impl Iterator<Item = &'a KeyValue>) {
    for of in attributes {
        attribute(to, tag, of.key.as_str(), &of.value);
    }
}

fn attribute(to: &mut Vec<u8>, tag: u32, key: &str, of: &Value) {
    nested(to, tag, |to| {
        text(to, 1, key);
        nested(to, 2, |to| value(to, of));
    });
}

/// One of several fields, so it is written even where it is the default.
fn value(to: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => bytes(to, 1, text.as_str().as_bytes()),
        Value::Bool(is) => truth(to, *is),
        Value::I64(number) => integer(to, *number),
        Value::F64(number) => float(to, *number),
        Value::Array(of) => nested(to, 5, |to| array(to, of)),
        // None is known today.
        _ => {}
    }
}

fn array(to: &mut Vec<u8>, array: &Array) {
    match array {
        Array::String(texts) => each(to, texts, |to, text| bytes(to, 1, text.as_str().as_bytes())),
        Array::Bool(truths) => each(to, truths, |to, is| truth(to, *is)),
        Array::I64(numbers) => each(to, numbers, |to, number| integer(to, *number)),
        Array::F64(numbers) => each(to, numbers, |to, number| float(to, *number)),
        // None is known today.
        _ => {}
    }
}

fn each<T>(to: &mut Vec<u8>, values: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for value in values {
        nested(to, 1, |to| write(to, value));
    }
}

fn truth(to: &mut Vec<u8>, is: bool) {
    encode_key(2, WireType::Varint, to);
    encode_varint(is.into(), to);
}

fn integer(to: &mut Vec<u8>, number: i64) {
    encode_key(3, WireType::Varint, to);
    encode_varint(number.cast_unsigned(), to);
}

fn float(to: &mut Vec<u8>, number: f64) {
    encode_key(4, WireType::SixtyFourBit, to);
    to.put_f64_le(number);
}

/// Left out where it is the default, as is a text.
fn number(to: &mut Vec<u8>, tag: u32, number: u64) {
    if number != 0 {
        encode_key(tag, WireType::Varint, to);
        encode_varint(number, to);
    }
}

fn text(to: &mut Vec<u8>, tag: u32, text: &str) {
    if !text.is_empty() {
        bytes(to, tag, text.as_bytes());
    }
}

fn bytes(to: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, to);
    encode_varint(bytes.len() as u64, to);
    to.extend_from_slice(bytes);
}

/// A message within one. Its length comes first and is known last: there is room for one byte, and what is longer than a
/// byte can say is moved on.
fn nested(to: &mut Vec<u8>, tag: u32, write: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, to);
    let at = to.len();
    to.push(0);
    write(to);
    let end = to.len();
    let length = (end - at - 1) as u64;
    let begin = at + encoded_len_varint(length);
    to.resize(end + begin - at - 1, 0);
    to.copy_within(at + 1..end, begin);
    encode_varint(length, &mut &mut to[at..begin]);
}

#[cfg(test)]
pub(super) mod tests;
