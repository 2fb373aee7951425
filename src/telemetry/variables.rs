//! What OpenTelemetry's usual variables say, as its specification has it: an empty one counts as not set.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use opentelemetry::Key;
use opentelemetry_sdk::Resource;
use percent_encoding::percent_decode_str;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::transport::Endpoint;
use toolpool_broker::Sampling;

/// Where traces go, if they are wanted.
pub(super) fn endpoint() -> Result<Option<Endpoint>> {
    let disabled =
        variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let none = variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    let Some((name, url)) = for_traces("ENDPOINT").filter(|_| !disabled && !none) else {
        return Ok(None);
    };
    if let Some((name, protocol)) = for_traces("PROTOCOL").filter(|(_, value)| value != "grpc") {
        bail!("{name} is {protocol}; traces can be exported over grpc only");
    }
    let insecure = for_traces("INSECURE").is_some_and(|(_, is)| is.eq_ignore_ascii_case("true"));
    let dialled = url_without_tls(&url, insecure).with_context(|| {
        format!("{name} is {url}; traces go over gRPC without TLS, to http://…")
    })?;
    let endpoint = Endpoint::from_shared(dialled)
        .with_context(|| format!("{name} is {url}, which is no URL"))?
        .user_agent(concat!("toolpool/", env!("CARGO_PKG_VERSION")))
        .context("the version is no header")?
        .connect_timeout(export_timeout());
    warn_of_the_unheeded();
    Ok(Some(endpoint))
}

/// Without a scheme it would be TLS, unless that is declined.
fn url_without_tls(url: &str, insecure: bool) -> Option<String> {
    match url.split_once("://") {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("http").then(|| url.to_owned()),
        None => insecure.then(|| format!("http://{url}")),
    }
}

/// What goes with each export, such as a key.
pub(super) fn headers() -> Result<MetadataMap> {
    match for_traces("HEADERS") {
        Some((name, list)) => parse_headers(&list).with_context(|| name),
        None => Ok(MetadataMap::new()),
    }
}

/// `name=value,name=value`, percent-encoded as in the W3C's baggage. A value may be secret: no error quotes one.
fn parse_headers(list: &str) -> Result<MetadataMap> {
    let mut headers = MetadataMap::new();
    let pairs = list.split(',').map(str::trim);
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            bail!("a header is written name=value, and several with commas between them");
        };
        let name = name.trim().to_ascii_lowercase();
        let value = percent_decode_str(value.trim()).decode_utf8();
        let (Ok(key), Some(value)) = (
            MetadataKey::from_bytes(name.as_bytes()),
            value.ok().and_then(|value| value.parse().ok()),
        ) else {
            bail!("{name} is no header, or its value cannot be one's");
        };
        headers.append(key, value);
    }
    Ok(headers)
}

fn warn_of_the_unheeded() {
    if let Some((variable, value)) = for_traces("COMPRESSION")
        && !value.eq_ignore_ascii_case("none")
    {
        tracing::warn!(
            variable,
            value,
            "spans are sent without compression; the variable is not heeded"
        );
    }
    if let Some(value) = variable("OTEL_TRACES_EXPORTER")
        && value != "otlp"
    {
        tracing::warn!(
            value,
            "OTEL_TRACES_EXPORTER is not heeded; spans are sent over OTLP"
        );
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What is set for traces alone, or else for all that is exported; and by which variable.
fn for_traces(what: &str) -> Option<(String, String)> {
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
    fn without_tls_there_is_only_http() {
        let http = |url: &str| Some(format!("http://{url}"));
        assert_eq!(url_without_tls("http://a:1", false), http("a:1"));
        assert_eq!(url_without_tls("a:1", true), http("a:1"));
        for (url, insecure) in [("a:1", false), ("https://a:1", true), ("unix:///a", true)] {
            assert_eq!(url_without_tls(url, insecure), None, "{url}");
        }
    }

    #[test]
    fn headers_are_read_as_baggage_and_errors_keep_their_values() {
        let headers = parse_headers("X-Key=a%20b%2C, authorization=Basic eA==,,").unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers.get("x-key").unwrap(), "a b,");
        assert_eq!(headers.get("authorization").unwrap(), "Basic eA==");
        assert!(parse_headers("").unwrap().is_empty());
        for wrong in [
            "secret",
            "=secret",
            "a b=secret",
            "a=secret%0a",
            "a=secret%ff",
        ] {
            let error = parse_headers(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{wrong}: {error}");
        }
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
