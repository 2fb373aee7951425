//! The log: to stderr, for people where there is a terminal, as JSON lines where there is none.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use toolpool_broker::admin::LogControl;
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

/// Looks at the filter, and changes it; the formats have filters of different types, so they are hidden in here.
struct Filter {
    show: Box<dyn Fn() -> Option<String> + Send + Sync>,
    change: Box<dyn Fn(EnvFilter) -> Result<()> + Send + Sync>,
}

/// There is one log, as there is one stderr.
static FILTER: OnceLock<Filter> = OnceLock::new();

/// Starts the log. `filter` wins over `RUST_LOG`; without either, services say more than commands do.
pub(crate) fn start(filter: Option<&str>, is_service: bool) -> Result<()> {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let usual = if is_service { "info" } else { "warn" };
    let directives = filter.or(from_environment.as_deref()).unwrap_or(usual);
    let log = tracing_subscriber::fmt()
        .with_env_filter(parse(directives)?)
        // A log that cannot be written must not end the task that wanted to write: the fallback would panic.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    if io::stderr().is_terminal() {
        let log = log.with_target(false).with_filter_reloading();
        keep(log.reload_handle());
        log.init();
    } else {
        let log = log.json().with_filter_reloading();
        keep(log.reload_handle());
        log.init();
    }
    Ok(())
}

/// The way to the filter for a service's admin port.
pub(crate) fn control() -> LogControl {
    LogControl {
        show: Box::new(|| {
            let shown = FILTER.get().and_then(|filter| (filter.show)());
            shown.unwrap_or_default()
        }),
        change: Box::new(|directives| {
            let changed = parse(directives).and_then(|new| {
                let filter = FILTER.get().context("the log was not started")?;
                (filter.change)(new)
            });
            changed.map_err(|error| format!("{error:#}"))
        }),
    }
}

fn parse(directives: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(directives)
        .with_context(|| format!("`{directives}` is not a log filter; write something like `info`"))
}

fn keep<S: Subscriber + 'static>(handle: Handle<EnvFilter, S>) {
    let other = handle.clone();
    let filter = Filter {
        show: Box::new(move || handle.with_current(EnvFilter::to_string).ok()),
        change: Box::new(move |filter| other.reload(filter).map_err(|error| anyhow!(error))),
    };
    // A second log could not be started either.
    let _ = FILTER.set(filter);
}
