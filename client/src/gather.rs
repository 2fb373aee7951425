//! The broker's frames into progress and the finished batch. Plain code: no I/O, no clock.

use toolpool_proto::v1;
use v1::batch_frame::Frame;

use crate::Dialect;
use crate::error::ProtocolError;
use crate::finished::FinishedBatch;
use crate::progress::Progress;
use crate::result::CallResult;

/// The results of an accepted batch, as far as they have come.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    results: Vec<CallResult>,
    dialect: Option<Dialect>,
}

/// What a frame comes to.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Nothing that the agent has to know yet.
    More,
    Progress(Progress),
    Finished(Box<FinishedBatch>),
}

impl Gather {
    /// What the broker takes the provider's stream for, as far as it has said so.
    pub(crate) fn dialect(&self) -> Option<Dialect> {
        self.dialect
    }

    pub(crate) fn note(&mut self, dialect: Option<i32>) {
        self.dialect = dialect
            .map(|dialect| Dialect::try_from(dialect).unwrap_or_default())
            .or(self.dialect);
    }

    /// Takes the next frame after `accepted`. After [`Step::Finished`] there is none.
    pub(crate) fn take(&mut self, frame: v1::BatchFrame) -> Result<Step, ProtocolError> {
        // A frame that this client does not know is to be skipped.
        let Some(frame) = frame.frame else {
            return Ok(Step::More);
        };
        Ok(match frame {
            // Said again once a stream has shown what it is.
            Frame::Accepted(accepted) => {
                self.note(accepted.dialect);
                Step::More
            }
            Frame::Progress(progress) => {
                Progress::parse(progress)?.map_or(Step::More, Step::Progress)
            }
            Frame::Result(result) => {
                self.results.push(result.try_into()?);
                Step::More
            }
            Frame::Finished(finished) => {
                let results = std::mem::take(&mut self.results);
                Step::Finished(Box::new(FinishedBatch::new(results, finished)?))
            }
        })
    }
}

/// The first frame of an answer.
pub(crate) fn accepted(frame: Option<v1::BatchFrame>) -> Result<v1::Accepted, ProtocolError> {
    match frame.and_then(|frame| frame.frame) {
        Some(Frame::Accepted(accepted)) => Ok(accepted),
        _ => Err(ProtocolError::NotAccepted),
    }
}

#[cfg(test)]
mod tests;
