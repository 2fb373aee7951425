//! The broker's frames into progress and the finished batch. Plain code: no I/O, no clock.

use toolpool_proto::v1;
use v1::batch_frame::Frame;

use crate::error::ProtocolError;
use crate::finished::FinishedBatch;
use crate::progress::Progress;
use crate::result::CallResult;

/// The results of an accepted batch, as far as they have come.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    results: Vec<CallResult>,
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
    /// Takes the next frame after `accepted`. After [`Step::Finished`] there is none.
    pub(crate) fn take(&mut self, frame: v1::BatchFrame) -> Result<Step, ProtocolError> {
        // A frame that this client does not know is to be skipped.
        let Some(frame) = frame.frame else {
            return Ok(Step::More);
        };
        Ok(match frame {
            // Said again once a stream has shown what it is.
            Frame::Accepted(_) => Step::More,
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

/// The id in the first frame of an answer.
pub(crate) fn accepted(frame: Option<v1::BatchFrame>) -> Result<String, ProtocolError> {
    match frame.and_then(|frame| frame.frame) {
        Some(Frame::Accepted(accepted)) => Ok(accepted.batch_id),
        _ => Err(ProtocolError::NotAccepted),
    }
}

#[cfg(test)]
mod tests;
