//! A JSON array that is streamed, each of its objects an event: Gemini without `alt=sse`.

use super::part::Part;
use super::{Error, Event, give};
use crate::ingest::object::Object;

/// An array.
#[derive(Debug)]
pub(crate) struct JsonArray {
    place: Place,
    object: Object,
    /// An object whose end has not come.
    part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Before,
    Between,
    Inside,
    After,
}

impl JsonArray {
    pub(crate) fn new(max_event_bytes: usize) -> Self {
        Self {
            place: Place::Before,
            object: Object::default(),
            part: Part::new(max_event_bytes),
        }
    }

    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Error> {
        loop {
            if self.place == Place::Inside {
                let Some(rest) = self.inside(bytes, each)? else {
                    return Ok(());
                };
                bytes = rest;
            }
            let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
            let Some(next) = bytes.iter().position(|byte| !is_blank(byte)) else {
                return Ok(());
            };
            bytes = &bytes[next..];
            self.place = match (self.place, bytes[0]) {
                (Place::Before, b'[') | (Place::Between, b',') => Place::Between,
                (Place::Between, b'{') => Place::Inside,
                (Place::Between, b']') => Place::After,
                (Place::After, _) => {
                    return Err(Error::Damaged("something follows the end of its array"));
                }
                _ => {
                    return Err(Error::Damaged(
                        "its array holds something else than objects",
                    ));
                }
            };
            if self.place != Place::Inside {
                bytes = &bytes[1..];
            }
        }
    }

    /// Whether the array was closed is not asked: the dialect knows whether the turn was over.
    pub(crate) fn finish(&mut self, each: &mut dyn FnMut(Event<'_>)) {
        give(self.part.bytes(), each);
        self.part.clear();
    }

    /// Takes the rest of an object, and gives what follows it.
    fn inside<'a>(
        &mut self,
        bytes: &'a [u8],
        each: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<&'a [u8]>, Error> {
        let end = self.object.end(bytes);
        let (object, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if end.is_none() {
            self.part.keep(object)?;
            return Ok(None);
        }
        if self.part.is_empty() {
            self.part.admit(object.len())?;
            give(object, each);
        } else {
            self.part.keep(object)?;
            give(self.part.bytes(), each);
            self.part.clear();
        }
        self.place = Place::Between;
        Ok(Some(rest))
    }
}
