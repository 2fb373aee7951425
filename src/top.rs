//! The live view of a broker: the loop that looks, listens to the keys and draws. `look` asks the broker, `model` is the state,
//! `view` draws it, `input` says what keys mean.

mod input;
mod look;
mod model;
mod view;
mod waterfall;

use std::io;
use std::mem::ManuallyDrop;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use crossterm::cursor::Show;
use crossterm::event::{Event as Key, EventStream};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;
use ratatui::{DefaultTerminal, Terminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::StreamExt as _;
use tonic::Status;

pub(crate) use self::look::Look;
use self::model::Model;
use crate::command::Admin;

/// How often the screen shows that time goes by, whatever the broker does.
const TICK: Duration = Duration::from_millis(500);

/// What can happen.
enum Event {
    /// It is time for the next look.
    Due,
    Looked(Result<Result<Look, Status>, JoinError>),
    Key(Option<io::Result<Key>>),
    /// A signal asks it to go; as a shell would say it, 128 and the signal's number.
    Signal(u8),
    Tick,
}

/// Shows the broker until a key or a signal ends it. The terminal is as before in every ending.
pub(crate) async fn run(
    admin: Admin,
    url: String,
    look: Look,
    every: Duration,
) -> Result<ExitCode> {
    // Before the terminal is changed: a signal in between would leave it so.
    let mut signals = Signals::watch()?;
    let mut model = Model::new(url, every, Instant::now());
    model.take(look, Instant::now());
    let mut screen = Screen::open()?;
    let mut keys = EventStream::new();
    let mut tick = interval(TICK);
    let mut due = interval(every);
    for timer in [&mut tick, &mut due] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    // One at most.
    let mut looks: JoinSet<Result<Look, Status>> = JoinSet::new();
    loop {
        screen.draw(&model)?;
        let event = tokio::select! {
            code = signals.next() => Event::Signal(code),
            key = keys.next() => Event::Key(key),
            Some(look) = looks.join_next() => Event::Looked(look),
            _ = due.tick() => Event::Due,
            _ = tick.tick() => Event::Tick,
        };
        match event {
            Event::Signal(code) => return Ok(ExitCode::from(code)),
            Event::Key(None) => return Ok(ExitCode::SUCCESS),
            Event::Key(Some(key)) => {
                let key = key.context("the keyboard cannot be read")?;
                let action = input::action(&key);
                if action == Some(input::Action::Quit) {
                    return Ok(ExitCode::SUCCESS);
                }
                if let Some(action) = action {
                    model.act(action, Instant::now());
                }
            }
            Event::Looked(Ok(Ok(look))) => model.take(look, Instant::now()),
            Event::Looked(Ok(Err(status))) => model.no_answer(&status),
            Event::Looked(Err(panicked)) => return Err(panicked.into()),
            Event::Due if model.is_paused() || !looks.is_empty() => {}
            Event::Due => {
                let mut admin = admin.clone();
                looks.spawn(async move { Look::take(&mut admin).await });
            }
            Event::Tick => {}
        }
    }
}

/// The terminal while it is ours.
struct Screen {
    /// Never dropped: that would say on stderr that the terminal is gone, and panic if stderr is gone with it.
    terminal: ManuallyDrop<DefaultTerminal>,
}

impl Screen {
    /// Takes the terminal, and sees to it that a panic gives it back before it says anything.
    fn open() -> Result<Self> {
        let say = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            say(panic);
        }));
        let terminal = take().inspect_err(|_| {
            // It may have got half way.
            give_back();
        });
        Ok(Self {
            terminal: ManuallyDrop::new(terminal.context("the terminal cannot be drawn on")?),
        })
    }

    fn draw(&mut self, model: &Model) -> Result<()> {
        let now = Instant::now();
        let drawn = self.terminal.draw(|frame| view::draw(frame, model, now));
        drawn.context("the terminal cannot be drawn on")?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<DefaultTerminal> {
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen)?;
    Terminal::new(CrosstermBackend::new(io::stdout()))
}

/// As far as it is still there. Ratatui's own way would say on stderr what cannot be done.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}

/// The signals that end it.
struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
}

impl Signals {
    fn watch() -> Result<Self> {
        let watch = |kind| signal(kind).context("cannot watch for signals");
        Ok(Self {
            hang_up: watch(SignalKind::hangup())?,
            interrupt: watch(SignalKind::interrupt())?,
            quit: watch(SignalKind::quit())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> u8 {
        128 + tokio::select! {
            _ = self.hang_up.recv() => 1,
            _ = self.interrupt.recv() => 2,
            _ = self.quit.recv() => 3,
            _ = self.terminate.recv() => 15,
        }
    }
}
