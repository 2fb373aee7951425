//! The log: to stderr, for people where there is a terminal, as JSON lines where there is none.

mod fields;
mod filter;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

pub(crate) use self::filter::{as_at_start, control, debug};
use self::queue::{Queue, Writer};

/// How long lines that nobody reads may hold up the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log. Whoever lets go of it waits a moment for the last lines.
#[derive(Default)]
pub(crate) struct Log {
    /// Of a service: a reader of stderr that stalls must not hold it up. A command has nothing else to do.
    queue: Option<Arc<Queue>>,
}

impl Log {
    /// Says the process's last word, behind what was logged before.
    pub(crate) fn say(&self, line: &str) {
        match &self.queue {
            Some(queue) => queue.push(format!("{line}\n").as_bytes()),
            None => {
                let _ = writeln!(io::stderr(), "{line}");
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.finish(LAST_LINES);
        }
    }
}

/// Starts the log. `filter` wins over `RUST_LOG`; without either, services say more than commands do.
pub(crate) fn start(filter: Option<&str>, is_service: bool) -> Result<Log> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let usual = if is_service { "info" } else { "warn" };
    let directives = filter.or(from_environment.as_deref()).unwrap_or(usual);
    let filter = filter::parse(directives)?;
    let mut log = Log::default();
    let mut writer = BoxMakeWriter::new(io::stderr);
    if is_service {
        let queue = Queue::start(io::stderr()).context("cannot start the log's thread")?;
        panics_go_to(Arc::clone(&queue));
        log.queue = Some(Arc::clone(&queue));
        writer = BoxMakeWriter::new(move || Writer(Arc::clone(&queue)));
    }
    let to = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that cannot be written must not end the task that wanted to write: the fallback would panic.
        .log_internal_errors(false)
        .with_writer(writer);
    if io::stderr().is_terminal() {
        let to = to.with_target(false).fmt_fields(fields::ForTerminal);
        let to = to.with_filter_reloading();
        filter::keep(directives, to.reload_handle());
        to.init();
    } else {
        let to = to.json().with_filter_reloading();
        filter::keep(directives, to.reload_handle());
        to.init();
    }
    Ok(log)
}

/// Says panics there: the usual way would wait for the thread that writes.
fn panics_go_to(queue: Arc<Queue>) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let mut said = format!("thread '{name}' {panic}\n");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            said.push_str(&backtrace.to_string());
        }
        queue.push(said.as_bytes());
    }));
}
