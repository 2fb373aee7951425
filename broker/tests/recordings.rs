//! Recorded streams of models: every one gives exactly the calls that it is known to hold, however its bytes are cut.
//!
//! The recordings are no part of this repository. `TOOLPOOL_CORPUS` names the folder that has them in `streams/`; each
//! has a sidecar of the same name that ends in `.json`. `TOOLPOOL_RECORDINGS` narrows a run to paths that contain it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot read its recording fails"
)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use toolpool_broker::decode::{Decoded, Decoder, Dialect, Owner};

const MAX_EVENT_BYTES: usize = 16 << 20;
const RANDOM_CUTS: u64 = 100;

struct Recording {
    path: PathBuf,
    sidecar: Value,
    bytes: Vec<u8>,
}

impl Recording {
    fn dialect(&self) -> Dialect {
        match self.sidecar["wire_format"].as_str().unwrap() {
            "anthropic-messages" => Dialect::Anthropic,
            "openai-chat" => Dialect::OpenAiChat,
            "openai-responses" => Dialect::OpenAiResponses,
            "gemini-generate-content" => Dialect::Gemini,
            "bedrock-converse-stream" => Dialect::Bedrock,
            "cohere-v2-chat" => Dialect::Cohere,
            "ollama-chat" => Dialect::Ollama,
            other => panic!("{}: unknown format {other}", self.path.display()),
        }
    }

    fn policy_dependent(&self) -> bool {
        self.sidecar["policy_dependent"].is_string()
    }

    /// What is wrong with the turn that was read, if anything is.
    fn judge(&self, decoded: &Decoded) -> Result<(), String> {
        let sidecar = &self.sidecar;
        let calls: Vec<Value> = decoded.calls.iter().map(call).collect();
        let wanted: Vec<Value> = list(&sidecar["calls"]).iter().map(wanted_call).collect();
        same("calls", &calls, &wanted).or_else(|error| self.may_differ(error))?;

        let named = |id: Option<&str>, name: &str| format!("{}/{name}", id.unwrap_or("-"));
        let incomplete: Vec<String> = (decoded.incomplete.iter())
            .filter(|call| !call.superseded)
            .map(|call| named(call.id.as_deref(), &call.name))
            .collect();
        let wanted: Vec<String> = (list(&sidecar["incomplete"]).iter())
            .map(|call| {
                named(
                    call["id"].as_str(),
                    call["name"].as_str().unwrap_or_default(),
                )
            })
            .collect();
        same("incomplete", &incomplete, &wanted).or_else(|error| self.may_differ(error))?;

        let stop = sidecar["stop_reason"].as_str();
        same("stop_reason", &decoded.stop_reason.as_deref(), &stop)?;

        // The sidecars also count what the provider leaves to a shell or a search of the agent's own.
        let run_elsewhere = (decoded.not_ours.iter())
            .filter(|call| call.owner != Owner::Agent)
            .count();
        if list(&sidecar["server_executed"]).is_empty() != (run_elsewhere == 0) {
            return Err(format!("run elsewhere: {:?}", decoded.not_ours));
        }
        Ok(())
    }

    fn may_differ(&self, error: String) -> Result<(), String> {
        if self.policy_dependent() {
            Ok(())
        } else {
            Err(error)
        }
    }
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

fn recordings() -> Option<Vec<Recording>> {
    let Some(corpus) = std::env::var_os("TOOLPOOL_CORPUS") else {
        eprintln!("skipped: TOOLPOOL_CORPUS does not name a folder of recordings");
        return None;
    };
    let only = std::env::var("TOOLPOOL_RECORDINGS").unwrap_or_default();
    let mut found = Vec::new();
    walk(&Path::new(&corpus).join("streams"), &mut |path| {
        if path.extension().is_none_or(|extension| extension != "json")
            || !path.to_string_lossy().contains(&only)
        {
            return;
        }
        let sidecar: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if sidecar["wire_format"].is_null() {
            return;
        }
        for file in ["file", "decoded_file"] {
            if let Some(file) = sidecar[file].as_str() {
                let path = path.with_file_name(file);
                let bytes = std::fs::read(&path).unwrap();
                let sidecar = sidecar.clone();
                found.push(Recording {
                    path,
                    sidecar,
                    bytes,
                });
            }
        }
    });
    assert!(
        !found.is_empty(),
        "no recordings below {}",
        corpus.display()
    );
    Some(found)
}

fn walk(folder: &Path, each: &mut impl FnMut(&Path)) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, each);
        } else {
            each(&path);
        }
    }
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
    let Some(recordings) = recordings() else {
        return;
    };
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
    check(|recording| recording.judge(&decode(Some(recording.dialect()), [&*recording.bytes])));
}

#[test]
fn a_recording_tells_what_it_is() {
    check(|recording| {
        let decoded = decode(None, [&*recording.bytes]);
        same("dialect", &decoded.dialect, &Some(recording.dialect()))?;
        recording.judge(&decoded)
    });
}

#[test]
fn it_does_not_matter_where_the_bytes_are_cut() {
    check(|recording| {
        let dialect = Some(recording.dialect());
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
