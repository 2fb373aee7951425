//! How a provider's events are cut out of its bytes, whatever pieces those come in. Plain code; each framing holds no
//! more than the part of one event that it has not seen the end of.

mod aws;
mod json_array;
mod lines;
mod part;
mod sse;

/// One event of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// What the frame's headers call it: the AWS event stream only. The `event:` lines of SSE are left out, since servers
    /// leave them out too.
    pub(crate) name: Option<&'a str>,
    /// The frame says that the server failed.
    pub(crate) exception: bool,
    /// JSON text, if the server keeps to the format.
    pub(crate) data: &'a [u8],
}

impl<'a> Event<'a> {
    /// An event that is all payload.
    pub(crate) fn of(data: &'a [u8]) -> Self {
        Self {
            data,
            ..Self::default()
        }
    }
}

/// Why no event can be found any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("one event of the provider's stream is larger than {0} bytes (max_event_bytes)")]
    TooLarge(usize),
    #[error("the provider's stream is damaged: {0}")]
    Damaged(&'static str),
}

/// The framing of a stream, known from its first bytes.
#[derive(Debug)]
pub(crate) struct Framing {
    kind: Kind,
    max_event_bytes: usize,
}

#[derive(Debug)]
enum Kind {
    /// Nothing but white space and a part of a byte order mark has come.
    Unknown {
        mark: usize,
    },
    Sse(sse::Sse),
    Lines(lines::Lines),
    JsonArray(json_array::JsonArray),
    Aws(aws::Aws),
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Framing {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self {
            kind: Kind::Unknown { mark: 0 },
            max_event_bytes,
        }
    }

    /// Takes the next bytes of the stream; `each` gets every event that is complete with them. After an error nothing
    /// may be pushed any more.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        if let Kind::Unknown { mark } = &mut self.kind {
            let Some(start) = begins(bytes, mark) else {
                return Ok(());
            };
            bytes = &bytes[start..];
            let most = self.max_event_bytes;
            self.kind = match bytes.first() {
                // The length of a frame, which is far below 16 MiB.
                Some(0) => Kind::Aws(aws::Aws::new(most)),
                Some(b'[') => Kind::JsonArray(json_array::JsonArray::new(most)),
                Some(b'{') => Kind::Lines(lines::Lines::new(most)),
                _ => Kind::Sse(sse::Sse::new(most)),
            };
        }
        match &mut self.kind {
            Kind::Unknown { .. } => Ok(()),
            Kind::Sse(sse) => sse.push(bytes, each),
            Kind::Lines(lines) => lines.push(bytes, each),
            Kind::JsonArray(array) => array.push(bytes, each),
            Kind::Aws(aws) => aws.push(bytes, each),
        }
    }

    /// The stream is at its end; what was left without its end mark is given out as it is.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Unknown { .. } => Ok(()),
            Kind::Sse(sse) => sse.finish(each),
            Kind::Lines(lines) => {
                lines.finish(each);
                Ok(())
            }
            Kind::JsonArray(array) => {
                array.finish(each);
                Ok(())
            }
            Kind::Aws(aws) => aws.finish(),
        }
    }
}

/// Where the first byte is that says something. `mark` counts the bytes of a byte order mark that have been seen.
fn begins(bytes: &[u8], mark: &mut usize) -> Option<usize> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            byte if BYTE_ORDER_MARK.get(*mark) == Some(byte) => *mark += 1,
            _ => return Some(at),
        }
    }
    None
}

/// Gives an event out, unless there is nothing in it.
fn give(data: &[u8], each: &mut dyn FnMut(Event<'_>)) {
    if !data.trim_ascii().is_empty() {
        each(Event::of(data));
    }
}

#[cfg(test)]
mod tests;
