//! What signals ask of a service: the first SIGTERM or SIGINT drains it, the second ends it at once; a worker's log is
//! changed by SIGUSR1 and SIGUSR2.

use std::io::Read;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::logging;

/// The longest that the second signal waits for the service to let go by itself.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What signals have asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    pub(crate) drain: CancellationToken,
    pub(crate) now: CancellationToken,
    /// As a shell would say it: 128 and the number of the second signal; 0 as long as there was none.
    code: Arc<AtomicU8>,
}

impl Signals {
    /// Watches for signals from here on. Must be called within a runtime. With `exit_with_parent`, the end of stdin ends the
    /// service at once: a parent that holds the other end of the pipe takes it along however it dies.
    pub(crate) fn watch(exit_with_parent: bool) -> Result<Self> {
        let signals = Self::default();
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let seen = signals.clone();
        tokio::spawn(async move {
            loop {
                let code = tokio::select! {
                    _ = terminate.recv() => 128 + 15,
                    _ = interrupt.recv() => 128 + 2,
                };
                if seen.drain.is_cancelled() {
                    tracing::warn!("a second signal ends this at once; what is under way is lost");
                    seen.code.store(code, Ordering::Relaxed);
                    seen.now.cancel();
                    return;
                }
                tracing::info!("draining; a second signal ends at once");
                seen.drain.cancel();
            }
        });
        if exit_with_parent {
            let now = signals.now.clone();
            // A thread of its own, which nobody waits for: a read from stdin cannot be called off.
            std::thread::Builder::new()
                .name("parent".to_owned())
                .spawn(move || {
                    let mut end = [0; 64];
                    while matches!(io_read(&mut end), Ok(1..)) {}
                    now.cancel();
                })
                .context("cannot watch stdin")?;
        }
        Ok(signals)
    }

    /// Runs the service to its end, or until a moment after the second signal.
    pub(crate) async fn run<E>(
        &self,
        service: impl Future<Output = Result<(), E>>,
    ) -> Result<ExitCode>
    where
        E: Into<anyhow::Error>,
    {
        let overdue = async {
            self.now.cancelled().await;
            tokio::time::sleep(LAST_MOMENT).await;
        };
        tokio::select! {
            ended = service => ended.map_err(Into::into)?,
            () = overdue => {}
        }
        Ok(ExitCode::from(self.code.load(Ordering::Relaxed)))
    }
}

/// Lets SIGUSR1 turn the log to `debug`, and SIGUSR2 back. Must be called within a runtime.
pub(crate) fn change_log() -> Result<()> {
    let mut debug = signal(SignalKind::user_defined1()).context("cannot watch for SIGUSR1")?;
    let mut back = signal(SignalKind::user_defined2()).context("cannot watch for SIGUSR2")?;
    tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                _ = debug.recv() => logging::debug(),
                _ = back.recv() => logging::as_at_start(),
            };
            if let Err(error) = changed {
                tracing::warn!(%error, "the log's filter could not be changed");
            }
        }
    });
    Ok(())
}

fn io_read(buffer: &mut [u8]) -> std::io::Result<usize> {
    std::io::stdin().read(buffer)
}
