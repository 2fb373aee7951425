//! A finished batch for people.

use std::io;

use toolpool_client::{CallError, Content, FinishedBatch, Output as ToolOutput, Violation};

use super::table::Cell;
use super::{Output, Paint, Table, cut, human, json, one_line};

/// The most of an error's message that the table has; it is there in full below.
const MESSAGE_IN_TABLE: usize = 48;

impl Output {
    /// The results as a table, the errors in full, and the chart. With `full`, every output in full too.
    pub(crate) fn batch(&mut self, batch: &FinishedBatch, full: bool) -> io::Result<()> {
        let mut table = Table::new(["CALL", "TOOL", "OUTCOME", "RAN", "WORKER", "RESULT"]);
        for result in batch.results() {
            let (outcome, said) = match &result.outcome {
                Ok(output) => (Cell::painted("ok", Paint::green), output.to_string()),
                Err(error) => (
                    Cell::painted(json::code_name(error.code), Paint::red),
                    in_short(&error.message),
                ),
            };
            table.row([
                one_line(&result.id).into(),
                one_line(&result.tool).into(),
                outcome,
                result
                    .ledger
                    .ran
                    .map_or_else(|| "-".to_owned(), human)
                    .into(),
                result.ledger.worker_id.as_deref().unwrap_or("-").into(),
                one_line(&said).into(),
            ]);
        }
        self.table(&table)?;
        self.errors(batch)?;
        if full {
            self.outputs(batch)?;
        }
        self.line("")?;
        self.waterfall(batch)?;
        let summary = &batch.summary;
        let together = if summary.calls > 1 {
            format!("; they ran for {} together", human(summary.summed_run))
        } else {
            String::new()
        };
        let totals = format!(
            "{} of {} calls succeeded in {}{together}",
            summary.succeeded,
            summary.calls,
            human(summary.elapsed)
        );
        self.line(self.paint.bold(&totals))?;
        match &batch.summary.trace_id {
            Some(trace) => self.line(format!("trace {}", one_line(trace))),
            None => Ok(()),
        }
    }

    fn errors(&mut self, batch: &FinishedBatch) -> io::Result<()> {
        let failed = batch.results().iter().filter_map(|result| {
            let error = result.outcome.as_ref().err()?;
            Some((&result.id, error))
        });
        let duplicates = &batch.summary.duplicates;
        let duplicates = duplicates
            .iter()
            .map(|duplicate| (&duplicate.id, &duplicate.error));
        for (id, error) in failed.chain(duplicates) {
            let head = format!("✗ {} {}", one_line(id), json::code_name(error.code));
            let head = self.paint.red(&head);
            self.line(format!("{head}  {}", facts(error)))?;
            for line in error.message.lines() {
                self.line(format!("    {}", one_line(line)))?;
            }
            // The broker's own message lists them, for the model.
            let listed = |violation: &&Violation| error.message.contains(&violation.message);
            for violation in error.violations.iter().filter(|of| !listed(of)) {
                let path = if violation.path.is_empty() {
                    "(the arguments)"
                } else {
                    &violation.path
                };
                self.line(format!(
                    "    {}: {}",
                    one_line(path),
                    one_line(&violation.message)
                ))?;
            }
        }
        Ok(())
    }

    fn outputs(&mut self, batch: &FinishedBatch) -> io::Result<()> {
        for result in batch.results() {
            if let Ok(output) = &result.outcome {
                self.line("")?;
                self.line(self.paint.bold(&one_line(&result.id)))?;
                // Line by line, so that nothing in it can drive the terminal.
                for line in in_full(output).lines() {
                    self.line(line.replace(|c: char| c.is_control() && c != '\t', " "))?;
                }
            }
        }
        Ok(())
    }
}

/// The beginning of a message.
fn in_short(message: &str) -> String {
    cut(&one_line(message), MESSAGE_IN_TABLE)
}

/// An output as people read it: JSON over several lines.
fn in_full(output: &ToolOutput) -> String {
    match output.content.as_slice() {
        [Content::Json(json)] => serde_json::from_slice(json)
            .and_then(|value: serde_json::Value| serde_json::to_string_pretty(&value))
            .unwrap_or_else(|_| output.to_string()),
        _ => output.to_string(),
    }
}

/// What an agent would act on.
fn facts(error: &CallError) -> String {
    let mut facts = vec![
        format!("effect {}", json::effect_name(error.effect)),
        if error.retryable {
            "a retry can help"
        } else {
            "a retry cannot help"
        }
        .to_owned(),
    ];
    if let Some(after) = error.retry_after {
        facts.push(format!("after {}", human(after)));
    }
    if let Some(scope) = error.timeout {
        facts.push(scope.as_str_name().to_owned());
    }
    if !error.near_names.is_empty() {
        facts.push(format!("near names: {}", error.near_names.join(", ")));
    }
    facts.join(", ")
}
