//! What keys mean.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What somebody at the keyboard wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    NextPane,
    PreviousPane,
    /// So many rows down; up, if it is negative.
    Rows(isize),
    /// To the next order of the tools.
    Sort,
    /// Stops looking, or goes on.
    Pause,
}

/// The rows that the page keys move by.
const PAGE: isize = 10;

/// What the event asks for, if anything.
pub(super) fn action(event: &Event) -> Option<Action> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press | KeyEventKind::Repeat,
        ..
    }) = event
    else {
        return None;
    };
    let action = match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Action::Quit,
        _ if modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => return None,
        KeyCode::Char('q') | KeyCode::Esc => Action::Quit,
        KeyCode::Tab | KeyCode::Right => Action::NextPane,
        KeyCode::BackTab | KeyCode::Left => Action::PreviousPane,
        KeyCode::Down => Action::Rows(1),
        KeyCode::Up => Action::Rows(-1),
        KeyCode::PageDown => Action::Rows(PAGE),
        KeyCode::PageUp => Action::Rows(-PAGE),
        KeyCode::Home => Action::Rows(isize::MIN),
        KeyCode::End => Action::Rows(isize::MAX),
        KeyCode::Char('s') => Action::Sort,
        KeyCode::Char('p') => Action::Pause,
        _ => return None,
    };
    Some(action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(code: KeyCode, modifiers: KeyModifiers) -> Option<Action> {
        action(&Event::Key(KeyEvent::new(code, modifiers)))
    }

    #[test]
    fn three_keys_quit() {
        assert_eq!(
            meant(KeyCode::Char('q'), KeyModifiers::NONE),
            Some(Action::Quit)
        );
        assert_eq!(meant(KeyCode::Esc, KeyModifiers::NONE), Some(Action::Quit));
        assert_eq!(
            meant(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Action::Quit)
        );
        assert_eq!(meant(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meant(KeyCode::Char('q'), KeyModifiers::CONTROL), None);
    }

    #[test]
    fn panes_and_rows_have_their_keys() {
        for (code, expected) in [
            (KeyCode::Tab, Action::NextPane),
            (KeyCode::Right, Action::NextPane),
            (KeyCode::BackTab, Action::PreviousPane),
            (KeyCode::Left, Action::PreviousPane),
            (KeyCode::Down, Action::Rows(1)),
            (KeyCode::Up, Action::Rows(-1)),
            (KeyCode::Char('s'), Action::Sort),
            (KeyCode::Char('p'), Action::Pause),
        ] {
            let modifiers = if code == KeyCode::BackTab {
                KeyModifiers::SHIFT
            } else {
                KeyModifiers::NONE
            };
            assert_eq!(meant(code, modifiers), Some(expected), "{code:?}");
        }
    }

    #[test]
    fn a_key_that_is_let_go_means_nothing() {
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(action(&Event::Key(key)), None);
        assert_eq!(action(&Event::Resize(80, 24)), None);
    }
}
