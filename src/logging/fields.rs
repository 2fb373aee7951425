//! Fields as a terminal shows them: what workers and agents say in them must not drive it.

use std::fmt::{self, Debug, Write};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{self, Writer};

use crate::output::drives_terminal;

/// As `tracing_subscriber` formats them, but with all values escaped and not only the message.
pub(super) fn for_terminal() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    format::debug_fn(field).delimited(" ")
}

fn field(to: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    match field.name() {
        "message" => {}
        name if to.has_ansi_escapes() => write!(to, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        name => write!(to, "{name}=")?,
    }
    write!(Escaped(to), "{value:?}")
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
            .fmt_fields(for_terminal())
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
}
