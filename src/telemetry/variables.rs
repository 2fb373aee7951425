//! What OpenTelemetry's usual variables say, as its specification has it: an empty one counts as not set. Those that say
//! where spans go are read in [`target`](super::target).

use std::borrow::Cow;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use percent_encoding::percent_decode_str;
use toolpool_broker::Sampling;

/// An empty queue takes some 370 bytes for each.
const MOST_QUEUED: usize = 1 << 20;
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
/// As long as no export takes.
const NO_LIMIT: Duration = Duration::from_hours(24);

pub(super) fn variable(name: &str) -> Option<String> {
    // What is no Unicode is no good value either: it is told apart where it is read.
    let value = std::env::var_os(name)?.to_string_lossy().trim().to_owned();
    Some(value).filter(|value| !value.is_empty())
}

/// What is set for traces alone, or else for all that is exported; and by which variable.
pub(super) fn for_traces(what: &str) -> Option<(String, String)> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
    names.iter().find_map(|begin| {
        let name = format!("{begin}{what}");
        variable(&name).map(|value| (name, value))
    })
}

/// One of a list of words, whose case does not matter.
pub(super) fn word(value: &str) -> String {
    value.to_ascii_lowercase()
}

/// What is no number is said, and passed over.
fn number(variable: &str, value: &str) -> Option<u64> {
    let number = value.parse().ok();
    if number.is_none() {
        tracing::warn!(
            variable,
            value,
            "a variable is no whole number; its default holds"
        );
    }
    number
}

fn number_of(name: &str) -> Option<u64> {
    number(name, &variable(name)?)
}

/// Spans that wait at most: as many as are set, within reason, since the queue is made for all of them at once.
pub(super) fn queue_size(default: usize) -> usize {
    let set = number_of("OTEL_BSP_MAX_QUEUE_SIZE").filter(|spans| *spans > 0);
    let Some(set) = set else { return default };
    let spans = usize::try_from(set).unwrap_or(usize::MAX);
    if spans > MOST_QUEUED {
        tracing::warn!(
            OTEL_BSP_MAX_QUEUE_SIZE = set,
            spans = MOST_QUEUED,
            "the queue of spans is made as long as it may be"
        );
    }
    spans.min(MOST_QUEUED)
}

/// Spans of one export at most.
pub(super) fn export_batch() -> usize {
    let set = number_of("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").filter(|spans| *spans > 0);
    set.and_then(|spans| usize::try_from(spans).ok())
        .unwrap_or(512)
}

/// Between exports of less than that. Without any, the exporter would not rest.
pub(super) fn schedule_delay() -> Duration {
    let millis = number_of("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(5_000);
    Duration::from_millis(millis).max(SHORTEST_DELAY)
}

/// For one export, with all its tries.
pub(super) fn export_timeout() -> Duration {
    let millis = for_traces("TIMEOUT").and_then(|(name, millis)| number(&name, &millis));
    match millis {
        None => Duration::from_secs(10),
        Some(0) => NO_LIMIT,
        Some(millis) => Duration::from_millis(millis).min(NO_LIMIT),
    }
}

/// Says what is set and does nothing here.
pub(super) fn warn_of_the_unheeded() {
    for name in [
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_BSP_EXPORT_TIMEOUT",
        "OTEL_PROPAGATORS",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    ] {
        let names_ours = |value: &String| value.split(',').any(|of| of.trim() == "tracecontext");
        if let Some(value) = variable(name).filter(|value| !names_ours(value)) {
            tracing::warn!(variable = name, value, "a variable is not heeded");
        }
    }
}

/// What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say.
pub(super) fn resource(service: &'static str) -> Resource {
    let list = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let named = variable("OTEL_SERVICE_NAME").map(|name| KeyValue::new("service.name", name));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_service_name(service)
        .with_attributes(resource_attributes(&list))
        .with_attributes(named)
        .build()
}

/// `name=value,name=value`, percent-encoded. The SDK's own reader leaves the encoding as it is.
fn resource_attributes(list: &str) -> Vec<KeyValue> {
    let decoded = |text: &str| {
        let decoded = percent_decode_str(text.trim()).decode_utf8();
        let decoded = decoded.ok().filter(|text| !text.is_empty());
        decoded.map(Cow::into_owned)
    };
    let pairs = list.split(',').filter(|pair| !pair.trim().is_empty());
    let read = pairs.filter_map(|pair| {
        let read = pair
            .split_once('=')
            .and_then(|(name, value)| Some(KeyValue::new(decoded(name)?, decoded(value)?)));
        if read.is_none() {
            let variable = "OTEL_RESOURCE_ATTRIBUTES";
            tracing::warn!(variable, value = pair, "a variable is not heeded");
        }
        read
    });
    read.collect()
}

/// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say; what they do not say, or say wrong, is the standard's
/// default.
pub(super) fn sampling() -> Sampling {
    let name = variable("OTEL_TRACES_SAMPLER").map(|name| word(&name));
    let argument = variable("OTEL_TRACES_SAMPLER_ARG");
    let is_ratio = name.as_ref().is_some_and(|name| name.ends_with("ratio"));
    if let Some(value) = argument.as_ref().filter(|_| !is_ratio) {
        let variable = "OTEL_TRACES_SAMPLER_ARG";
        tracing::warn!(variable, value, "a variable is not heeded");
    }
    sampler(name.as_deref(), argument.as_deref())
}

fn sampler(name: Option<&str>, argument: Option<&str>) -> Sampling {
    let (parent_based, name) = match name.map(|name| (name.strip_prefix("parentbased_"), name)) {
        Some((Some(root), _)) => (true, root),
        Some((None, name)) => (false, name),
        None => return Sampling::ALWAYS,
    };
    let ratio = match name {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match argument.map(str::parse::<f64>) {
            None => 1.0,
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                tracing::warn!(
                    argument,
                    "OTEL_TRACES_SAMPLER_ARG is no part from 0 to 1; every batch is traced"
                );
                1.0
            }
        },
        _ => {
            tracing::warn!(
                sampler = name,
                "OTEL_TRACES_SAMPLER is not known; parentbased_always_on is taken"
            );
            return Sampling::ALWAYS;
        }
    };
    Sampling {
        parent_based,
        ratio,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_the_resource_are_decoded() {
        let read = resource_attributes("a=b%20c%2Cd, e = f=g ,,service.name=,no,x=%ff");
        let expected = [("a", "b c,d"), ("e", "f=g")];
        assert_eq!(read, expected.map(|(key, value)| KeyValue::new(key, value)));
    }

    #[test]
    fn samplers_are_known_by_their_standard_names() {
        for (name, argument, parent_based, ratio) in [
            (None, None, true, 1.0),
            (Some("always_on"), None, false, 1.0),
            (Some("always_off"), None, false, 0.0),
            (Some("traceidratio"), Some("0.25"), false, 0.25),
            (Some("parentbased_always_on"), None, true, 1.0),
            (Some("parentbased_always_off"), None, true, 0.0),
            (Some("parentbased_traceidratio"), Some("0.1"), true, 0.1),
            (Some("parentbased_traceidratio"), Some("x"), true, 1.0),
            (Some("jaeger_remote"), None, true, 1.0),
        ] {
            let expected = Sampling {
                parent_based,
                ratio,
            };
            assert_eq!(sampler(name, argument), expected, "{name:?}");
        }
    }
}
