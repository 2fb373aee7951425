//! Tools that are commands, note each of their runs, and wait for as long as a test holds them back.

use std::fs;
use std::path::PathBuf;

use rustix::process::Pid;
use tempfile::TempDir;

use super::{eventually, is_group_alive};

/// Notes the run, waits while it is held back, and says which attempt it was. Without its folder nothing is held.
const WORK: &str = r#"
echo "$TOOLPOOL_CALL_ID $TOOLPOOL_ATTEMPT $$ $TOOLPOOL_IDEMPOTENCY_KEY" >> runs
while [ -e "hold.$TOOLPOOL_CALL_ID.$TOOLPOOL_ATTEMPT" ]; do sleep 0.05; done
echo "attempt $TOOLPOOL_ATTEMPT"
"#;

/// `look` changes nothing, `put` can be repeated, `pay` cannot.
const TOOLS: &str = r#"
[[tool]]
name = "look"
command = ["sh", "work"]
effects = "read_only"

[[tool]]
name = "put"
command = ["sh", "work"]
effects = "idempotent"

[[tool]]
name = "pay"
command = ["sh", "work"]
effects = "side_effecting"
"#;

/// A folder of tools, for workers that all see the same one.
pub(crate) struct Workshop {
    folder: TempDir,
}

/// One run of a tool's command.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) call: String,
    pub(crate) attempt: u32,
    pub(crate) idempotency_key: String,
    /// Of its processes.
    pub(crate) group: Pid,
}

impl Workshop {
    /// The tools `look`, `put` and `pay`.
    pub(crate) fn new() -> Self {
        Self::with(TOOLS)
    }

    /// Other tools; `sh work` is the command that notes its runs and can be held back.
    pub(crate) fn with(tools: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let workshop = Self { folder };
        workshop.write("work", WORK);
        workshop.write("tools.toml", tools);
        workshop
    }

    /// What `worker exec` is given.
    #[must_use]
    pub(crate) fn tools(&self) -> PathBuf {
        self.path("tools.toml")
    }

    /// Holds an attempt of a call back, from before it starts until it is released.
    pub(crate) fn hold(&self, call: &str, attempt: u32) {
        self.write(&hold(call, attempt), "");
    }

    /// Lets the attempt go on to its end.
    pub(crate) fn release(&self, call: &str, attempt: u32) {
        fs::remove_file(self.path(&hold(call, attempt))).expect("it is held");
    }

    /// Every run so far.
    #[must_use]
    pub(crate) fn runs(&self) -> Vec<Run> {
        let runs = fs::read_to_string(self.path("runs")).unwrap_or_default();
        // The last line may be under way.
        runs.split_inclusive('\n').filter_map(run).collect()
    }

    /// How often a call has been run.
    #[must_use]
    pub(crate) fn runs_of(&self, call: &str) -> usize {
        let runs = self.runs();
        runs.iter().filter(|run| run.call == call).count()
    }

    /// Waits until the attempt has begun to run.
    pub(crate) async fn until_running(&self, call: &str, attempt: u32) -> Run {
        let mut found = None;
        eventually(&format!("attempt {attempt} of {call} runs"), async || {
            let mut runs = self.runs().into_iter();
            found = runs.find(|run| run.call == call && run.attempt == attempt);
            found.is_some()
        })
        .await;
        found.expect("it was found")
    }

    /// A file in the folder, which is where the commands run.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file into the folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the folder can be written to");
    }
}

impl Run {
    /// Waits until none of its processes is left.
    pub(crate) async fn until_gone(&self) {
        let what = format!(
            "nothing is left of attempt {} of {}",
            self.attempt, self.call
        );
        eventually(&what, async || !is_group_alive(self.group)).await;
    }
}

fn hold(call: &str, attempt: u32) -> String {
    format!("hold.{call}.{attempt}")
}

fn run(line: &str) -> Option<Run> {
    // The key comes last: it may have spaces of its own.
    let mut fields = line.strip_suffix('\n')?.splitn(4, ' ');
    Some(Run {
        call: fields.next()?.to_owned(),
        attempt: fields.next()?.parse().ok()?,
        group: Pid::from_raw(fields.next()?.parse().ok()?)?,
        idempotency_key: fields.next()?.to_owned(),
    })
}
