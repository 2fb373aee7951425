//! Server-sent events, as in the WHATWG HTML standard ("Interpreting an event stream").
//!
//! Of an event only its data is wanted, so `event`, `id`, `retry` and unknown fields are passed over.
//! Ours and not a crate's: those that are kept are bound to an HTTP client or to an async stream, and the parser is
//! smaller than the adapter would be.

use memchr::memchr2;

use super::{Error, Event, is_blank};

/// An event stream.
#[derive(Debug)]
pub(crate) struct Sse {
    /// A line whose end has not come.
    part: Vec<u8>,
    /// The data lines of the event that has not ended.
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    max_event_bytes: usize,
}

impl Sse {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self {
            part: Vec::new(),
            data: Vec::new(),
            has_data: false,
            after_return: false,
            max_event_bytes,
        }
    }

    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            let line = &bytes[..end];
            if self.part.is_empty() {
                self.line(line, each)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.part);
                self.line(&whole, each)?;
                // The room is kept for the next one.
                self.part = whole;
                self.part.clear();
            }
            let mut next = end + 1;
            if bytes[end] == b'\r' {
                match bytes.get(next) {
                    Some(b'\n') => next += 1,
                    Some(_) => {}
                    None => self.after_return = true,
                }
            }
            bytes = &bytes[next..];
        }
        self.keep(bytes)
    }

    /// The standard throws an event away whose blank line never came. Here it is given out: if it was cut, it is no JSON;
    /// and servers forget the blank line of their last event.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let last = std::mem::take(&mut self.part);
        self.line(&last, each)?;
        self.dispatch(each);
        Ok(())
    }

    fn line(&mut self, line: &[u8], each: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        if line.is_empty() {
            self.dispatch(each);
            return Ok(());
        }
        let Some(data) = line.strip_prefix(b"data") else {
            return Ok(());
        };
        let data = match data.strip_prefix(b":") {
            Some(data) => data.strip_prefix(b" ").unwrap_or(data),
            None if data.is_empty() => data,
            // A field whose name only begins like that.
            None => return Ok(()),
        };
        self.admit(self.data.len() + data.len())?;
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(data);
        self.has_data = true;
        Ok(())
    }

    fn dispatch(&mut self, each: &mut dyn FnMut(Event<'_>)) {
        if !is_blank(&self.data) {
            each(Event::of(&self.data));
        }
        self.data.clear();
        self.has_data = false;
    }

    fn keep(&mut self, more: &[u8]) -> Result<(), Error> {
        self.admit(self.part.len() + more.len())?;
        self.part.extend_from_slice(more);
        Ok(())
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.max_event_bytes {
            return Err(Error::TooLarge(self.max_event_bytes));
        }
        Ok(())
    }
}
