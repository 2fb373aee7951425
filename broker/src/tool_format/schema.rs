//! A tool's JSON Schema as a provider permits it.
//!
//! The broker holds arguments against the whole schema whatever the model was shown, so what is lost here costs a model a
//! second try at most. Everything that is lost is said, as `path: what`. What says nothing of the arguments (`title`,
//! `$comment`, `$schema` and the like), and the same thing said in another way (`true` as `{}`, a reference written out),
//! goes without a word.

mod join;
mod notes;
mod rules;
mod walk;

use super::Format;
use super::json::{Json, Object};
use rules::Rules;
use walk::Walk;

/// The schema for this format, and what it lost. Always one of an object.
pub(super) fn adapt(format: Format, schema: &[u8]) -> (Json, Vec<String>) {
    // It was compiled when the tool was registered; only an empty one is not JSON.
    let document: Json = serde_json::from_slice(schema).unwrap_or_else(|_| Json::anything());
    let mut walk = Walk::new(Rules::of(format), &document);
    let schema = walk.root();
    (Json::Object(schema), walk.into_changes())
}

/// The value of a keyword that is a list of names.
fn names<'a>(schema: &'a Object, keyword: &str) -> Vec<&'a str> {
    let list = schema.get(keyword).and_then(Json::as_list);
    list.unwrap_or_default()
        .iter()
        .filter_map(Json::as_str)
        .collect()
}

#[cfg(test)]
mod tests;
