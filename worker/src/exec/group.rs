//! A process group that does not outlive its owner.

use std::{io, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, kill_process_group, test_kill_process_group, waitpgid},
};
use tokio::{
    process::Child,
    time::{sleep, timeout},
};
use tracing::warn;

/// Between two looks at whether a group is empty: there is no event for it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The longest that it is waited for what was killed. The kernel needs far less, except where it hangs itself.
const GONE: Duration = Duration::from_secs(1);

/// The group of a child that leads one. Dropping it kills what is left of the group.
pub(super) struct Group {
    /// Absent: the group was seen to be empty, and its id may be another's by now.
    id: Option<Pid>,
}

impl Group {
    /// `child` must have been spawned with `process_group(0)` and not been waited for.
    pub(super) fn of(child: &Child) -> io::Result<Self> {
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        id.map(|id| Self { id: Some(id) })
            .ok_or_else(|| io::Error::other("the process has no id"))
    }

    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Kills what is left of the group, and waits a moment until it is gone. The leader must have been waited for.
    pub(super) async fn end(mut self) {
        self.kill();
        let _ = timeout(GONE, self.is_empty()).await;
    }

    /// Waits until there is no process in the group. The leader must have been waited for.
    pub(super) async fn is_empty(&mut self) {
        while let Some(id) = self.id {
            // Orphans come to this process when it is the first one in its container, and then they are its to reap.
            while let Ok(Some(_)) = waitpgid(id, WaitOptions::NOHANG) {}
            if test_kill_process_group(id) == Err(Errno::SRCH) {
                self.id = None;
            } else {
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(id) = self.id else { return };
        match kill_process_group(id, signal) {
            // SRCH: nothing is left of it, which is what is wanted.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                warn!(group = %id.as_raw_nonzero(), ?signal, %error, "cannot signal a process group");
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
