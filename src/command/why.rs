//! `toolpool why`: why a call has not ended yet.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use toolpool_proto::v1;
use v1::Explanation;

use super::admin::AdminAddress;
use crate::output::{Output, json, one_line, operator};

/// Say why a call of an open batch has not ended yet
///
/// The exit code is 1 if no open batch has such a call.
#[derive(Args)]
pub(crate) struct Why {
    #[command(flatten)]
    admin: AdminAddress,
    /// Print JSON, with where the call's time went
    #[arg(long)]
    json: bool,
    /// Only in this batch: ids of calls are unique in a batch only [default: all that are open]
    #[arg(long, value_name = "BATCH")]
    batch: Option<String>,
    /// The call's id as the agent gave it
    #[arg(value_name = "CALL")]
    call: String,
}

/// A broker says no more at a time, and not whether there are more.
const MOST_EXPLANATIONS: usize = 20;

impl Why {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let mut admin = self.admin.connect().await?;
        let request = v1::ExplainCallRequest {
            call_id: self.call.clone(),
            batch_id: self.batch.clone().unwrap_or_default(),
        };
        let explanations = match admin.explain_call(request).await {
            Ok(explained) => explained.into_inner().explanations,
            Err(status) if status.code() == tonic::Code::NotFound => Vec::new(),
            Err(status) => return Err(self.admin.explain(status)),
        };
        self.print(&mut Output::new(), &explanations)
    }

    fn print(&self, output: &mut Output, explanations: &[Explanation]) -> Result<ExitCode> {
        if self.json {
            let explanations = explanations.iter().map(json::operator::explanation);
            output.json(&explanations.collect::<Value>())?;
        } else if explanations.is_empty() {
            output.line(self.none())?;
        } else {
            for (number, explanation) in explanations.iter().enumerate() {
                if number > 0 {
                    output.line("")?;
                }
                operator::explanation(explanation, output.paint)
                    .iter()
                    .try_for_each(|line| output.line(line))?;
            }
            if explanations.len() >= MOST_EXPLANATIONS {
                output.line("")?;
                output.line("and more, maybe: no more are said at a time; --batch BATCH has those of one batch")?;
            }
        }
        Ok(if explanations.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    fn none(&self) -> String {
        let call = one_line(&self.call);
        match &self.batch {
            Some(batch) => format!(
                "no call `{call}` in an open batch `{}`: the batch is not open, or has none of this id",
                one_line(batch)
            ),
            None => format!("no open batch has a call `{call}`"),
        }
    }
}
