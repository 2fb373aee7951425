//! The admin port: plain HTTP/1.1 for probes, for Prometheus, and for whoever looks after the broker; and over HTTP/2 without
//! TLS the `AdminService`, with server reflection.
//!
//! | path | method | answer |
//! |---|---|---|
//! | `/healthz` | GET | 200 while the process runs |
//! | `/readyz` | GET | 200 while new batches are taken, 503 from the moment the broker drains |
//! | `/metrics` | GET | [`metrics`](crate::metrics) in Prometheus' text format |
//! | `/log-filter` | GET, PUT | what is logged; PUT changes it, from this machine only |
//!
//! It has no authentication, so it listens on loopback unless told otherwise. Connections are few and have their time (one
//! request each with HTTP/1.1), and each part of a request has a bound, so that nobody can keep a probe out for long.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

use crate::ACCEPT_PAUSE;
use crate::accept::Failures;
use crate::grpc::admin::Peer;
use crate::metrics::Scrape;

/// Connections at the same time; others wait to be accepted.
const MOST_CONNECTIONS: usize = 64;
/// Of these, the operators', which stay for a while; the rest is for probes, which do not.
const MOST_OPERATORS: usize = 16;
/// What a request's head may come to.
const MOST_HEAD_BYTES: u16 = 16 << 10;
const MOST_HEADERS: usize = 64;
/// What a request's body may come to.
const MOST_BODY_BYTES: usize = 4 << 10;
/// Calls on a connection at the same time.
const MOST_STREAMS: u32 = 8;
/// How long the first request's head may take to come, a connection may be used after that, and what is on it then may take to
/// end.
const HEAD_TIME: Duration = Duration::from_secs(2);
const CONNECTION_TIME: Duration = Duration::from_secs(30);
const CLOSING_TIME: Duration = Duration::from_secs(5);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// An admin port that listens, for [`Operations`](crate::Operations).
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    log: Option<LogControl>,
}

/// How the log is looked at and changed while the process runs; the log itself is the program's.
pub struct LogControl {
    /// What is logged, as a filter.
    pub show: Box<dyn Fn() -> String + Send + Sync>,
    /// Logs that from now on.
    pub change: Box<ChangeLog>,
}

/// Takes a filter; an error says what is wrong with it.
pub type ChangeLog = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl").finish_non_exhaustive()
    }
}

impl Admin {
    /// Listens. Port 0 lets the system choose one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self {
            listener,
            log: None,
        })
    }

    /// Lets the log be changed at `/log-filter`, which is not there otherwise.
    #[must_use]
    pub fn with_log(self, log: LogControl) -> Self {
        Self {
            log: Some(log),
            ..self
        }
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until it is dropped, and all its connections with it.
    pub(crate) async fn serve(self, scrape: Scrape, services: Routes) -> Infallible {
        let Self { listener, log } = self;
        let desk = Arc::new(Desk {
            draining: scrape.draining.clone(),
            scrape: Arc::new(scrape),
            services: services.prepare(),
            operators: Arc::new(Semaphore::new(MOST_OPERATORS)),
            log,
        });
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut failures = Failures::default();
        loop {
            while connections.try_join_next().is_some() {}
            let permit = Arc::clone(&room).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let desk = Arc::clone(&desk);
                    connections.spawn(async move {
                        desk.serve(stream, peer).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    if let Some(failures) = failures.one_more(Instant::now()) {
                        tracing::warn!(%error, failures, "an admin connection could not be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// What answers are made from.
#[derive(Debug)]
struct Desk {
    scrape: Arc<Scrape>,
    services: Routes,
    operators: Arc<Semaphore>,
    draining: CancellationToken,
    log: Option<LogControl>,
}

type Answer = Response<Body>;

/// A connection's place among the operators': there is none before its first call over HTTP/2, or there was none left.
type Place = OnceLock<Option<OwnedSemaphorePermit>>;

impl Desk {
    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let asked = AtomicBool::new(false);
        let place = Arc::new(Place::new());
        let answer = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            let desk = Arc::clone(&self);
            let place = Arc::clone(&place);
            async move { Ok::<_, Infallible>(desk.answer(request, peer, &place).await) }
        });
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(MOST_HEAD_BYTES.into())
            .max_headers(MOST_HEADERS)
            .keep_alive(false);
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(MOST_HEAD_BYTES.into())
            .max_concurrent_streams(MOST_STREAMS);
        let connection = http.serve_connection(TokioIo::new(stream), answer);
        tokio::pin!(connection);
        // A peer that breaks off, talks no HTTP or takes too long is its own trouble.
        let early = tokio::time::timeout(HEAD_TIME, connection.as_mut()).await;
        if early.is_ok() || !asked.load(Ordering::Relaxed) {
            return;
        }
        let turned_away = place.get().is_some_and(Option::is_none);
        if turned_away
            || tokio::time::timeout(CONNECTION_TIME, connection.as_mut())
                .await
                .is_err()
        {
            // Who still has something to ask dials again.
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(CLOSING_TIME, connection).await;
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        place: &Place,
    ) -> Answer {
        // No browser talks like this by itself, so no web page can.
        if request.version() == Version::HTTP_2 {
            let room = || Arc::clone(&self.operators).try_acquire_owned().ok();
            if place.get_or_init(room).is_none() {
                let full = "as many operators as may are connected; try again later";
                return Status::resource_exhausted(full).into_http();
            }
            request.extensions_mut().insert(Peer(peer.ip()));
            let services = self.services.clone();
            return services
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {});
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        match (request.uri().path(), &self.log) {
            ("/healthz", _) if reads => text(StatusCode::OK, "ok\n"),
            ("/readyz", _) if reads && self.draining.is_cancelled() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
            }
            ("/readyz", _) if reads => text(StatusCode::OK, "serving\n"),
            ("/metrics", _) if reads => self.metrics().await,
            ("/log-filter", Some(log)) if reads => text(StatusCode::OK, (log.show)() + "\n"),
            ("/log-filter", Some(log)) if request.method() == Method::PUT => {
                change_log(log, request, peer).await
            }
            ("/log-filter", Some(_)) => not_so("GET, HEAD, PUT"),
            ("/healthz" | "/readyz" | "/metrics", _) => not_so("GET, HEAD"),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz, /metrics and /log-filter; over HTTP/2 there is toolpool.v1.AdminService\n",
            ),
        }
    }

    async fn metrics(&self) -> Answer {
        let scrape = Arc::clone(&self.scrape);
        // Apart from the threads that calls run on: with hundreds of tools it takes milliseconds.
        match tokio::task::spawn_blocking(move || scrape.text()).await {
            Ok(Ok(metrics)) => {
                let mut answer = text(StatusCode::OK, metrics);
                answer.headers_mut().insert(CONTENT_TYPE, PROMETHEUS);
                answer
            }
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(&error),
        }
    }
}

async fn change_log(log: &LogControl, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    // A web page that the operator looks at comes from this machine too, and says so.
    if !peer.ip().to_canonical().is_loopback() || request.headers().contains_key(ORIGIN) {
        return text(
            StatusCode::FORBIDDEN,
            "the log can only be changed by a program on the broker's own machine\n",
        );
    }
    let body = Limited::new(request.into_body(), MOST_BODY_BYTES);
    let Ok(Ok(body)) = tokio::time::timeout(HEAD_TIME, body.collect()).await else {
        return text(
            StatusCode::BAD_REQUEST,
            format!("a filter has up to {MOST_BODY_BYTES} bytes, and comes within {HEAD_TIME:?}\n"),
        );
    };
    let body = body.to_bytes();
    let filter = std::str::from_utf8(&body).unwrap_or_default().trim();
    if filter.is_empty() {
        return text(
            StatusCode::BAD_REQUEST,
            "write a log filter such as `debug` or `toolpool_broker=debug,info`\n",
        );
    }
    match (log.change)(filter) {
        Ok(()) => {
            tracing::info!(filter, "the log's filter was changed");
            text(StatusCode::OK, (log.show)() + "\n")
        }
        Err(wrong) => text(StatusCode::BAD_REQUEST, wrong + "\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Body::new(Full::new(body.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, TEXT);
    answer
}

fn not_so(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "not that method\n");
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn failed(error: &dyn std::error::Error) -> Answer {
    tracing::error!(%error, "the metrics could not be shown");
    text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the metrics could not be shown; the log says why\n",
    )
}
