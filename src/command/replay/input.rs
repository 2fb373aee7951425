//! What is to be played: a recorded turn, or a provider's stream as it came.

use std::fs::File;
use std::io::{self, Read, Stdin};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::mpsc;

use crate::command::{MOST_READ, read_bounded};
use crate::turn::{Dialect, Provider, Turn};

/// What is read of stdin at once, at most, and how many such pieces wait for the broker: over that, nothing is read.
const PIECE: usize = 16 * 1024;
const PIECES: usize = 16;

/// Reads the file, or stdin for `-`. A `dialect` says that it is a provider's stream. One from stdin need not be there yet:
/// the turn goes on with what comes, unless the `whole` of it is wanted.
pub(super) fn read(file: &Path, dialect: Option<Dialect>, whole: bool) -> Result<Turn> {
    let (name, bytes) = if file == Path::new("-") {
        let mut stdin = io::stdin();
        let head = head(&mut stdin).context("cannot read stdin")?;
        if !whole && !head.trim_ascii().is_empty() && !is_recorded(&head) {
            let mut turn = stream(head, dialect);
            turn.rest = Some(follow(stdin)?);
            return Ok(turn);
        }
        (
            "stdin".into(),
            read_bounded(io::Cursor::new(head).chain(stdin)),
        )
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
        return Ok(stream(bytes, dialect));
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

fn stream(bytes: impl Into<Bytes>, dialect: Option<Dialect>) -> Turn {
    let provider = Provider {
        dialect: dialect.unwrap_or_default(),
        local_tools: Vec::new(),
    };
    Turn::of_stream(&bytes.into(), provider)
}

/// As much of it as tells whether it is a recorded turn, or all if that is less.
fn head(from: &mut impl Read) -> io::Result<Bytes> {
    let mut head = Vec::new();
    while !tells(&head) && (head.len() as u64) < MOST_READ {
        let before = head.len();
        head.resize(before + PIECE, 0);
        let read = read_some(from, &mut head[before..])?;
        head.truncate(before + read);
        if read == 0 {
            break;
        }
    }
    Ok(head.into())
}

/// Only a line that is an object can be of a recorded turn, and it must be there in full.
fn tells(head: &[u8]) -> bool {
    match head.trim_ascii_start() {
        [] => false,
        [b'{', rest @ ..] => rest.contains(&b'\n'),
        _ => true,
    }
}

/// What still comes from stdin, read in a thread that ends with the stream or with the process: no read of stdin can be
/// called off.
fn follow(mut stdin: Stdin) -> Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (pieces, rest) = mpsc::channel(PIECES);
    let read = move || {
        let mut piece = vec![0; PIECE];
        loop {
            let came = match read_some(&mut stdin, &mut piece) {
                Ok(0) => return,
                Ok(read) => Ok(Bytes::copy_from_slice(&piece[..read])),
                Err(error) => Err(error),
            };
            let is_last = came.is_err();
            if pieces.blocking_send(came).is_err() || is_last {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("stdin".to_owned()).spawn(read);
    thread.context("cannot start the thread that reads stdin")?;
    Ok(rest)
}

fn read_some(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(into) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
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
    fn no_more_is_read_than_tells_what_it_is() {
        for (text, tells_it) in [
            (&b"event: mess"[..], true),
            (b"\n [", true),
            (b"\0", true),
            (b"{\"at\": 0}\n", true),
            (b"{\"at\": 0}", false),
            (b" \r\n", false),
            (b"", false),
        ] {
            assert_eq!(tells(text), tells_it, "{}", String::from_utf8_lossy(text));
        }
        let mut stream = &[&b"event: a\n"[..], &vec![b'x'; 3 * PIECE]].concat()[..];
        assert_eq!(head(&mut stream).unwrap().len(), PIECE);
        assert_eq!(&head(&mut &b"{\"at\""[..]).unwrap()[..], b"{\"at\"");
    }

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
