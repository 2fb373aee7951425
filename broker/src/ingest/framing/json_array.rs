//! PLACEHOLDER

use super::{Error, Event};

#[derive(Debug)]
pub(crate) struct JsonArray {
    max_event_bytes: usize,
}

impl JsonArray {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self { max_event_bytes }
    }

    pub(crate) fn push(
        &mut self,
        _bytes: &[u8],
        _each: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        Err(Error::TooLarge(self.max_event_bytes))
    }

    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }
}
