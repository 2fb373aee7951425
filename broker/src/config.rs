//! Every setting: its type, unit, default and permitted range; from a file, the environment and flags.
//!
//! All three sources read the same table, [`SETTINGS`], so they cannot drift apart. A later source wins: the defaults,
//! then the TOML file (`key = value`), then the environment (`TOOLPOOL_KEY`), then flags (`--key value`). Everything is
//! checked before a port is bound. The file may also have a `[tools.NAME]` table of policy fields for each tool.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
    (Time) => {
        Duration
    };
    ($count_or_bytes:ident) => {
        usize
    };
}

macro_rules! within {
    ($value:ident) => {{
        let _: &SocketAddr = $value;
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
}

/// How a type of setting is written.
trait Kind {
    type Value;
    const BLANK: Self::Value;
    fn read(text: &str) -> Option<Self::Value>;
    fn show(value: &Self::Value) -> String;
}

struct Address;
struct Count;
struct Bytes;
struct Time;

impl Kind for Address {
    type Value = SocketAddr;
    const BLANK: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    fn read(text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn show(value: &SocketAddr) -> String {
        format!("{:?}", value.to_string())
    }
}

impl Kind for Count {
    type Value = usize;
    const BLANK: usize = 0;

    fn read(text: &str) -> Option<usize> {
        text.parse().ok()
    }

    fn show(value: &usize) -> String {
        value.to_string()
    }
}

impl Kind for Bytes {
    type Value = usize;
    const BLANK: usize = 0;

    fn read(text: &str) -> Option<usize> {
        parse_bytes(text)
    }

    fn show(value: &usize) -> String {
        let (unit, by) = UNITS_OF_BYTES
            .iter()
            .rfind(|(_, by)| value.is_multiple_of(*by))
            .unwrap_or(&("B", 1));
        format!("\"{}{unit}\"", value / by)
    }
}

impl Kind for Time {
    type Value = Duration;
    const BLANK: Duration = Duration::ZERO;

    fn read(text: &str) -> Option<Duration> {
        parse_duration(text).ok()
    }

    fn show(value: &Duration) -> String {
        let millis = value.as_millis();
        let (unit, by) = UNITS_OF_TIME
            .iter()
            .rfind(|(_, by)| millis.is_multiple_of((*by).into()))
            .unwrap_or(&("ms", 1));
        format!("\"{}{unit}\"", millis / u128::from(*by))
    }
}

const UNITS_OF_BYTES: [(&str, usize); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
const UNITS_OF_TIME: [(&str, u64); 4] =
    [("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000)];

/// Splits `12MiB` into its number and its unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) = number_and_unit(text)?;
    let (_, by) = UNITS_OF_BYTES.iter().find(|(name, _)| *name == unit)?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the number has no sign, and sizes are far below 2^52"
    )]
    Some((number * *by as f64) as usize)
}

/// A time with its unit: `250ms`, `1.5s`, `10min` (or `m`), `2h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is not a time; write a number with ms, s, min or h, such as \"1.5s\"");
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let unit = if unit == "m" { "min" } else { unit };
    let (_, by) = UNITS_OF_TIME
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "an hour in milliseconds is far below 2^52"
    )]
    Duration::try_from_secs_f64(number * *by as f64 / 1_000.0).map_err(|_| wrong())
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

    /// The settings as a TOML file that would give this configuration, each with its meaning.
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
mod tests {
    use super::*;

    fn flags(key: &str, value: &str) -> Result<Config, Error> {
        Config::load(Sources {
            flags: vec![(key.to_owned(), value.to_owned())],
            ..Sources::default()
        })
    }

    fn file(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().display().to_string();
        Config::load(Sources {
            file: Some(file.path().to_owned()),
            ..Sources::default()
        })
        .map_err(|error| error.to_string().replace(&path, "FILE"))
    }

    #[test]
    fn the_defaults_are_those_of_the_table_and_within_their_ranges() {
        for setting in SETTINGS {
            assert!(
                flags(setting.key, setting.default).is_ok(),
                "{}",
                setting.key
            );
        }
        let config = Config::default();
        assert_eq!(
            (config.max_calls_per_batch, config.max_arguments_bytes),
            (256, 1 << 20)
        );
        assert_eq!(
            (config.call_timeout, config.missed_beats),
            (Duration::from_secs(60), 3)
        );
    }

    #[test]
    fn a_later_source_wins() {
        let toml = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            toml.path(),
            "threads = 2\nmax_parallel = 3\nmissed_beats = 4\n",
        )
        .unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let config = Config::load(Sources {
            file: Some(toml.path().to_owned()),
            env: vec![
                pair("TOOLPOOL_MAX_PARALLEL", "5"),
                pair("TOOLPOOL_THREADS", "6"),
                pair("PATH", "x"),
            ],
            flags: vec![pair("threads", "7")],
        });
        let config = config.unwrap();
        assert_eq!(
            (config.threads, config.max_parallel, config.missed_beats),
            (7, 5, 4)
        );
    }

    #[test]
    fn an_error_names_the_place_the_key_the_value_and_what_is_permitted() {
        assert_eq!(
            flags("max_parallel", "0").unwrap_err().to_string(),
            "--max-parallel: max_parallel = \"0\": permitted is 1 to 10000 calls"
        );
        assert_eq!(
            file("call_timeout = 5").unwrap_err(),
            "FILE: call_timeout = \"5\": permitted is 1ms to 24h"
        );
        assert_eq!(
            file("max_paralel = 5").unwrap_err(),
            "FILE: there is no setting max_paralel; did you mean max_parallel?"
        );
        let tool = file("[tools.search]\nrate = -1.0").unwrap_err();
        assert!(tool.starts_with("FILE: tools.search.rate = -1"), "{tool}");
        assert!(
            file("[tools.search]\nrte = 1.0")
                .unwrap_err()
                .contains("rte")
        );
        assert!(
            file("max_result_bytes = \"65MiB\"")
                .unwrap_err()
                .contains("max_batch_bytes")
        );
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let mut config = Config::default();
        config.beat_interval = Duration::from_millis(1_500);
        config.max_arguments_bytes = 1_537;
        assert_eq!(file(&config.to_toml()), Ok(config));
    }

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(parse_duration("10m"), parse_duration("10 min"));
        assert!(
            parse_duration("10").is_err()
                && parse_duration("s").is_err()
                && parse_duration("-1s").is_err()
        );
        assert_eq!(
            (parse_bytes("2KiB"), parse_bytes("2kb")),
            (Some(2_048), None)
        );
    }
}
