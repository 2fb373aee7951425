//! One JSON object a line (NDJSON): Ollama's own stream, and what SDK users dump.

use memchr::memchr;

use super::part::Part;
use super::{Error, Event, give};

/// Lines.
#[derive(Debug)]
pub(crate) struct Lines {
    /// A line whose end has not come.
    part: Part,
}

impl Lines {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        let part = Part::new(max_event_bytes);
        Self { part }
    }

    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.part.is_empty() {
                self.part.admit(line.len())?;
                give(line, each);
            } else {
                self.part.keep(line)?;
                give(self.part.bytes(), each);
                self.part.clear();
            }
            bytes = rest;
        }
        self.part.keep(bytes)
    }

    /// The last line need not have an end.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(Event<'_>)) {
        give(self.part.bytes(), each);
        self.part.clear();
    }
}
