//! `toolpool tools`: the catalogue.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use toolpool_client::{Effects, Tool};

use super::BrokerAddress;
use crate::output::{Output, Table, json, one_line};

/// List the tools that can be called
#[derive(Args)]
pub(crate) struct Tools {
    #[command(flatten)]
    broker: BrokerAddress,
    /// Print JSON, with schemas and whole policies
    #[arg(long)]
    json: bool,
}

impl Tools {
    pub(super) async fn run(self) -> Result<ExitCode> {
        let client = self.broker.connect().await?;
        let tools = client
            .tools()
            .await
            .map_err(|error| self.broker.explain(error))?;
        let mut output = Output::new();
        if self.json {
            output.json(&json::tools(&tools))?;
        } else if tools.is_empty() {
            output.line(
                "no tools yet: no worker has joined; start one with `toolpool worker demo`",
            )?;
        } else {
            output.table(&table(&tools))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(tools: &[Tool]) -> Table {
    let mut table = Table::new([
        "NAME",
        "EFFECTS",
        "RATE",
        "IN FLIGHT",
        "WORKERS",
        "DESCRIPTION",
    ]);
    for tool in tools {
        let effects = match tool.policy.effects {
            Some(Effects::ReadOnly) => "read only",
            Some(Effects::Idempotent) => "idempotent",
            _ => "side effecting",
        };
        let rate = tool
            .policy
            .rate
            .map_or_else(|| "-".to_owned(), |rate| format!("{rate}/s"));
        let in_flight = tool.policy.max_in_flight;
        table.row([
            tool.name.as_str().into(),
            effects.into(),
            rate.into(),
            in_flight
                .map_or_else(|| "-".to_owned(), |calls| calls.to_string())
                .into(),
            tool.workers.to_string().into(),
            one_line(&tool.description).into(),
        ]);
    }
    table
}
