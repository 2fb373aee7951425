//! A turn as it goes: a line for each event, and a line that changes while one waits.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use toolpool_broker::decode::Decoder;
use toolpool_client::{Effects, Progress, ProgressEvent, Tool};

use super::Step;
use crate::output::{Output, StatusLine, human, json, one_line, stamp};

/// What is shown while a turn is played.
pub(crate) enum Watch {
    /// Nothing: the answer is for a machine.
    Nothing,
    /// How many calls have ended, where a terminal is attached.
    Status,
    /// A line for each event. The catalogue tells which calls are held for the seal.
    Lines(Vec<Tool>),
}

/// What is known of a turn that goes on.
pub(super) struct Live<'a> {
    output: &'a mut Output,
    status: StatusLine,
    lines: bool,
    quiet: bool,
    side_effecting: Vec<String>,
    /// Tells what comes in a provider's stream.
    decoder: Option<Decoder>,
    /// Of the calls in it that have begun, in their order: whether the block is complete.
    seen: Vec<bool>,
    /// Blocks that are being written, by index.
    open: BTreeMap<u32, String>,
    calls: HashMap<String, Call>,
    sealed: bool,
}

struct Call {
    tool: String,
    complete: bool,
    started: Option<Duration>,
    ended: bool,
}

impl<'a> Live<'a> {
    pub(super) fn new(watch: Watch, output: &'a mut Output) -> Self {
        let (lines, quiet, tools) = match watch {
            Watch::Nothing => (false, true, Vec::new()),
            Watch::Status => (false, false, Vec::new()),
            Watch::Lines(tools) => (true, false, tools),
        };
        let held = |tool: &Tool| tool.policy.effects == Some(Effects::SideEffecting);
        Self {
            output,
            status: StatusLine::new(),
            lines,
            quiet,
            side_effecting: tools
                .into_iter()
                .filter(held)
                .map(|tool| tool.name)
                .collect(),
            decoder: None,
            seen: Vec::new(),
            open: BTreeMap::new(),
            calls: HashMap::new(),
            sealed: false,
        }
    }

    /// What is written is a provider's stream, which this decoder reads along.
    pub(super) fn reads_by(&mut self, decoder: Option<Decoder>) {
        self.decoder = decoder.filter(|_| !self.quiet);
    }

    /// Whether it is of use to be told what happens at the broker.
    pub(super) fn wants_progress(&self) -> bool {
        self.lines || (!self.quiet && self.status.is_live())
    }

    /// A step is about to be written.
    pub(super) fn writes(&mut self, at: Duration, step: &Step) -> io::Result<()> {
        let paint = self.output.paint;
        match step {
            Step::BlockStart(start) => self.begin(at, start.index, &start.id, &start.tool),
            Step::BlockDelta { .. } => Ok(()),
            Step::BlockStop { index } => {
                let id = self.open.remove(index).unwrap_or_default();
                self.complete(at, &id)
            }
            Step::Call(call) => {
                self.call(&call.id, &call.tool);
                self.complete(at, &call.id)
            }
            Step::ProviderEvent(_) | Step::ProviderData(_) => self.read(at, step),
            Step::Seal(_) => {
                self.sealed = true;
                self.open.clear();
                let running = self.calls.len() - self.ended();
                let what = format!(
                    "the model's turn is over; {running} of {} calls have not ended",
                    self.calls.len()
                );
                self.line(&format!("{}  {} {what}", stamp(at), paint.cyan("■")))
            }
        }
    }

    /// The broker has told something.
    pub(super) fn told(&mut self, progress: &Progress) -> io::Result<()> {
        let paint = self.output.paint;
        let Progress { id, at, event } = progress;
        match event {
            ProgressEvent::Started { worker_id, attempt } => {
                let complete = self.calls.get_mut(id).is_none_or(|call| {
                    call.started = Some(*at);
                    call.complete
                });
                let try_ = if *attempt > 1 {
                    format!("attempt {attempt} ")
                } else {
                    String::new()
                };
                // The last to begin; where no block closes before the turn does, all are open.
                let model = match self.open.values().next_back().filter(|open| *open != id) {
                    Some(open) => paint.dim(&format!("   (model still writing {open})")),
                    None if !self.sealed => paint.dim("   (model still writing)"),
                    None => String::new(),
                };
                let since = if complete && !self.sealed {
                    "block complete, "
                } else {
                    ""
                };
                let early = if complete { "" } else { " early" };
                let what = format!("{since}{try_}started{early} on worker {worker_id}{model}");
                self.event(*at, &paint.cyan("●"), id, &what)
            }
            ProgressEvent::Tool { message, fraction } => {
                let part =
                    fraction.map_or_else(String::new, |part| format!(" {:.0} %", part * 100.0));
                self.event(
                    *at,
                    &paint.dim("·"),
                    id,
                    &paint.dim(&format!("{}{part}", one_line(message))),
                )
            }
            ProgressEvent::Ended { error } => {
                let started = self.calls.get_mut(id).and_then(|call| {
                    call.ended = true;
                    call.started
                });
                let took = match started {
                    Some(started) => format!("after {}", human(at.saturating_sub(started))),
                    None => "before any worker got it".to_owned(),
                };
                match error {
                    None => self.event(*at, &paint.green("✓"), id, &format!("succeeded {took}")),
                    Some(code) => {
                        let what = format!("{} {took}", paint.red(json::code_name(*code)));
                        self.event(*at, &paint.red("✗"), id, &what)
                    }
                }
            }
            // What starts at once was queued for no time; what does not shows as waiting in the chart.
            _ => Ok(()),
        }
    }

    /// Time goes by.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        if !self.quiet && self.status.is_live() && !self.calls.is_empty() {
            let (ended, calls) = (self.ended(), self.calls.len());
            self.status.show(&format!(
                "{}  {ended} of {calls} calls have ended",
                stamp(elapsed)
            ));
        }
    }

    /// The next piece of a provider's stream is about to be written.
    fn read(&mut self, at: Duration, step: &Step) -> io::Result<()> {
        let Some(mut decoder) = self.decoder.take() else {
            return Ok(());
        };
        step.read_by(&mut decoder);
        for (index, call) in (0_u32..).zip(decoder.seen()) {
            let known = self.seen.get(index as usize).copied();
            if known.is_none() {
                self.seen.push(false);
                self.begin(at, index, call.id, call.tool)?;
            }
            if call.complete && known != Some(true) {
                self.seen[index as usize] = true;
                self.open.remove(&index);
                self.complete(at, call.id)?;
            }
        }
        self.decoder = Some(decoder);
        Ok(())
    }

    fn begin(&mut self, at: Duration, index: u32, id: &str, tool: &str) -> io::Result<()> {
        let paint = self.output.paint;
        self.open.insert(index, id.to_owned());
        self.call(id, tool);
        let what = paint.dim("the model begins to write it");
        self.event(at, &paint.dim("○"), id, &what)
    }

    fn complete(&mut self, at: Duration, id: &str) -> io::Result<()> {
        let held = self.calls.get_mut(id).is_some_and(|call| {
            call.complete = true;
            self.side_effecting.contains(&call.tool)
        });
        if !held {
            return Ok(());
        }
        let paint = self.output.paint;
        let what = "block complete, held until the turn is sealed: it has side effects";
        self.event(at, &paint.yellow("◌"), id, what)
    }

    fn call(&mut self, id: &str, tool: &str) {
        // A second call under an id is a duplicate, and tells nothing of the first.
        self.calls.entry(id.to_owned()).or_insert_with(|| Call {
            tool: tool.to_owned(),
            complete: false,
            started: None,
            ended: false,
        });
    }

    fn ended(&self) -> usize {
        self.calls.values().filter(|call| call.ended).count()
    }

    fn event(&mut self, at: Duration, mark: &str, id: &str, what: &str) -> io::Result<()> {
        let tool = self.calls.get(id).map_or("", |call| &*call.tool);
        let line = format!(
            "{}  {mark} {:<16} {:<8} {what}",
            stamp(at),
            one_line(tool),
            one_line(id)
        );
        self.line(&line)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        if !self.lines {
            return Ok(());
        }
        self.status.clear();
        self.output.line(line)
    }
}
