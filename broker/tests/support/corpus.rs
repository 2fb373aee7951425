//! The recordings that `TOOLPOOL_CORPUS` names: every sidecar below its `streams/`, in the order of their paths.
//!
//! Unit tests and tests over the wire both include this file, so it knows `Dialect` only from the module around it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Dialect;

/// What is known of a recorded stream.
pub(crate) struct Sidecar {
    pub(crate) path: PathBuf,
    pub(crate) json: Value,
}

impl Sidecar {
    pub(crate) fn dialect(&self) -> Dialect {
        match self.json["wire_format"].as_str().unwrap() {
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
}

/// All of them. None where there is no corpus, which is told: then the test has shown nothing.
pub(crate) fn sidecars() -> Vec<Sidecar> {
    let Some(corpus) = std::env::var_os("TOOLPOOL_CORPUS") else {
        eprintln!(
            "skipped, as far as it is about recordings: TOOLPOOL_CORPUS does not name a folder of them"
        );
        return Vec::new();
    };
    let mut paths = Vec::new();
    walk(&Path::new(&corpus).join("streams"), &mut paths);
    paths.sort();
    let sidecar = |path: PathBuf| {
        let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (!json["wire_format"].is_null()).then_some(Sidecar { path, json })
    };
    let found: Vec<_> = paths.into_iter().filter_map(sidecar).collect();
    let corpus = corpus.display();
    assert!(!found.is_empty(), "no recordings below {corpus}");
    found
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension() == Some("json".as_ref()) {
            found.push(path);
        }
    }
}
