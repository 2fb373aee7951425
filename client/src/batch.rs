//! A turn that is under way.

mod reader;
mod writer;

use std::collections::VecDeque;
use std::vec;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use toolpool_proto::v1;
use v1::agent_frame::Frame;

pub use self::reader::BatchReader;
pub use self::writer::{BatchWriter, Over};
use crate::Dialect;
use crate::call::Call;
use crate::error::Error;
use crate::finished::FinishedBatch;
use crate::options::TurnEnd;
use crate::outgoing::ResetOnDrop;
use crate::progress::Progress;

/// Progress that came while the agent was writing and has not been asked for. Full: the oldest goes.
const KEPT_PROGRESS: usize = 1024;

/// A batch that the broker has accepted. Blocks and calls go in as the model writes them; [`Batch::finish`] gives the results.
///
/// **Dropping it resets the stream**: the batch is given up, as [`OnDisconnect`](crate::OnDisconnect) says.
///
/// **When the broker finishes first**, because the batch's deadline is over, what is written after that goes nowhere: the
/// methods return `Ok`, the finished batch has no result for those calls, and [`Batch::is_finished`] tells.
///
/// The methods that write wait only while the connection is behind. They are not cancel safe: if such a future is dropped
/// the frame may not have been sent, and the batch should be dropped too.
#[derive(Debug)]
pub struct Batch {
    writer: BatchWriter,
    reader: BatchReader,
    kept: VecDeque<Progress>,
}

impl Batch {
    pub(crate) fn new(
        accepted: v1::Accepted,
        frames: mpsc::Sender<Frame>,
        incoming: Streaming<v1::ExecuteResponse>,
        first: vec::IntoIter<v1::BatchFrame>,
        resets: (ResetOnDrop, ResetOnDrop),
    ) -> Self {
        let over = CancellationToken::new();
        Self {
            writer: BatchWriter::new(frames, over.clone(), resets.0),
            reader: BatchReader::new(accepted, incoming, first, over.drop_guard(), resets.1),
            kept: VecDeque::new(),
        }
    }

    /// The id given, or the one that the broker made.
    #[must_use]
    pub fn id(&self) -> &str {
        self.reader.id()
    }

    /// What the broker takes the provider's stream for, as far as it has said so in what was read. With
    /// [`Dialect::Auto`](crate::Dialect::Auto) that is told as soon as the stream has shown it.
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        self.reader.dialect()
    }

    /// Whether the finished batch has come, so that writing more is of no use.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.reader.is_finished()
    }

    /// A block begins. `index` names it until its stop; the result comes back under `id`.
    pub async fn start(
        &mut self,
        index: u32,
        id: impl Into<String>,
        tool: impl Into<String>,
    ) -> Result<(), Error> {
        self.send(writer::start(index, id.into(), tool.into(), None))
            .await
    }

    /// The same with an idempotency key of the agent's own; see [`Call::idempotency_key`].
    pub async fn start_keyed(
        &mut self,
        index: u32,
        id: impl Into<String>,
        tool: impl Into<String>,
        idempotency_key: impl Into<String>,
    ) -> Result<(), Error> {
        let key = Some(idempotency_key.into());
        self.send(writer::start(index, id.into(), tool.into(), key))
            .await
    }

    /// The next piece of a block's arguments: JSON text, cut anywhere.
    pub async fn delta(&mut self, index: u32, fragment: impl Into<Bytes>) -> Result<(), Error> {
        self.send(writer::delta(index, fragment.into())).await
    }

    /// A block is complete.
    pub async fn stop(&mut self, index: u32) -> Result<(), Error> {
        self.send(writer::stop(index)).await
    }

    /// A call in one piece: its id, its tool, its arguments as JSON text.
    pub async fn call(
        &mut self,
        id: impl Into<String>,
        tool: impl Into<String>,
        arguments: impl Into<Bytes>,
    ) -> Result<(), Error> {
        self.push(Call::new(id, tool, arguments)).await
    }

    /// The same for a [`Call`].
    pub async fn push(&mut self, call: Call) -> Result<(), Error> {
        self.send(Frame::Call(call.into())).await
    }

    /// The next bytes of the provider's HTTP body, cut anywhere. Only with [`BatchOptions::dialect`](crate::BatchOptions::dialect).
    pub async fn provider_data(&mut self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.send(Frame::ProviderData(bytes.into())).await
    }

    /// One event of the provider's stream as JSON text, for an agent that has an SDK's events and not the bytes. Only with
    /// [`BatchOptions::dialect`](crate::BatchOptions::dialect).
    pub async fn provider_event(&mut self, json: impl Into<Bytes>) -> Result<(), Error> {
        self.send(Frame::ProviderEvent(json.into())).await
    }

    /// The turn is over: no more blocks will come. Only needed to read progress afterwards; a second seal does nothing.
    pub async fn seal(&mut self, end: TurnEnd) -> Result<(), Error> {
        if self.writer.is_sealed() {
            return Ok(());
        }
        self.send(writer::seal(end)).await?;
        self.writer.sealed();
        Ok(())
    }

    /// Seals the turn as complete, unless it is sealed, and waits for the results.
    pub async fn finish(mut self) -> Result<FinishedBatch, Error> {
        self.seal(TurnEnd::Complete).await?;
        self.reader.finished().await
    }

    /// Seals the turn as cut short and waits for the results: held calls are not run, the others go on to their end.
    pub async fn finish_truncated(mut self) -> Result<FinishedBatch, Error> {
        self.seal(TurnEnd::Truncated).await?;
        self.reader.finished().await
    }

    /// Gives the turn up and waits for the results: every call that has not ended is called off.
    /// To give it up without waiting, drop the batch.
    pub async fn abort(mut self) -> Result<FinishedBatch, Error> {
        self.seal(TurnEnd::Aborted).await?;
        self.reader.finished().await
    }

    /// What happens next, if progress was asked for; `None` when the batch is finished. Cancel safe.
    ///
    /// To write and to watch at the same time, use [`Batch::split`].
    pub async fn next_progress(&mut self) -> Result<Option<Progress>, Error> {
        if let Some(progress) = self.kept.pop_front() {
            return Ok(Some(progress));
        }
        self.reader.next_progress().await
    }

    /// The two directions apart, for two tasks or the arms of a `select!`. Dropping the writer before its seal, or the
    /// reader before the end, resets the stream.
    #[must_use]
    pub fn split(self) -> (BatchWriter, BatchReader) {
        (self.writer, self.reader.with_kept(self.kept))
    }

    /// Puts a frame on its way. While the connection is behind it reads, so that two full directions cannot wait for each
    /// other, and so that a stream that has ended is noticed.
    async fn send(&mut self, frame: Frame) -> Result<(), Error> {
        enum Event {
            Sent(Result<(), Over>),
            Progress(Option<Progress>),
        }

        if self.reader.is_finished() {
            return Ok(());
        }
        let mut sending = std::pin::pin!(self.writer.send(frame));
        loop {
            let event = tokio::select! {
                biased;
                sent = &mut sending => Event::Sent(sent),
                progress = self.reader.next_progress() => Event::Progress(progress?),
            };
            match event {
                Event::Sent(Ok(())) | Event::Progress(None) => return Ok(()),
                // The reader knows how it ended: with an error, or with the finished batch.
                Event::Sent(Err(Over)) => {
                    while let Some(progress) = self.reader.next_progress().await? {
                        keep(&mut self.kept, progress);
                    }
                    return Ok(());
                }
                Event::Progress(Some(progress)) => keep(&mut self.kept, progress),
            }
        }
    }
}

fn keep(kept: &mut VecDeque<Progress>, progress: Progress) {
    if kept.len() == KEPT_PROGRESS {
        kept.pop_front();
    }
    kept.push_back(progress);
}
