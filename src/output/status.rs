//! The line that changes while one waits. On stderr, so that what is piped on stays clean.

use std::io::{self, IsTerminal, Write};

/// A line at the bottom of the terminal; nothing at all where stderr is no terminal.
pub(crate) struct StatusLine {
    live: bool,
    shown: bool,
}

impl StatusLine {
    pub(crate) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            live: io::stderr().is_terminal() && !dumb,
            shown: false,
        }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Replaces what the line shows. It is not worth an error if that fails.
    pub(crate) fn show(&mut self, text: &str) {
        if self.live {
            let _ = write!(io::stderr(), "\r\x1b[2K{text}");
            self.shown = true;
        }
    }

    /// Takes the line away, so that something else can be written.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[2K");
            self.shown = false;
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.clear();
    }
}
