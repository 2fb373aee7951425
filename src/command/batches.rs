//! `toolpool batches`: what is open, and how far its calls have come.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use toolpool_proto::v1;
use v1::BatchStatus;

use super::admin::{Admin, AdminAddress};
use crate::output::{Output, json, one_line, operator};

/// List the open batches, the oldest first
///
/// With a BATCH, its calls are listed too; the exit code is 1 if it is not open.
#[derive(Args)]
pub(crate) struct Batches {
    #[command(flatten)]
    admin: AdminAddress,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// List the calls of each batch too
    #[arg(long)]
    calls: bool,
    /// List every batch [default: the oldest 50, with calls the oldest 20]
    #[arg(long, conflicts_with = "batch")]
    all: bool,
    /// Only this one [default: all]
    #[arg(value_name = "BATCH")]
    batch: Option<String>,
}

/// What was listed.
#[derive(Default)]
struct Listed {
    batches: Vec<BatchStatus>,
    /// All that are open.
    open: u32,
}

impl Batches {
    /// What is listed without --all.
    const PAGE: usize = 50;
    /// The same with calls, which have a table of their own.
    const PAGE_WITH_CALLS: usize = 20;
    /// The most that a page can have.
    const LARGEST_PAGE: u32 = 1_000;

    pub(super) async fn run(self) -> Result<ExitCode> {
        let mut admin = self.admin.connect().await?;
        let listed = self.list(&mut admin).await?;
        self.print(&mut Output::new(), &listed)
    }

    fn with_calls(&self) -> bool {
        self.calls || self.batch.is_some()
    }

    async fn list(&self, admin: &mut Admin) -> Result<Listed> {
        let wanted = match self.with_calls() {
            _ if self.all => usize::MAX,
            true => Self::PAGE_WITH_CALLS,
            false => Self::PAGE,
        };
        let mut listed = Listed::default();
        let mut page_token = String::new();
        loop {
            let request = v1::ListBatchesRequest {
                batch_id: self.batch.clone().unwrap_or_default(),
                page_size: u32::try_from(wanted - listed.batches.len())
                    .map_or(Self::LARGEST_PAGE, |left| left.min(Self::LARGEST_PAGE)),
                page_token: page_token.clone(),
                with_calls: self.with_calls(),
                newest_first: false,
            };
            let page = match admin.list_batches(request).await {
                Ok(page) => page.into_inner(),
                Err(status) if self.batch.is_some() && status.code() == tonic::Code::NotFound => {
                    return Ok(listed);
                }
                Err(status) => return Err(self.admin.explain(status)),
            };
            listed.batches.extend(page.batches);
            listed.open = page.open;
            // The broker's pages have a size, so there may be fewer on one than were asked for.
            if listed.batches.len() >= wanted || page.next_page_token.is_empty() {
                return Ok(listed);
            }
            if page.next_page_token == page_token {
                bail!("the broker's answer breaks the protocol: a page follows itself");
            }
            page_token = page.next_page_token;
        }
    }

    fn print(&self, output: &mut Output, listed: &Listed) -> Result<ExitCode> {
        let Listed { batches, open } = listed;
        if self.json {
            output.json(&json::operator::batches(batches, *open))?;
        } else if batches.is_empty() {
            output.line(match &self.batch {
                Some(id) => format!("no batch `{}` is open", one_line(id)),
                None => "no batch is open".to_owned(),
            })?;
        } else {
            output.table(&operator::batches(batches))?;
            if self.with_calls() {
                for batch in batches {
                    calls(output, batch)?;
                }
            }
            let shown = u32::try_from(batches.len()).unwrap_or(u32::MAX);
            let more = open.saturating_sub(shown);
            if self.batch.is_none() && !self.all && more > 0 {
                output.line(format!("and {more} more; --all lists them"))?;
            }
        }
        Ok(if self.batch.is_some() && batches.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn calls(output: &mut Output, batch: &BatchStatus) -> Result<()> {
    if batch.calls.is_empty() {
        return Ok(());
    }
    output.line("")?;
    output.line(output.paint.bold(&one_line(&batch.batch_id)))?;
    output.table(&operator::calls(batch))?;
    let all: u32 = batch.phases.iter().map(|count| count.calls).sum();
    let shown = u32::try_from(batch.calls.len()).unwrap_or(u32::MAX);
    if let more @ 1.. = all.saturating_sub(shown) {
        output.line(format!("and {more} more"))?;
    }
    Ok(())
}
