//! Server-sent events, as in the WHATWG HTML standard ("Interpreting an event stream").
//!
//! Of an event only its data is wanted, so `event`, `id`, `retry` and unknown fields are passed over. One thing is taken
//! that the standard does not have: a JSON object without `data:` before it, which is how some servers break off.
//! Ours and not a crate's: those that are kept are bound to an HTTP client or to an async stream, and the parser is
//! smaller than the adapter would be.

use memchr::memchr2;

use super::part::Part;
use super::{Error, Event, give};
use crate::ingest::object::Object;

/// An event stream.
#[derive(Debug)]
pub(crate) struct Sse {
    /// A line whose end has not come.
    part: Part,
    /// The event that has not ended.
    event: Pending,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_return: bool,
}

/// The lines of one event.
#[derive(Debug)]
struct Pending {
    /// What `data` holds.
    begun: Begun,
    data: Part,
}

#[derive(Debug)]
enum Begun {
    Nothing,
    Data,
    /// An object that stands there as it is.
    Bare(Object),
}

impl Sse {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self {
            part: Part::new(max_event_bytes),
            event: Pending {
                begun: Begun::Nothing,
                data: Part::new(max_event_bytes),
            },
            after_return: false,
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
            let rest = self.line_end(&bytes[end..]);
            let last = matches!(rest.first(), Some(b'\n' | b'\r'));
            if self.part.is_empty() {
                self.part.admit(line.len())?;
                self.event.line(line, last, each)?;
            } else {
                self.part.keep(line)?;
                self.event.line(self.part.bytes(), last, each)?;
                self.part.clear();
            }
            bytes = rest;
        }
        self.part.keep(bytes)
    }

    /// The standard throws an event away whose blank line never came. Here it is given out: if it was cut, it is no JSON;
    /// and servers forget the blank line of their last event.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        if !self.part.is_empty() {
            self.event.line(self.part.bytes(), true, each)?;
            self.part.clear();
        }
        self.event.dispatch(each);
        Ok(())
    }

    /// What follows the end of a line, with which the bytes begin.
    fn line_end<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match bytes {
            [b'\r', b'\n', rest @ ..] => rest,
            [b'\r'] => {
                self.after_return = true;
                &[]
            }
            _ => &bytes[1..],
        }
    }
}

impl Pending {
    /// `last` says that a blank line follows. If it cannot be known yet, it is false.
    fn line(
        &mut self,
        line: &[u8],
        last: bool,
        each: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        let data = data(line);
        match (&mut self.begun, data) {
            // The usual event: one line, given out where it lies.
            (Begun::Nothing, Some(data)) if last => {
                give(data, each);
                Ok(())
            }
            (Begun::Nothing | Begun::Data, Some(data)) => {
                if let Begun::Data = self.begun {
                    self.data.keep(b"\n")?;
                }
                self.begun = Begun::Data;
                self.data.keep(data)
            }
            (Begun::Nothing, None) if line.first() == Some(&b'{') => {
                self.begun = Begun::Bare(Object::default());
                self.bare(line, each)
            }
            (Begun::Nothing | Begun::Data, None) => {
                if line.is_empty() {
                    self.dispatch(each);
                }
                Ok(())
            }
            (Begun::Bare(_), None) => self.bare(line, each),
            // No line of an object looks like this, so the object was broken off.
            (Begun::Bare(_), Some(_)) => {
                self.dispatch(each);
                self.line(line, last, each)
            }
        }
    }

    /// A line of a bare object, or an empty one inside it.
    fn bare(&mut self, line: &[u8], each: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        let Begun::Bare(object) = &mut self.begun else {
            return Ok(());
        };
        let end = object.end(line);
        if !self.data.is_empty() {
            self.data.keep(b"\n")?;
        }
        self.data.keep(&line[..end.unwrap_or(line.len())])?;
        if end.is_some() {
            self.dispatch(each);
        }
        Ok(())
    }

    fn dispatch(&mut self, each: &mut dyn FnMut(Event<'_>)) {
        give(self.data.bytes(), each);
        self.data.clear();
        self.begun = Begun::Nothing;
    }
}

/// The value of a `data` field.
fn data(line: &[u8]) -> Option<&[u8]> {
    let value = line.strip_prefix(b"data")?;
    match value.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None if value.is_empty() => Some(value),
        // A field whose name only begins like that.
        None => None,
    }
}
