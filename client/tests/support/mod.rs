//! A broker that does what the test tells it, over connections in memory that the test can cut.

#![expect(dead_code, reason = "no test file uses all of it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests may fail loudly"
)]

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use toolpool_client::{Client, ConnectOptions};
use toolpool_proto::v1;
use tower::util::MapRequestLayer;
use v1::batch_frame::Frame;
use v1::broker_service_server::{BrokerService, BrokerServiceServer};

/// Pages by their tokens.
type Catalogue = Arc<Mutex<HashMap<&'static str, v1::ListToolsResponse>>>;
type Answer = Result<v1::ExecuteResponse, Status>;

/// The test's end of the broker.
pub(crate) struct Broker {
    turns: mpsc::Receiver<Turn>,
    refusals: Arc<AtomicU32>,
    connections: watch::Sender<u64>,
    catalogue: Catalogue,
}

/// A batch that an agent has asked for.
pub(crate) struct Turn {
    /// What the agent sends.
    pub(crate) incoming: Streaming<v1::ExecuteRequest>,
    reply: oneshot::Sender<Result<ReceiverStream<Answer>, Status>>,
}

/// A batch that the broker has taken.
pub(crate) struct Taken {
    /// How it was opened.
    pub(crate) open: v1::Open,
    /// What the agent sends.
    pub(crate) incoming: Streaming<v1::ExecuteRequest>,
    answers: mpsc::Sender<Answer>,
}

/// A broker, and a client that dials it. The client tries for 10 s to reach it.
pub(crate) fn broker() -> (Broker, Client) {
    broker_with(ConnectOptions::default().connect_timeout(Duration::from_secs(10)))
}

/// The same with options.
pub(crate) fn broker_with(options: ConnectOptions) -> (Broker, Client) {
    let (turns_in, turns) = mpsc::channel(16);
    let (connections_in, connections) = mpsc::channel::<io::Result<DuplexStream>>(16);
    let catalogue = Catalogue::default();
    let service = BrokerServiceServer::new(Service {
        turns: turns_in,
        catalogue: Arc::clone(&catalogue),
    });
    // tonic's server takes a reset by the agent for the end of the stream; a broker must not.
    let tell_resets = MapRequestLayer::new(|request: http::Request<Body>| {
        request.map(|body| Body::new(body.map_err(|status| Status::unknown(status.to_string()))))
    });
    let server = Server::builder()
        .layer(tell_resets)
        .add_service(service)
        .serve_with_incoming(ReceiverStream::new(connections));
    tokio::spawn(server);

    let refusals = Arc::new(AtomicU32::new(0));
    let (generation, _) = watch::channel(0);
    let broker = Broker {
        turns,
        refusals: Arc::clone(&refusals),
        connections: generation.clone(),
        catalogue,
    };
    broker.catalogue([("", page(["add"], ""))]);
    let connector = tower::service_fn(move |_| {
        let refused =
            refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        let (connections_in, mut cut) = (connections_in.clone(), generation.subscribe());
        async move {
            if refused.is_ok() {
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            }
            let (agent, mut wire_a) = tokio::io::duplex(64 * 1024);
            let (mut wire_b, broker) = tokio::io::duplex(64 * 1024);
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut wire_a, &mut wire_b) => {}
                    _ = cut.changed() => {}
                }
            });
            connections_in
                .send(Ok(broker))
                .await
                .expect("the server runs");
            Ok(TokioIo::new(agent))
        }
    });
    let channel = Endpoint::from_static("http://broker").connect_with_connector_lazy(connector);
    (broker, Client::new(channel, options))
}

impl Broker {
    /// The next connections are refused.
    pub(crate) fn refuse_connections(&self, count: u32) {
        self.refusals.store(count, Ordering::Relaxed);
    }

    /// What there is to list: pages, each under its token.
    pub(crate) fn catalogue<const N: usize>(
        &self,
        pages: [(&'static str, v1::ListToolsResponse); N],
    ) {
        *self.catalogue.lock().unwrap() = HashMap::from(pages);
    }

    /// Breaks every connection there is.
    pub(crate) fn cut(&self) {
        self.connections.send_modify(|generation| *generation += 1);
    }

    /// Waits for an agent to ask for a batch.
    pub(crate) async fn turn(&mut self) -> Turn {
        self.turns.recv().await.expect("the broker runs")
    }

    /// Waits for an agent to ask for a batch, and takes it.
    pub(crate) async fn take(&mut self) -> Taken {
        self.turn().await.take().await
    }

    /// Whether no agent has asked for another batch.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.turns.try_recv().is_err()
    }
}

impl Turn {
    /// Turns the agent away.
    pub(crate) fn refuse(self, status: Status) {
        let _ = self.reply.send(Err(status));
    }

    /// Takes the batch, after its `open` has come.
    pub(crate) async fn take(mut self) -> Taken {
        let first = self.incoming.message().await.unwrap().unwrap();
        let mut frames = first.frames.into_iter();
        let Some(Some(v1::agent_frame::Frame::Open(open))) = frames.next().map(|one| one.frame)
        else {
            panic!("`open` comes first");
        };
        assert_eq!(frames.len(), 0, "nothing but the open before `accepted`");
        let taken = Taken {
            open,
            ..self.answer_with_nothing()
        };
        let batch_id = "b-1".to_owned();
        taken
            .send([Frame::Accepted(v1::Accepted {
                batch_id,
                dialect: None,
            })])
            .await;
        taken
    }

    /// Begins the answer without an `accepted`.
    pub(crate) fn answer_with_nothing(self) -> Taken {
        let (answers, stream) = mpsc::channel(16);
        self.reply
            .send(Ok(ReceiverStream::new(stream)))
            .expect("the agent waits");
        Taken {
            open: v1::Open::default(),
            incoming: self.incoming,
            answers,
        }
    }
}

impl Taken {
    /// The next packet's frames; `None` at the half-close.
    pub(crate) async fn packet(&mut self) -> Option<Vec<v1::agent_frame::Frame>> {
        let packet = self.incoming.message().await.expect("the stream lives")?;
        Some(
            packet
                .frames
                .into_iter()
                .filter_map(|frame| frame.frame)
                .collect(),
        )
    }

    /// All frames up to the half-close.
    pub(crate) async fn rest(&mut self) -> Vec<v1::agent_frame::Frame> {
        let mut frames = Vec::new();
        while let Some(packet) = self.packet().await {
            frames.extend(packet);
        }
        frames
    }

    /// Whether what comes next from the agent, deltas aside, is a reset.
    pub(crate) async fn is_reset(&mut self) -> bool {
        loop {
            match self.incoming.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Whether nobody is there any more to take the answer.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.answers.is_closed()
    }

    /// Sends frames in one packet.
    pub(crate) async fn send(&self, frames: impl IntoIterator<Item = Frame>) {
        let frames = frames
            .into_iter()
            .map(|frame| v1::BatchFrame { frame: Some(frame) });
        let packet = v1::ExecuteResponse {
            frames: frames.collect(),
        };
        self.answers
            .send(Ok(packet))
            .await
            .expect("the agent reads");
    }

    /// Ends the batch with a status.
    pub(crate) async fn fail(self, status: Status) {
        let _ = self.answers.send(Err(status)).await;
    }

    /// Sends an empty output for each id, and `finished`.
    pub(crate) async fn finish(&self, ids: &[&str]) {
        let results = (0..).zip(ids).map(|(position, id)| result(id, position));
        let count = u32::try_from(ids.len()).unwrap();
        self.send(results.chain([finished(count)])).await;
    }
}

/// An empty output.
pub(crate) fn result(id: &str, position: u32) -> Frame {
    Frame::Result(v1::CallResult {
        id: id.to_owned(),
        tool: "add".to_owned(),
        position,
        ending: Some(v1::call_result::Ending::Output(v1::Output::default())),
        ledger: Some(v1::TimeLedger {
            block_began: Some(prost_types::Duration::default()),
            ended: Some(prost_types::Duration::default()),
            ..v1::TimeLedger::default()
        }),
        ..v1::CallResult::default()
    })
}

/// The last frame.
pub(crate) fn finished(calls: u32) -> Frame {
    Frame::Finished(v1::Finished {
        batch_id: "b-1".to_owned(),
        calls,
        succeeded: calls,
        accepted_at: Some(prost_types::Timestamp::default()),
        elapsed: Some(prost_types::Duration::default()),
        summed_run: Some(prost_types::Duration::default()),
        ..v1::Finished::default()
    })
}

/// A call is waiting.
pub(crate) fn queued(id: &str) -> Frame {
    Frame::Progress(v1::CallProgress {
        id: id.to_owned(),
        event: Some(v1::call_progress::Event::Queued(
            v1::call_progress::Queued {},
        )),
        at: Some(prost_types::Duration::default()),
    })
}

/// Tools of these names, and where the list goes on.
pub(crate) fn page<const N: usize>(names: [&str; N], next: &str) -> v1::ListToolsResponse {
    let entry = |name: &str| v1::CatalogueEntry {
        tool: Some(v1::Tool {
            name: name.to_owned(),
            ..v1::Tool::default()
        }),
        registered_policy: None,
        workers: 2,
    };
    v1::ListToolsResponse {
        tools: names.map(entry).into(),
        next_page_token: next.to_owned(),
        ..v1::ListToolsResponse::default()
    }
}

struct Service {
    turns: mpsc::Sender<Turn>,
    catalogue: Catalogue,
}

#[tonic::async_trait]
impl BrokerService for Service {
    type ExecuteStream = ReceiverStream<Answer>;

    async fn execute(
        &self,
        request: Request<Streaming<v1::ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let (reply, answer) = oneshot::channel();
        let incoming = request.into_inner();
        let turn = Turn { incoming, reply };
        let _ = self.turns.send(turn).await;
        let answer = answer
            .await
            .unwrap_or_else(|_| Err(Status::internal("the test let go")))?;
        Ok(Response::new(answer))
    }

    async fn execute_batch(
        &self,
        _: Request<v1::ExecuteBatchRequest>,
    ) -> Result<Response<v1::ExecuteBatchResponse>, Status> {
        Err(Status::unimplemented("no client of ours uses it"))
    }

    async fn list_tools(
        &self,
        request: Request<v1::ListToolsRequest>,
    ) -> Result<Response<v1::ListToolsResponse>, Status> {
        let token = request.into_inner().page_token;
        let pages = self.catalogue.lock().unwrap();
        let page = pages.get(token.as_str()).cloned();
        page.map(Response::new)
            .ok_or_else(|| Status::invalid_argument("page_token"))
    }
}
