//! Arguments that come value by value, each with its path: `{"jsonPath":"$.list[0].name","stringValue":"…"}`.
//!
//! They are put together here, since an object is no text that fragments could be appended to. What does not fit to what
//! there is makes the call none: a guess at what was meant would be a plausible, wrong call.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::super::json::Text;

/// Deeper arguments would not be parsed anyway.
const MOST_STEPS: usize = 100;

/// A value, or a part of one that is a string.
#[derive(Deserialize)]
pub(super) struct PartialArg<'a> {
    #[serde(borrow, alias = "jsonPath")]
    json_path: Option<Text<'a>>,
    #[serde(borrow, alias = "stringValue")]
    string_value: Option<Text<'a>>,
    #[serde(borrow, alias = "numberValue")]
    number_value: Option<&'a RawValue>,
    #[serde(borrow, alias = "boolValue")]
    bool_value: Option<&'a RawValue>,
    #[serde(borrow, alias = "nullValue")]
    null_value: Option<&'a RawValue>,
    #[serde(alias = "willContinue")]
    will_continue: Option<bool>,
}

/// Why a value cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// Its path is none, or there is something else in its place.
    Contradiction,
    /// All together is longer than a call may be.
    TooLarge,
}

/// The arguments of one call, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct PartialArgs {
    root: Object,
    /// No more than the length of the text.
    bytes: usize,
}

type Object = IndexMap<String, Node>;

#[derive(Debug)]
enum Node {
    /// Just made.
    Empty,
    Text {
        text: String,
        continues: bool,
    },
    Null,
    /// In the words of the provider: a number's text says more than its value.
    Raw(Box<RawValue>),
    Object(Box<Object>),
    Array(Vec<Node>),
}

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    Name(Cow<'a, str>),
    Index(usize),
}

impl PartialArgs {
    /// Takes a value.
    pub(super) fn set(&mut self, arg: &PartialArg<'_>, most: usize) -> Result<(), Misfit> {
        let continues = arg.will_continue == Some(true);
        let value = match (&arg.string_value, arg.number_value.or(arg.bool_value)) {
            (Some(text), _) => {
                self.bytes += text.len();
                Node::Text {
                    text: text.to_string(),
                    continues,
                }
            }
            // A number that JSON does not have comes as a string; lists and objects come leaf by leaf.
            (None, Some(raw)) if raw.get().starts_with(['"', '[', '{']) => {
                return Err(Misfit::Contradiction);
            }
            (None, Some(raw)) => {
                self.bytes += raw.get().len();
                Node::Raw(raw.to_owned())
            }
            // The value of an SDK that leaves nulls out, or writes them for all that is absent.
            (None, None) if arg.null_value.is_some() || !continues => Node::Null,
            (None, None) => return Ok(()),
        };
        let path = arg.json_path.as_deref().unwrap_or_default();
        self.place(&steps(path).ok_or(Misfit::Contradiction)?, value)?;
        self.admit(most)
    }

    /// Takes arguments that come whole although others follow.
    pub(super) fn whole(&mut self, args: &RawValue, most: usize) -> Result<(), Misfit> {
        if args.get().len() > most {
            return Err(Misfit::TooLarge);
        }
        let args: IndexMap<String, &RawValue> =
            serde_json::from_str(args.get()).map_err(|_| Misfit::Contradiction)?;
        for (name, value) in args {
            self.bytes += value.get().len();
            let value = Node::Raw(value.to_owned());
            self.place(&[Step::Name(Cow::Owned(name))], value)?;
            self.admit(most)?;
        }
        Ok(())
    }

    /// A string of it says of itself that more of it is due.
    pub(super) fn is_unfinished(&self) -> bool {
        self.root.values().any(Node::is_unfinished)
    }

    /// The object as text.
    pub(super) fn to_json(&self) -> String {
        // Strings, and JSON that was parsed before, can always be written.
        serde_json::to_string(&self.root).unwrap_or_default()
    }

    fn admit(&self, most: usize) -> Result<(), Misfit> {
        if self.bytes > most {
            return Err(Misfit::TooLarge);
        }
        Ok(())
    }

    fn place(&mut self, steps: &[Step<'_>], value: Node) -> Result<(), Misfit> {
        let Some((Step::Name(name), steps)) = steps.split_first() else {
            return Err(Misfit::Contradiction);
        };
        let mut node = member(&mut self.root, name, &mut self.bytes);
        for step in steps {
            node = node
                .child(step, &mut self.bytes)
                .ok_or(Misfit::Contradiction)?;
        }
        node.take(value)
    }
}

/// The value under a name, made if there is none.
fn member<'a>(object: &'a mut Object, name: &str, bytes: &mut usize) -> &'a mut Node {
    let at = object.get_index_of(name).unwrap_or_else(|| {
        // Quotes, and a colon.
        *bytes += name.len() + 3;
        object.insert_full(name.to_owned(), Node::Empty).0
    });
    &mut object[at]
}

impl Node {
    fn is_unfinished(&self) -> bool {
        match self {
            Self::Text { continues, .. } => *continues,
            Self::Object(members) => members.values().any(Self::is_unfinished),
            Self::Array(elements) => elements.iter().any(Self::is_unfinished),
            Self::Empty | Self::Null | Self::Raw(_) => false,
        }
    }

    /// The value one step down, made if there is none. An array has no gaps: an index is one that is there, or the next.
    fn child(&mut self, step: &Step<'_>, bytes: &mut usize) -> Option<&mut Self> {
        if let Self::Empty = self {
            *self = match step {
                Step::Name(_) => Self::Object(Box::default()),
                Step::Index(_) => Self::Array(Vec::new()),
            };
            // At least this much more than what its values are counted as.
            *bytes += 1;
        }
        match (self, step) {
            (Self::Object(object), Step::Name(name)) => Some(member(object, name, bytes)),
            (Self::Array(array), Step::Index(index)) => {
                if *index == array.len() {
                    array.push(Self::Empty);
                    *bytes += 1;
                }
                array.get_mut(*index)
            }
            _ => None,
        }
    }

    fn take(&mut self, value: Self) -> Result<(), Misfit> {
        match (&mut *self, value) {
            (Self::Empty, value) => *self = value,
            (
                Self::Text {
                    text,
                    continues: continued @ true,
                },
                Self::Text {
                    text: more,
                    continues,
                },
            ) => {
                text.push_str(&more);
                *continued = continues;
            }
            // A value that has ended has ended.
            _ => return Err(Misfit::Contradiction),
        }
        Ok(())
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty | Self::Null => serializer.serialize_unit(),
            Self::Text { text, .. } => serializer.serialize_str(text),
            Self::Raw(raw) => raw.serialize(serializer),
            Self::Object(object) => object.serialize(serializer),
            Self::Array(array) => array.serialize(serializer),
        }
    }
}

/// The steps of a path as in RFC 9535, as far as it names one place: `$.name`, `$['name']`, `$["name"]`, `$[0]`.
fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if steps.len() == MOST_STEPS {
            return None;
        }
        let step;
        (step, rest) = if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = after.split_at(after.find(['.', '[']).unwrap_or(after.len()));
            if matches!(name, "" | "*") {
                // They name more than one place.
                return None;
            }
            (Step::Name(Cow::Borrowed(name)), after)
        } else {
            bracketed(rest.strip_prefix('[')?)?
        };
        steps.push(step);
    }
    Some(steps)
}

/// A step up to its closing bracket, and what follows.
fn bracketed(rest: &str) -> Option<(Step<'_>, &str)> {
    let Some(quote) = rest
        .chars()
        .next()
        .filter(|first| matches!(first, '\'' | '"'))
    else {
        let (index, after) = rest.split_once(']')?;
        let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        return Some((Step::Index(index.parse().ok().filter(|_| digits)?), after));
    };
    let text = &rest[1..];
    let mut escaped = false;
    let end = text.find(|c| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    })?;
    let (name, after) = (&text[..end], text[end + 1..].strip_prefix(']')?);
    Some((Step::Name(unescaped(name)?), after))
}

/// A quoted name's escapes are those of JSON, and an escaped single quote.
fn unescaped(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains(['\\', '"']) {
        return Some(Cow::Borrowed(name));
    }
    let mut json = String::with_capacity(name.len() + 2);
    let mut escaped = false;
    json.push('"');
    for c in name.chars() {
        match c {
            '\'' if escaped => {
                json.pop();
            }
            '"' if !escaped => json.push('\\'),
            _ => {}
        }
        json.push(c);
        escaped = c == '\\' && !escaped;
    }
    json.push('"');
    serde_json::from_str(&json).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests;
