//! The direction from the broker.

use std::collections::VecDeque;
use std::time::Duration;
use std::vec;

use tokio_util::sync::DropGuard;
use tonic::Streaming;
use toolpool_proto::v1;

use crate::Dialect;
use crate::error::{Error, ProtocolError};
use crate::finished::FinishedBatch;
use crate::gather::{Gather, Step};
use crate::outgoing::ResetOnDrop;
use crate::progress::Progress;

/// The longest that a finished batch waits for the stream's own end, which follows at once from a broker that is well.
const LAST_WORD: Duration = Duration::from_millis(500);

/// The reading half of a [`Batch`](crate::Batch). Dropping it before the batch is finished resets the stream.
#[derive(Debug)]
pub struct BatchReader {
    batch_id: String,
    incoming: Streaming<v1::ExecuteResponse>,
    /// The packet that is being taken.
    frames: vec::IntoIter<v1::BatchFrame>,
    kept: VecDeque<Progress>,
    gather: Gather,
    finished: Option<FinishedBatch>,
    // A writer that waits must not wait for a reader that is gone.
    _over: DropGuard,
    _reset: ResetOnDrop,
}

impl BatchReader {
    pub(super) fn new(
        accepted: v1::Accepted,
        incoming: Streaming<v1::ExecuteResponse>,
        first: vec::IntoIter<v1::BatchFrame>,
        over: DropGuard,
        reset: ResetOnDrop,
    ) -> Self {
        let mut gather = Gather::default();
        gather.note(accepted.dialect);
        Self {
            batch_id: accepted.batch_id,
            incoming,
            frames: first,
            kept: VecDeque::new(),
            gather,
            finished: None,
            _over: over,
            _reset: reset,
        }
    }

    pub(super) fn with_kept(mut self, kept: VecDeque<Progress>) -> Self {
        self.kept = kept;
        self
    }

    /// The id given, or the one that the broker made.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.batch_id
    }

    /// As [`Batch::dialect`](crate::Batch::dialect).
    #[must_use]
    pub fn dialect(&self) -> Option<Dialect> {
        self.gather.dialect()
    }

    /// Whether the finished batch has come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.is_some()
    }

    /// What happens next, if progress was asked for; `None` when the batch is finished. Cancel safe.
    pub async fn next_progress(&mut self) -> Result<Option<Progress>, Error> {
        if let Some(progress) = self.kept.pop_front() {
            return Ok(Some(progress));
        }
        while self.finished.is_none() {
            if let Some(frame) = self.frames.next() {
                match self.gather.take(frame)? {
                    Step::More => {}
                    Step::Progress(progress) => return Ok(Some(progress)),
                    Step::Finished(finished) => self.finished = Some(*finished),
                }
                continue;
            }
            match self.incoming.message().await {
                Ok(Some(packet)) => self.frames = packet.frames.into_iter(),
                Ok(None) => return Err(ProtocolError::Unfinished.into()),
                Err(status) => return Err(Error::ended(&self.batch_id, status)),
            }
        }
        Ok(None)
    }

    /// Waits for the results; progress that was not read is thrown away. Dropping the future resets the stream.
    pub async fn finished(mut self) -> Result<FinishedBatch, Error> {
        loop {
            if let Some(finished) = self.finished.take() {
                // Nothing that comes now changes the batch; only a stream left before its end would be reset.
                let _ = tokio::time::timeout(LAST_WORD, self.incoming.message()).await;
                return Ok(finished);
            }
            self.next_progress().await?;
        }
    }
}
