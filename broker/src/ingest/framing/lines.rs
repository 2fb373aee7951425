//! One JSON object a line (NDJSON): Ollama's own stream, and what SDK users dump.

use memchr::memchr;

use super::{Error, Event, empty, is_blank};

/// Lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// A line whose end has not come.
    part: Vec<u8>,
    max_event_bytes: usize,
}

impl Lines {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self {
            part: Vec::new(),
            max_event_bytes,
        }
    }

    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.part.is_empty() {
                self.admit(line.len())?;
                give(line, each);
            } else {
                self.keep(line)?;
                give(&self.part, each);
                empty(&mut self.part);
            }
            bytes = rest;
        }
        self.keep(bytes)
    }

    /// The last line need not have an end.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(Event<'_>)) {
        give(&self.part, each);
        self.part.clear();
    }

    fn keep(&mut self, more: &[u8]) -> Result<(), Error> {
        self.admit(more.len())?;
        self.part.extend_from_slice(more);
        Ok(())
    }

    fn admit(&self, more: usize) -> Result<(), Error> {
        if self.part.len() + more > self.max_event_bytes {
            return Err(Error::TooLarge(self.max_event_bytes));
        }
        Ok(())
    }
}

fn give(line: &[u8], each: &mut dyn FnMut(Event<'_>)) {
    if !is_blank(line) {
        each(Event::of(line));
    }
}
