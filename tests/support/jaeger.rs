//! A real Jaeger with the configuration that is shipped, on ports of its own; and what it knows of a trace.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{PATIENCE, Process, http, shipped};

/// What Jaeger listens on, by the variables of its configuration.
const PORTS: [&str; 4] = [
    "JAEGER_OTLP_PORT",
    "JAEGER_UI_PORT",
    "JAEGER_QUERY_PORT",
    "JAEGER_HEALTH_PORT",
];

pub(crate) struct Jaeger {
    /// Where spans are sent to.
    pub(crate) url: String,
    query: String,
    _process: Process,
}

/// A span as Jaeger gives it back. Times are in nanoseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty: it has none.
    pub(crate) parent: String,
    pub(crate) name: String,
    /// As OTLP counts them: 1 internal, 2 server, 3 client.
    pub(crate) kind: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Empty: it is no error.
    pub(crate) error: String,
    attributes: Value,
}

impl Jaeger {
    /// Starts the program that `JAEGER` names, or the one in `PATH`. `Err`: why it cannot be had here.
    pub(crate) async fn start() -> Result<Self, String> {
        let program = std::env::var("JAEGER").ok().filter(|name| !name.is_empty());
        let program = program.unwrap_or_else(|| "jaeger".to_owned());
        let found = Command::new(&program)
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Err(error) = found {
            return Err(format!(
                "{program} cannot be started ({error}); JAEGER names another"
            ));
        }
        // A port that was free may be another's a moment later: the system lends them to whoever dials out.
        for _ in 0..5 {
            if let Some(jaeger) = Self::listen(&program).await {
                return Ok(jaeger);
            }
        }
        panic!("{program} does not come up; it says why on stderr");
    }

    async fn listen(program: &str) -> Option<Self> {
        // All at once, so that no two are the same.
        let taken = PORTS.map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let ports = taken.each_ref().map(|listener| {
            let address = listener.local_addr().expect("it has an address");
            address.port().to_string()
        });
        drop(taken);
        let mut command = Command::new(program);
        command
            .arg("--config")
            .arg(shipped("deploy/jaeger/config.yaml"))
            .env_remove("JAEGER_LISTEN_HOST")
            .envs(PORTS.iter().zip(&ports))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut process = Process::start(&mut command);
        let [otlp, query, _, health] = ports.map(|port| format!("127.0.0.1:{port}"));
        let coming = async {
            while http::get_json(&health, "/status").is_none_or(|told| told["healthy"] != true)
                || http::get(&query, "/").is_err()
            {
                if process.ended().is_some() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            true
        };
        let is_up = tokio::time::timeout(PATIENCE, coming).await;
        is_up
            .expect("Jaeger says that it is healthy")
            .then(|| Self {
                url: format!("http://{otlp}"),
                query,
                _process: process,
            })
    }

    /// Every span of a trace that it has so far.
    pub(crate) fn trace(&self, id: &str) -> Vec<Span> {
        let told = http::get_json(&self.query, &format!("/api/v3/traces/{id}"));
        let told = told.unwrap_or_default();
        let mut spans = Vec::new();
        for resource in list(&told["result"]["resourceSpans"]) {
            let service = attribute(&resource["resource"]["attributes"], "service.name");
            let scopes = list(&resource["scopeSpans"]).iter();
            for span in scopes.flat_map(|scope| list(&scope["spans"])) {
                spans.push(Span::of(span, service.clone().unwrap_or_default()));
            }
        }
        spans
    }
}

impl Span {
    fn of(told: &Value, service: String) -> Self {
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        let time = |key: &str| text(key).parse().expect("it has a beginning and an end");
        let error = &told["status"];
        Self {
            service,
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            name: text("name"),
            kind: told["kind"].as_u64().unwrap_or_default(),
            from: time("startTimeUnixNano"),
            to: time("endTimeUnixNano"),
            error: error["message"].as_str().unwrap_or_default().to_owned(),
            attributes: told["attributes"].clone(),
        }
    }

    pub(crate) fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.attributes, key)
    }
}

fn list(told: &Value) -> &[Value] {
    told.as_array().map_or(&[], Vec::as_slice)
}

fn attribute(attributes: &Value, key: &str) -> Option<String> {
    let found = list(attributes).iter().find(|of| of["key"] == key)?;
    let (_, value) = found["value"].as_object()?.iter().next()?;
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}
