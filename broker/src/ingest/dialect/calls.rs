//! The calls of a provider's turn as a decoder tells of them, turned into the steps that `ingest` takes.
//!
//! Providers' ids cannot be trusted: they are missing, repeated or reused. So each call gets an id here that is unique in
//! its turn, which is the provider's where that is fit, and the provider's own is kept for the way back.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::Dialect;
use super::closed::Closed;
use super::turn::{Answered, Kind, NotOurs, Owner, Turn, Void};
use crate::id::CallId;
use crate::ingest::{Header, Input, Position, TurnEnd};

/// As much of a tool's name as is kept; no tool has one that long.
const MAX_NAME_BYTES: usize = 256;
/// A longer id is none that a provider makes: it is kept for the answer up to the second size, but not for the broker.
const MAX_ID_BYTES: usize = 256;
const MAX_PROVIDER_ID_BYTES: usize = 4 * 1024;
/// Calls that are not ours and are reported; more are only passed over.
const MOST_NOT_OURS: usize = 1_024;
/// Calls that are passed over. A decoder may have to remember each.
const MOST_PASSED_OVER: usize = 16 * 1_024;
/// Events that cannot be read. So many are no accident of the wire, and each is held against all blocks that are open.
const MOST_UNREADABLE: usize = 16;
/// Steps that there is always room for: a piece of the stream brings a few, but may bring a hundred thousand.
const ROOM: usize = 64;
/// Letters and digits of an id made here: what the strictest provider (Mistral) takes.
const MADE_ID_LENGTH: usize = 9;

/// The sizes that a provider's stream is held to, besides those that `ingest` holds every turn to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// One event.
    pub(crate) event_bytes: usize,
    /// One call's arguments, as far as a decoder must keep them itself; also what is kept besides arguments to go back
    /// with the calls of a turn, all together.
    pub(crate) arguments_bytes: usize,
    /// Calls of a turn. One more ends it.
    pub(crate) calls: usize,
}

/// A call that begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NewCall<'a> {
    /// `None` or empty where the provider gave none.
    pub(super) id: Option<&'a str>,
    pub(super) name: &'a str,
    /// Its place in the model's order among all calls of the turn: greater is later. Equal ones are in the order in which
    /// they began.
    pub(super) order: u64,
    pub(super) kind: Kind,
    /// Goes back with the answer of some formats.
    pub(super) caller: Option<&'a RawValue>,
    /// Goes back with the call itself.
    pub(super) signature: Option<&'a str>,
}

/// A block of this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block(usize);

impl Block {
    /// Of a call that began when the turn had ended: nothing that is said of it has an effect.
    const NONE: Self = Self(usize::MAX);
}

#[derive(Debug)]
struct Slot {
    /// The position of a call of ours.
    ours: Option<usize>,
    /// Where a call of the agent's own stands in `not_ours`.
    local: Option<usize>,
    open: bool,
    text: Closed,
}

/// All calls of a turn.
#[derive(Debug)]
pub(crate) struct Calls {
    limits: Limits,
    local_tools: HashSet<String>,
    blocks: Vec<Slot>,
    /// The first block of the present message: those before it are void.
    message: usize,
    ours: Vec<Answered>,
    not_ours: Vec<NotOurs>,
    passed_over: usize,
    unreadable: usize,
    /// Bytes that are kept besides arguments.
    kept: usize,
    ids: HashSet<CallId>,
    made: fastrand::Rng,
    stop_reason: Option<String>,
    error: Option<String>,
    end: Option<TurnEnd>,
    inputs: Vec<Input>,
}

impl Calls {
    pub(super) fn new(local_tools: Vec<String>, limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            local_tools: local_tools.into_iter().collect(),
            blocks: Vec::new(),
            message: 0,
            ours: Vec::new(),
            not_ours: Vec::new(),
            passed_over: 0,
            unreadable: 0,
            kept: 0,
            ids: HashSet::new(),
            made: fastrand::Rng::with_seed(seed),
            stop_reason: None,
            error: None,
            end: None,
            inputs: Vec::new(),
        }
    }

    /// The most text that a decoder may keep for one call before it has begun.
    pub(super) fn most_kept(&self) -> usize {
        self.limits.arguments_bytes
    }

    /// Something is kept until the turn's end, or until it is given back by [`Self::give_back`].
    pub(super) fn keep(&mut self, bytes: usize) {
        self.kept = self.kept.saturating_add(bytes);
        let most = self.limits.arguments_bytes;
        if self.kept > most {
            self.fail(format!(
                "what goes back with the turn's calls is larger than {most} bytes (max_arguments_bytes)"
            ));
        }
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.kept = self.kept.saturating_sub(bytes);
    }

    /// A call begins. A name that the agent runs itself is passed over from here on.
    pub(super) fn begin(&mut self, call: NewCall<'_>) -> Block {
        let most = self.limits.calls;
        if self.blocks.len() >= most {
            self.fail(format!(
                "the turn has more than {most} calls, which is far over max_calls_per_batch"
            ));
        }
        self.keep(call.caller.map_or(0, |caller| caller.get().len()));
        self.keep(call.signature.map_or(0, str::len));
        if self.ended() {
            return Block::NONE;
        }
        let block = Block(self.blocks.len());
        let id = call.id.filter(|id| !id.is_empty());
        let (ours, local) = if self.local_tools.contains(call.name) {
            let at = self.note(Owner::Agent, id, call.name, call.order);
            (None, at)
        } else {
            (Some(self.begin_ours(call, id)), None)
        };
        self.blocks.push(Slot {
            ours,
            local,
            open: true,
            text: Closed::default(),
        });
        block
    }

    fn begin_ours(&mut self, call: NewCall<'_>, id: Option<&str>) -> usize {
        let position = self.ours.len();
        let header = Header {
            id: self.unique(id),
            tool: clip(call.name, MAX_NAME_BYTES).to_owned(),
        };
        self.ours.push(Answered {
            provider_id: id.map(|id| clip(id, MAX_PROVIDER_ID_BYTES).to_owned()),
            kind: call.kind,
            caller: call.caller.map(ToOwned::to_owned),
            signature: call.signature.map(str::to_owned),
            position: 0,
            order: call.order,
            void: None,
        });
        self.tell(Input::Start {
            index: index(position),
            header,
            idempotency_key: None,
        });
        position
    }

    /// A call that is somebody else's to run.
    pub(super) fn pass_over(&mut self, owner: Owner, id: Option<&str>, name: &str, order: u64) {
        self.note(owner, id, name, order);
    }

    /// Returns its place among those that are not ours, if it has one.
    fn note(&mut self, owner: Owner, id: Option<&str>, name: &str, order: u64) -> Option<usize> {
        self.passed_over += 1;
        if self.passed_over > MOST_PASSED_OVER {
            self.fail(format!(
                "the turn has more than {MOST_PASSED_OVER} calls that others run"
            ));
        }
        if self.not_ours.len() >= MOST_NOT_OURS {
            return None;
        }
        self.not_ours.push(NotOurs {
            owner,
            id: clip(id.unwrap_or_default(), MAX_PROVIDER_ID_BYTES).to_owned(),
            name: clip(name, MAX_NAME_BYTES).to_owned(),
            position: 0,
            order,
            void: (owner == Owner::Agent).then_some(Void::Incomplete),
        });
        Some(self.not_ours.len() - 1)
    }

    /// More of a call's text. Without effect on a block that is not open.
    pub(super) fn append(&mut self, block: Block, text: &str) {
        let Some(slot) = self.blocks.get_mut(block.0).filter(|slot| slot.open) else {
            return;
        };
        slot.text.push(text);
        if let Some(position) = slot.ours
            && !text.is_empty()
        {
            self.tell(Input::Delta {
                index: index(position),
                fragment: Bytes::copy_from_slice(text.as_bytes()),
            });
        }
    }

    /// The provider's id of a call that began without one. Only its answer needs it.
    pub(super) fn identify(&mut self, block: Block, id: &str) {
        let slot = self.blocks.get(block.0);
        let local = slot.and_then(|slot| slot.local);
        if let Some(call) = local.and_then(|at| self.not_ours.get_mut(at))
            && call.id.is_empty()
        {
            clip(id, MAX_PROVIDER_ID_BYTES).clone_into(&mut call.id);
        }
        let ours = slot.and_then(|slot| slot.ours);
        if let Some(call) = ours.and_then(|position| self.ours.get_mut(position))
            && call.provider_id.is_none()
        {
            call.provider_id = Some(clip(id, MAX_PROVIDER_ID_BYTES).to_owned());
        }
    }

    /// What goes back with the answer, of a call that began without it.
    pub(super) fn caller(&mut self, block: Block, caller: &RawValue) {
        let ours = self.blocks.get(block.0).and_then(|slot| slot.ours);
        if let Some(position) = ours
            && self.ours[position].caller.is_none()
        {
            self.keep(caller.get().len());
            self.ours[position].caller = Some(caller.to_owned());
        }
    }

    /// How far a call's text has come.
    pub(super) fn text(&self, block: Block) -> Closed {
        let slot = self.blocks.get(block.0);
        slot.map_or_else(Closed::default, |slot| slot.text)
    }

    /// A call's text is a closed object, though nothing has said that the block is complete: enough to start what is read
    /// only.
    pub(super) fn early(&mut self, block: Block) {
        if let Some(position) = self.open_one(block, false) {
            self.tell(Input::Early {
                index: index(position),
            });
        }
    }

    /// The block's own marker has come.
    pub(super) fn complete(&mut self, block: Block) {
        let slot = self.blocks.get(block.0).filter(|slot| slot.open);
        if let Some(at) = slot.and_then(|slot| slot.local) {
            self.not_ours[at].void = None;
        }
        if let Some(position) = self.open_one(block, true) {
            self.tell(Input::Stop {
                index: index(position),
            });
        }
    }

    /// The block is no call, whether it is complete or not.
    pub(super) fn void(&mut self, block: Block, why: Void) {
        let Some(slot) = self.blocks.get_mut(block.0) else {
            return;
        };
        slot.open = false;
        if let Some(at) = slot.local {
            self.not_ours[at].void = Some(why);
        }
        if let Some(position) = slot.ours
            && self.ours[position].void.is_none()
        {
            self.ours[position].void = Some(why);
            self.tell(Input::Void {
                index: index(position),
                why,
            });
        }
    }

    /// The message begins anew: nothing of what came before is in it.
    pub(super) fn restart(&mut self) {
        for block in self.message..self.blocks.len() {
            self.void(Block(block), Void::Superseded);
        }
        for slot in &mut self.blocks[self.message..] {
            slot.local = None;
        }
        self.message = self.blocks.len();
        self.not_ours.clear();
        self.stop_reason = None;
    }

    /// An event was damaged. It may have been a part of any open block, all of its text too, unless that is a closed
    /// object with something in it.
    pub(super) fn unreadable(&mut self) {
        self.unreadable += 1;
        if self.unreadable > MOST_UNREADABLE {
            self.fail(format!(
                "more than {MOST_UNREADABLE} events of the provider's stream could not be read"
            ));
            return;
        }
        for block in self.message..self.blocks.len() {
            let slot = &self.blocks[block];
            if slot.open && slot.text != (Closed::Object { filled: true }) {
                self.void(Block(block), Void::Unreadable);
            }
        }
    }

    /// The reason that the provider gives for the end of the turn.
    pub(super) fn stop_reason(&mut self, reason: &str) {
        self.stop_reason = Some(clip(reason, MAX_NAME_BYTES).to_owned());
    }

    /// The turn has ended as its provider said. If some of it could not be read, that is not known: there may have been a
    /// call in it, or an error.
    pub(super) fn end(&mut self, end: TurnEnd) {
        if end == TurnEnd::Complete && self.unreadable > 0 {
            return self.fail("an event of the provider's stream could not be read");
        }
        self.end_as(end);
    }

    /// Nothing follows the seal.
    fn tell(&mut self, input: Input) {
        if self.end.is_none() {
            self.inputs.push(input);
        }
    }

    /// The turn has ended as the agent says, unless it had ended before.
    pub(super) fn end_as(&mut self, end: TurnEnd) {
        if self.end.is_none() {
            self.tell(Input::Seal(end));
            self.end = Some(end);
        }
    }

    /// The stream has failed: nothing that comes after it counts.
    pub(super) fn fail(&mut self, why: impl Into<String>) {
        if self.end.is_none() {
            self.error = Some(clip_reason(&why.into()).to_owned());
            self.end_as(TurnEnd::Truncated);
        }
    }

    /// The call at this position has no place in the assistant's message. If that was known, the first reason stands.
    pub(super) fn drop_call(&mut self, position: Position, why: Void) {
        if let Some(call) = self.ours.get_mut(position) {
            call.void.get_or_insert(why);
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn drain(&mut self, inputs: &mut Vec<Input>) {
        inputs.append(&mut self.inputs);
        self.inputs.shrink_to(ROOM);
    }

    pub(super) fn into_turn(mut self, dialect: Option<Dialect>) -> Turn {
        let mut places: Vec<(u64, &mut usize)> = Vec::new();
        for call in &mut self.ours {
            places.push((call.order, &mut call.position));
        }
        for call in &mut self.not_ours {
            places.push((call.order, &mut call.position));
        }
        places.sort_by_key(|(order, _)| *order);
        for (place, (_, position)) in places.into_iter().enumerate() {
            *position = place;
        }
        self.not_ours.sort_by_key(|call| call.position);
        Turn {
            dialect,
            calls: self.ours,
            not_ours: self.not_ours,
            end: self.end.unwrap_or(TurnEnd::Truncated),
            stop_reason: self.stop_reason,
            error: self.error,
        }
    }

    fn open_one(&mut self, block: Block, close: bool) -> Option<usize> {
        let slot = self.blocks.get_mut(block.0).filter(|slot| slot.open)?;
        slot.open = !close;
        slot.ours
    }

    /// The provider's id, or one of our own making if that is unfit or taken.
    fn unique(&mut self, id: Option<&str>) -> CallId {
        if let Some(id) = id.filter(|id| id.len() <= MAX_ID_BYTES) {
            let id = CallId::from(id);
            if self.ids.insert(id.clone()) {
                return id;
            }
        }
        loop {
            let made: String = (0..MADE_ID_LENGTH)
                .map(|_| self.made.alphanumeric())
                .collect();
            let made = CallId::from(made);
            if self.ids.insert(made.clone()) {
                return made;
            }
        }
    }
}

/// A turn's positions are far fewer: `ingest` refuses the stream long before.
fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

/// As much of a provider's reason as is kept.
pub(super) fn clip_reason(why: &str) -> &str {
    clip(why, MAX_PROVIDER_ID_BYTES)
}

/// As much of a provider's id as is kept.
pub(super) fn clip_id(id: &str) -> &str {
    clip(id, MAX_PROVIDER_ID_BYTES)
}

/// As much of a tool's name as is kept.
pub(super) fn clip_name(name: &str) -> &str {
    clip(name, MAX_NAME_BYTES)
}

fn clip(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests;
