//! A worker whose every step is the test's, but for its beats.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use toolpool_proto::v1;
use v1::pool_frame::Frame;
use v1::worker_frame::Frame as Sent;
use v1::worker_pool_service_client::WorkerPoolServiceClient;

use super::{A_MOMENT, Broker, Line, soon, time, within};

/// A worker that has joined.
pub(crate) struct FakeWorker {
    pub(crate) registered: v1::Registered,
    pub(crate) link: Link,
}

/// A worker's stream, both ways.
pub(crate) struct Link {
    inbound: Streaming<v1::JoinResponse>,
    /// `None` after the half-close.
    outbound: Option<mpsc::Sender<v1::JoinRequest>>,
    frames: VecDeque<Frame>,
    beats: Option<AbortHandle>,
    line: Line,
}

/// A worker that answers by itself.
pub(crate) struct Serving {
    pub(crate) started: Arc<Mutex<Vec<(Instant, v1::Assignment)>>>,
    /// The most calls that it had at once.
    pub(crate) most: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Broker {
    /// A worker that serves these tools in so many slots, and beats.
    pub(crate) async fn worker<const N: usize>(
        &self,
        id: &str,
        slots: u32,
        tools: [v1::Tool; N],
    ) -> FakeWorker {
        self.join(register(id, slots, tools)).await.unwrap()
    }

    /// The same, or why not.
    pub(crate) async fn join(&self, register: v1::Register) -> Result<FakeWorker, Status> {
        let mut link = self.link(vec![Sent::Register(register)]).await?;
        match soon(link.frame()).await? {
            Some(Frame::Registered(registered)) => {
                link.beat(time(registered.beat_interval));
                Ok(FakeWorker { registered, link })
            }
            other => panic!("no `registered` but {other:?}"),
        }
    }

    /// A stream whose first packet has these frames.
    pub(crate) async fn link(&self, frames: Vec<Sent>) -> Result<Link, Status> {
        let line = self.dial().await;
        let (outbound, packets) = mpsc::channel(64);
        outbound.try_send(packet(frames)).unwrap();
        let mut client =
            WorkerPoolServiceClient::new(line.resettable()).max_decoding_message_size(usize::MAX);
        let inbound = soon(client.join(ReceiverStream::new(packets))).await?;
        Ok(Link {
            inbound: inbound.into_inner(),
            outbound: Some(outbound),
            frames: VecDeque::new(),
            beats: None,
            line,
        })
    }
}

impl Link {
    fn beat(&mut self, interval: Duration) {
        // Weak, or the beats would keep the stream open beyond the half-close.
        let outbound = self.outbound.as_ref().unwrap().downgrade();
        let beats = tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(outbound) = outbound.upgrade() else {
                    return;
                };
                let beat = packet([Sent::Beat(v1::Beat {})]);
                if outbound.send(beat).await.is_err() {
                    return;
                }
            }
        });
        self.beats = Some(beats.abort_handle());
    }

    pub(crate) async fn send_all(&self, frames: impl IntoIterator<Item = Sent>) {
        let outbound = self.outbound.as_ref().expect("no half-close yet");
        // A broker that has ended the stream is for the test to notice.
        let _ = soon(outbound.send(packet(frames))).await;
    }

    /// The next frame; none after the broker's end of the stream.
    pub(crate) async fn frame(&mut self) -> Result<Option<Frame>, Status> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            match self.inbound.message().await? {
                Some(packet) => self
                    .frames
                    .extend(packet.frames.into_iter().filter_map(|frame| frame.frame)),
                None => return Ok(None),
            }
        }
    }
}

impl FakeWorker {
    pub(crate) async fn send(&self, frame: Sent) {
        self.link.send_all([frame]).await;
    }

    /// The next frame that is not a beat; none after the broker's end of the stream.
    pub(crate) async fn news(&mut self) -> Result<Option<Frame>, Status> {
        // Around all of it: beats are not what the test waits for.
        soon(self.news_at_last()).await
    }

    async fn news_at_last(&mut self) -> Result<Option<Frame>, Status> {
        loop {
            match self.link.frame().await? {
                Some(Frame::Beat(_)) => {}
                other => return Ok(other),
            }
        }
    }

    /// The next assignment, past beats and acknowledgements.
    pub(crate) async fn assignment(&mut self) -> v1::Assignment {
        loop {
            match self.news().await.unwrap() {
                Some(Frame::Assignment(assignment)) => return assignment,
                Some(Frame::OutcomeAck(_)) => {}
                other => panic!("no assignment but {other:?}"),
            }
        }
    }

    /// The next so many.
    pub(crate) async fn assignments(&mut self, count: usize) -> Vec<v1::Assignment> {
        let mut assignments = Vec::with_capacity(count);
        while assignments.len() < count {
            assignments.push(self.assignment().await);
        }
        assignments
    }

    /// The lease that the broker wants cancelled next, past acknowledgements.
    pub(crate) async fn cancel(&mut self) -> u64 {
        loop {
            match self.news().await.unwrap() {
                Some(Frame::Cancel(cancel)) => return cancel.lease_id,
                Some(Frame::OutcomeAck(_)) => {}
                other => panic!("no cancel but {other:?}"),
            }
        }
    }

    /// The same, and nothing but what is under way may bring it about: no time that runs out.
    pub(crate) async fn cancel_at_once(&mut self) -> u64 {
        let cancel = within(A_MOMENT, self.cancel()).await;
        cancel.expect("a cancel is under way")
    }

    /// The next acknowledgement.
    pub(crate) async fn acknowledged(&mut self) -> u64 {
        match self.news().await.unwrap() {
            Some(Frame::OutcomeAck(ack)) => ack.lease_id,
            other => panic!("no acknowledgement but {other:?}"),
        }
    }

    /// Everything that is on its way comes to rest, and no assignment is among it.
    #[track_caller]
    pub(crate) fn expect_no_assignment(&mut self) -> impl Future<Output = ()> {
        self.expect_no_assignment_within(A_MOMENT)
    }

    /// For so long no assignment comes.
    pub(crate) async fn expect_no_assignment_within(&mut self, time: Duration) {
        let assigned = async {
            loop {
                match self.news().await {
                    Ok(Some(Frame::Assignment(assignment))) => return assignment,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => std::future::pending().await,
                }
            }
        };
        if let Some(assignment) = within(time, assigned).await {
            panic!("assigned: {assignment:?}");
        }
    }

    /// How the stream ends.
    pub(crate) async fn ended(&mut self) -> Result<(), Status> {
        while self.news().await?.is_some() {}
        Ok(())
    }

    /// The call went well, and this is its output.
    pub(crate) async fn answer(&self, assignment: &v1::Assignment, text: &str) {
        self.send(answer(assignment.lease_id, text)).await;
    }

    /// The next call goes well, and this is its output.
    pub(crate) async fn answer_next(&mut self, text: &str) -> v1::Assignment {
        let assignment = self.assignment().await;
        self.answer(&assignment, text).await;
        assignment
    }

    /// Everything that is on its way comes to rest, and no cancel is among it.
    pub(crate) async fn expect_no_cancel(&mut self) {
        while let Some(news) = within(A_MOMENT, self.news()).await {
            assert!(!matches!(news, Ok(Some(Frame::Cancel(_)))), "{news:?}");
        }
    }

    /// The call failed.
    pub(crate) async fn fail(&self, assignment: &v1::Assignment, error: v1::CallError) {
        self.send(failure(assignment.lease_id, error)).await;
    }

    pub(crate) async fn drain(&self) {
        self.send(Sent::Drain(v1::Drain { leave: false })).await;
    }

    /// Beats no more; the stream stays as it is.
    pub(crate) fn go_silent(&self) {
        self.link.beats.as_ref().unwrap().abort();
    }

    /// Says that it is gone for good.
    pub(crate) fn half_close(&mut self) {
        self.link.outbound = None;
    }

    /// Breaks the connection.
    pub(crate) fn cut(self) {
        self.link.line.cut();
    }

    /// Resets the stream, without a half-close.
    pub(crate) fn reset(self) {
        self.link.line.reset.cancel();
    }

    /// Answers everything by itself after `time`, with the tool's arguments.
    pub(crate) fn serve(mut self, time: Duration) -> Serving {
        let started = Arc::new(Mutex::new(Vec::new()));
        let most = Arc::new(Mutex::new(0));
        let (log, high) = (Arc::clone(&started), Arc::clone(&most));
        let (done, mut over) = mpsc::channel::<u64>(64);
        let task = tokio::spawn(async move {
            let mut open: Vec<u64> = Vec::new();
            loop {
                tokio::select! {
                    Some(lease) = over.recv() => {
                        if let Some(index) = open.iter().position(|of| *of == lease) {
                            open.swap_remove(index);
                            self.send(answer(lease, "done")).await;
                        }
                    }
                    news = self.news_at_last() => match news {
                        Ok(Some(Frame::Assignment(assignment))) => {
                            open.push(assignment.lease_id);
                            {
                                let mut high = high.lock().unwrap();
                                *high = open.len().max(*high);
                            }
                            let (done, lease) = (done.clone(), assignment.lease_id);
                            log.lock().unwrap().push((Instant::now(), assignment));
                            tokio::spawn(async move {
                                tokio::time::sleep(time).await;
                                let _ = done.send(lease).await;
                            });
                        }
                        Ok(Some(Frame::Cancel(cancel))) => {
                            open.retain(|of| *of != cancel.lease_id);
                            let stopped = error(v1::ErrorCode::Cancelled, "stopped");
                            self.send(failure(cancel.lease_id, stopped)).await;
                        }
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => return,
                    }
                }
            }
        });
        Serving {
            started,
            most,
            task,
        }
    }
}

impl Serving {
    /// How many calls were assigned.
    pub(crate) fn count(&self) -> usize {
        self.started.lock().unwrap().len()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn packet(frames: impl IntoIterator<Item = Sent>) -> v1::JoinRequest {
    let frames = frames
        .into_iter()
        .map(|frame| v1::WorkerFrame { frame: Some(frame) })
        .collect();
    v1::JoinRequest { frames }
}

/// A worker's introduction. Its instance is the worker's id.
pub(crate) fn register<const N: usize>(id: &str, slots: u32, tools: [v1::Tool; N]) -> v1::Register {
    v1::Register {
        worker_id: id.to_owned(),
        instance_id: format!("{id}-1"),
        tools: tools.into(),
        slots,
        ..Default::default()
    }
}

/// A tool that takes any object.
pub(crate) fn tool(name: &str, policy: v1::Policy) -> v1::Tool {
    v1::Tool {
        name: name.to_owned(),
        policy: Some(policy),
        ..Default::default()
    }
}

/// A tool that takes any object, changes nothing and is tried once.
pub(crate) fn read_only(name: &str) -> v1::Tool {
    tool(name, once())
}

/// The policy of a tool that changes nothing and is tried once.
pub(crate) fn once() -> v1::Policy {
    v1::Policy {
        effects: Some(v1::Effects::ReadOnly.into()),
        max_attempts: Some(1),
        ..Default::default()
    }
}

/// The policy of a tool that changes nothing and is tried so often.
pub(crate) fn attempts(count: u32) -> v1::Policy {
    v1::Policy {
        max_attempts: Some(count),
        ..once()
    }
}

/// A tool that changes something.
pub(crate) fn side_effecting(name: &str) -> v1::Tool {
    tool(name, v1::Policy::default())
}

/// An output of one text.
pub(crate) fn output(text: &str) -> v1::Output {
    let kind = Some(v1::content::Kind::Text(text.to_owned()));
    v1::Output {
        content: vec![v1::Content { kind }],
    }
}

pub(crate) fn answer(lease_id: u64, text: &str) -> Sent {
    let ending = Some(v1::outcome::Ending::Output(output(text)));
    Sent::Outcome(v1::Outcome { lease_id, ending })
}

pub(crate) fn failure(lease_id: u64, error: v1::CallError) -> Sent {
    let ending = Some(v1::outcome::Ending::Error(error));
    Sent::Outcome(v1::Outcome { lease_id, ending })
}

/// An error as a worker says it, with nothing but these two set.
pub(crate) fn error(code: v1::ErrorCode, message: &str) -> v1::CallError {
    v1::CallError {
        code: code.into(),
        message: message.to_owned(),
        ..Default::default()
    }
}
