//! What is to be played: a recorded turn, or a provider's stream as it came.

use std::fs::File;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::command::read_bounded;
use crate::turn::{Dialect, Provider, Turn};

/// Reads the file, or stdin for `-`. A `dialect` says that it is a provider's stream.
pub(super) fn read(file: &Path, dialect: Option<Dialect>) -> Result<Turn> {
    let (name, bytes) = if file == Path::new("-") {
        ("stdin".into(), read_bounded(io::stdin()))
    } else {
        let bytes = File::open(file).map_err(anyhow::Error::from);
        (file.to_string_lossy(), bytes.and_then(read_bounded))
    };
    let bytes = bytes.with_context(|| format!("cannot read {name}"))?;
    ensure!(
        !bytes.trim_ascii().is_empty(),
        "{name} is empty, so there is nothing to play"
    );
    if !is_recorded(&bytes) {
        let provider = Provider {
            dialect: dialect.unwrap_or_default(),
            local_tools: Vec::new(),
        };
        return Ok(Turn::of_stream(&bytes.into(), provider));
    }
    ensure!(
        dialect.is_none(),
        "{name} is a recorded turn, which names its dialect itself, in `open`; leave --dialect out"
    );
    String::from_utf8(bytes)
        .map_err(anyhow::Error::from)
        .and_then(|text| Turn::parse(&text))
        .with_context(|| format!("{name} is not a recorded turn"))
}

/// Whether the first line that is not blank is a JSON object with `at`, or would be if it were not broken: no provider
/// sends that.
fn is_recorded(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Timed {
        at: Option<IgnoredAny>,
    }

    let bytes = bytes.trim_ascii_start();
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    if let Ok(Timed { at }) = serde_json::from_slice(line) {
        return at.is_some();
    }
    let fields = line.strip_prefix(b"{").unwrap_or_default();
    fields.trim_ascii_start().starts_with(br#""at""#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_turn_is_known_by_its_times() {
        for recorded in [
            "{\"at\": 0, \"seal\": {}}",
            "\n\r\n  {\"seal\": {}, \"at\": 1}\r\n{",
            "{ \"at\": 0, \"block_start\": {\"index",
        ] {
            assert!(is_recorded(recorded.as_bytes()), "{recorded}");
        }
        for stream in [
            &b"event: message_start\ndata: {\"at\": 1}\n"[..],
            b"{\"type\": \"message_start\", \"message\": {\"at\": 1}}\n",
            b"[{\"candidates\": []}\n,\r\n{\"at\": 1}]",
            b"{\n\"at\": 1}",
            b"\x00\x00\x01\x02\x0a{\"at\": 1}",
            b"at",
            b"",
        ] {
            assert!(!is_recorded(stream), "{}", String::from_utf8_lossy(stream));
        }
    }
}
