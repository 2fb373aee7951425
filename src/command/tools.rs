//! `toolpool tools`: the catalogue.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use toolpool_client::{Adaptation, Effects, Tool};

use super::{BrokerAddress, wait};
use crate::output::{Output, Table, json, one_line};
use crate::turn::Dialect;

/// List the tools that can be called
///
/// While there are none, or a NAME is missing, it waits for them, up to 3 s.
#[derive(Args)]
pub(crate) struct Tools {
    #[command(flatten)]
    broker: BrokerAddress,
    /// Print JSON, with schemas and whole policies
    #[arg(long)]
    json: bool,
    /// Print the JSON value of the `tools` field of a provider's request (Bedrock: of `toolConfig.tools`)
    ///
    /// What a provider does not permit in a name, a description or a schema is changed; stderr says what.
    #[arg(long, value_name = "PROVIDER", value_parser = formats(), conflicts_with = "json")]
    format: Option<Dialect>,
    /// Only these tools [default: all]
    #[arg(value_name = "NAME", requires = "format")]
    names: Vec<String>,
}

/// The formats in which a provider takes tools, and not only streams calls.
fn formats() -> impl TypedValueParser<Value = Dialect> {
    let formats = Dialect::value_variants().iter();
    let formats = formats.filter(|format| !matches!(format, Dialect::Auto | Dialect::Vercel));
    PossibleValuesParser::new(formats.filter_map(ValueEnum::to_possible_value))
        .try_map(|name| Dialect::from_str(&name, false))
}

impl Tools {
    pub(super) async fn run(self) -> Result<ExitCode> {
        if let Some(format) = self.format {
            return self.for_provider(format).await;
        }
        let client = self.broker.connect().await?;
        let tools = wait::until(async || client.tools().await, |tools| !tools.is_empty())
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

    /// Fails if a tool that was asked for is not in the list: whoever reads stdout alone would not notice.
    async fn for_provider(&self, format: Dialect) -> Result<ExitCode> {
        let client = self.broker.connect().await?;
        let listed = async || client.provider_tools(format.to_wire(), &self.names).await;
        let tools = wait::until(listed, |listed| self.all_there(&listed.tools))
            .await
            .map_err(|error| self.broker.explain(error))?;
        Output::new().json_text(&tools.json)?;
        let mut stderr = io::stderr();
        for adaptation in &tools.adaptations {
            note(&mut stderr, adaptation)?;
        }
        let left_out = |name: &String| {
            let mut adaptations = tools.adaptations.iter();
            adaptations.any(|change| change.tool == *name && change.name.is_empty())
        };
        let given = |name: &&String| tools.tools.contains(name) && !left_out(name);
        let mut code = ExitCode::SUCCESS;
        for name in self.names.iter().filter(|name| !given(name)) {
            code = ExitCode::FAILURE;
            writeln!(stderr, "no tool named `{}` can be given", one_line(name))?;
        }
        Ok(code)
    }

    fn all_there(&self, listed: &[String]) -> bool {
        !listed.is_empty() && self.names.iter().all(|name| listed.contains(name))
    }
}

/// What was changed in a tool. Its worker wrote most of that text.
fn note(stderr: &mut io::Stderr, adaptation: &Adaptation) -> io::Result<()> {
    let Adaptation {
        tool,
        name,
        changes,
        ..
    } = adaptation;
    let tool = one_line(tool);
    if !name.is_empty() && *name != tool {
        writeln!(stderr, "{tool}: the model knows it as {}", one_line(name))?;
    }
    changes
        .iter()
        .try_for_each(|change| writeln!(stderr, "{tool}: {}", one_line(change)))
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
