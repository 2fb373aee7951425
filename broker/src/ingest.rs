//! What an agent streams in turned into complete calls. Plain code: no I/O, no clock.
//!
//! Promise 2 is kept here together with `schema`: a [`CompleteCall`] is made by nothing but a block's stop (or by a
//! call that came whole), from the joined text as it came.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use rustc_hash::FxHashMap;

use crate::id::CallId;

pub(crate) mod dialect;
mod framing;
mod object;

use dialect::Void;

/// A call's place in the model's order.
pub(crate) type Position = usize;

/// What the agent sends after `open`.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A block begins.
    Start {
        index: u32,
        header: Header,
        idempotency_key: Option<String>,
    },
    /// More of its arguments.
    Delta { index: u32, fragment: Bytes },
    /// It is complete.
    Stop { index: u32 },
    /// Its text is a closed object, though its own end has not come: enough to start what is read only.
    Early { index: u32 },
    /// It is no call, not even if it was complete already. For blocks that were begun under their position.
    Void { index: u32, why: Void },
    /// A block in one piece.
    Whole {
        header: Header,
        idempotency_key: Option<String>,
        arguments: Bytes,
    },
    /// No more will come.
    Seal(TurnEnd),
}

/// Who a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The agent's id for the call.
    pub(crate) id: CallId,
    /// The tool's name.
    pub(crate) tool: String,
}

/// How the model's turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnEnd {
    /// The model came to its end.
    Complete,
    /// Cut short.
    Truncated,
    /// Given up by the agent.
    Aborted,
}

impl TurnEnd {
    /// In metrics and traces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Truncated => "truncated",
            Self::Aborted => "aborted",
        }
    }
}

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A new id at the next position.
    Began(Header),
    /// A block whose id was taken; it has a position, but nothing more will be heard of it.
    Duplicate(Header),
    /// What the block at this position has so far will be its arguments, if nothing follows.
    Early(Position, CompleteCall),
    /// The call at this position has all its arguments.
    Complete(Position, CompleteCall),
    /// The block at this position is no call, and if it was one it is called off.
    Void(Position, Void),
    /// The block at this position will never become a call.
    Refused(Position, Refusal),
    /// The turn is over; blocks that had not stopped.
    Sealed(TurnEnd, Vec<Position>),
}

/// A block that has stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CompleteCall {
    arguments: Bytes,
    idempotency_key: Option<String>,
}

impl CompleteCall {
    /// The joined text as the model wrote it, not parsed yet; and the agent's own key.
    #[must_use]
    pub(crate) fn into_parts(self) -> (Bytes, Option<String>) {
        (self.arguments, self.idempotency_key)
    }
}

/// Why a block cannot become a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its arguments are over `max_arguments_bytes`.
    ArgumentsTooLarge,
    /// The arguments of all blocks are over `max_batch_bytes`.
    BatchTooLarge,
    /// It came after `max_calls_per_batch` others.
    TooManyCalls,
}

/// A step that the protocol does not have: the stream is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Breach {
    /// A second start under an open index.
    #[error("block_start.index {0} is open already; send its block_stop first")]
    IndexOpen(u32),
    /// A delta or a stop under an index that is not open.
    #[error("{field}.index {index} names no open block; send its block_start first")]
    IndexNotOpen {
        /// The frame.
        field: &'static str,
        /// The index.
        index: u32,
    },
    /// Something after the seal.
    #[error("a frame came after seal, which must be the last")]
    AfterSeal,
    /// So many calls over the limit that not even a refusal for each is given.
    #[error("the turn has more than {0} calls, which is far over max_calls_per_batch")]
    FarTooManyCalls(usize),
}

/// The sizes that ingest holds blocks to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Calls that may run.
    pub(crate) calls: usize,
    /// Bytes of one call's arguments.
    pub(crate) arguments_bytes: usize,
    /// Bytes of all calls' arguments.
    pub(crate) batch_bytes: usize,
}

impl Limits {
    /// Calls over the limit get a refusal each, up to so many times the limit; then the stream is refused.
    const REFUSALS_PER_CALL: usize = 4;

    /// Calls that get a result each, refusals among them.
    pub(crate) fn ids(&self) -> usize {
        self.calls.saturating_mul(Self::REFUSALS_PER_CALL)
    }
}

/// The blocks of one turn.
#[derive(Debug)]
pub(crate) struct Ingest {
    limits: Limits,
    open: FxHashMap<u32, Block>,
    ids: HashSet<CallId>,
    next: Position,
    bytes: usize,
    sealed: bool,
}

#[derive(Debug)]
enum Block {
    /// Taken in.
    Filling {
        position: Position,
        text: Text,
        idempotency_key: Option<String>,
    },
    /// Refused or a duplicate: its stop is awaited, its text is dropped.
    Ignored,
}

/// Joined fragments. One fragment, the common case, is never copied.
#[derive(Debug, Default)]
enum Text {
    #[default]
    Empty,
    One(Bytes),
    Joined(BytesMut),
}

impl Text {
    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(bytes) => bytes.len(),
            Self::Joined(bytes) => bytes.len(),
        }
    }

    fn push(&mut self, fragment: Bytes) {
        if fragment.is_empty() {
            return;
        }
        match self {
            Self::Empty => *self = Self::One(fragment),
            Self::One(first) => {
                let mut joined = BytesMut::with_capacity((first.len() + fragment.len()) * 2);
                joined.extend_from_slice(first);
                joined.extend_from_slice(&fragment);
                *self = Self::Joined(joined);
            }
            Self::Joined(joined) => joined.extend_from_slice(&fragment),
        }
    }

    /// A copy of what is there.
    fn so_far(&self) -> Bytes {
        match self {
            Self::Empty => Bytes::new(),
            Self::One(bytes) => bytes.clone(),
            Self::Joined(bytes) => Bytes::copy_from_slice(bytes),
        }
    }

    /// Empty text, white space and `null` are what models and SDKs send for "no arguments".
    fn finish(self) -> Bytes {
        let text = match self {
            Self::Empty => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Joined(bytes) => bytes.freeze(),
        };
        match text.trim_ascii() {
            b"" | b"null" => Bytes::from_static(b"{}"),
            _ => text,
        }
    }
}

impl Ingest {
    /// A turn in which nothing has come yet.
    #[must_use]
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            open: FxHashMap::default(),
            ids: HashSet::new(),
            next: 0,
            bytes: 0,
            sealed: false,
        }
    }

    /// Whether a block has begun and not stopped.
    #[must_use]
    pub(crate) fn in_mid_block(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether the turn is over.
    #[must_use]
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// Takes one step; `emit` gets what comes of it, in order.
    pub(crate) fn apply(
        &mut self,
        input: Input,
        emit: &mut impl FnMut(Event),
    ) -> Result<(), Breach> {
        if self.sealed {
            return Err(Breach::AfterSeal);
        }
        match input {
            Input::Start {
                index,
                header,
                idempotency_key,
            } => {
                if self.open.contains_key(&index) {
                    return Err(Breach::IndexOpen(index));
                }
                let block = match self.begin(header, emit)? {
                    Some(position) => Block::Filling {
                        position,
                        text: Text::Empty,
                        idempotency_key,
                    },
                    None => Block::Ignored,
                };
                self.open.insert(index, block);
            }
            Input::Delta { index, fragment } => self.extend(index, fragment, emit)?,
            Input::Stop { index } => match self.open.remove(&index) {
                None => {
                    return Err(Breach::IndexNotOpen {
                        field: "block_stop",
                        index,
                    });
                }
                Some(Block::Ignored) => {}
                Some(Block::Filling {
                    position,
                    text,
                    idempotency_key,
                }) => {
                    let arguments = text.finish();
                    emit(Event::Complete(
                        position,
                        CompleteCall {
                            arguments,
                            idempotency_key,
                        },
                    ));
                }
            },
            Input::Early { index } => {
                if let Some(Block::Filling { position, text, .. }) = self.open.get_mut(&index) {
                    let call = CompleteCall {
                        arguments: text.so_far(),
                        idempotency_key: None,
                    };
                    emit(Event::Early(*position, call));
                }
            }
            Input::Void { index, why } => {
                if let Some(Block::Filling { text, .. }) = self.open.remove(&index) {
                    self.bytes -= text.len();
                }
                emit(Event::Void(index as Position, why));
            }
            Input::Whole {
                header,
                idempotency_key,
                arguments,
            } => {
                if let Some(position) = self.begin(header, emit)? {
                    if let Err(refusal) = self.admit(0, arguments.len()) {
                        emit(Event::Refused(position, refusal));
                    } else {
                        let arguments = Text::One(arguments).finish();
                        let call = CompleteCall {
                            arguments,
                            idempotency_key,
                        };
                        emit(Event::Complete(position, call));
                    }
                }
            }
            Input::Seal(end) => self.seal(end, emit),
        }
        Ok(())
    }

    /// Ends the turn; does nothing the second time.
    pub(crate) fn seal(&mut self, end: TurnEnd, emit: &mut impl FnMut(Event)) {
        if self.sealed {
            return;
        }
        self.sealed = true;
        let mut unfinished: Vec<Position> = self
            .open
            .drain()
            .filter_map(|(_, block)| match block {
                Block::Filling { position, .. } => Some(position),
                Block::Ignored => None,
            })
            .collect();
        unfinished.sort_unstable();
        emit(Event::Sealed(end, unfinished));
    }

    fn begin(
        &mut self,
        header: Header,
        emit: &mut impl FnMut(Event),
    ) -> Result<Option<Position>, Breach> {
        let position = self.next;
        if position >= self.limits.ids() {
            return Err(Breach::FarTooManyCalls(position));
        }
        self.next += 1;
        if !self.ids.insert(header.id.clone()) {
            emit(Event::Duplicate(header));
            return Ok(None);
        }
        emit(Event::Began(header));
        if self.ids.len() > self.limits.calls {
            emit(Event::Refused(position, Refusal::TooManyCalls));
            return Ok(None);
        }
        Ok(Some(position))
    }

    fn extend(
        &mut self,
        index: u32,
        fragment: Bytes,
        emit: &mut impl FnMut(Event),
    ) -> Result<(), Breach> {
        let Some(block) = self.open.get_mut(&index) else {
            return Err(Breach::IndexNotOpen {
                field: "block_delta",
                index,
            });
        };
        let Block::Filling { position, text, .. } = block else {
            return Ok(());
        };
        let (position, had) = (*position, text.len());
        match Self::admitted(&self.limits, &mut self.bytes, had, fragment.len()) {
            Ok(()) => text.push(fragment),
            Err(refusal) => {
                self.bytes -= had;
                *block = Block::Ignored;
                emit(Event::Refused(position, refusal));
            }
        }
        Ok(())
    }

    fn admit(&mut self, had: usize, more: usize) -> Result<(), Refusal> {
        Self::admitted(&self.limits, &mut self.bytes, had, more)
    }

    fn admitted(
        limits: &Limits,
        bytes: &mut usize,
        had: usize,
        more: usize,
    ) -> Result<(), Refusal> {
        if had.saturating_add(more) > limits.arguments_bytes {
            return Err(Refusal::ArgumentsTooLarge);
        }
        if bytes.saturating_add(more) > limits.batch_bytes {
            return Err(Refusal::BatchTooLarge);
        }
        *bytes += more;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
