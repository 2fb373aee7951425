//! A complete call.

use bytes::Bytes;
use toolpool_proto::v1;

/// A tool call in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// 1 to 256 bytes; the result comes back under it.
    pub id: String,
    /// The tool's name as the model gave it.
    pub tool: String,
    /// One JSON object as text; empty text, white space and `null` count as `{}`.
    pub arguments: Bytes,
    /// The same when the agent asks for the same effect again, in another batch too; 1 to 256 bytes.
    /// `None`: made of the batch id and the call id.
    pub idempotency_key: Option<String>,
}

impl Call {
    /// A call with no idempotency key of its own.
    pub fn new(
        id: impl Into<String>,
        tool: impl Into<String>,
        arguments: impl Into<Bytes>,
    ) -> Self {
        Self {
            id: id.into(),
            tool: tool.into(),
            arguments: arguments.into(),
            idempotency_key: None,
        }
    }

    /// Gives the call an idempotency key of its own.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

impl From<Call> for v1::Call {
    fn from(call: Call) -> Self {
        Self {
            id: call.id,
            tool: call.tool,
            arguments: call.arguments,
            idempotency_key: call.idempotency_key,
        }
    }
}
