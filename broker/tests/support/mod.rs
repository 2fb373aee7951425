//! A broker in memory, with agents and workers whose every step is the test's.
//!
//! The clock is paused: it moves only when nothing else is left to do, so that "nothing came within [`A_MOMENT`]" means
//! that nothing was under way.

#![allow(dead_code, reason = "no test file uses all of it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests may fail loudly"
)]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt, TryFutureExt, future};
use http_body_util::{BodyStream, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use toolpool_broker::{Admin, Config, Error, Operations, Shutdown, Telemetry};
use toolpool_proto::v1;
use tower::util::MapRequest;
use v1::broker_service_client::BrokerServiceClient;

pub(crate) mod admin;
pub(crate) mod agent;
pub(crate) mod batch;
pub(crate) mod fixtures;
pub(crate) mod operator;
pub(crate) mod provider;
pub(crate) mod spans;
pub(crate) mod worker;

/// No more than this passes while things are under way.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(1);
/// On a paused clock this is no time at all; it only ever passes when a test fails.
const PATIENCE: Duration = Duration::from_hours(1);
/// What a connection holds on its way.
const PIPE: usize = 64 * 1024;

/// A broker and the way to it.
pub(crate) struct Broker {
    connections: mpsc::Sender<io::Result<DuplexStream>>,
    pub(crate) shutdown: Shutdown,
    pub(crate) server: JoinHandle<Result<(), Error>>,
}

/// A client's connection, which can be cut, and its requests' streams, which can be reset.
pub(crate) struct Line {
    channel: Channel,
    wire: AbortHandle,
    pub(crate) reset: CancellationToken,
}

/// A connection whose requests end in a reset once the test says so.
pub(crate) type Resettable = MapRequest<Channel, Resets>;
type Resets = Box<dyn FnMut(http::Request<Body>) -> http::Request<Body> + Send>;

impl Broker {
    /// With the defaults.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// With settings of the test's own.
    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_as(change, Operations::default())
    }

    /// With an admin port, which is a real one: the clock must not be paused.
    pub(crate) async fn start_with_admin(change: impl FnOnce(&mut Config)) -> (Self, SocketAddr) {
        let admin = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = admin.address().unwrap();
        let operations = Operations {
            admin: Some(admin),
            ..Operations::default()
        };
        (Self::start_as(change, operations), address)
    }

    /// The same, and it tells what it does.
    pub(crate) fn start_telling(telemetry: Telemetry, change: impl FnOnce(&mut Config)) -> Self {
        let operations = Operations {
            telemetry,
            ..Operations::default()
        };
        Self::start_as(change, operations)
    }

    /// With an admin port of its own, and it tells what it does.
    pub(crate) async fn start_all(telemetry: Telemetry) -> (Self, SocketAddr) {
        let admin = Admin::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = admin.address().unwrap();
        let operations = Operations {
            admin: Some(admin),
            telemetry,
        };
        (Self::start_as(|_| (), operations), address)
    }

    fn start_as(change: impl FnOnce(&mut Config), operations: Operations) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let (connections, incoming) = mpsc::channel(64);
        let shutdown = Shutdown::default();
        let incoming = ReceiverStream::new(incoming);
        let server = toolpool_broker::serve_with(config, incoming, shutdown.clone(), operations);
        Self {
            connections,
            shutdown,
            server: tokio::spawn(server),
        }
    }

    /// A connection of its own, on which nobody says anything yet.
    pub(crate) async fn pipe(&self) -> DuplexStream {
        let (client, broker) = duplex(PIPE);
        self.connections.send(Ok(broker)).await.unwrap();
        client
    }

    /// A connection of its own.
    pub(crate) async fn dial(&self) -> Line {
        let (client, mut wire_a) = duplex(PIPE);
        let (mut wire_b, broker) = duplex(PIPE);
        let wire = tokio::spawn(async move { copy_bidirectional(&mut wire_a, &mut wire_b).await });
        self.connections.send(Ok(broker)).await.unwrap();
        let mut once = Some(TokioIo::new(client));
        let connector = tower::service_fn(move |_| {
            future::ready(once.take().ok_or(io::ErrorKind::ConnectionRefused))
                .map_err(io::Error::from)
        });
        let channel = Endpoint::from_static("http://broker")
            .connect_with_connector(connector)
            .await
            .unwrap();
        Line {
            channel,
            wire: wire.abort_handle(),
            reset: CancellationToken::new(),
        }
    }

    /// Calls that are complete already, each `(id, tool, arguments)`, as one batch.
    pub(crate) async fn execute_batch(
        &self,
        request: v1::ExecuteBatchRequest,
    ) -> Result<batch::Finished, Status> {
        let mut client = self.client().await;
        let response = soon(client.execute_batch(request)).await?.into_inner();
        Ok(batch::Finished::new(
            response.results,
            response.finished.expect("`finished` is set"),
            Vec::new(),
        ))
    }

    /// The catalogue.
    pub(crate) async fn list_tools(&self) -> Vec<v1::CatalogueEntry> {
        let mut client = self.client().await;
        let response = soon(client.list_tools(v1::ListToolsRequest::default())).await;
        response.unwrap().into_inner().tools
    }

    /// A connection of its own for a client of any kind.
    pub(crate) async fn channel(&self) -> Channel {
        self.dial().await.channel
    }

    /// A client on a connection of its own.
    pub(crate) async fn client(&self) -> BrokerServiceClient<Channel> {
        BrokerServiceClient::new(self.dial().await.channel)
    }
}

impl Line {
    /// What requests go through.
    pub(crate) fn resettable(&self) -> Resettable {
        let reset = self.reset.clone();
        let resets: Resets = Box::new(move |request| {
            let reset = reset.clone();
            request.map(|body| ends_in_a_reset(body, reset))
        });
        MapRequest::new(self.channel.clone(), resets)
    }

    /// Breaks the connection: both sides see the end of it at once.
    pub(crate) fn cut(&self) {
        self.wire.abort();
    }
}

/// The body as it is, until `reset`; then an error which makes hyper reset the stream with `CANCEL`.
fn ends_in_a_reset(body: Body, reset: CancellationToken) -> Body {
    let cancelled = reset.clone();
    let frames = BodyStream::new(body).take_until(reset.cancelled_owned());
    let end = futures_util::stream::once(future::lazy(move |_| cancelled.is_cancelled()))
        .filter(|cancelled| future::ready(*cancelled))
        .map(|_| {
            Err(Status::from_error(
                h2::Error::from(h2::Reason::CANCEL).into(),
            ))
        });
    Body::new(StreamBody::new(frames.chain(end)))
}

/// Fails the test instead of letting it hang.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    within(PATIENCE, future).await.expect("nothing happened")
}

/// `None` if it takes longer.
pub(crate) async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time, future).await.ok()
}

/// Lets everything come to rest.
pub(crate) async fn settle() {
    tokio::time::sleep(A_MOMENT).await;
}

/// A duration on the wire.
pub(crate) fn wire(time: Duration) -> prost_types::Duration {
    time.try_into().unwrap()
}

/// A duration from the wire; absent is none at all.
pub(crate) fn time(time: Option<prost_types::Duration>) -> Duration {
    time.map_or(Duration::ZERO, |time| time.try_into().unwrap())
}

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
