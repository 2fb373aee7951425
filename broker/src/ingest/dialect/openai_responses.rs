//! OpenAI Responses: items by `output_index`, each closed by `response.output_item.done`.
//!
//! The item of that event is the authority and has the whole call; the deltas before it are not joined, since servers
//! leave them out. `response.completed` repeats all items: what it says of one that was never done is taken from it, so
//! that a call whose own event was lost is run when the provider vouches for it; of one that was done it is not.

mod event;
mod item;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;

use super::calls::{Block, Calls, NewCall};
use super::json::read;
use super::turn::Void;
use super::{Decode, Event};
use crate::ingest::TurnEnd;
use event::{EndEvent, ItemEvent, broke_off, failure, kind};
use item::{Fingerprint, Item, Role};

/// Items that are kept in mind; no response has as many, and a stream of them is not to fill the memory.
const MOST_ITEMS: usize = 16 * 1024;

/// The decoder.
#[derive(Debug, Default)]
pub(super) struct OpenAiResponses {
    /// Those that are calls, by output index. The item's id is no key: some servers give every event another one.
    items: HashMap<u64, Known>,
    /// Where each was seen last, and the ids of all: not to look through all of them for each that comes.
    places: HashMap<Fingerprint, u64>,
    ids: HashSet<u64>,
    /// The index after the last one, for servers that give none.
    next: u64,
    /// An `error` event came. The event after it may still say how the response ended, and nothing else.
    failure: Option<String>,
}

#[derive(Debug)]
struct Known {
    fingerprint: Fingerprint,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Added, not done.
    Open(Block),
    /// Done, whole or cut.
    Done,
    /// Not ours.
    Passed,
}

/// How a response ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Completed,
    Incomplete,
    Failed,
    Cancelled,
}

impl Decode for OpenAiResponses {
    fn event(&mut self, event: Event<'_>, calls: &mut Calls) -> Result<(), serde_json::Error> {
        let data = event.data;
        match &*kind(data)? {
            "response.created" => self.created(calls),
            "response.output_item.added" => self.item(data, false, calls)?,
            "response.output_item.done" => self.item(data, true, calls)?,
            "response.completed" => self.end(data, End::Completed, calls)?,
            "response.incomplete" => self.end(data, End::Incomplete, calls)?,
            "response.failed" => self.end(data, End::Failed, calls)?,
            "response.cancelled" => self.end(data, End::Cancelled, calls)?,
            "error" if self.failure.is_none() => self.failure = Some(failure(data)?),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, calls: &mut Calls) {
        if let Some(failure) = self.failure.take() {
            calls.fail(failure);
        }
    }
}

impl OpenAiResponses {
    fn created(&mut self, calls: &mut Calls) {
        if self.failure.take().is_some() || !self.items.is_empty() {
            // A gateway that tries again inside one stream.
            self.items.clear();
            self.places.clear();
            self.ids.clear();
            self.next = 0;
            calls.restart();
        }
    }

    fn item(
        &mut self,
        data: &[u8],
        done: bool,
        calls: &mut Calls,
    ) -> Result<(), serde_json::Error> {
        if self.failure.is_some() {
            return Ok(());
        }
        let ItemEvent { output_index, item } = read(data)?;
        let Some((item, role)) = item.map(item::read).transpose()?.flatten() else {
            return Ok(());
        };
        let index = output_index.unwrap_or_else(|| self.index_of(&item));
        self.take(index, &item, role, done, calls)
    }

    /// Takes what an event says of the item at `index`, which is all that will be said of it if it is `done`.
    fn take(
        &mut self,
        index: u64,
        item: &Item<'_>,
        role: Role,
        done: bool,
        calls: &mut Calls,
    ) -> Result<(), serde_json::Error> {
        if self.items.len() >= MOST_ITEMS && !self.items.contains_key(&index) {
            calls.fail(format!("the response has more than {MOST_ITEMS} calls"));
            return Ok(());
        }
        let fingerprint = item.fingerprint();
        let known =
            (self.items.get(&index)).filter(|known| known.fingerprint.head == fingerprint.head);
        let kind = match role {
            Role::Call(kind) => kind,
            Role::Elsewhere(owner) => {
                if known.is_none() && !(item.is_result() && self.has(fingerprint.id)) {
                    calls.pass_over(owner, item.id_for(owner), item.label(), index);
                    self.keep(index, fingerprint, Stage::Passed, calls);
                }
                return Ok(());
            }
        };
        let text = if done {
            item.arguments(kind)?
        } else {
            Cow::default()
        };
        if !done && (item.name.as_deref().unwrap_or_default().is_empty() || item.has_no_call_id()) {
            // Its done item will have them.
            return Ok(());
        }
        let block = match known.map(|known| &known.stage) {
            Some(Stage::Open(block)) => {
                if let Some(caller) = item.caller {
                    calls.caller(*block, caller);
                }
                *block
            }
            Some(Stage::Done | Stage::Passed) => return Ok(()),
            None => calls.begin(NewCall {
                id: item.call_id.as_deref(),
                name: item.name.as_deref().unwrap_or_default(),
                order: index,
                kind,
                caller: item.caller,
                ..NewCall::default()
            }),
        };
        if !done {
            self.keep(index, fingerprint, Stage::Open(block), calls);
            return Ok(());
        }
        self.keep(index, fingerprint, Stage::Done, calls);
        // Of all states only this one means something: calls of a program are in progress when they are due.
        if item.status.as_deref() != Some("incomplete") {
            calls.append(block, &text);
            calls.complete(block);
        }
        Ok(())
    }

    /// Another item at the same index takes the place of the one before it. If that was not done, it is not going to be;
    /// one that was added under another id or name is begun anew under those that the result must have.
    fn keep(&mut self, index: u64, fingerprint: Fingerprint, stage: Stage, calls: &mut Calls) {
        self.next = self.next.max(index.saturating_add(1));
        let before = self.items.insert(index, Known { fingerprint, stage });
        if let Some(Known {
            fingerprint: before,
            stage,
        }) = before
            && before != fingerprint
        {
            self.places.remove(&before);
            before.id.map(|id| self.ids.remove(&id));
            if let Stage::Open(block) = stage
                && before.head != fingerprint.head
            {
                calls.void(block, Void::Superseded);
            }
        }
        self.places.insert(fingerprint, index);
        self.ids.extend(fingerprint.id);
    }

    fn has(&self, id: Option<u64>) -> bool {
        id.is_some_and(|id| self.ids.contains(&id))
    }

    /// The index of an item that comes without: the one under which its call is known, or the next.
    fn index_of(&self, item: &Item<'_>) -> u64 {
        let fingerprint = item.fingerprint();
        let place = self.places.get(&fingerprint);
        place.copied().unwrap_or(self.next)
    }

    fn end(&mut self, data: &[u8], end: End, calls: &mut Calls) -> Result<(), serde_json::Error> {
        let event: EndEvent<'_> = read(data)?;
        let response = event.response.unwrap_or_default();
        let end = match response.status.as_deref() {
            Some("incomplete") if end == End::Completed => End::Incomplete,
            Some("failed") if end == End::Completed => End::Failed,
            Some("cancelled") if end == End::Completed => End::Cancelled,
            _ => end,
        };
        if self.failure.is_none() && matches!(end, End::Completed | End::Incomplete) {
            self.repeated(&response.output, end, calls);
        }
        match end {
            End::Completed => calls.stop_reason("completed"),
            End::Incomplete => {
                let details = response.incomplete_details.as_ref();
                match details.and_then(|details| details.reason.as_deref()) {
                    Some(reason) => calls.stop_reason(&format!("incomplete:{reason}")),
                    None => calls.stop_reason("incomplete"),
                }
            }
            End::Failed => calls.stop_reason("failed"),
            End::Cancelled => calls.stop_reason("cancelled"),
        }
        match (self.failure.take(), end) {
            (Some(failure), _) => calls.fail(failure),
            (None, End::Completed) => calls.end(TurnEnd::Complete),
            (None, End::Incomplete | End::Cancelled) => calls.end(TurnEnd::Truncated),
            (None, End::Failed) => calls.fail(broke_off(response.error.map_or("", RawValue::get))),
        }
        Ok(())
    }

    /// Takes from a response's own list of its items those that were not done by an event. To run a call twice is worse
    /// than to lose one, so neither its index nor its id may have been: proxies leave items out, which shifts the rest.
    fn repeated(&mut self, output: &[&RawValue], end: End, calls: &mut Calls) {
        let done: HashSet<u64> = (self.items.values())
            .filter(|known| !matches!(known.stage, Stage::Open(_)))
            .filter_map(|known| known.fingerprint.id)
            .collect();
        let open: HashMap<Fingerprint, u64> = (self.items.iter())
            .filter(|(_, known)| matches!(known.stage, Stage::Open(_)))
            .map(|(index, known)| (known.fingerprint, *index))
            .collect();
        for (item, position) in output.iter().zip(0..) {
            // One that cannot be read says nothing of any call; the response has ended all the same.
            let Ok(Some((item, role))) = item::read(item) else {
                continue;
            };
            let fingerprint = item.fingerprint();
            let index = open.get(&fingerprint).copied().unwrap_or(position);
            let known = self.items.get(&index).map(|known| &known.stage);
            if calls.ended()
                || matches!(known, Some(Stage::Done | Stage::Passed))
                || fingerprint.id.is_some_and(|id| done.contains(&id))
            {
                continue;
            }
            // In a response that was cut, an item must say itself that it was not.
            let whole = end == End::Completed || item.status.as_deref() == Some("completed");
            let _ = self.take(index, &item, role, whole, calls);
        }
    }
}

#[cfg(test)]
mod tests;
