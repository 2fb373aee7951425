//! The part of an event whose end has not come, held to the limit of an event.

use super::Error;

/// Room that is kept for the next part; that of one large event is not kept for ever.
const ROOM: usize = 16 << 10;

/// Bytes of an event.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Vec<u8>,
    most: usize,
}

impl Part {
    pub(super) fn new(most: usize) -> Self {
        Self {
            bytes: Vec::new(),
            most,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether so many more bytes are still one event.
    pub(super) fn admit(&self, more: usize) -> Result<(), Error> {
        if self.bytes.len() + more > self.most {
            return Err(Error::TooLarge(self.most));
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, more: &[u8]) -> Result<(), Error> {
        self.admit(more.len())?;
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Forgets what was kept.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(ROOM);
    }
}
