//! The log: to stderr, for people where there is a terminal, as JSON lines where there is none.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// Starts the log. `filter` wins over `RUST_LOG`; without either, services say more than commands do.
pub(crate) fn start(filter: Option<&str>, is_service: bool) -> Result<()> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let usual = if is_service { "info" } else { "warn" };
    let directives = filter.or(from_environment.as_deref()).unwrap_or(usual);
    let filter = EnvFilter::try_new(directives).with_context(|| {
        format!("`{directives}` is not a log filter; write something like `info`")
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log that cannot be written must not end the task that wanted to write: the fallback would panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    if io::stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().init();
    }
    Ok(())
}
