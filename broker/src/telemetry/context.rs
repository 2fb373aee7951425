//! The W3C trace context: what an agent sends, and what a worker is sent.
//!
//! OpenTelemetry's `TraceContextPropagator` is not used: it takes ids that are too short or have a sign, the first of two
//! parents, and a state beyond 512 bytes, which it takes apart and writes anew for every worker; and it reads and writes
//! through a `Context`, of which a batch has none.

use std::str::FromStr;
use std::sync::OnceLock;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tonic::metadata::MetadataMap;

use crate::id;

/// What the standard wants to be passed on at least; a longer one is left out.
const MAX_STATE_BYTES: usize = 512;

/// The agent's span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace: TraceId,
    pub(crate) span: SpanId,
    pub(crate) flags: TraceFlags,
    /// As it came; only its form was checked.
    pub(crate) state: Option<Box<str>>,
}

impl TraceContext {
    /// What the RPC's metadata says. `None` if it says nothing, or nothing of sense.
    pub(crate) fn of_metadata(metadata: &MetadataMap) -> Option<Self> {
        let mut parents = metadata.get_all("traceparent").iter();
        let (parent, None) = (parents.next()?, parents.next()) else {
            return None;
        };
        let states: Vec<_> = metadata
            .get_all("tracestate")
            .iter()
            .map_while(|state| state.to_str().ok())
            .collect();
        Self::parse(parent.to_str().ok()?, Some(&states.join(",")))
    }

    /// `None`: it is malformed, and the standard wants it to be passed over.
    pub(crate) fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let mut parts = parent.trim().split('-');
        let mut part = |digits| parts.next().filter(|part| is_hex(part, digits));
        let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // A later version may say more; this one may not.
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = TraceId::from_hex(trace).ok()?;
        let span = SpanId::from_hex(span).ok()?;
        if trace == TraceId::INVALID || span == SpanId::INVALID {
            return None;
        }
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        let state = state.map(str::trim).filter(|state| {
            (1..=MAX_STATE_BYTES).contains(&state.len()) && TraceState::from_str(state).is_ok()
        });
        Some(Self {
            trace,
            span,
            flags: TraceFlags::default().with_sampled(sampled),
            state: state.map(Into::into),
        })
    }

    pub(super) fn unsampled(self) -> Self {
        Self {
            flags: TraceFlags::default(),
            ..self
        }
    }
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == digits && text.bytes().all(lower)
}

/// The trace that a batch belongs to, and its place in it.
#[derive(Debug)]
pub(crate) struct Trace {
    id: TraceId,
    flags: TraceFlags,
    state: Option<Box<str>>,
    /// Of what the broker records: the agent's.
    parent: Option<SpanId>,
    /// The batch's own; where nothing is recorded, the one that workers are given for a parent.
    span: SpanId,
    recorded: bool,
    /// It came with the batch.
    is_agents: bool,
    /// What workers are sent where nothing is recorded: the same for each call.
    text: OnceLock<String>,
}

impl Trace {
    /// Nothing is recorded; workers get what the agent sent.
    pub(super) fn passed_on(agent: TraceContext) -> Self {
        Self {
            id: agent.trace,
            flags: agent.flags,
            state: agent.state,
            parent: None,
            span: agent.span,
            recorded: false,
            is_agents: true,
            text: OnceLock::new(),
        }
    }

    /// The batch is a child of the agent's span.
    pub(super) fn below(agent: TraceContext, span: SpanId) -> Self {
        Self {
            id: agent.trace,
            flags: TraceFlags::SAMPLED,
            state: agent.state,
            parent: Some(agent.span),
            span,
            recorded: true,
            is_agents: true,
            text: OnceLock::new(),
        }
    }

    /// A trace of the batch's own.
    pub(super) fn root(id: TraceId, span: SpanId, flags: TraceFlags) -> Self {
        Self {
            id,
            flags,
            state: None,
            parent: None,
            span,
            recorded: flags.is_sampled(),
            is_agents: false,
            text: OnceLock::new(),
        }
    }

    /// Whether its spans are to be made when the batch is over.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// Its id, if there is or may be something to be found under it.
    pub(crate) fn id_to_tell(&self) -> Option<TraceId> {
        (self.recorded || self.is_agents).then_some(self.id)
    }

    /// The agent's span.
    pub(super) fn parent(&self) -> Option<SpanId> {
        self.parent
    }

    /// The batch's span.
    pub(super) fn span(&self) -> SpanId {
        self.span
    }

    /// The context of one of its spans.
    pub(super) fn span_context(&self, span: SpanId) -> SpanContext {
        let state = self.state.as_deref().map(TraceState::from_str);
        let state = state.and_then(Result::ok).unwrap_or_default();
        SpanContext::new(self.id, span, self.flags, false, state)
    }

    /// What a worker is sent for an attempt; `None` where nothing is recorded.
    pub(crate) fn traceparent(&self, attempt: Option<id::SpanId>) -> String {
        match attempt {
            Some(span) => self.text(span.into()),
            None => self.text.get_or_init(|| self.text(self.span)).clone(),
        }
    }

    fn text(&self, span: SpanId) -> String {
        // By hand: each call of a batch that is not recorded is sent one too, and the formatter takes ten times as long.
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.id.to_bytes());
        write_hex(&mut text[36..52], &span.to_bytes());
        write_hex(&mut text[53..], &[self.flags.to_u8()]);
        // Hexadecimal digits are text.
        String::from_utf8(text.to_vec()).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_as_the_standard_wants_it() {
        let context = TraceContext::parse(GOOD, None).unwrap();
        assert!(context.flags.is_sampled());
        assert_eq!(Trace::passed_on(context).traceparent(None), GOOD);
        let later = format!("cc{}-what-comes-later", &GOOD[2..]);
        assert!(TraceContext::parse(&later, None).is_some());
        let random = GOOD.replace("-01", "-03");
        assert!(
            TraceContext::parse(&random, None)
                .unwrap()
                .flags
                .is_sampled()
        );
        for malformed in [
            "",
            "00",
            "garbage",
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("ff{}", &GOOD[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(malformed, None), None, "{malformed}");
        }
    }

    #[test]
    fn a_tracestate_is_kept_as_it_is_or_left_out() {
        let state = |text: &str| TraceContext::parse(GOOD, Some(text)).unwrap().state;
        assert_eq!(
            state("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7").as_deref(),
            Some("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
        );
        for unfit in ["", "no equals sign", &format!("a={}", "x".repeat(512))] {
            assert_eq!(state(unfit), None, "{unfit}");
        }
    }

    #[test]
    fn metadata_may_spread_the_state_but_not_the_parent() {
        let mut metadata = MetadataMap::new();
        assert_eq!(TraceContext::of_metadata(&metadata), None);
        metadata.insert("traceparent", GOOD.parse().unwrap());
        metadata.append("tracestate", "a=1".parse().unwrap());
        metadata.append("tracestate", "b=2".parse().unwrap());
        let context = TraceContext::of_metadata(&metadata).unwrap();
        assert_eq!(context.state.as_deref(), Some("a=1,b=2"));
        metadata.append("traceparent", GOOD.parse().unwrap());
        assert_eq!(TraceContext::of_metadata(&metadata), None);
    }
}
