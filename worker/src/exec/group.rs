//! A process group that does not outlive its owner.

use std::{io, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process_group, test_kill_process_group},
};
use tokio::process::Child;
use tracing::warn;

/// Between two looks at whether a group is empty: there is no event for it.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The group of a child that leads one. Dropping it kills what is left of the group.
pub(super) struct Group {
    id: Pid,
}

impl Group {
    /// `child` must have been spawned with `process_group(0)` and not been waited for.
    pub(super) fn of(child: &Child) -> io::Result<Self> {
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        id.map(|id| Self { id })
            .ok_or_else(|| io::Error::other("the process has no id"))
    }

    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits until there is no process in the group. Zombies count until they are reaped.
    pub(super) async fn is_empty(&self) {
        while test_kill_process_group(self.id) != Err(Errno::SRCH) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn signal(&self, signal: Signal) {
        match kill_process_group(self.id, signal) {
            // SRCH: nothing is left of it, which is what is wanted.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                warn!(group = %self.id.as_raw_nonzero(), ?signal, %error, "cannot signal a process group");
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
