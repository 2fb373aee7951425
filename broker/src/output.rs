//! What a tool gave back; the broker carries it and does not look inside.

use prost::Message;
use toolpool_proto::v1;

/// An output as it came from the worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Output(pub(crate) v1::Output);

impl Output {
    /// Its size on the wire, in bytes; what `max_result_bytes` limits.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.0.encoded_len()
    }
}
