//! Where spans go, and how, as the variables have it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use percent_encoding::percent_decode_str;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::{Authority, Scheme};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::transport::{Channel, Endpoint};

use super::tls::Tls;
use super::variables::{export_timeout, for_traces, variable, warn_of_the_unheeded, word};

/// Where spans go, and how.
#[derive(Debug)]
pub(super) struct Target {
    /// As it was given, for the log.
    pub(super) url: String,
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<Tls>,
    pub(super) headers: MetadataMap,
    /// Whether messages are compressed.
    pub(super) gzip: bool,
    /// For one export, with all its tries.
    pub(super) timeout: Duration,
}

impl Target {
    /// `None`: traces are not wanted. An error names the variable.
    pub(super) fn of_variables() -> Result<Option<Self>> {
        let disabled =
            variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let exporter = variable("OTEL_TRACES_EXPORTER").map(|name| word(&name));
        let none = exporter.as_ref().is_some_and(|value| value == "none");
        let Some((name, url)) = for_traces("ENDPOINT").filter(|_| !disabled && !none) else {
            return Ok(None);
        };
        if let Some(value) = exporter.filter(|value| value != "otlp") {
            tracing::warn!(
                value,
                "OTEL_TRACES_EXPORTER is not heeded; spans are sent over OTLP"
            );
        }
        if let Some((name, protocol)) = for_traces("PROTOCOL")
            && word(&protocol) != "grpc"
        {
            bail!("{name} is {protocol}; traces can be exported over grpc only");
        }
        warn_of_the_unheeded();
        let context = || format!("{name} is {}", public(&url));
        let (endpoint, is_tls) = endpoint(&url).with_context(context)?;
        let tls = is_tls.then(Tls::of_variables).transpose()?;
        let target = Self {
            url,
            endpoint,
            tls,
            headers: headers()?,
            gzip: gzip()?,
            timeout: export_timeout(),
        };
        tracing::info!(endpoint = target.url, "traces are exported");
        Ok(Some(target))
    }
}

/// And whether it is behind TLS.
fn endpoint(url: &str) -> Result<(Endpoint, bool)> {
    let insecure = for_traces("INSECURE").is_some_and(|(_, is)| is.eq_ignore_ascii_case("true"));
    let (url, is_tls) = with_scheme(url, insecure)?;
    ensure!(
        !url.contains('@'),
        "a user in it is not heeded; OTEL_EXPORTER_OTLP_HEADERS takes a key"
    );
    let origin: Uri = url.parse().context("it is no URL")?;
    let mut dialled = origin.clone().into_parts();
    // TLS is ours to do, so it is not tonic's.
    dialled.scheme = Some(Scheme::HTTP);
    let endpoint = Endpoint::from(Uri::from_parts(dialled).context("it is no URL")?)
        .user_agent(concat!("toolpool/", env!("CARGO_PKG_VERSION")))
        .context("the version is no header")?
        .connect_timeout(export_timeout());
    let has_good_port = |authority: &Authority| {
        authority.port_u16().is_some() || authority.as_str() == authority.host()
    };
    let authority = origin.authority();
    let has_host = |authority: &Authority| !authority.host().is_empty();
    ensure!(authority.is_some_and(has_host), "it has no host");
    ensure!(authority.is_some_and(has_good_port), "it has no such port");
    Ok((endpoint.origin(origin), is_tls))
}

/// Without the user and password that it may have.
fn public(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => url.to_owned(),
    }
}

/// The URL, and whether that is TLS: without a scheme it is, unless that is declined.
fn with_scheme(url: &str, insecure: bool) -> Result<(String, bool)> {
    match url.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => Ok((url.to_owned(), false)),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => Ok((url.to_owned(), true)),
        Some((scheme, _)) => bail!("{scheme} is neither http nor https"),
        None if insecure => Ok((format!("http://{url}"), false)),
        None => Ok((format!("https://{url}"), true)),
    }
}

impl Target {
    /// Dials when there is something to send. Must be called within a runtime.
    pub(super) fn connect(&self) -> Channel {
        match &self.tls {
            None => self.endpoint.connect_lazy(),
            Some(tls) => tls.connect(&self.endpoint),
        }
    }
}

fn gzip() -> Result<bool> {
    match for_traces("COMPRESSION") {
        None => Ok(false),
        Some((name, value)) => match &*word(&value) {
            "none" => Ok(false),
            "gzip" => Ok(true),
            other => bail!("{name} is {other}; spans can be sent with gzip or none"),
        },
    }
}

/// What goes with each export, such as a key.
fn headers() -> Result<MetadataMap> {
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
        ensure!(
            !name.starts_with("grpc-"),
            "{name} is for gRPC itself to set"
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_says_whether_it_is_tls_and_without_one_it_is_unless_declined() {
        for (url, insecure, dialled, tls) in [
            ("http://a:1", false, "http://a:1", false),
            ("HTTPS://a:1", true, "HTTPS://a:1", true),
            ("a:1", true, "http://a:1", false),
            ("a:1", false, "https://a:1", true),
        ] {
            let expected = (dialled.to_owned(), tls);
            assert_eq!(with_scheme(url, insecure).unwrap(), expected);
        }
        let error = with_scheme("unix:///a", false).unwrap_err().to_string();
        assert_eq!(error, "unix is neither http nor https");
    }

    #[test]
    fn headers_are_read_as_baggage_and_errors_keep_their_values() {
        let headers = parse_headers("X-Key=a%20b%2C, authorization=Basic eA==,,").unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers.get("x-key").unwrap(), "a b,");
        assert_eq!(headers.get("authorization").unwrap(), "Basic eA==");
        assert!(parse_headers("").unwrap().is_empty());
        for wrong in [
            "grpc-timeout=secret",
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
}
