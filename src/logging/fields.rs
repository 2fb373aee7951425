//! Fields as a terminal shows them: what workers and agents say in them must not drive it.

use std::error::Error;
use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::output::drives_terminal;

/// Formats as `tracing_subscriber` does, but with all values escaped and not only the message.
pub(super) struct ForTerminal;

impl<'a> FormatFields<'a> for ForTerminal {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut shown = Shown {
            to: writer,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut shown);
        shown.result
    }
}

struct Shown<'a> {
    to: Writer<'a>,
    is_first: bool,
    result: fmt::Result,
}

impl Shown<'_> {
    fn show(&mut self, field: &Field, value: &dyn Debug) -> fmt::Result {
        if !std::mem::take(&mut self.is_first) {
            self.to.write_char(' ')?;
        }
        match field.name() {
            "message" => {}
            name if self.to.has_ansi_escapes() => {
                write!(self.to, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?;
            }
            name => write!(self.to, "{name}=")?,
        }
        write!(Escaped(&mut self.to), "{value:?}")
    }
}

impl Visit for Shown<'_> {
    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            said = format!("{said}: {error}");
            cause = error.source();
        }
        self.record_debug(field, &format_args!("{said}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Those that begin so are about the line itself, of a library that does not use `tracing`.
        if self.result.is_ok() && !field.name().starts_with("log.") {
            self.result = self.show(field, value);
        }
    }
}

struct Escaped<'a, 'b>(&'a mut Writer<'b>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| {
            if drives_terminal(c) {
                write!(self.0, "{}", c.escape_default())
            } else {
                self.0.write_char(c)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> String {
        let screen = Screen::default();
        let to = screen.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(ForTerminal)
            .with_ansi(false)
            .without_time()
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = screen.0.lock().unwrap();
        String::from_utf8(bytes.clone()).unwrap()
    }

    #[test]
    fn nothing_that_is_logged_drives_the_terminal() {
        let evil = "a\x1b]0;owned\x07b\r\nc\u{9b}2J\u{202e}é";
        let shown = r"a\u{1b}]0;owned\u{7}b\r\nc\u{9b}2J\u{202e}é";
        let line = logged(|| {
            let _span = tracing::info_span!("worker", worker.id = %evil).entered();
            tracing::info!(version = %evil, calls = 2, text = "plain", "said {evil}");
        });
        assert!(
            line.contains(&format!("worker{{worker.id={shown}}}")),
            "{line}"
        );
        assert!(
            line.ends_with(&format!(
                "said {shown} version={shown} calls=2 text=\"plain\"\n"
            )),
            "{line}"
        );
    }

    #[test]
    fn an_error_is_shown_with_its_causes() {
        let error = anyhow::anyhow!("refused\x1b").context("cannot dial");
        let line = logged(|| tracing::warn!(error = error.as_ref() as &dyn Error, "waiting"));
        assert!(
            line.ends_with("waiting error=cannot dial: refused\\u{1b}\n"),
            "{line}"
        );
    }
}
