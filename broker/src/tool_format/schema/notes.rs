//! What a schema lost, and where.

use std::fmt::Write;

/// Changes that are told one by one; further ones are counted.
const MOST_CHANGES: usize = 64;

/// Changes, with the place that is being looked at.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// A JSON Pointer into the schema that is made.
    path: String,
    changes: Vec<String>,
    untold: usize,
}

/// A place to come back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back(usize);

impl Notes {
    /// Goes one step down.
    pub(super) fn enter(&mut self, step: &str) -> Back {
        let back = Back(self.path.len());
        self.path.push('/');
        self.path
            .push_str(&step.replace('~', "~0").replace('/', "~1"));
        back
    }

    pub(super) fn leave(&mut self, Back(length): Back) {
        self.path.truncate(length);
    }

    /// Tells of a change here.
    pub(super) fn tell(&mut self, what: &str) {
        if self.changes.len() == MOST_CHANGES {
            self.untold += 1;
            return;
        }
        let path = if self.path.is_empty() {
            "/"
        } else {
            &self.path
        };
        self.changes.push(format!("{path}: {what}"));
    }

    /// Tells of a change below this place.
    pub(super) fn tell_at<const N: usize>(&mut self, steps: [&str; N], what: &str) {
        let back = Back(self.path.len());
        for step in steps {
            self.enter(step);
        }
        self.tell(what);
        self.leave(back);
    }

    pub(super) fn into_changes(mut self) -> Vec<String> {
        if self.untold > 0 {
            let mut rest = String::new();
            // A string takes all that is written to it.
            let _ = write!(rest, "/: {} further changes", self.untold);
            self.changes.push(rest);
        }
        self.changes
    }
}
