//! The file `tools.toml`.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    child::{self, Spec},
    unit,
};
use crate::{
    Effects, Tool,
    policy::{OnFailure, Policy},
};

const DEFAULT_KILL_GRACE: Duration = Duration::from_secs(2);
const MAX_KILL_GRACE: Duration = Duration::from_mins(1);

/// What a file `tools.toml` says; its form is told at [`exec`](super).
#[derive(Debug)]
pub struct Config {
    slots: Option<u32>,
    tools: Vec<Tool>,
}

/// What is wrong with a `tools.toml`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file, or a schema's file that it names, cannot be read.
    #[error("{}: cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, or has a key that is unknown, missing, or of the wrong type.
    #[error("{}: {source}", file.display())]
    Toml {
        /// The file.
        file: PathBuf,
        /// Where, and what is expected there.
        source: Box<toml::de::Error>,
    },
    /// The file has no tools.
    #[error("{}: no [[tool]]; at least one is needed", file.display())]
    NoTools {
        /// The file.
        file: PathBuf,
    },
    /// A value outside its limits.
    #[error("{}: {place}: {key} = {value}; permitted: {permitted}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The tool, or "the file's head".
        place: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be instead.
        permitted: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    slots: Option<u32>,
    #[serde(default)]
    tool: Vec<RawTool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTool {
    name: String,
    #[serde(default)]
    description: String,
    command: Vec<String>,
    cwd: Option<PathBuf>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    input_schema: Option<Value>,
    input_schema_file: Option<PathBuf>,
    max_output: Option<String>,
    kill_grace: Option<String>,
    effects: Option<RawEffects>,
    attempt_timeout: Option<String>,
    call_timeout: Option<String>,
    queue_timeout: Option<String>,
    max_attempts: Option<u32>,
    retry_backoff: Option<String>,
    rate: Option<f64>,
    burst: Option<u32>,
    max_in_flight: Option<u32>,
    on_failure: Option<RawOnFailure>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawEffects {
    ReadOnly,
    Idempotent,
    SideEffecting,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RawOnFailure {
    Return,
    AbortBatch,
}

impl Config {
    /// Reads a file. Paths in it are relative to the file's folder.
    ///
    /// Fails with the first thing that is wrong: the file, the tool, the key, its value, and what is permitted.
    pub fn load(file: impl AsRef<Path>) -> Result<Self, Error> {
        let file = file.as_ref();
        let text = read(file)?;
        // A command runs elsewhere, so its paths cannot stay relative to where this process happens to be.
        let folder = std::path::absolute(file).map_err(|source| Error::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(file, folder.parent().unwrap_or(Path::new("/")), &text)
    }

    /// Takes the text of a file. Paths in it are relative to `folder`.
    ///
    /// Fails as [`load`](Self::load) does.
    pub fn from_toml(text: &str, folder: impl AsRef<Path>) -> Result<Self, Error> {
        Self::parse(Path::new("tools.toml"), folder.as_ref(), text)
    }

    /// The slots that the file asks for; 1 or more. Absent: it does not say.
    #[must_use]
    pub fn slots(&self) -> Option<u32> {
        self.slots
    }

    /// The tools, at least one.
    #[must_use]
    pub fn into_tools(self) -> Vec<Tool> {
        self.tools
    }

    fn parse(file: &Path, folder: &Path, text: &str) -> Result<Self, Error> {
        let raw: RawFile = toml::from_str(text).map_err(|source| Error::Toml {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
        if raw.slots == Some(0) {
            let head = Place {
                file,
                place: "the file's head",
            };
            return Err(head.refuse("slots", 0, "1 or more"));
        }
        if raw.tool.is_empty() {
            return Err(Error::NoTools {
                file: file.to_owned(),
            });
        }
        let tools: Result<Vec<_>, _> = raw
            .tool
            .into_iter()
            .map(|raw| tool(file, folder, raw))
            .collect();
        let tools = tools?;
        for (index, tool) in tools.iter().enumerate() {
            if tools[..index]
                .iter()
                .any(|other| other.name() == tool.name())
            {
                let place = format!("tool {:?}", tool.name());
                return Err(Place {
                    file,
                    place: &place,
                }
                .refuse("name", tool.name(), "a name of its own"));
            }
        }
        Ok(Self {
            slots: raw.slots,
            tools,
        })
    }
}

/// Where in which file something is said.
struct Place<'a> {
    file: &'a Path,
    place: &'a str,
}

impl Place<'_> {
    fn refuse(
        &self,
        key: &'static str,
        value: impl fmt::Display,
        permitted: impl Into<String>,
    ) -> Error {
        Error::Value {
            file: self.file.to_owned(),
            place: self.place.to_owned(),
            key,
            value: value.to_string(),
            permitted: permitted.into(),
        }
    }

    fn duration(&self, key: &'static str, value: Option<&str>) -> Result<Option<Duration>, Error> {
        let Some(value) = value else { return Ok(None) };
        match humantime::parse_duration(value) {
            Ok(duration) => Ok(Some(duration)),
            Err(_) => Err(self.refuse(
                key,
                format!("{value:?}"),
                "a duration such as \"500ms\", \"10s\" or \"1m 30s\"",
            )),
        }
    }

    fn size(&self, key: &'static str, value: Option<&str>) -> Result<Option<u64>, Error> {
        let Some(value) = value else { return Ok(None) };
        let permitted = "a size such as \"65536\", \"64KiB\" or \"1MiB\", more than 0";
        match unit::bytes(value) {
            Some(0) | None => Err(self.refuse(key, format!("{value:?}"), permitted)),
            size => Ok(size),
        }
    }

    fn schema(&self, folder: &Path, raw: &RawTool) -> Result<Value, Error> {
        let (key, schema) = match (&raw.input_schema, &raw.input_schema_file) {
            (Some(_), Some(path)) => {
                return Err(self.refuse(
                    "input_schema_file",
                    path.display(),
                    "only one of it and input_schema",
                ));
            }
            (None, None) => return Ok(serde_json::json!({ "type": "object" })),
            (Some(Value::String(text)), None) => ("input_schema", serde_json::from_str(text)),
            (Some(value), None) => ("input_schema", Ok(value.clone())),
            (None, Some(path)) => (
                "input_schema_file",
                serde_json::from_str(&read(&folder.join(path))?),
            ),
        };
        match schema {
            Ok(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(schema),
            Ok(other) => Err(self.refuse(
                key,
                other,
                "a JSON Schema, which is an object, true or false",
            )),
            Err(error) => Err(self.refuse(key, format!("({error})"), "a JSON Schema as JSON text")),
        }
    }
}

fn tool(file: &Path, folder: &Path, raw: RawTool) -> Result<Tool, Error> {
    let place = format!("tool {:?}", raw.name);
    let place = Place {
        file,
        place: &place,
    };
    let schema = place.schema(folder, &raw)?;
    let policy = policy(&place, &raw)?;
    let kill_grace = place
        .duration("kill_grace", raw.kill_grace.as_deref())?
        .unwrap_or(DEFAULT_KILL_GRACE);
    if kill_grace > MAX_KILL_GRACE {
        return Err(place.refuse("kill_grace", format!("{kill_grace:?}"), "at most 60 s"));
    }
    let max_output = place.size("max_output", raw.max_output.as_deref())?;
    let cwd = raw
        .cwd
        .map_or_else(|| folder.to_owned(), |cwd| folder.join(cwd));
    if !cwd.is_dir() {
        return Err(place.refuse("cwd", cwd.display(), "a folder that is there"));
    }
    let mut command = raw.command.into_iter();
    let Some(program) = command.next().filter(|program| !program.is_empty()) else {
        return Err(place.refuse("command", "[]", "the program, then its arguments"));
    };
    // A name is looked up in PATH; a path is relative to the file, wherever the command is run.
    let program = if program.contains('/') {
        folder.join(program)
    } else {
        PathBuf::from(program)
    };
    let spec = Arc::new(Spec {
        program,
        args: command.collect(),
        cwd,
        env: raw.env,
        max_output,
        kill_grace,
    });
    let tool = Tool::raw(
        raw.name,
        raw.description,
        schema,
        move |arguments, context| {
            let spec = Arc::clone(&spec);
            async move { child::run(&spec, arguments, &context).await }
        },
    );
    let tool = tool.with_policy(policy);
    tool.check().map_err(|error| match error {
        crate::Error::Policy {
            field,
            value,
            permitted,
            ..
        } => place.refuse(field, value, permitted),
        error => place.refuse("name", format!("{:?}", tool.name()), error.to_string()),
    })?;
    Ok(tool)
}

fn policy(place: &Place<'_>, raw: &RawTool) -> Result<Policy, Error> {
    Ok(Policy {
        effects: raw.effects.map(|effects| match effects {
            RawEffects::ReadOnly => Effects::ReadOnly,
            RawEffects::Idempotent => Effects::Idempotent,
            RawEffects::SideEffecting => Effects::SideEffecting,
        }),
        attempt_timeout: place.duration("attempt_timeout", raw.attempt_timeout.as_deref())?,
        call_timeout: place.duration("call_timeout", raw.call_timeout.as_deref())?,
        queue_timeout: place.duration("queue_timeout", raw.queue_timeout.as_deref())?,
        max_attempts: raw.max_attempts,
        retry_backoff: place.duration("retry_backoff", raw.retry_backoff.as_deref())?,
        rate: raw.rate,
        burst: raw.burst,
        max_in_flight: raw.max_in_flight,
        on_failure: raw.on_failure.map(|action| match action {
            RawOnFailure::Return => OnFailure::Return,
            RawOnFailure::AbortBatch => OnFailure::AbortBatch,
        }),
    })
}

fn read(file: &Path) -> Result<String, Error> {
    fs::read_to_string(file).map_err(|source| Error::Read {
        file: file.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: &str = "[[tool]]\nname = \"t\"\ncommand = [\"true\"]\n";

    fn load(text: &str) -> Result<Config, Error> {
        Config::from_toml(text, "/")
    }

    #[track_caller]
    fn refused(more: &str) -> String {
        load(&format!("{TOOL}{more}")).err().unwrap().to_string()
    }

    #[test]
    fn a_full_file_is_taken() {
        let config = load(
            r#"
            slots = 4
            [[tool]]
            name = "word_count"
            description = "Counts."
            command = ["wc", "-w"]
            cwd = "/"
            env = { LANG = "C" }
            input_schema = { type = "object", properties = { text = { type = "string" } } }
            effects = "read_only"
            attempt_timeout = "10s"
            call_timeout = "1m 30s"
            queue_timeout = "500ms"
            max_attempts = 2
            retry_backoff = "50ms"
            rate = 5.0
            burst = 10
            max_in_flight = 4
            on_failure = "abort_batch"
            max_output = "1MiB"
            kill_grace = "2s"
            "#,
        )
        .unwrap();
        assert_eq!(config.slots(), Some(4));
        let tools = config.into_tools();
        assert_eq!(tools[0].name(), "word_count");
        assert_eq!(
            tools[0].input_schema()["properties"]["text"]["type"],
            "string"
        );
        let policy = tools[0].to_proto().policy.unwrap();
        assert_eq!(policy.effects(), toolpool_proto::v1::Effects::ReadOnly);
        assert_eq!(policy.call_timeout.unwrap().seconds, 90);
    }

    #[test]
    fn a_schema_may_be_json_text() {
        let config = load(&format!(
            "{TOOL}input_schema = '{{\"type\": \"object\", \"minProperties\": 1}}'"
        ))
        .unwrap();
        assert_eq!(config.into_tools()[0].input_schema()["minProperties"], 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_tool_key_value_and_what_is_permitted() {
        let message = refused("attempt_timeout = \"soon\"");
        for part in [
            "tools.toml",
            "tool \"t\"",
            "attempt_timeout",
            "\"soon\"",
            "10s",
        ] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(refused("max_output = \"1.5MiB\"").contains("64KiB"));
        assert!(refused("max_attempts = 11").contains("1 to 10"));
        assert!(refused("rate = 0.0").contains("more than 0"));
        assert!(refused("effects = \"none\"").contains("side_effecting"));
        assert!(refused("efects = \"read_only\"").contains("efects"));
        assert!(refused("cwd = \"no-such-folder\"").contains("no-such-folder"));
        assert!(refused("kill_grace = \"5m\"").contains("at most 60 s"));
        assert!(refused("input_schema = 5").contains("object, true or false"));
        assert!(refused("input_schema = '{'").contains("JSON text"));
        assert!(refused("input_schema = {}\ninput_schema_file = \"a\"").contains("only one"));
        assert!(refused(TOOL).contains("a name of its own"));
        assert!(load("").err().unwrap().to_string().contains("no [[tool]]"));
        assert!(
            load(&format!("slots = 0\n{TOOL}"))
                .err()
                .unwrap()
                .to_string()
                .contains("slots = 0")
        );
        assert!(
            load("[[tool]]\nname = \"t\"\ncommand = []")
                .err()
                .unwrap()
                .to_string()
                .contains("command")
        );
        assert!(
            load("[[tool]]\nname = \"a b\"\ncommand = [\"a\"]")
                .err()
                .unwrap()
                .to_string()
                .contains("a b")
        );
        assert!(
            Config::load("/no/such/tools.toml")
                .err()
                .unwrap()
                .to_string()
                .contains("/no/such/tools.toml")
        );
    }
}
