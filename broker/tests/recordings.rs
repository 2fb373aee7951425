//! Recorded streams of models: every one gives exactly the calls that it is known to hold, however its bytes are cut.
//!
//! The recordings are no part of this repository. `TOOLPOOL_CORPUS` names the folder that has them in `streams/`; each
//! has a sidecar of the same name that ends in `.json`. `TOOLPOOL_RECORDINGS` narrows a run to paths that contain it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its recording fails"
)]

#[path = "support/corpus.rs"]
mod corpus;

use std::path::PathBuf;
use std::rc::Rc;

use serde_json::Value;
use toolpool_broker::decode::{Decoded, Decoder, Dialect, NotOurs, Owner};

use corpus::{Sidecar, sidecars};

const MAX_EVENT_BYTES: usize = 16 << 20;
const RANDOM_CUTS: u64 = 100;
/// Recordings on which brokers may differ, and on which the sidecar has what ours does.
const CHOSEN: [&str; 8] = [
    "anthropic__error-after-complete-call",
    "bedrock__exception-mid-call",
    "compat-vllm__finish-null-done-seen",
    "deepseek__rig__raw-stream-surfaces-two-distinct-tool-calls-before-text__cut-at-event",
    "deepseek__rig__raw-stream-surfaces-two-distinct-tool-calls-before-text__cut-mid-line",
    "ollama-native__cut-and-string-args",
    "openai-chat__two-objects-concatenated",
    "responses__failed-after-done-item",
];

struct Recording {
    path: PathBuf,
    sidecar: Rc<Sidecar>,
    bytes: Vec<u8>,
}

impl Recording {
    /// What is wrong with the turn that was read, if anything is.
    fn judge(&self, decoded: &Decoded) -> Result<(), String> {
        let sidecar = &self.sidecar.json;
        let calls: Vec<Value> = decoded.calls.iter().map(call).collect();
        let wanted: Vec<Value> = list(&sidecar["calls"]).iter().map(wanted_call).collect();
        let left: Vec<String> = (decoded.incomplete.iter())
            .filter(|call| !call.superseded)
            .map(|call| named(call.id.as_deref(), &call.name))
            .collect();
        let wanted_left: Vec<String> = list(&sidecar["incomplete"]).iter().map(name).collect();
        if self.is_a_choice() {
            within_the_choice((&calls, &left), (&wanted, &wanted_left))?;
        } else {
            same("calls", &calls, &wanted)?;
            same("incomplete", &left, &wanted_left)?;
        }

        let stop = sidecar["stop_reason"].as_str();
        same("stop_reason", &decoded.stop_reason.as_deref(), &stop)?;
        // Gemini has no end marker: an end after STOP is one.
        let stopped = decoded.dialect == Some(Dialect::Gemini) && stop == Some("STOP");
        if decoded.complete && sidecar["stream_complete"] == false && !stopped {
            return Err("complete, though the stream was cut".to_owned());
        }

        // The sidecars also count what the provider leaves to a shell or a search of the agent's own, which is answered
        // under another id than its item's; and what came of it, which is no call.
        let wanted: Vec<&Value> = (list(&sidecar["server_executed"]).iter())
            .filter(|call| !(call["type"].as_str()).is_some_and(|kind| kind.ends_with("_output")))
            .collect();
        let elsewhere = decoded.not_ours.iter();
        let elsewhere: Vec<_> = (elsewhere.filter(|call| call.owner != Owner::Agent)).collect();
        let same_id = |(got, wanted): (&&NotOurs, &&Value)| {
            got.owner == Owner::Client || wanted["id"].as_str().is_none_or(|id| id == got.id)
        };
        if elsewhere.len() != wanted.len() || !elsewhere.iter().zip(&wanted).all(same_id) {
            return Err(format!("run elsewhere: {elsewhere:?}\n  wanted {wanted:?}"));
        }
        Ok(())
    }

    /// Whether brokers may differ on this one, and ours has not chosen yet.
    fn is_a_choice(&self) -> bool {
        let stem = self.path.file_stem().unwrap();
        self.sidecar.json["policy_dependent"].is_string() && !CHOSEN.iter().any(|of| stem == *of)
    }
}

/// Any call that began may be complete or not, but each is there once, in order, and is what it is known to be.
fn within_the_choice(
    (calls, left): (&[Value], &[String]),
    (wanted, wanted_left): (&[Value], &[String]),
) -> Result<(), String> {
    let known: Vec<String> = (wanted.iter().map(name))
        .chain(wanted_left.iter().cloned())
        .collect();
    let mut rest = known.iter();
    for call in calls {
        let told = name(call);
        if !rest.any(|of| *of == told) || !(wanted.contains(call) || wanted_left.contains(&told)) {
            return Err(format!("{call} is none of {known:?}, or out of order"));
        }
    }
    let mut all: Vec<String> = calls.iter().map(name).chain(left.iter().cloned()).collect();
    let mut known = known;
    all.sort();
    known.sort();
    same("calls that began", &all, &known)
}

fn named(id: Option<&str>, name: &str) -> String {
    format!("{}/{name}", id.unwrap_or("-"))
}

fn name(call: &Value) -> String {
    let name = call["name"].as_str().unwrap_or_default();
    named(call["id"].as_str(), name)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Result<(), String> {
    if got == wanted {
        return Ok(());
    }
    Err(format!("{what}:\n     got {got:?}\n  wanted {wanted:?}"))
}

/// A call to compare: its id, name, arguments, and the exact text where the wire has one.
fn call(call: &toolpool_broker::decode::Call) -> Value {
    let arguments: Value = serde_json::from_slice(&call.arguments).unwrap();
    let arguments = if call.custom {
        arguments["input"].clone()
    } else {
        arguments
    };
    serde_json::json!({ "id": call.id, "name": call.name, "arguments": arguments })
}

fn wanted_call(call: &Value) -> Value {
    let arguments = if call["kind"] == "custom" {
        &call["input"]
    } else {
        &call["arguments"]
    };
    serde_json::json!({ "id": call["id"], "name": call["name"], "arguments": arguments })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn recordings() -> Vec<Recording> {
    let only = std::env::var("TOOLPOOL_RECORDINGS").unwrap_or_default();
    let wanted = |sidecar: &Sidecar| sidecar.path.to_string_lossy().contains(&only);
    let mut found = Vec::new();
    for sidecar in sidecars().into_iter().filter(wanted).map(Rc::new) {
        for file in ["file", "decoded_file"] {
            if let Some(file) = sidecar.json[file].as_str() {
                let path = sidecar.path.with_file_name(file);
                let bytes = std::fs::read(&path).unwrap();
                let sidecar = Rc::clone(&sidecar);
                found.push(Recording {
                    path,
                    sidecar,
                    bytes,
                });
            }
        }
    }
    found
}

fn decode<'a>(dialect: Option<Dialect>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = Decoder::new(dialect, MAX_EVENT_BYTES);
    for piece in pieces {
        decoder.bytes(piece);
    }
    decoder.finish()
}

/// Runs a check on every recording and tells of all that fail.
fn check(check: impl Fn(&Recording) -> Result<(), String>) {
    let recordings = recordings();
    let failed: Vec<String> = (recordings.iter())
        .filter_map(|recording| {
            let error = check(recording).err()?;
            Some(format!("{}: {error}", recording.path.display()))
        })
        .collect();
    eprintln!("{} recordings", recordings.len());
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

#[test]
fn a_recording_gives_its_calls() {
    check(|recording| {
        recording.judge(&decode(
            Some(recording.sidecar.dialect()),
            [&*recording.bytes],
        ))
    });
}

#[test]
fn a_recording_tells_what_it_is() {
    check(|recording| {
        let decoded = decode(None, [&*recording.bytes]);
        same(
            "dialect",
            &decoded.dialect,
            &Some(recording.sidecar.dialect()),
        )?;
        recording.judge(&decoded)
    });
}

#[test]
fn it_does_not_matter_where_the_bytes_are_cut() {
    check(|recording| {
        let dialect = Some(recording.sidecar.dialect());
        let whole = decode(dialect, [&*recording.bytes]);
        same(
            "byte by byte",
            &decode(dialect, recording.bytes.chunks(1)),
            &whole,
        )?;
        for seed in 0..RANDOM_CUTS {
            let mut random = fastrand::Rng::with_seed(seed);
            let cuts = random.usize(1..8);
            let mut places: Vec<usize> = (0..cuts)
                .map(|_| random.usize(0..=recording.bytes.len()))
                .collect();
            places.sort_unstable();
            let mut rest = &*recording.bytes;
            let mut taken = 0;
            let mut pieces = Vec::new();
            for place in places {
                let (piece, after) = rest.split_at(place - taken);
                pieces.push(piece);
                (rest, taken) = (after, place);
            }
            pieces.push(rest);
            same(
                &format!("cut with seed {seed}"),
                &decode(dialect, pieces),
                &whole,
            )?;
        }
        Ok(())
    });
}
