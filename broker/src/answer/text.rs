//! An ending as text, for formats that have place for nothing else.

use std::fmt::{self, Display, Write};

use serde::{Serialize, Serializer};

use super::piece::pieces;
use crate::call_error::CallError;
use crate::output::Output;

/// A whole ending as text, its pieces on lines of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    ending: Result<&'a Output, &'a CallError>,
    mark: &'static str,
}

impl<'a> Text<'a> {
    /// For formats that have no mark for an error: its text begins with one.
    pub(super) fn marked(ending: Result<&'a Output, &'a CallError>) -> Self {
        Self {
            ending,
            mark: "error: ",
        }
    }

    /// What an error says, where the format marks it.
    pub(super) fn of_error(error: &'a CallError) -> Self {
        Self {
            ending: Err(error),
            mark: "",
        }
    }

    /// How many characters it has, if those are more.
    pub(super) fn longer_than(self, most: usize) -> Option<usize> {
        // A byte that is no text becomes a character of three, and a note is short.
        let surely = match self.ending {
            Ok(output) => output.size().saturating_mul(4),
            Err(error) => error.message.len().saturating_add(1_024),
        };
        if surely <= most {
            return None;
        }
        let mut characters = Characters(0);
        // Counting cannot fail.
        let _ = write!(characters, "{self}");
        (characters.0 > most).then_some(characters.0)
    }
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ending {
            Ok(output) => pieces(output).enumerate().try_for_each(|(at, piece)| {
                let line = if at == 0 { "" } else { "\n" };
                f.write_str(line)?;
                f.write_str(&piece.text())
            }),
            Err(error) => {
                f.write_str(self.mark)?;
                // Formats that mark an error refuse one that says nothing.
                f.write_str(match error.message.trim() {
                    "" => "The call failed.",
                    _ => &error.message,
                })?;
                match error.retry_after {
                    Some(wait) if !wait.is_zero() => write!(f, " Try again after {wait:.1?}."),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct Characters(usize);

impl Write for Characters {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.chars().count();
        Ok(())
    }
}
