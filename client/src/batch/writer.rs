//! The direction to the broker.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use toolpool_proto::v1;
use v1::agent_frame::Frame;

use crate::call::Call;
use crate::options::TurnEnd;
use crate::outgoing::ResetOnDrop;

/// The writing half of a [`Batch`](crate::Batch). Dropping it before [`BatchWriter::seal`] resets the stream.
#[derive(Debug)]
pub struct BatchWriter {
    // Before `frames`: the reset must be known before the channel is seen closed.
    reset: ResetOnDrop,
    frames: mpsc::Sender<Frame>,
    over: CancellationToken,
    sealed: bool,
}

/// The stream is at its end, so nothing more can be written. The [`BatchReader`](crate::BatchReader) knows why: an error, or
/// a batch that was finished by its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker has ended the stream")]
pub struct Over;

impl BatchWriter {
    pub(super) fn new(
        frames: mpsc::Sender<Frame>,
        over: CancellationToken,
        reset: ResetOnDrop,
    ) -> Self {
        Self {
            reset,
            frames,
            over,
            sealed: false,
        }
    }

    /// As [`Batch::start`](crate::Batch::start).
    pub async fn start(
        &mut self,
        index: u32,
        id: impl Into<String>,
        tool: impl Into<String>,
    ) -> Result<(), Over> {
        self.send(start(index, id.into(), tool.into(), None)).await
    }

    /// As [`Batch::start_keyed`](crate::Batch::start_keyed).
    pub async fn start_keyed(
        &mut self,
        index: u32,
        id: impl Into<String>,
        tool: impl Into<String>,
        idempotency_key: impl Into<String>,
    ) -> Result<(), Over> {
        let key = Some(idempotency_key.into());
        self.send(start(index, id.into(), tool.into(), key)).await
    }

    /// As [`Batch::delta`](crate::Batch::delta).
    pub async fn delta(&mut self, index: u32, fragment: impl Into<Bytes>) -> Result<(), Over> {
        self.send(delta(index, fragment.into())).await
    }

    /// As [`Batch::stop`](crate::Batch::stop).
    pub async fn stop(&mut self, index: u32) -> Result<(), Over> {
        self.send(stop(index)).await
    }

    /// As [`Batch::push`](crate::Batch::push).
    pub async fn push(&mut self, call: Call) -> Result<(), Over> {
        self.send(Frame::Call(call.into())).await
    }

    /// As [`Batch::provider_data`](crate::Batch::provider_data).
    pub async fn provider_data(&mut self, bytes: impl Into<Bytes>) -> Result<(), Over> {
        self.send(Frame::ProviderData(bytes.into())).await
    }

    /// As [`Batch::provider_event`](crate::Batch::provider_event).
    pub async fn provider_event(&mut self, json: impl Into<Bytes>) -> Result<(), Over> {
        self.send(Frame::ProviderEvent(json.into())).await
    }

    /// Ends the turn. The reader then gets the results.
    pub async fn seal(mut self, end: TurnEnd) -> Result<(), Over> {
        self.send(seal(end)).await?;
        self.sealed();
        Ok(())
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// The seal is on its way: dropping the writer is no disconnect any more.
    pub(super) fn sealed(&mut self) {
        self.sealed = true;
        self.reset.disarm();
    }

    pub(super) async fn send(&self, frame: Frame) -> Result<(), Over> {
        // Without a wait in the usual case, so that frames which come together leave together.
        let frame = match self.frames.try_send(frame) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Over),
            Err(mpsc::error::TrySendError::Full(frame)) => frame,
        };
        tokio::select! {
            sent = self.frames.send(frame) => sent.map_err(|_| Over),
            () = self.over.cancelled() => Err(Over),
        }
    }
}

pub(super) fn start(
    index: u32,
    id: String,
    tool: String,
    idempotency_key: Option<String>,
) -> Frame {
    Frame::BlockStart(v1::BlockStart {
        index,
        id,
        tool,
        idempotency_key,
    })
}

pub(super) fn delta(index: u32, fragment: Bytes) -> Frame {
    Frame::BlockDelta(v1::BlockDelta { index, fragment })
}

pub(super) fn stop(index: u32) -> Frame {
    Frame::BlockStop(v1::BlockStop { index })
}

pub(super) fn seal(end: TurnEnd) -> Frame {
    Frame::Seal(v1::Seal {
        turn_end: Some(v1::TurnEnd::from(end).into()),
    })
}
