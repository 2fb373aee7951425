//! What is logged, and how that is changed while the process runs.

use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use toolpool_broker::admin::LogControl;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

/// Looks at the filter, and changes it; the formats have filters of different types, so they are hidden in here.
struct Filter {
    at_start: String,
    show: Box<dyn Fn() -> Option<String> + Send + Sync>,
    change: Box<dyn Fn(EnvFilter) -> Result<()> + Send + Sync>,
}

/// There is one log, as there is one stderr.
static FILTER: OnceLock<Filter> = OnceLock::new();

/// The crates whose name alone means all that they log.
const CRATES: [&str; 11] = [
    "toolpool",
    "toolpool_broker",
    "toolpool_client",
    "toolpool_worker",
    "h2",
    "hyper",
    "hyper_util",
    "opentelemetry",
    "opentelemetry_sdk",
    "tonic",
    "tower",
];

/// Reads a filter. A word that is no level would mean all that a crate of this name logs, and nothing else: the log would
/// fall silent, so it must be a crate that is here.
pub(super) fn parse(directives: &str) -> Result<EnvFilter> {
    for word in directives.split(',').map(str::trim) {
        let is_lone = word.starts_with(|c: char| c.is_alphanumeric() || c == '_')
            && !word.contains(['=', '[']);
        let is_crate = CRATES.contains(&word.split("::").next().unwrap_or_default());
        ensure!(
            !is_lone || is_crate || word.parse::<LevelFilter>().is_ok(),
            "`{word}` is no level of the log; the levels are off, error, warn, info, debug and trace, for one crate \
                 write CRATE=LEVEL"
        );
    }
    // A level alone, a span, or a crate that is here.
    let is_ours = |word: &str| {
        let begin = word.split(['=', '[', ':']).next().unwrap_or_default();
        // Nothing at all is read as a level too.
        let is_level = !word.is_empty() && word.parse::<LevelFilter>().is_ok();
        word.starts_with('[') || CRATES.contains(&begin) || is_level
    };
    ensure!(
        directives.split(',').map(str::trim).any(is_ours),
        "`{directives}` names no crate that is here, and would silence the log; add a level for the others, such as \
         `{directives},info`"
    );
    EnvFilter::try_new(directives)
        .with_context(|| format!("`{directives}` is not a log filter; write something like `info`"))
}

pub(super) fn keep<S: Subscriber + 'static>(at_start: &str, handle: Handle<EnvFilter, S>) {
    let other = handle.clone();
    let filter = Filter {
        at_start: at_start.to_owned(),
        show: Box::new(move || handle.with_current(EnvFilter::to_string).ok()),
        change: Box::new(move |filter| other.reload(filter).map_err(|error| anyhow!(error))),
    };
    // A second log could not be started either.
    let _ = FILTER.set(filter);
}

/// The way to the filter for a service's admin port.
pub(crate) fn control() -> LogControl {
    LogControl {
        show: Box::new(|| {
            let shown = FILTER.get().and_then(|filter| (filter.show)());
            shown.unwrap_or_default()
        }),
        change: Box::new(|directives| change(directives).map_err(|error| format!("{error:#}"))),
    }
}

fn change(directives: &str) -> Result<()> {
    let filter = FILTER.get().context("the log was not started")?;
    (filter.change)(parse(directives)?)
}

/// Logs at `debug` what this program's own crates do.
pub(crate) fn debug() -> Result<()> {
    let more = format!("{},toolpool=debug,toolpool_worker=debug", at_start()?);
    change(&more)?;
    tracing::info!(filter = more, "the log's filter was changed");
    Ok(())
}

/// Logs what was logged at the start.
pub(crate) fn as_at_start() -> Result<()> {
    let filter = at_start()?;
    // Before it may be too quiet to be said.
    tracing::info!(filter, "the log's filter was changed");
    change(filter)
}

fn at_start() -> Result<&'static str> {
    let filter = FILTER.get().context("the log was not started")?;
    Ok(&filter.at_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_no_filter() {
        for wrong in [
            "warning",
            "info,warning",
            "verbose",
            "Information, h2=off",
            "my_crate",
        ] {
            let error = format!("{:#}", parse(wrong).unwrap_err());
            assert!(
                error.contains("error, warn, info, debug"),
                "{wrong}: {error}"
            );
        }
        for silent in [
            "my_crate=debug",
            "my_crate::part=trace, other=info",
            ",,,",
            "info=debug",
        ] {
            let error = format!("{:#}", parse(silent).unwrap_err());
            assert!(error.contains("would silence the log"), "{error}");
        }
        for right in [
            "warn",
            "INFO",
            "0",
            "info,toolpool_worker=debug",
            "toolpool_broker::lane",
            "h2,info",
            "my_crate=info,warn",
            "off,h2=trace",
            "[attempt]=debug",
            "[attempt{tool}]=debug,warn",
        ] {
            let parsed = parse(right);
            assert!(parsed.is_ok(), "{right}: {parsed:?}");
        }
    }
}
