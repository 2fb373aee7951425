//! `toolpool drain`: takes a worker out.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use toolpool_proto::v1;
use v1::WorkerStatus;

use super::admin::{Admin, AdminAddress, is_transport};
use super::{parse_duration, workers};
use crate::output::operator::{self, counted};
use crate::output::{Output, StatusLine, human, json as machine, one_line};

/// Take a worker out: it gets no new calls, finishes what it has and leaves
///
/// It cannot be taken back for this process of the worker, also if it comes back after a break. Only the broker's own machine
/// may ask for it. The exit code is 1 if no such worker is here, or if it is still here when the time of --wait is over.
#[derive(Args)]
#[command(override_usage = "toolpool drain [--wait[=TIME]] [OPTIONS] <WORKER>")]
pub(crate) struct Drain {
    #[command(flatten)]
    admin: AdminAddress,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Wait until the worker is gone, at most so long (`--wait=20s`), or 5min if no TIME is given
    #[arg(
        long,
        value_name = "TIME",
        value_parser = parse_duration,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "5min"
    )]
    wait: Option<Duration>,
    /// The worker's id
    #[arg(value_name = "WORKER")]
    worker: String,
}

impl Drain {
    /// The longest that a worker whose session is busy is asked for again.
    const PATIENCE: Duration = Duration::from_secs(3);
    const FIRST_PAUSE: Duration = Duration::from_millis(20);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);

    pub(super) async fn run(self) -> Result<ExitCode> {
        let mut admin = self.admin.connect().await?;
        let mut output = Output::new();
        let Some(worker) = self.drain(&mut admin).await? else {
            if self.json {
                output.json(&json!({}))?;
            } else {
                output.line(workers::not_here(&self.worker))?;
            }
            return Ok(ExitCode::FAILURE);
        };
        let Some(patience) = self.wait else {
            if self.json {
                output.json(&json!({ "worker": machine::operator::worker(&worker) }))?;
            } else {
                output.line(draining(&worker))?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        let began = Instant::now();
        let left = self.wait(&mut admin, worker, began + patience).await?;
        let gone = left.is_none();
        if self.json {
            let mut answer = json!({ "gone": gone });
            if let Some(worker) = &left {
                answer["worker"] = machine::operator::worker(worker);
            }
            output.json(&answer)?;
        } else {
            output.line(match &left {
                None => format!(
                    "{} is gone, after {}",
                    one_line(&self.worker),
                    human(began.elapsed())
                ),
                Some(worker) => format!("after {} {}", human(patience), draining(worker)),
            })?;
            if let Some(worker) = left.filter(|worker| !worker.leases.is_empty()) {
                output.table(&operator::leases(&worker.leases))?;
            }
        }
        Ok(if gone {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Asks for it, and again for a moment if the session is busy. `None`: no such worker is here.
    async fn drain(&self, admin: &mut Admin) -> Result<Option<WorkerStatus>> {
        let deadline = Instant::now() + Self::PATIENCE;
        let mut pause = Self::FIRST_PAUSE;
        loop {
            let request = v1::DrainWorkerRequest {
                worker_id: self.worker.clone(),
            };
            match admin.drain_worker(request).await {
                Ok(drained) => {
                    let worker = drained.into_inner().worker;
                    return worker
                        .map(Some)
                        .context("the broker's answer breaks the protocol");
                }
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                Err(status) if is_busy(&status) && Instant::now() + pause < deadline => {}
                Err(status) => return Err(self.admin.explain(status)),
            }
            sleep(pause).await;
            pause = (pause * 2).min(Self::LONGEST_PAUSE);
        }
    }

    /// Looks until the worker is gone; else, what is left when the time is over. Another process under the same id is
    /// another worker.
    async fn wait(
        &self,
        admin: &mut Admin,
        drained: WorkerStatus,
        deadline: Instant,
    ) -> Result<Option<WorkerStatus>> {
        let mut status = StatusLine::new();
        let mut pause = Self::FIRST_PAUSE;
        let mut last = drained;
        loop {
            match workers::list(admin, Some(&self.worker)).await {
                Ok(listed) => {
                    let same = |worker: &WorkerStatus| worker.instance_id == last.instance_id;
                    let Some(worker) = listed.into_iter().find(same) else {
                        return Ok(None);
                    };
                    last = worker;
                }
                // It is there, and nothing newer is known of it.
                Err(status) if is_busy(&status) => {}
                Err(status) => return Err(self.admin.explain(status)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Some(last));
            }
            status.show(&draining(&last));
            sleep(pause.min(left)).await;
            pause = (pause * 2).min(Self::LONGEST_PAUSE);
        }
    }
}

fn is_busy(status: &Status) -> bool {
    status.code() == Code::Unavailable && !is_transport(status)
}

fn draining(worker: &WorkerStatus) -> String {
    let calls = match worker.leases_total {
        0 => "no call is with it any more".to_owned(),
        1 => "1 call is still with it".to_owned(),
        more => format!("{} are still with it", counted(more, "call")),
    };
    let state = operator::words::state(worker);
    format!("{} is {state}; {calls}", one_line(&worker.worker_id))
}
