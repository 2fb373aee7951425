//! What OpenTelemetry's usual variables say, as its specification has it: an empty one counts as not set. Those that say
//! where spans go are read in [`target`](super::target).

use std::time::Duration;

use opentelemetry::Key;
use opentelemetry_sdk::Resource;
use toolpool_broker::Sampling;

pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What is set for traces alone, or else for all that is exported; and by which variable.
pub(super) fn for_traces(what: &str) -> Option<(String, String)> {
    let names = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
    names.iter().find_map(|begin| {
        let name = format!("{begin}{what}");
        variable(&name).map(|value| (name, value))
    })
}

pub(super) fn queue_size(default: usize) -> usize {
    let set = variable("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|spans| spans.parse().ok());
    set.filter(|spans| *spans > 0).unwrap_or(default)
}

/// For one export, with all its tries.
pub(super) fn export_timeout() -> Duration {
    let set = for_traces("TIMEOUT");
    let millis = set.and_then(|(_, millis)| millis.parse().ok());
    Duration::from_millis(millis.unwrap_or(10_000))
}

/// What `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say.
pub(super) fn resource(service: &'static str) -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&Key::from_static_str("service.name"));
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        return told;
    }
    Resource::builder().with_service_name(service).build()
}

/// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say; what they do not say, or say wrong, is the standard's
/// default.
pub(super) fn sampling() -> Sampling {
    let argument = variable("OTEL_TRACES_SAMPLER_ARG");
    sampler(
        variable("OTEL_TRACES_SAMPLER").as_deref(),
        argument.as_deref(),
    )
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
