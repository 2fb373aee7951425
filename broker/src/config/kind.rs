//! How each type of setting is written: numbers, sizes, times, addresses, switches.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How a type of setting is written.
pub(super) trait Kind {
    type Value;
    const BLANK: Self::Value;
    fn read(text: &str) -> Option<Self::Value>;
    fn show(value: &Self::Value) -> String;
}

pub(super) struct Address;
pub(super) struct AddressOrOff;
pub(super) struct Count;
pub(super) struct Bytes;
pub(super) struct Time;
pub(super) struct Switch;

impl Kind for Address {
    type Value = SocketAddr;
    const BLANK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn read(text: &str) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn show(value: &SocketAddr) -> String {
        format!("{:?}", value.to_string())
    }
}

impl Kind for AddressOrOff {
    type Value = Option<SocketAddr>;
    const BLANK: Option<SocketAddr> = None;

    fn read(text: &str) -> Option<Option<SocketAddr>> {
        match text {
            "off" => Some(None),
            address => Address::read(address).map(Some),
        }
    }

    fn show(value: &Option<SocketAddr>) -> String {
        value.map_or_else(|| "\"off\"".to_owned(), |address| Address::show(&address))
    }
}

impl Kind for Switch {
    type Value = bool;
    const BLANK: bool = false;

    fn read(text: &str) -> Option<bool> {
        text.parse().ok()
    }

    fn show(value: &bool) -> String {
        value.to_string()
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

pub(super) fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) = number_and_unit(text)?;
    let unit = if unit.is_empty() { "B" } else { unit };
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
