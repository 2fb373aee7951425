//! Ollama: PLACEHOLDER

use super::calls::Calls;
use super::{Decode, Event};

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct Ollama {}

impl Decode for Ollama {
    fn event(&mut self, _event: Event<'_>, _calls: &mut Calls) -> Result<(), serde_json::Error> {
        Ok(())
    }

    fn finish(&mut self, _calls: &mut Calls) {}
}
