//! A worker: its settings, checked before anything is dialled, and the ways to run it.

use std::{
    collections::{HashMap, HashSet},
    io, process, thread,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{self, Handle},
    sync::oneshot,
};
use tonic::transport::Endpoint;
use toolpool_proto::v1 as proto;

use crate::{
    Error, Shutdown, Tool,
    session::{Connector, Session, Settings},
};

const DEFAULT_SLOTS: u32 = 8;
const DEFAULT_DRAIN_GRACE: Duration = Duration::from_secs(30);
const DEFAULT_CANCEL_GRACE: Duration = Duration::from_secs(5);
const MAX_GRACE: Duration = Duration::from_hours(24);
const MAX_ID: usize = 128;
const MAX_LABELS: usize = 32;
const MAX_LABEL: usize = 256;

/// A worker that is ready to be run. See [`Worker::builder`].
pub struct Worker {
    settings: Settings,
}

/// The settings of a worker. Nothing is checked before [`build`](Self::build).
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    endpoint: String,
    id: Option<String>,
    slots: u32,
    labels: HashMap<String, String>,
    version: String,
    tools: Vec<Tool>,
    drain_grace: Duration,
    cancel_grace: Duration,
}

impl Worker {
    /// Begins the settings of a worker for the broker at `endpoint`, such as `http://127.0.0.1:7400`.
    pub fn builder(endpoint: impl Into<String>) -> Builder {
        Builder {
            endpoint: endpoint.into(),
            id: None,
            slots: DEFAULT_SLOTS,
            labels: HashMap::new(),
            version: String::new(),
            tools: Vec::new(),
            drain_grace: DEFAULT_DRAIN_GRACE,
            cancel_grace: DEFAULT_CANCEL_GRACE,
        }
    }

    /// The worker's id, as given or as made up.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.settings.register.worker_id
    }

    /// Serves until the shutdown. A broker that is away, or goes away, is waited for and dialled again for ever; calls
    /// run on meanwhile, and their outcomes are kept.
    ///
    /// Handlers run on the runtime that this is called on, so it should have more than one thread; the stream to the
    /// broker lives on a thread of its own, so that a handler that blocks cannot keep it from giving signs of life.
    ///
    /// After `shutdown.drain` it returns when every call has ended and the broker has acknowledged its outcome, or when
    /// the drain grace is over and what still ran was cancelled. After `shutdown.now`, or when this future is dropped,
    /// what runs is dropped.
    ///
    /// Fails only if the broker refuses this worker for good ([`Error::Refused`]), or if there is no thread to be had.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let shutdown = Shutdown {
            drain: shutdown.drain,
            now: shutdown.now.child_token(),
        };
        let _end_when_dropped = shutdown.now.clone().drop_guard();
        let session = Session::new(self.settings, shutdown, Handle::current());
        let (done, result) = oneshot::channel();
        thread::Builder::new()
            .name("toolpool-worker".to_owned())
            .spawn(move || {
                let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = done.send(Err(Error::Thread(error)));
                        return;
                    }
                };
                // Nobody listens when the future was dropped.
                let _ = done.send(runtime.block_on(session.run()));
                // A name that is still being looked up must not hold up the end.
                runtime.shutdown_background();
            })
            .map_err(Error::Thread)?;
        result
            .await
            .unwrap_or_else(|_| Err(Error::Thread(io::Error::other("it panicked"))))
    }

    /// As [`run`](Self::run), but all on the current runtime, and over connections that `connect` makes: a Unix
    /// socket, say, or a pipe in memory. A handler that blocks its thread can keep the signs of life from going out.
    ///
    /// Dropping the future breaks the connection and drops what runs.
    pub async fn run_over<F, C, T>(self, connect: F, shutdown: Shutdown) -> Result<(), Error>
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let settings = Settings {
            connector: Connector::new(connect),
            ..self.settings
        };
        let shutdown = Shutdown {
            drain: shutdown.drain,
            now: shutdown.now.child_token(),
        };
        Session::new(settings, shutdown, Handle::current())
            .run()
            .await
    }
}

impl Builder {
    /// The worker's id: 1 to 128 printable ASCII characters without spaces, unique among live workers and the same
    /// after a restart, if that can be had. Left out: made of the host's name, the process id and chance.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Calls that run at the same time, over all tools; 1 or more. Left out: 8.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Something for people to know the worker by: zone, host, owner. At most 32, of at most 256 bytes each.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// The version of the worker's software, for people to read. At most 256 bytes.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// One more tool; at least one is needed, and their names are unique.
    pub fn tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// More tools.
    pub fn tools(mut self, tools: impl IntoIterator<Item = Tool>) -> Self {
        self.tools.extend(tools);
        self
    }

    /// How long calls may still run after `shutdown.drain`; at most a day. Left out: 30 s.
    pub fn drain_grace(mut self, grace: Duration) -> Self {
        self.drain_grace = grace.min(MAX_GRACE);
        self
    }

    /// How long a handler whose call was called off may clean up before its future is dropped; at most a day. Left
    /// out: 5 s.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.cancel_grace = grace.min(MAX_GRACE);
        self
    }

    /// Checks the settings.
    ///
    /// Fails with the first setting that is wrong, and what is permitted. Whether a schema is a good one is left to
    /// the broker.
    pub fn build(self) -> Result<Worker, Error> {
        let (endpoint, connector) = endpoint(&self.endpoint)?;
        let id = self.id.unwrap_or_else(random_id);
        if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::WorkerId { id });
        }
        if self.slots == 0 {
            return Err(Error::Slots);
        }
        let too_long = self
            .labels
            .iter()
            .find(|(key, value)| key.len() > MAX_LABEL || value.len() > MAX_LABEL);
        let one_too_many = self.labels.iter().nth(MAX_LABELS);
        if let Some((key, _)) = too_long.or(one_too_many) {
            return Err(Error::Label { key: key.clone() });
        }
        if self.version.len() > MAX_LABEL {
            let bytes = self.version.len();
            return Err(Error::Version { bytes });
        }
        if self.tools.is_empty() {
            return Err(Error::NoTools);
        }
        let mut names = HashSet::new();
        for tool in &self.tools {
            tool.check()?;
            if !names.insert(tool.name()) {
                return Err(Error::DuplicateTool {
                    name: tool.name().to_owned(),
                });
            }
        }
        let register = proto::Register {
            worker_id: id,
            instance_id: format!("{:032x}", fastrand::u128(..)),
            tools: self.tools.iter().map(Tool::to_proto).collect(),
            slots: self.slots,
            labels: self.labels,
            version: self.version,
            running_leases: Vec::new(),
        };
        let handlers = self
            .tools
            .iter()
            .map(|tool| (tool.name().to_owned(), tool.handler().clone()));
        Ok(Worker {
            settings: Settings {
                endpoint,
                connector,
                register,
                handlers: handlers.collect(),
                drain_grace: self.drain_grace,
                cancel_grace: self.cancel_grace,
            },
        })
    }
}

fn endpoint(text: &str) -> Result<(Endpoint, Connector), Error> {
    let refuse = |reason: String| Error::Endpoint {
        endpoint: text.to_owned(),
        reason,
    };
    let endpoint =
        Endpoint::from_shared(text.to_owned()).map_err(|error| match std::error::Error::source(
            &error,
        ) {
            Some(source) => refuse(source.to_string()),
            None => refuse(error.to_string()),
        })?;
    let uri = endpoint.uri();
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(refuse(
                "TLS is not supported here; put a proxy in between".to_owned(),
            ));
        }
        _ => return Err(refuse("the scheme is not http".to_owned())),
    }
    let host = uri
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| refuse("there is no host".to_owned()))?;
    // An IPv6 address stands in brackets in a URI only.
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = uri.port_u16().unwrap_or(80);
    Ok((endpoint, Connector::tcp(host, port)))
}

fn random_id() -> String {
    let uname = rustix::system::uname();
    let host: String = uname
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_graphic)
        .take(64)
        .collect();
    let host = if host.is_empty() { "worker" } else { &host };
    format!("{host}-{}-{:08x}", process::id(), fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Output;

    fn tool(name: &str) -> Tool {
        Tool::raw(name, "", json!({"type": "object"}), |_, _| async {
            Ok(Output::empty())
        })
    }

    fn builder() -> Builder {
        Worker::builder("http://[::1]:7400").tool(tool("a"))
    }

    #[track_caller]
    fn refused(builder: Builder) -> String {
        builder.build().err().unwrap().to_string()
    }

    #[test]
    fn a_worker_has_an_id_of_its_own() {
        let (one, two) = (builder().build().unwrap(), builder().build().unwrap());
        assert_ne!(one.id(), two.id());
        assert_eq!(builder().id("search-1").build().unwrap().id(), "search-1");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_permitted() {
        assert!(refused(builder().slots(0)).contains("1 or more"));
        assert!(refused(builder().id("")).contains("1 to 128 printable ASCII"));
        assert!(refused(builder().id("ü")).contains('ü'));
        assert!(refused(builder().id("a b")).contains("without spaces"));
        assert!(refused(builder().id("a".repeat(129))).contains("1 to 128"));
        assert!(refused(builder().version("a".repeat(257))).contains("257 bytes"));
        assert!(refused(builder().tool(tool("a"))).contains("two tools"));
        assert!(refused(builder().tool(tool("a b"))).contains("\"a b\""));
        assert!(refused(builder().tool(tool("b").max_attempts(11))).contains("max_attempts is 11"));
        assert!(refused(builder().label("zone", "a".repeat(257))).contains("zone"));
        assert!(
            refused((0..33).fold(builder(), |b, n| b.label(n.to_string(), "")))
                .contains("at most 32")
        );
        assert!(refused(Worker::builder("http://a:1")).contains("no tools"));
        for endpoint in ["", "a:1", "https://a:1", "http://", "ftp://a", "/a"] {
            assert!(
                refused(Worker::builder(endpoint).tool(tool("a"))).contains("http://<host>:<port>"),
                "{endpoint}"
            );
        }
    }
}
