//! Which call a delta belongs to. One rule that fits every server:
//!
//! - with an `index`: to the call that last had it. But a name together with another id begins a new call (servers that
//!   number every call 0), and so does a name without any id where the text is whole already. Another id without a name
//!   is the same call's (gateways that change it on the way);
//! - without an `index`: to the call with that id; else a name or a new id begins a call; else to the call before.
//!
//! Of the ids and names of a call the first counts. A call whose name never came is not a call.

use super::TooMany;
use super::chunk::{Function, ToolCall};
use crate::ingest::dialect::calls::{Block, Calls, NewCall, clip_id, clip_name};
use crate::ingest::dialect::closed::Closed;
use crate::ingest::dialect::fragment::Half;
use crate::ingest::dialect::turn::{Kind, Void};

/// Calls of one choice that have not begun: a server has one such call, if any.
const MOST_WAITING: usize = 64;

/// What the choices of a turn share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Calls so far.
    order: u64,
    /// Bytes of text that wait for names.
    kept: usize,
}

/// The calls of one choice.
#[derive(Debug, Default)]
pub(super) struct Joined {
    calls: Vec<Call>,
    /// The one that the delta before was for.
    last: Option<usize>,
}

#[derive(Debug)]
struct Call {
    key: Key,
    id: Option<Box<str>>,
    name: Option<Box<str>>,
    order: u64,
    half: Half,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Index(u64),
    NoIndex,
    Legacy,
}

#[derive(Debug)]
enum State {
    Waiting(Waiting),
    Begun {
        block: Block,
        /// Its text has been a closed object.
        closed: bool,
    },
}

/// A call that has not begun, since it has no name yet.
#[derive(Debug, Default)]
struct Waiting {
    text: String,
    signature: Option<String>,
    /// Some of its text is lost, or may be.
    torn: bool,
    /// Its name is that of the call before, and may only have been said again for that one: text will tell.
    again: bool,
}

/// One entry of `tool_calls`, or a `function_call`.
struct Piece<'a> {
    key: Key,
    id: Option<&'a str>,
    name: Option<&'a str>,
    function: Option<&'a Function<'a>>,
    signature: Option<String>,
}

impl Piece<'_> {
    fn is_empty(&self) -> bool {
        let text = self.function.is_some_and(Function::has_text);
        self.id.is_none() && self.name.is_none() && !text
    }
}

impl Joined {
    pub(super) fn tool_call(
        &mut self,
        delta: &ToolCall<'_>,
        shared: &mut Shared,
        calls: &mut Calls,
    ) -> Result<(), TooMany> {
        let function = delta.function.as_ref();
        let piece = Piece {
            key: delta.index.map_or(Key::NoIndex, Key::Index),
            id: delta.id().map(clip_id),
            name: function.and_then(Function::name).map(clip_name),
            function,
            signature: delta.signature(),
        };
        let at = self.find(&piece, calls);
        self.take(at, piece, shared, calls)
    }

    pub(super) fn function_call(
        &mut self,
        function: &Function<'_>,
        shared: &mut Shared,
        calls: &mut Calls,
    ) -> Result<(), TooMany> {
        if self.calls.iter().any(|call| call.key != Key::Legacy) {
            // What `tool_calls` said, said again for old clients.
            return Ok(());
        }
        let piece = Piece {
            key: Key::Legacy,
            id: None,
            name: function.name().map(clip_name),
            function: Some(function),
            signature: None,
        };
        let at = (!self.calls.is_empty()).then_some(0);
        self.take(at, piece, shared, calls)
    }

    /// An event could not be read: it may have held text that waits for a name.
    pub(super) fn tear(&mut self) {
        for call in &mut self.calls {
            if let State::Waiting(waiting) = &mut call.state {
                waiting.torn = true;
            }
        }
    }

    /// No more will come: all calls are complete, but for those that a cut turn has not begun the arguments of. Returns
    /// whether each of them is a closed object.
    pub(super) fn end(&mut self, cut: bool, shared: &mut Shared, calls: &mut Calls) -> bool {
        self.last = None;
        let mut closed = true;
        for call in self.calls.drain(..) {
            match call.state {
                State::Waiting(waiting) => shared.kept -= waiting.text.len(),
                State::Begun { block, .. } => {
                    let text = calls.text(block);
                    closed &= matches!(text, Closed::Object { .. }) || (!cut && text.is_nothing());
                    if call.half.is_open() {
                        calls.void(block, Void::NotJson);
                    } else if cut && text.is_nothing() {
                        calls.void(block, Void::Incomplete);
                    } else {
                        calls.complete(block);
                    }
                }
            }
        }
        closed
    }

    /// The call that a delta belongs to, if it does not begin one.
    fn find(&self, piece: &Piece<'_>, calls: &Calls) -> Option<usize> {
        if let Key::Index(_) = piece.key {
            let at = self.calls.iter().rposition(|call| call.key == piece.key)?;
            let call = &self.calls[at];
            let begins = piece.name.is_some()
                && match (&call.id, piece.id) {
                    (Some(had), Some(id)) => **had != *id,
                    (Some(_), None) => false,
                    (None, _) => call.is_whole(calls),
                };
            return (!begins).then_some(at);
        }
        let known = piece.id.and_then(|id| {
            let mut all = self.calls.iter();
            all.rposition(|call| call.id.as_deref() == Some(id))
        });
        if known.is_some() || (piece.id.is_none() && piece.name.is_none()) {
            return known.or(self.last);
        }
        // A name that comes after its call's text.
        let last = self.last.filter(|last| {
            let call = &self.calls[*last];
            call.name.is_none() && (call.id.is_none() || piece.id.is_none())
        });
        last.filter(|_| piece.name.is_some())
    }

    fn take(
        &mut self,
        at: Option<usize>,
        piece: Piece<'_>,
        shared: &mut Shared,
        calls: &mut Calls,
    ) -> Result<(), TooMany> {
        let at = match at {
            Some(at) => at,
            None if piece.is_empty() => return Ok(()),
            None => self.add(&piece, shared)?,
        };
        self.last = Some(at);
        self.calls[at].take(piece, shared, calls);
        Ok(())
    }

    fn add(&mut self, piece: &Piece<'_>, shared: &mut Shared) -> Result<usize, TooMany> {
        if piece.name.is_none() {
            let waiting = |call: &&Call| matches!(call.state, State::Waiting(_));
            if self.calls.iter().filter(waiting).count() >= MOST_WAITING {
                return Err(TooMany("calls without a name"));
            }
        }
        let said_before = |call: &Call| {
            let indexed = matches!(call.key, Key::Index(_)) && call.key == piece.key;
            indexed && call.id.is_none() && call.name.as_deref() == piece.name
        };
        let again = piece.name.is_some() && self.calls.iter().any(said_before);
        shared.order += 1;
        self.calls.push(Call {
            key: piece.key,
            id: None,
            name: None,
            order: shared.order,
            half: Half::default(),
            state: State::Waiting(Waiting {
                again,
                ..Waiting::default()
            }),
        });
        Ok(self.calls.len() - 1)
    }
}

impl Call {
    /// It is named, and nothing can follow its text.
    fn is_whole(&self, calls: &Calls) -> bool {
        match self.state {
            State::Waiting(_) => false,
            State::Begun { block, .. } => calls.text(block).is_whole(),
        }
    }

    fn take(&mut self, piece: Piece<'_>, shared: &mut Shared, calls: &mut Calls) {
        if let (None, Some(id)) = (&self.id, piece.id) {
            self.id = Some(id.into());
            if let State::Begun { block, .. } = self.state {
                calls.identify(block, id);
            }
        }
        if self.name.is_none() {
            self.name = piece.name.map(Box::from);
        }
        let arguments = piece.function.and_then(|function| function.arguments);
        let text = match arguments.map(|arguments| self.half.join(arguments)) {
            Some(text) => text.ok(),
            None => Some("".into()),
        };
        match &mut self.state {
            State::Waiting(waiting) => {
                if waiting.signature.is_none() {
                    waiting.signature = piece.signature;
                    calls.keep(waiting.signature_len());
                }
                if self.name.is_some() && !waiting.again {
                    self.begin(shared, calls);
                    return self.add(text.as_deref(), calls);
                }
                waiting.keep(text.as_deref(), shared, calls.most_kept());
                if self.name.is_some() && !waiting.text.trim().is_empty() {
                    self.begin(shared, calls);
                }
            }
            State::Begun { .. } => self.add(text.as_deref(), calls),
        }
    }

    /// More text of a call that has begun; `None` is text that was none.
    fn add(&mut self, text: Option<&str>, calls: &mut Calls) {
        let State::Begun { block, .. } = self.state else {
            return;
        };
        match text {
            Some(text) => calls.append(block, text),
            None => calls.void(block, Void::NotJson),
        }
        self.watch(calls);
    }

    fn begin(&mut self, shared: &mut Shared, calls: &mut Calls) {
        let State::Waiting(waiting) = &mut self.state else {
            return;
        };
        let waiting = std::mem::take(waiting);
        shared.kept -= waiting.text.len();
        calls.give_back(waiting.signature_len());
        let block = calls.begin(NewCall {
            id: self.id.as_deref(),
            name: self.name.as_deref().unwrap_or_default(),
            order: self.order,
            kind: match self.key {
                Key::Legacy => Kind::LegacyFunction,
                Key::Index(_) | Key::NoIndex => Kind::Function,
            },
            signature: waiting.signature.as_deref(),
            ..NewCall::default()
        });
        self.state = State::Begun {
            block,
            closed: false,
        };
        if waiting.torn {
            calls.void(block, Void::Unreadable);
        } else {
            calls.append(block, &waiting.text);
            self.watch(calls);
        }
    }

    /// A closed object is enough for an early start, and more after it undoes that.
    fn watch(&mut self, calls: &mut Calls) {
        let State::Begun { block, closed } = &mut self.state else {
            return;
        };
        match calls.text(*block) {
            Closed::Object { filled: true } if !*closed => {
                *closed = true;
                calls.early(*block);
            }
            Closed::Other if *closed => calls.void(*block, Void::NotJson),
            _ => {}
        }
    }
}

impl Waiting {
    fn signature_len(&self) -> usize {
        self.signature.as_ref().map_or(0, String::len)
    }

    /// `None` is text that was none.
    fn keep(&mut self, text: Option<&str>, shared: &mut Shared, most: usize) {
        match text {
            Some(text) if shared.kept + text.len() <= most => {
                shared.kept += text.len();
                self.text.push_str(text);
            }
            _ => self.torn = true,
        }
    }
}
