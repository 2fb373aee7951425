//! A JSON array that is streamed, each of its objects an event: Gemini without `alt=sse`.

use super::object::Object;
use super::{Error, Event, empty};

/// An array.
#[derive(Debug)]
pub(crate) struct JsonArray {
    place: Place,
    object: Object,
    /// An object whose end has not come.
    part: Vec<u8>,
    max_event_bytes: usize,
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
            part: Vec::new(),
            max_event_bytes,
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
        if !self.part.is_empty() {
            each(Event::of(&self.part));
        }
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
        if self.part.len() + object.len() > self.max_event_bytes {
            return Err(Error::TooLarge(self.max_event_bytes));
        }
        if end.is_none() {
            self.part.extend_from_slice(object);
            return Ok(None);
        }
        if self.part.is_empty() {
            each(Event::of(object));
        } else {
            self.part.extend_from_slice(object);
            each(Event::of(&self.part));
            empty(&mut self.part);
        }
        self.place = Place::Between;
        Ok(Some(rest))
    }
}
