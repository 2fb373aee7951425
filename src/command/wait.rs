//! Waits for tools that are not there yet: who has just started a worker need not count the seconds.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use toolpool_client::Tool;

use crate::output::StatusLine;

/// The longest that a command at a prompt waits for tools.
const PATIENCE: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Asks again, with growing pauses, until the answer suffices. When the time is over, the last answer has to do.
pub(super) async fn until<T, E>(
    mut ask: impl AsyncFnMut() -> Result<T, E>,
    suffices: impl Fn(&T) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + PATIENCE;
    let mut status = StatusLine::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let answer = ask().await?;
        if suffices(&answer) || Instant::now() + pause > deadline {
            return Ok(answer);
        }
        status.show("waiting for a worker with these tools");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether the catalogue has a tool of this name.
pub(super) fn has(tools: &[Tool], name: &str) -> bool {
    tools.iter().any(|tool| tool.name == name)
}
