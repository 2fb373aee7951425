//! Everything that goes to stdout and to the status line: for people tables and waterfalls, for machines JSON.

pub(crate) mod json;
pub(crate) mod operator;
mod paint;
mod pretty;
mod report;
mod status;
mod table;
mod time;
mod turn;
pub(crate) mod waterfall;

use std::io::{self, IsTerminal, Write};

use toolpool_client::FinishedBatch;

pub(crate) use self::paint::Paint;
pub(crate) use self::status::StatusLine;
pub(crate) use self::table::{Table, cut, drives_terminal, one_line, width_of};
pub(crate) use self::time::{compact, human, stamp};

/// Says on stderr what one should know, whatever goes to stdout.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "note: {}", one_line(text));
}

/// The width of a chart where no terminal says how much room there is.
const WIDTH_WITHOUT_TERMINAL: usize = 100;

/// Stdout, and what is known of whoever reads it.
pub(crate) struct Output {
    stdout: io::Stdout,
    /// Columns of the terminal. `None`: it is no terminal, and nothing is cut.
    width: Option<usize>,
    pub(crate) paint: Paint,
}

impl Output {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let width = terminal
            .then(|| rustix::termios::tcgetwinsize(&stdout).ok())
            .flatten()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        Self {
            width,
            paint: Paint::new(
                terminal && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()),
            ),
            stdout,
        }
    }

    /// Writes a line. A reader that went away is an error of kind `BrokenPipe`, which `main` ends on quietly.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.stdout, "{}", line.as_ref())
    }

    pub(crate) fn table(&mut self, table: &Table) -> io::Result<()> {
        table
            .lines(self.width, self.paint)
            .try_for_each(|line| self.line(line))
    }

    /// The chart of a finished batch: where each call's time went.
    pub(crate) fn waterfall(&mut self, batch: &FinishedBatch) -> io::Result<()> {
        let width = self.width.unwrap_or(WIDTH_WITHOUT_TERMINAL);
        waterfall::lines(batch, width, self.paint)
            .iter()
            .try_for_each(|line| self.line(line))
    }

    /// A machine's answer: one JSON document.
    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.stdout, value)?;
        writeln!(self.stdout)
    }

    /// The same for what is JSON text already; it is set over several lines, and nothing in it changes. Text that is none is
    /// written as it is.
    pub(crate) fn json_text(&mut self, json: &[u8]) -> io::Result<()> {
        let text = String::from_utf8_lossy(json);
        if serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok() {
            self.line(pretty::pretty(&text))
        } else {
            self.line(text)
        }
    }
}
