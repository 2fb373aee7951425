//! What a tool gave back; the broker carries it and does not look inside.

use prost::Message;
use toolpool_proto::v1;

/// An output as it came from the worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Output {
    message: v1::Output,
    size: usize,
}

impl Output {
    /// Its size on the wire, in bytes; what `max_result_bytes` limits.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Its pieces, in the tool's order.
    pub(crate) fn content(&self) -> &[v1::Content] {
        &self.message.content
    }

    /// The message that it came as.
    pub(crate) fn into_message(self) -> v1::Output {
        self.message
    }
}

impl From<v1::Output> for Output {
    fn from(message: v1::Output) -> Self {
        let size = message.encoded_len();
        Self { message, size }
    }
}
