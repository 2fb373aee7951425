//! A finished batch, held against what is promised of every one.

use std::collections::HashSet;
use std::time::Duration;

use toolpool_proto::v1;
use v1::call_result::Ending;

use super::time;

/// A finished batch.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) results: Vec<v1::CallResult>,
    pub(crate) summary: v1::Finished,
    pub(crate) progress: Vec<v1::CallProgress>,
}

impl Finished {
    /// Checks what holds for every batch: one result an id, in the model's order, counted, with a ledger that adds up.
    pub(crate) fn new(
        results: Vec<v1::CallResult>,
        summary: v1::Finished,
        progress: Vec<v1::CallProgress>,
    ) -> Self {
        let ids: HashSet<_> = results.iter().map(|result| &result.id).collect();
        assert_eq!(ids.len(), results.len(), "one result per id: {results:?}");
        assert!(
            results.is_sorted_by_key(|result| result.position),
            "in the model's order: {results:?}"
        );
        let outputs = results.iter().filter(|result| is_output(result)).count();
        assert_eq!(
            (summary.calls as usize, summary.succeeded as usize),
            (results.len(), outputs)
        );
        results.iter().for_each(check);
        Self {
            results,
            summary,
            progress,
        }
    }

    /// The result under an id.
    #[track_caller]
    pub(crate) fn result(&self, id: &str) -> &v1::CallResult {
        let found = self.results.iter().find(|result| result.id == id);
        found.unwrap_or_else(|| panic!("no result for {id}: {:?}", self.results))
    }

    /// The one text of an output.
    #[track_caller]
    pub(crate) fn text(&self, id: &str) -> &str {
        match &self.result(id).ending {
            Some(Ending::Output(output)) => match output.content.first().map(|one| &one.kind) {
                Some(Some(v1::content::Kind::Text(text))) => text,
                other => panic!("no text: {other:?}"),
            },
            other => panic!("{id} has no output: {other:?}"),
        }
    }

    /// The error under an id.
    #[track_caller]
    pub(crate) fn error(&self, id: &str) -> &v1::CallError {
        match &self.result(id).ending {
            Some(Ending::Error(error)) => error,
            other => panic!("{id} has no error: {other:?}"),
        }
    }

    pub(crate) fn ledger(&self, id: &str) -> &v1::TimeLedger {
        self.result(id).ledger.as_ref().unwrap()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        time(self.summary.elapsed)
    }

    /// The turn as its provider sees it.
    #[track_caller]
    pub(crate) fn turn(&self) -> &v1::Turn {
        self.summary.turn.as_ref().expect("a provider's stream")
    }

    /// What went wrong with the provider's stream.
    #[track_caller]
    pub(crate) fn turn_error(&self) -> &str {
        self.turn().error.as_deref().expect("the turn has an error")
    }

    /// The answer in the provider's shape.
    #[track_caller]
    pub(crate) fn answer(&self) -> serde_json::Value {
        serde_json::from_slice(&self.turn().answer).expect("the answer is JSON")
    }

    /// The ids of results that are outputs.
    pub(crate) fn succeeded(&self) -> Vec<&str> {
        let outputs = self.results.iter().filter(|result| is_output(result));
        outputs.map(|result| &*result.id).collect()
    }
}

fn is_output(result: &v1::CallResult) -> bool {
    matches!(result.ending, Some(Ending::Output(_)))
}

#[track_caller]
fn check(result: &v1::CallResult) {
    if let Some(Ending::Error(error)) = &result.ending {
        assert_ne!(error.code(), v1::ErrorCode::Unspecified, "{result:?}");
        assert_ne!(error.effect(), v1::Effect::Unspecified, "{result:?}");
        assert!(!error.message.is_empty(), "{result:?}");
        let timeout = error.code() == v1::ErrorCode::Timeout;
        assert_eq!(timeout, error.timeout.is_some(), "{result:?}");
    }
    assert!(result.ending.is_some(), "{result:?}");
    let ledger = result.ledger.as_ref().unwrap();
    let (began, ended) = (time(ledger.block_began), time(ledger.ended));
    let may_start = ledger.started_early.or(ledger.block_complete);
    let complete = may_start.map_or(began, |at| time(Some(at)));
    let parts = [ledger.held, ledger.limit_wait, ledger.slot_wait, ledger.ran];
    let spent = complete + parts.into_iter().map(time).sum::<Duration>();
    assert!(began <= complete && spent <= ended, "{result:?}");
    assert_eq!(
        ledger.limit_wait.is_some(),
        ledger.limited_by.is_some(),
        "{result:?}"
    );
    assert_eq!(
        ledger.attempts > 0,
        ledger.worker_id.is_some(),
        "{result:?}"
    );
}

/// Holds an error against its code, what it says of repeating and of the effect, and words of its message.
#[track_caller]
pub(crate) fn expect(
    error: &v1::CallError,
    code: v1::ErrorCode,
    (retryable, effect): (bool, v1::Effect),
    words: &[&str],
) {
    assert_eq!(
        (error.code(), error.retryable, error.effect()),
        (code, retryable, effect),
        "{error:?}"
    );
    for word in words {
        assert!(
            error.message.contains(word),
            "no {word:?} in {:?}",
            error.message
        );
    }
}
