//! The AWS event stream (`application/vnd.amazon.eventstream`): binary frames with headers and two checksums.
//!
//! The frames are taken apart and checked by the AWS SDK's own crate; here they are only cut out, since a frame's length
//! must be judged before the frame is kept.

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::Message;

use super::part::Part;
use super::{Error, Event};

/// A frame begins with its length.
const LENGTH_BYTES: usize = 4;
/// The two lengths, their checksum, and the checksum of the whole.
const LEAST_FRAME_BYTES: usize = 16;

/// An event stream.
#[derive(Debug)]
pub(crate) struct Aws {
    /// A frame whose end has not come.
    part: Part,
    max_event_bytes: usize,
}

impl Aws {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self {
            part: Part::new(max_event_bytes),
            max_event_bytes,
        }
    }

    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.part.is_empty()
                && let Some(length) = self.length(bytes)?
                && let Some((frame, rest)) = bytes.split_at_checked(length)
            {
                give(frame, each)?;
                bytes = rest;
                continue;
            }
            let had = self.part.bytes();
            let wanted = self.length(had)?.unwrap_or(LENGTH_BYTES);
            let (more, rest) = bytes.split_at(bytes.len().min(wanted - had.len()));
            self.part.keep(more)?;
            let has = self.part.bytes();
            if self.length(has)? == Some(has.len()) {
                give(has, each)?;
                self.part.clear();
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Half a frame is never given out: its checksum is at its end.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if self.part.is_empty() {
            return Ok(());
        }
        self.part.clear();
        Err(Error::Damaged("it ended inside a frame"))
    }

    /// The length of the frame that begins here, as soon as it is there. The checksum that guards it comes later, so a
    /// damaged one is held to the limit like any other.
    fn length(&self, frame: &[u8]) -> Result<Option<usize>, Error> {
        let Some(&length) = frame.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        match usize::try_from(u32::from_be_bytes(length)) {
            Ok(length) if length < LEAST_FRAME_BYTES => Err(Error::Damaged("a frame is too short")),
            Ok(length) if length <= self.max_event_bytes => Ok(Some(length)),
            _ => Err(Error::TooLarge(self.max_event_bytes)),
        }
    }
}

fn give(frame: &[u8], each: &mut dyn FnMut(Event<'_>)) -> Result<(), Error> {
    let message = read_message_from(frame)
        .map_err(|_| Error::Damaged("a frame's checksums or headers are wrong"))?;
    let kind = header(&message, ":message-type");
    let event = match (kind, header(&message, ":exception-type")) {
        // An error that the service's model does not have: all of it is in the headers.
        (Some("error"), _) => Event {
            name: header(&message, ":error-code"),
            exception: true,
            data: header(&message, ":error-message").map_or(message.payload(), str::as_bytes),
        },
        (Some("exception"), name) | (_, name @ Some(_)) => Event {
            name,
            exception: true,
            data: message.payload(),
        },
        _ => Event {
            name: header(&message, ":event-type"),
            exception: false,
            data: message.payload(),
        },
    };
    each(event);
    Ok(())
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    let mut headers = message.headers().iter();
    let header = headers.find(|header| header.name().as_str() == name)?;
    Some(header.value().as_string().ok()?.as_str())
}
