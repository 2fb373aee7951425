//! The Toolpool broker: a model turn's tool calls in, one finished batch of results out.
//!
//! Data flows one way and back:
//!
//! ```text
//! agent ── grpc::agent ─▶ ingest ─▶ batch ─▶ lane ─▶ session ── grpc::worker ─▶ worker
//!       ◀─ finished batch ─────────  batch ◀─ notice ─ lease ◀─ outcome ─────────
//! ```
//!
//! In reading order: `ingest` (messages in, complete calls out) with its `dialect`s and `framing`s (a provider's own stream
//! in), `answer` (results in that provider's shape), [`decode`] (the same without a broker), `schema` and [`policy`] (what may run),
//! `catalogue` (name to tool), `batch` (id to result) and its task, `lane` (one tool's queue, limits and workers) and
//! its lease, `session` (one worker), `registry` (who is here), `accept` (connections), `grpc` (the services), `telemetry` (traces), [`metrics`] (what is
//! counted), [`admin`] (where that is shown), `drain` (the end).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use toolpool_proto::v1::admin_service_server::AdminServiceServer;
use toolpool_proto::v1::broker_service_server::BrokerServiceServer;
use toolpool_proto::v1::worker_pool_service_server::WorkerPoolServiceServer;
use tower::util::MapRequestLayer;

mod accept;
pub mod admin;
mod answer;
mod batch;
mod call_error;
mod catalogue;
pub mod config;
pub mod decode;
mod drain;
mod grpc;
mod id;
mod ingest;
mod lane;
mod mailbox;
pub mod metrics;
mod output;
pub mod policy;
mod registry;
mod schema;
mod seldom;
mod session;
mod telemetry;
mod tool_format;

pub use admin::Admin;
pub use config::Config;
pub use drain::Shutdown;
pub use seldom::Seldom;
pub use telemetry::{Sampling, SpanRoom, Telemetry};

use catalogue::Catalogue;
use drain::Steps;
use grpc::admin::Operators;
use grpc::agent::Agents;
use grpc::health::Health;
use grpc::worker::WorkerPool;
use id::LeaseIds;
use lane::LaneContext;
use metrics::{Metrics, Scrape};
use registry::{Batches, Workers};
use session::SessionContext;

/// What gRPC takes by default. A message takes up to fifty times its size in memory, so it is no more than is needed.
const MESSAGE_BYTES: usize = 4 << 20;
/// What an operator's request may come to.
const OPERATORS_BYTES: usize = 4 << 10;
/// The pause after a connection could not be accepted, such as for want of file descriptors: without it the listener
/// would be asked again at once, for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to close once everything on them has ended.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// What agents and workers can ask for.
const PUBLIC_SERVICES: [&str; 3] = [
    <BrokerServiceServer<Agents> as NamedService>::NAME,
    <WorkerPoolServiceServer<WorkerPool> as NamedService>::NAME,
    grpc::health::NAME,
];
/// Streams of a connection beside its batches: listings, and workers that share it.
const OTHER_STREAMS: usize = 20_000;
/// Probes connections whose other end may have vanished without a word; streams of workers have beats besides.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why the broker could not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener or a connection's server failed.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The protocol's own description, which reflection gives out, is broken.
    #[error("the protocol cannot be described: {0}")]
    Description(#[from] tonic_reflection::server::Error),
    /// The metrics' instruments cannot be made.
    #[error("the broker cannot count what it does: {0}")]
    Metrics(String),
}

/// What a broker has for its operators besides its log. By default nothing.
#[derive(Debug, Default)]
pub struct Operations {
    /// Where its metrics and probes are shown.
    pub admin: Option<Admin>,
    /// Where its traces go.
    pub telemetry: Telemetry,
}

/// Serves agents and workers on `listener` until `shutdown`.
///
/// Returns once it has drained after `shutdown.drain`, or at once after `shutdown.now`. Dropping the future ends the
/// server at once too.
pub async fn run(config: Config, listener: TcpListener, shutdown: Shutdown) -> Result<(), Error> {
    run_with(config, listener, shutdown, Operations::default()).await
}

/// The same as [`run`] with what operators want of it. An admin port answers until the broker has gone down.
pub async fn run_with(
    config: Config,
    listener: TcpListener,
    shutdown: Shutdown,
    operations: Operations,
) -> Result<(), Error> {
    // A small reply must not wait for the acknowledgement of the one before it.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    serve_with(config, incoming, shutdown, operations).await
}

/// The same as [`run`] for connections of any kind, such as pipes in memory.
pub async fn serve<I, C, E>(config: Config, incoming: I, shutdown: Shutdown) -> Result<(), Error>
where
    I: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    serve_with(config, incoming, shutdown, Operations::default()).await
}

/// The same as [`run_with`] for connections of any kind.
pub async fn serve_with<I, C, E>(
    config: Config,
    incoming: I,
    shutdown: Shutdown,
    Operations { admin, telemetry }: Operations,
) -> Result<(), Error>
where
    I: Stream<Item = Result<C, E>>,
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let metrics = Metrics::new(&config).map_err(|error| Error::Metrics(error.to_string()))?;
    let broker = Broker::new(config, metrics, telemetry);
    // However this future ends, nothing that it started goes on.
    let _ended = broker.steps.clone().drop_guards();
    let scrape = broker.scrape.clone();
    let incoming = accept::connections(incoming);
    // A connection may have as many streams as there may be batches, and its other calls besides.
    let streams = broker.config.max_open_batches.saturating_add(OTHER_STREAMS);
    let streams = u32::try_from(streams).unwrap_or(u32::MAX);
    let (health, [health_service, on_admin]) = Health::serving().await;
    let services = broker.admin_routes(on_admin)?;
    let _admin =
        admin.map(|admin| AbortOnDropHandle::new(tokio::spawn(admin.serve(scrape, services))));
    let routes = broker.routes().add_service(health_service);
    let routes = grpc::reflection::add_to(routes, &PUBLIC_SERVICES)?;
    let serve = Server::builder()
        .max_concurrent_streams(streams)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(MapRequestLayer::new(grpc::reset::is_no_half_close))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, broker.steps.sessions.clone().cancelled_owned());
    let drain = broker.drain(shutdown.drain);
    let health = health.follow(broker.steps.draining.clone(), broker.steps.sessions.clone());
    let drain = async { tokio::join!(drain, health) };
    tokio::pin!(serve);
    tokio::select! {
        served = &mut serve => return served.map_err(Error::Server),
        _ = drain => {}
        () = shutdown.now.cancelled() => return Ok(()),
    }
    tokio::select! {
        served = serve => served.map_err(Error::Server),
        () = tokio::time::sleep(CLOSING_TIME) => Ok(()),
        () = shutdown.now.cancelled() => Ok(()),
    }
}

/// A broker without a listener.
#[derive(Debug)]
struct Broker {
    config: Arc<Config>,
    steps: Steps,
    batches: TaskTracker,
    sessions: TaskTracker,
    agents: Agents,
    workers: WorkerPool,
    scrape: Scrape,
}

impl Broker {
    fn new(config: Config, metrics: Arc<Metrics>, telemetry: Telemetry) -> Self {
        let config = Arc::new(config);
        let steps = Steps::default();
        let (batches, sessions) = (TaskTracker::new(), TaskTracker::new());
        let lanes = LaneContext {
            metrics: Arc::clone(&metrics),
            leases: Arc::new(LeaseIds::new()),
            tasks: sessions.clone(),
            shutdown: steps.sessions.clone(),
            max_queued: config.max_queued_per_tool,
            no_worker_wait: config.no_worker_wait,
        };
        let catalogue = Arc::new(Catalogue::new(Arc::clone(&config), lanes));
        let agents = Agents {
            metrics: Arc::clone(&metrics),
            config: Arc::clone(&config),
            catalogue: Arc::clone(&catalogue),
            batches: Batches::new(config.max_open_batches),
            keys: Arc::new(AtomicU64::new(0)),
            tasks: batches.clone(),
            telemetry: telemetry.clone(),
            draining: steps.draining.clone(),
            expire: steps.expire.clone(),
        };
        let scrape = Scrape {
            metrics: Arc::clone(&metrics),
            catalogue: Arc::clone(&catalogue),
            batches: Arc::clone(&agents.batches),
            draining: steps.draining.clone(),
            telemetry,
        };
        let context = SessionContext {
            metrics,
            config: Arc::clone(&config),
            catalogue,
            draining: steps.draining.clone(),
            shutdown: steps.sessions.clone(),
        };
        let workers = WorkerPool {
            workers: Arc::new(Workers::new(config.max_workers)),
            keys: Arc::new(AtomicU64::new(0)),
            tasks: sessions.clone(),
            context,
        };
        Self {
            config,
            steps,
            batches,
            sessions,
            agents,
            workers,
            scrape,
        }
    }

    fn routes(&self) -> Routes {
        let agents = BrokerServiceServer::new(self.agents.clone())
            .max_decoding_message_size(MESSAGE_BYTES.max(2 * self.config.max_arguments_bytes))
            .max_encoding_message_size(usize::MAX);
        // Twice the limit: an output that is a little too large must be answered as such, not end the stream.
        let workers = WorkerPoolServiceServer::new(self.workers.clone())
            .max_decoding_message_size(2 * self.config.max_result_bytes + MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX);
        Routes::new(agents).add_service(workers)
    }

    /// What operators call, on the admin port.
    fn admin_routes(&self, health: HealthServer<impl HealthService>) -> Result<Routes, Error> {
        let operators = AdminServiceServer::new(Operators {
            catalogue: Arc::clone(&self.agents.catalogue),
            batches: Arc::clone(&self.agents.batches),
            workers: Arc::clone(&self.workers.workers),
            turn: Arc::new(Semaphore::new(1)),
        });
        let named = <AdminServiceServer<Operators> as NamedService>::NAME;
        let routes = Routes::new(operators.max_decoding_message_size(OPERATORS_BYTES));
        let routes = routes.add_service(health);
        Ok(grpc::reflection::add_to(
            routes,
            &[named, grpc::health::NAME],
        )?)
    }

    async fn drain(&self, drain: tokio_util::sync::CancellationToken) {
        self.steps
            .run(
                drain,
                self.config.drain_grace,
                &self.batches,
                &self.sessions,
            )
            .await;
    }
}
