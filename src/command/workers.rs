//! `toolpool workers`: who is here, and what each is doing.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::Value;
use toolpool_proto::v1;
use v1::WorkerStatus;

use super::admin::{Admin, AdminAddress};
use crate::output::{Output, json, one_line, operator};

/// List the workers of a broker
///
/// With a WORKER, the calls that are with it are listed too; the exit code is 1 if it is not here.
#[derive(Args)]
pub(crate) struct Workers {
    #[command(flatten)]
    admin: AdminAddress,
    /// Print JSON, with labels; of one WORKER also its calls
    #[arg(long)]
    json: bool,
    /// Only this one [default: all]
    #[arg(value_name = "WORKER")]
    worker: Option<String>,
}

impl Workers {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let mut admin = self.admin.connect().await?;
        let workers = list(&mut admin, self.worker.as_deref()).await;
        let workers = workers.map_err(|status| self.admin.explain(status))?;
        self.print(&mut Output::new(), &workers)
    }

    fn print(&self, output: &mut Output, workers: &[WorkerStatus]) -> Result<ExitCode> {
        if self.json {
            let workers = workers.iter().map(json::operator::worker);
            output.json(&workers.collect::<Value>())?;
        } else if workers.is_empty() {
            output.line(match &self.worker {
                Some(id) => not_here(id),
                None => "no worker is here; start one with `toolpool worker demo`".to_owned(),
            })?;
        } else {
            output.table(&operator::workers(workers))?;
            if let (Some(_), [worker]) = (&self.worker, workers) {
                leases(output, worker)?;
            }
        }
        Ok(if self.worker.is_some() && workers.is_empty() {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

/// All workers, or the one; none if it is not here.
pub(crate) async fn list(
    admin: &mut Admin,
    worker: Option<&str>,
) -> Result<Vec<WorkerStatus>, tonic::Status> {
    let mut request = v1::ListWorkersRequest {
        worker_id: worker.unwrap_or_default().to_owned(),
        page_token: String::new(),
    };
    let mut workers = Vec::new();
    loop {
        let page = admin.list_workers(request.clone()).await?.into_inner();
        workers.extend(page.workers);
        // Each page goes on behind the one before it, and the last one nowhere.
        if page.next_page_token <= request.page_token {
            return Ok(workers);
        }
        request.page_token = page.next_page_token;
    }
}

pub(super) fn not_here(worker: &str) -> String {
    format!("no worker `{}` is here", one_line(worker))
}

fn leases(output: &mut Output, worker: &WorkerStatus) -> Result<()> {
    output.line("")?;
    if worker.leases.is_empty() {
        output.line("no call is with it")?;
        return Ok(());
    }
    output.table(&operator::leases(&worker.leases))?;
    let shown = u32::try_from(worker.leases.len()).unwrap_or(u32::MAX);
    if let more @ 1.. = worker.leases_total.saturating_sub(shown) {
        output.line(format!("and {more} more"))?;
    }
    Ok(())
}
