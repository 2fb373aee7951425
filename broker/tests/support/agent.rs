//! An agent whose every step is the test's.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{IntoStreamingRequest, Request, Status, Streaming};
use toolpool_proto::v1;
use v1::agent_frame::Frame;
use v1::batch_frame::Frame as Got;
use v1::broker_service_client::BrokerServiceClient;

use super::{Broker, Line, batch, soon};

/// An agent with an open batch.
pub(crate) struct FakeAgent {
    pub(crate) batch_id: String,
    /// As the first `accepted` has it.
    pub(crate) dialect: Option<i32>,
    inbound: Streaming<v1::ExecuteResponse>,
    /// `None` after the half-close.
    outbound: Option<mpsc::Sender<v1::ExecuteRequest>>,
    frames: VecDeque<Got>,
    line: Line,
}

impl Broker {
    /// An agent that has opened a batch with nothing special about it.
    pub(crate) async fn agent(&self) -> FakeAgent {
        self.agent_with(v1::Open::default()).await
    }

    /// An agent that has opened a batch in this way.
    pub(crate) async fn agent_with(&self, open: v1::Open) -> FakeAgent {
        self.open(open).await.unwrap()
    }

    /// The same, or why not.
    pub(crate) async fn open(&self, open: v1::Open) -> Result<FakeAgent, Status> {
        self.open_with(vec![Frame::Open(open)], |_| ()).await
    }

    /// The same with more in the first packet, and with a request such as `change` makes it.
    pub(crate) async fn open_with(
        &self,
        first: Vec<Frame>,
        change: impl FnOnce(&mut Request<ReceiverStream<v1::ExecuteRequest>>),
    ) -> Result<FakeAgent, Status> {
        let line = self.dial().await;
        let (outbound, packets) = mpsc::channel(1024);
        outbound.try_send(packet(first)).unwrap();
        let mut request = ReceiverStream::new(packets).into_streaming_request();
        change(&mut request);
        let mut client =
            BrokerServiceClient::new(line.resettable()).max_decoding_message_size(usize::MAX);
        let inbound = soon(client.execute(request)).await?.into_inner();
        let mut agent = FakeAgent {
            batch_id: String::new(),
            dialect: None,
            inbound,
            outbound: Some(outbound),
            frames: VecDeque::new(),
            line,
        };
        match agent.frame().await? {
            Some(Got::Accepted(accepted)) => {
                agent.batch_id = accepted.batch_id;
                agent.dialect = accepted.dialect;
            }
            other => panic!("no `accepted` but {other:?}"),
        }
        Ok(agent)
    }

    /// A batch of calls `(id, tool, arguments)` that are all complete, to its end.
    pub(crate) async fn run(&self, calls: &[(&str, &str, &str)]) -> batch::Finished {
        let agent = self.agent().await;
        for (id, tool, arguments) in calls {
            agent.call(id, tool, arguments).await;
        }
        agent.seal().await;
        agent.finished().await.unwrap()
    }
}

impl FakeAgent {
    pub(crate) async fn send(&self, frame: Frame) {
        self.send_all([frame]).await;
    }

    /// All in one packet.
    pub(crate) async fn send_all(&self, frames: impl IntoIterator<Item = Frame>) {
        let outbound = self.outbound.as_ref().expect("no half-close yet");
        // A broker that has ended the stream is for the test to notice.
        let _ = soon(outbound.send(packet(frames))).await;
    }

    pub(crate) async fn start(&self, index: u32, id: &str, tool: &str) {
        self.send(start(index, id, tool)).await;
    }

    pub(crate) async fn delta(&self, index: u32, fragment: impl AsRef<[u8]>) {
        self.send(delta(index, fragment)).await;
    }

    pub(crate) async fn stop(&self, index: u32) {
        self.send(Frame::BlockStop(v1::BlockStop { index })).await;
    }

    /// A block that streams in.
    pub(crate) async fn block(&self, index: u32, id: &str, tool: &str, arguments: &str) {
        self.start(index, id, tool).await;
        for piece in arguments.as_bytes().chunks(5) {
            self.delta(index, piece).await;
        }
        self.stop(index).await;
    }

    /// A block in one piece.
    pub(crate) async fn call(&self, id: &str, tool: &str, arguments: &str) {
        self.send(call(id, tool, arguments)).await;
    }

    /// Events of a provider's stream.
    pub(crate) async fn events(&self, events: &[serde_json::Value]) {
        let events = events.iter().map(|event| {
            let json = serde_json::to_vec(event).unwrap();
            Frame::ProviderEvent(json.into())
        });
        self.send_all(events).await;
    }

    /// Bytes of a provider's stream.
    pub(crate) async fn data(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref().to_vec().into();
        self.send(Frame::ProviderData(bytes)).await;
    }

    pub(crate) async fn seal(&self) {
        self.send(Frame::Seal(v1::Seal { turn_end: None })).await;
    }

    pub(crate) async fn seal_as(&self, end: v1::TurnEnd) {
        self.send(seal(end)).await;
    }

    /// Ends its side of the stream in good order.
    pub(crate) fn half_close(&mut self) {
        self.outbound = None;
    }

    /// Resets the stream.
    pub(crate) fn reset(self) {
        self.line.reset.cancel();
    }

    /// Breaks the connection.
    pub(crate) fn cut(self) {
        self.line.cut();
    }

    /// The next frame; none after the broker's end of the stream.
    pub(crate) async fn frame(&mut self) -> Result<Option<Got>, Status> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            match soon(self.inbound.message()).await? {
                Some(packet) => self
                    .frames
                    .extend(packet.frames.into_iter().filter_map(|frame| frame.frame)),
                None => return Ok(None),
            }
        }
    }

    /// What comes next, which is progress.
    pub(crate) async fn progress(&mut self) -> v1::CallProgress {
        match self.frame().await.unwrap() {
            Some(Got::Progress(progress)) => progress,
            other => panic!("no progress but {other:?}"),
        }
    }

    /// The finished batch, or the status that came in its place.
    pub(crate) async fn finished(mut self) -> Result<batch::Finished, Status> {
        let (mut results, mut progress) = (Vec::new(), Vec::new());
        let finished = loop {
            match self
                .frame()
                .await?
                .expect("`finished` comes before the end")
            {
                Got::Result(result) => results.push(result),
                Got::Finished(finished) => break finished,
                Got::Progress(event) => {
                    assert!(results.is_empty(), "nothing comes between results");
                    progress.push(event);
                }
                Got::Accepted(again) => {
                    assert_eq!(self.dialect, None, "`accepted` came twice");
                    assert!(again.dialect.is_some(), "`accepted` tells nothing new");
                    self.dialect = again.dialect;
                }
            }
        };
        assert_eq!(self.frame().await?, None, "`finished` is the last frame");
        Ok(batch::Finished::new(results, finished, progress))
    }

    /// The status with which the broker refuses the stream.
    pub(crate) async fn refused(mut self) -> Status {
        loop {
            match self.frame().await {
                Ok(Some(Got::Progress(_))) => {}
                Ok(other) => panic!("not refused: {other:?}"),
                Err(status) => return status,
            }
        }
    }
}

fn packet(frames: impl IntoIterator<Item = Frame>) -> v1::ExecuteRequest {
    let frames = frames
        .into_iter()
        .map(|frame| v1::AgentFrame { frame: Some(frame) })
        .collect();
    v1::ExecuteRequest { frames }
}

pub(crate) fn start(index: u32, id: &str, tool: &str) -> Frame {
    Frame::BlockStart(v1::BlockStart {
        index,
        id: id.to_owned(),
        tool: tool.to_owned(),
        idempotency_key: None,
    })
}

pub(crate) fn delta(index: u32, fragment: impl AsRef<[u8]>) -> Frame {
    let fragment = fragment.as_ref().to_vec().into();
    Frame::BlockDelta(v1::BlockDelta { index, fragment })
}

pub(crate) fn whole(id: &str, tool: &str, arguments: &str) -> v1::Call {
    v1::Call {
        id: id.to_owned(),
        tool: tool.to_owned(),
        arguments: arguments.to_owned().into(),
        idempotency_key: None,
    }
}

pub(crate) fn call(id: &str, tool: &str, arguments: &str) -> Frame {
    Frame::Call(whole(id, tool, arguments))
}

pub(crate) fn seal(end: v1::TurnEnd) -> Frame {
    Frame::Seal(v1::Seal {
        turn_end: Some(end.into()),
    })
}
