//! Every setting: its type, unit, default and permitted range; from a file, the environment and flags.
//!
//! All three sources read the same table, [`SETTINGS`], so they cannot drift apart. A later source wins: the defaults,
//! then the TOML file (`key = value`), then the environment (`TOOLPOOL_KEY`), then flags (`--key value`). Everything is
//! checked before a port is bound. The file may also have a `[tools.NAME]` table of policy fields for each tool.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod kind;

pub use kind::parse_duration;
use kind::{Address, AddressOrOff, Bytes, Count, Kind, Switch, Time};

use crate::policy::{OutOfRange, PolicyPatch};

/// What the names of environment variables begin with.
const ENV_PREFIX: &str = "TOOLPOOL_";

/// One setting, as documentation and as the rule for reading it.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file; `TOOLPOOL_` and capitals make the variable, `--` and hyphens the flag.
    pub key: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// The default, as it would be written.
    pub default: &'static str,
    /// What is permitted, in words and with the unit.
    pub permitted: &'static str,
    apply: fn(&mut Config, &str) -> Option<()>,
    show: fn(&Config) -> String,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $key:ident: $kind:ident($($range:expr),*) = $default:literal, $permitted:literal;)+) => {
        /// The broker's settings, each within its permitted range, and what the operator says of tools.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $key: value_of!($kind),)+
            /// The operator's word on tools by name; it wins over what workers register, field by field.
            pub tools: HashMap<String, PolicyPatch>,
        }

        /// Every setting there is.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: stringify!($key),
            doc: concat!($($doc),+),
            default: $default,
            permitted: $permitted,
            apply: |config, text| {
                config.$key = $kind::read(text).filter(|value| within!(value $(, $range)*))?;
                Some(())
            },
            show: |config| $kind::show(&config.$key),
        }),+];

        impl Config {
            /// A value for every key; replaced by the defaults of the table before anybody sees it.
            fn blank() -> Self {
                Self { $($key: $kind::BLANK,)+ tools: HashMap::new() }
            }
        }
    };
}

macro_rules! value_of {
    (Address) => {
        SocketAddr
    };
    (AddressOrOff) => {
        Option<SocketAddr>
    };
    (Time) => {
        Duration
    };
    (Switch) => {
        bool
    };
    ($count_or_bytes:ident) => {
        usize
    };
}

macro_rules! within {
    ($value:ident) => {{
        let _ = $value;
        true
    }};
    ($value:ident, $least:expr, $most:expr) => {
        ($least..=$most).contains($value)
    };
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

settings! {
    /// The address that agents and workers dial. Keep it on loopback or a private network: there is no authentication.
    listen: Address() = "127.0.0.1:7400", "an address and port, such as 127.0.0.1:7400; port 0 lets the system choose";
    /// The address for operators: probes, metrics, the log's filter, what goes on; plain HTTP. There is no authentication here either.
    admin_listen: AddressOrOff() = "127.0.0.1:7401", "an address and port (port 0 lets the system choose), or off";
    /// Runtime threads; 1 keeps everything on one thread, which is the fastest up to the load that one core carries.
    threads: Count(1, 64) = "1", "1 to 64 threads";
    /// Calls that one batch may run; those after them get an `OVERLOADED` result.
    max_calls_per_batch: Count(1, 10_000) = "256", "1 to 10000 calls";
    /// Calls of one batch that may run at the same time; an agent may ask for fewer.
    max_parallel: Count(1, 10_000) = "256", "1 to 10000 calls";
    /// Size of one call's arguments.
    max_arguments_bytes: Bytes(1, 256 << 20) = "1MiB", "1B to 256MiB";
    /// Size of one call's output, encoded.
    max_result_bytes: Bytes(1024, 256 << 20) = "16MiB", "1KiB to 256MiB";
    /// Size of a batch: its arguments together, and its outputs together.
    max_batch_bytes: Bytes(1024, 1 << 30) = "64MiB", "1KiB to 1GiB";
    /// Size of one event of a provider's stream that an agent pipes in; a larger one ends the turn as truncated.
    max_event_bytes: Bytes(1024, 256 << 20) = "16MiB", "1KiB to 256MiB";
    /// Size of the answer in the provider's shape; an output that does not fit is said to be left out of it.
    max_answer_bytes: Bytes(1024, 1 << 30) = "32MiB", "1KiB to 1GiB";
    /// Batches open at the same time; beyond them an agent gets `RESOURCE_EXHAUSTED`.
    max_open_batches: Count(1, 1_000_000) = "10000", "1 to 1000000 batches";
    /// Calls of one tool that may wait; those after them get an `OVERLOADED` result.
    max_queued_per_tool: Count(1, 10_000_000) = "10000", "1 to 10000000 calls";
    /// Workers connected at the same time.
    max_workers: Count(1, 1_000_000) = "20000", "1 to 1000000 workers";
    /// Tools known at the same time.
    max_tools: Count(1, 1_000_000) = "10000", "1 to 1000000 tools";
    /// Tools that one worker may register.
    max_tools_per_worker: Count(1, 10_000) = "1000", "1 to 10000 tools";
    /// Slots that one worker may register.
    max_slots_per_worker: Count(1, 1_000_000) = "10000", "1 to 1000000 slots";
    /// Tools with metrics of their own, those with a table in the configuration first; the rest are counted together.
    max_metric_tools: Count(1, 5_000) = "200", "1 to 5000 tools";
    /// The default of a tool's `call_timeout`: from the moment a call may start to its result.
    call_timeout: Time(ms(1), ms(86_400_000)) = "60s", "1ms to 24h";
    /// The longest that a batch may take.
    batch_timeout: Time(ms(1), ms(86_400_000)) = "10min", "1ms to 24h";
    /// Silence of an agent in the middle of a block after which the turn counts as truncated.
    agent_silence: Time(ms(1), ms(86_400_000)) = "120s", "1ms to 24h";
    /// How long a finished batch waits for an agent that does not read it.
    delivery_timeout: Time(ms(1), ms(3_600_000)) = "30s", "1ms to 1h";
    /// How often broker and worker show each other that they live.
    beat_interval: Time(ms(10), ms(3_600_000)) = "5s", "10ms to 1h";
    /// Intervals of silence after which a worker is lost.
    missed_beats: Count(1, 100) = "3", "1 to 100 intervals";
    /// How long a worker whose stream broke may take to come back and keep its side-effecting calls.
    reconnect_grace: Time(ms(0), ms(3_600_000)) = "5s", "0ms to 1h";
    /// How long a known tool may be without a worker before its calls end as `NO_WORKER`.
    no_worker_wait: Time(ms(0), ms(3_600_000)) = "10s", "0ms to 1h";
    /// The longest pause that a tool may ask for with `retry_after`.
    max_pause: Time(ms(0), ms(3_600_000)) = "60s", "0ms to 1h";
    /// How long open batches may go on after SIGTERM.
    drain_grace: Time(ms(0), ms(86_400_000)) = "30s", "0ms to 24h";
    /// Whether traces carry what calls are given and give back, clipped, and the first line of errors' messages.
    trace_content: Switch() = "false", "true or false";
}

/// Where settings come from besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `TOOLPOOL_` are passed over.
    pub env: Vec<(String, String)>,
    /// Keys and values of flags.
    pub flags: Vec<(String, String)>,
}

/// What is wrong with a setting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {path} is not TOML: {source}")]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// No setting has this name.
    #[error("{place}: there is no setting {key}{}", near(key))]
    UnknownKey {
        /// The source of the value.
        place: String,
        /// The key given.
        key: String,
    },
    /// A value that is not permitted.
    #[error("{place}: {key} = {value:?}: permitted is {permitted}")]
    NotPermitted {
        /// The source of the value.
        place: String,
        /// The setting.
        key: &'static str,
        /// The value given.
        value: String,
        /// What may be given.
        permitted: &'static str,
    },
    /// A tool's policy that cannot be read.
    #[error("{place}: tools.{tool}: {source}")]
    Policy {
        /// The source of the value.
        place: String,
        /// The tool.
        tool: String,
        /// Which field and why.
        source: Box<toml::de::Error>,
    },
    /// A field of a tool's policy that is out of its range.
    #[error("{place}: tools.{tool}.{source}")]
    PolicyRange {
        /// The source of the value.
        place: String,
        /// The tool.
        tool: String,
        /// Which field and why.
        source: OutOfRange,
    },
    /// Two settings that cannot both hold.
    #[error("{0}")]
    Conflict(String),
}

fn near(key: &str) -> String {
    let close = SETTINGS.iter().max_by(|a, b| {
        strsim::jaro_winkler(a.key, key).total_cmp(&strsim::jaro_winkler(b.key, key))
    });
    match close {
        Some(setting) if strsim::jaro_winkler(setting.key, key) > 0.8 => {
            format!("; did you mean {}?", setting.key)
        }
        _ => String::new(),
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self::blank();
        for setting in SETTINGS {
            let applied = (setting.apply)(&mut config, setting.default);
            debug_assert!(
                applied.is_some(),
                "the default of {} is not permitted",
                setting.key
            );
        }
        config
    }
}

impl Config {
    /// Reads every source and checks every value. Blocks on the file.
    pub fn load(sources: Sources) -> Result<Self, Error> {
        let mut config = Self::default();
        if let Some(path) = sources.file {
            let text = std::fs::read_to_string(&path).map_err(|source| Error::Unreadable {
                path: path.clone(),
                source,
            })?;
            let table = text
                .parse::<toml::Table>()
                .map_err(|source| Error::NotToml {
                    path: path.clone(),
                    source: Box::new(source),
                })?;
            config.read_table(table, &path.display().to_string())?;
        }
        for (name, value) in sources.env {
            // Other programs of the product have variables of their own, so an unknown one is not an error.
            let key = name.strip_prefix(ENV_PREFIX).map(str::to_ascii_lowercase);
            if let Some(setting) =
                key.and_then(|key| SETTINGS.iter().find(|setting| setting.key == key))
            {
                config.set(setting, &value, &name)?;
            }
        }
        for (key, value) in sources.flags {
            let place = format!("--{}", key.replace('_', "-"));
            let setting = find(&key, &place)?;
            config.set(setting, &value, &place)?;
        }
        config.agree()?;
        Ok(config)
    }

    /// The settings as a TOML file that would give them, each with its meaning; the operator's policies are not in it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let show = |setting: &Setting| {
            let Setting {
                key,
                doc,
                default,
                permitted,
                show,
                ..
            } = setting;
            format!(
                "#{doc}\n# Permitted: {permitted}. Default: {default}.\n{key} = {}\n",
                show(self)
            )
        };
        SETTINGS.iter().map(show).collect::<Vec<_>>().join("\n")
    }

    fn read_table(&mut self, table: toml::Table, place: &str) -> Result<(), Error> {
        for (key, value) in table {
            if key == "tools" {
                self.read_tools(value, place)?;
                continue;
            }
            let setting = find(&key, place)?;
            let text = match value {
                toml::Value::String(text) => text,
                other => other.to_string(),
            };
            self.set(setting, &text, place)?;
        }
        Ok(())
    }

    fn read_tools(&mut self, tools: toml::Value, place: &str) -> Result<(), Error> {
        let failed = |tool: &str, source| Error::Policy {
            place: place.to_owned(),
            tool: tool.to_owned(),
            source: Box::new(source),
        };
        let tools: toml::Table = tools.try_into().map_err(|source| failed("*", source))?;
        for (tool, policy) in tools {
            let patch: PolicyPatch = policy.try_into().map_err(|source| failed(&tool, source))?;
            patch.check().map_err(|source| Error::PolicyRange {
                place: place.to_owned(),
                tool: tool.clone(),
                source,
            })?;
            self.tools.insert(tool, patch);
        }
        Ok(())
    }

    fn set(&mut self, setting: &'static Setting, value: &str, place: &str) -> Result<(), Error> {
        (setting.apply)(self, value).ok_or_else(|| Error::NotPermitted {
            place: place.to_owned(),
            key: setting.key,
            value: value.to_owned(),
            permitted: setting.permitted,
        })
    }

    fn agree(&self) -> Result<(), Error> {
        let larger = |small: &str, large: &str| {
            Err(Error::Conflict(format!(
                "{small} must not be more than {large}, or it could never be used"
            )))
        };
        if self.max_arguments_bytes > self.max_batch_bytes {
            return larger("max_arguments_bytes", "max_batch_bytes");
        }
        if self.max_result_bytes > self.max_batch_bytes {
            return larger("max_result_bytes", "max_batch_bytes");
        }
        Ok(())
    }
}

fn find(key: &str, place: &str) -> Result<&'static Setting, Error> {
    SETTINGS
        .iter()
        .find(|setting| setting.key == key)
        .ok_or_else(|| Error::UnknownKey {
            place: place.to_owned(),
            key: key.to_owned(),
        })
}

#[cfg(test)]
mod tests;
