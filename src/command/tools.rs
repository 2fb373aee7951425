//! `toolpool tools`: the catalogue.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use toolpool_client::{Adaptation, Dialect, Effects, Tool};

use super::{BrokerAddress, wait};
use crate::output::{Output, Table, json, one_line};

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
    #[arg(long, value_name = "PROVIDER", conflicts_with = "json")]
    format: Option<Format>,
    /// Only these tools [default: all]
    #[arg(value_name = "NAME", requires = "format")]
    names: Vec<String>,
}

/// A provider's format for tools.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Anthropic Messages
    Anthropic,
    #[value(help = "OpenAI Chat Completions")]
    Openai,
    #[value(help = "OpenAI Responses")]
    Responses,
    /// Gemini generateContent
    Gemini,
    /// Amazon Bedrock Converse
    Bedrock,
    /// Cohere v2 chat
    Cohere,
    /// Ollama /api/chat
    Ollama,
}

impl From<Format> for Dialect {
    fn from(format: Format) -> Self {
        match format {
            Format::Anthropic => Self::Anthropic,
            Format::Openai => Self::OpenaiChat,
            Format::Responses => Self::OpenaiResponses,
            Format::Gemini => Self::Gemini,
            Format::Bedrock => Self::Bedrock,
            Format::Cohere => Self::Cohere,
            Format::Ollama => Self::Ollama,
        }
    }
}

impl Tools {
    pub(super) async fn run(self) -> Result<ExitCode> {
        if let Some(format) = self.format {
            return self.for_provider(format.into()).await;
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

    /// Fails if a tool that was asked for is not there: whoever reads stdout alone would not notice.
    async fn for_provider(&self, format: Dialect) -> Result<ExitCode> {
        let client = self.broker.connect().await?;
        let listed = async || client.provider_tools(format, &self.names).await;
        let tools = wait::until(listed, |listed| self.all_there(&listed.tools))
            .await
            .map_err(|error| self.broker.explain(error))?;
        Output::new().json_text(&tools.json)?;
        let mut stderr = io::stderr();
        for adaptation in &tools.adaptations {
            note(&mut stderr, adaptation)?;
        }
        let known = |name: &&String| tools.tools.contains(name);
        let mut missing = self.names.iter().filter(|name| !known(name)).peekable();
        let code = match missing.peek() {
            None => ExitCode::SUCCESS,
            Some(_) => ExitCode::FAILURE,
        };
        for name in missing {
            writeln!(stderr, "there is no tool named `{name}`")?;
        }
        Ok(code)
    }

    fn all_there(&self, listed: &[String]) -> bool {
        !listed.is_empty() && self.names.iter().all(|name| listed.contains(name))
    }
}

fn note(stderr: &mut io::Stderr, adaptation: &Adaptation) -> io::Result<()> {
    let Adaptation {
        tool,
        name,
        changes,
        ..
    } = adaptation;
    if !name.is_empty() && name != tool {
        writeln!(stderr, "{tool}: the model knows it as {name}")?;
    }
    changes
        .iter()
        .try_for_each(|change| writeln!(stderr, "{tool}: {change}"))
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
