//! The references of a schema: that each leads to a schema inside it, and takes a counted step on the way.
//!
//! What a tool registers is compiled while others wait, and is then held against every call's arguments. So a schema is
//! one resource, and its references are JSON Pointers into it: with more than one `$id`, or with references whose target
//! depends on the way to them, compiling doubles at every level. Every reference is made to go through an entry of
//! [`TARGETS`], which counts the step and then refers on; nothing of the schema moves, so pointers mean what they meant.

use std::collections::BTreeMap;

use jsonschema::Draft;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::budget;

/// Where the root has the entries; no schema of a tool means anything by it.
const TARGETS: &str = "toolpool:targets";
/// Schemas that are come to by way of references for `unevaluated…`, which needs to know all that applies in its place.
/// The validator goes through them while it compiles and while it checks, and counts nothing there.
const MAX_UNEVALUATED: u32 = 1_000;
/// The same for alternatives, which are looked at only while it compiles, to tell them apart.
const MAX_ALTERNATIVES: u32 = 200_000;
/// And how deep: each takes some of the stack.
const MAX_GATHERED_DEPTH: usize = 100;
/// Values in a schema that one step stands for; more of them are more steps.
const VALUES_OF_A_STEP: usize = 32;
/// What is written in a reference by its code.
const NOT_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/');

/// What a value in a schema is, by its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Schema,
    /// Schemas by name, whatever the names are.
    Named,
    /// Anything, and nothing in it is a schema.
    Data,
}

/// A reference as written, and the entry of [`TARGETS`] that it goes through.
type Entries = BTreeMap<String, usize>;

/// Puts steps in front of every reference below `schema`; says which keyword of it cannot be taken.
pub(super) fn count(schema: &mut Value) -> Result<(), String> {
    let mut found = Found::new(schema);
    found.search(schema, Place::Schema, "")?;
    let Found {
        entries,
        targets,
        unevaluated,
        alternatives,
        ..
    } = found;
    let gathering = |left, inside| Gathering {
        root: schema,
        entries: &entries,
        targets: &targets,
        left,
        inside,
    };
    gathering(MAX_UNEVALUATED, false)
        .all(&unevaluated)
        .map_err(|()| {
            "`unevaluatedProperties` or `unevaluatedItems` is applied to too many references"
                .to_owned()
        })?;
    gathering(MAX_ALTERNATIVES, true)
        .all(&alternatives)
        .map_err(|()| "`anyOf` or `oneOf` is applied to too many references".to_owned())?;
    if targets.is_empty() {
        return Ok(());
    }
    let mut steps = BTreeMap::new();
    for pointer in &targets {
        steps
            .entry(pointer.as_str())
            .or_insert_with(|| schema.pointer(pointer).map_or(0, values) / VALUES_OF_A_STEP + 1);
    }
    let counted = |pointer: &String| {
        let steps = steps.get(pointer.as_str());
        json!({"allOf": [{budget::KEYWORD: steps}, {"$ref": fragment(pointer)}]})
    };
    let counted: Value = targets.iter().map(counted).collect();
    redirect(schema, Place::Schema, &entries);
    if let Value::Object(root) = schema {
        root.insert(TARGETS.to_owned(), counted);
    }
    Ok(())
}

/// Values that a schema is held against arguments with, references apart.
fn values(schema: &Value) -> usize {
    1 + match schema {
        Value::Array(items) => items.iter().map(values).sum(),
        Value::Object(keywords) => keywords
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "$defs" | "definitions"))
            .map(|(_, value)| values(value))
            .sum(),
        _ => 0,
    }
}

/// What `key` of something is.
fn below(place: Place, key: &str) -> Place {
    match key {
        _ if place != Place::Schema => item(place),
        "const" | "enum" | "default" | "examples" | "example" | "required" | "type" | TARGETS => {
            Place::Data
        }
        key if key.starts_with("x-") => Place::Data,
        "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
        | "dependencies" => Place::Named,
        // An unknown keyword may hold schemas: others can refer into it.
        _ => Place::Schema,
    }
}

/// What an item of something is.
fn item(place: Place) -> Place {
    match place {
        Place::Data => Place::Data,
        Place::Named | Place::Schema => Place::Schema,
    }
}

/// What was found in a schema.
struct Found<'a> {
    root: &'a Value,
    draft: Draft,
    /// The schema's own name.
    id: &'a str,
    entries: Entries,
    /// JSON Pointers, one for each entry.
    targets: Vec<String>,
    /// Schemas with `unevaluated…`.
    unevaluated: Vec<&'a Value>,
    /// Schemas with `anyOf` or `oneOf`.
    alternatives: Vec<&'a Value>,
}

impl<'a> Found<'a> {
    fn new(root: &'a Value) -> Self {
        let draft = Draft::default().detect(root);
        let id = root.get(draft.id_keyword()).and_then(Value::as_str);
        Self {
            root,
            draft,
            id: id.unwrap_or_default().trim_end_matches('#'),
            entries: Entries::new(),
            targets: Vec::new(),
            unevaluated: Vec::new(),
            alternatives: Vec::new(),
        }
    }

    /// Looks through what stands at `path`.
    fn search(&mut self, value: &'a Value, place: Place, path: &str) -> Result<(), String> {
        match value {
            _ if place == Place::Data => {}
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.search(value, item(place), &format!("{path}/{index}"))?;
                }
            }
            Value::Object(keywords) => {
                if place == Place::Schema {
                    self.schema(value, keywords, path)?;
                }
                for (key, value) in keywords {
                    self.search(
                        value,
                        below(place, key),
                        &format!("{path}/{}", escaped(key)),
                    )?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn schema(
        &mut self,
        value: &'a Value,
        keywords: &Map<String, Value>,
        path: &str,
    ) -> Result<(), String> {
        let text = |key: &str| keywords.get(key).and_then(Value::as_str);
        let refused = |key: &str, why: &str| Err(format!("`{key}` at {path}/{key} {why}"));
        for key in ["$dynamicRef", "$recursiveRef"] {
            if keywords.contains_key(key) {
                return refused(key, "is not supported; use `$ref` with a JSON Pointer");
            }
        }
        if !path.is_empty() {
            let named = ["$id", self.draft.id_keyword()];
            if let Some(key) = named.into_iter().find(|key| text(key).is_some()) {
                return refused(
                    key,
                    "is not supported below the root; use `$ref` with a JSON Pointer",
                );
            }
            // It would be another keyword that names a schema.
            if self.draft != Draft::Draft4 && Draft::default().detect(value) == Draft::Draft4 {
                return refused("$schema", "is another draft than the root's");
            }
        }
        let has = |key| keywords.contains_key(key);
        if has("unevaluatedProperties") || has("unevaluatedItems") {
            self.unevaluated.push(value);
        }
        if has("anyOf") || has("oneOf") {
            self.alternatives.push(value);
        }
        match text("$ref") {
            Some(reference) => self
                .enter(reference)
                .or_else(|why| refused("$ref", &format!("is `{reference}`, which {why}"))),
            None => Ok(()),
        }
    }

    /// Gives a reference its entry.
    fn enter(&mut self, reference: &str) -> Result<(), &'static str> {
        if self.entries.contains_key(reference) {
            return Ok(());
        }
        let pointer = self.resolve(reference)?;
        self.entries
            .insert(reference.to_owned(), self.targets.len());
        self.targets.push(pointer);
        Ok(())
    }

    /// The JSON Pointer of a reference, as this module writes it.
    fn resolve(&self, reference: &str) -> Result<String, &'static str> {
        let own = reference.strip_prefix(self.id).unwrap_or(reference);
        let pointer = match own.strip_prefix('#') {
            Some(fragment) => percent_decode_str(fragment)
                .decode_utf8()
                .map_err(|_| "is not UTF-8")?,
            None if own.is_empty() => "".into(),
            None => return Err("is outside the schema"),
        };
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err("is no JSON Pointer");
        }
        let (mut value, mut place, mut path) = (self.root, Place::Schema, String::new());
        for segment in pointer.split('/').skip(1) {
            let key = segment.replace("~1", "/").replace("~0", "~");
            let next = match value {
                Value::Object(members) => {
                    place = below(place, &key);
                    members.get(&key)
                }
                Value::Array(items) => {
                    place = item(place);
                    key.parse().ok().and_then(|index: usize| items.get(index))
                }
                _ => None,
            };
            value = next.ok_or("leads nowhere")?;
            path = path + "/" + &escaped(&key);
        }
        if place == Place::Schema && (value.is_object() || value.is_boolean()) {
            Ok(path)
        } else {
            Err("does not lead to a schema")
        }
    }
}

/// Goes through what applies in one place, the way the validator does.
struct Gathering<'a> {
    root: &'a Value,
    entries: &'a Entries,
    targets: &'a [String],
    /// Schemas that may still be come to by way of references.
    left: u32,
    /// Whether what is required of each property is looked at too.
    inside: bool,
}

/// Where a [`Gathering`] is.
#[derive(Clone, Copy)]
struct At {
    is_referred_to: bool,
    inside: bool,
}

impl<'a> Gathering<'a> {
    fn all(mut self, schemas: &[&'a Value]) -> Result<(), ()> {
        let at = At {
            is_referred_to: false,
            inside: self.inside,
        };
        schemas
            .iter()
            .try_for_each(|schema| self.gather(schema, &mut Vec::new(), at))
    }

    fn gather(
        &mut self,
        schema: &'a Value,
        above: &mut Vec<*const Value>,
        at: At,
    ) -> Result<(), ()> {
        let Value::Object(keywords) = schema else {
            return Ok(());
        };
        // A circle ends where it began.
        if above.contains(&std::ptr::from_ref(schema)) {
            return Ok(());
        }
        if at.is_referred_to {
            self.left = self.left.checked_sub(1).ok_or(())?;
            if above.len() >= MAX_GATHERED_DEPTH {
                return Err(());
            }
        }
        above.push(schema);
        for (key, value) in keywords {
            match (key.as_str(), value) {
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                    schemas
                        .iter()
                        .try_for_each(|schema| self.gather(schema, above, at))?;
                }
                ("dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                    schemas
                        .values()
                        .try_for_each(|schema| self.gather(schema, above, at))?;
                }
                ("properties", Value::Object(schemas)) if at.inside => {
                    let at = At {
                        inside: false,
                        ..at
                    };
                    schemas
                        .values()
                        .try_for_each(|schema| self.gather(schema, above, at))?;
                }
                ("not" | "if" | "then" | "else", schema) => self.gather(schema, above, at)?,
                ("$ref", Value::String(reference)) => {
                    let target = self
                        .entries
                        .get(reference)
                        .and_then(|entry| self.targets.get(*entry));
                    if let Some(target) = target.and_then(|pointer| self.root.pointer(pointer)) {
                        self.gather(
                            target,
                            above,
                            At {
                                is_referred_to: true,
                                ..at
                            },
                        )?;
                    }
                }
                _ => {}
            }
        }
        above.pop();
        Ok(())
    }
}

/// Sends every reference through its entry.
fn redirect(value: &mut Value, place: Place, entries: &Entries) {
    match value {
        _ if place == Place::Data => {}
        Value::Array(items) => items
            .iter_mut()
            .for_each(|value| redirect(value, item(place), entries)),
        Value::Object(keywords) => {
            for (key, value) in keywords.iter_mut() {
                match value {
                    Value::String(reference) if place == Place::Schema && key == "$ref" => {
                        if let Some(entry) = entries.get(reference) {
                            *reference = format!("#/{TARGETS}/{entry}");
                        }
                    }
                    value => redirect(value, below(place, key), entries),
                }
            }
        }
        _ => {}
    }
}

/// A key as a part of a JSON Pointer.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// A JSON Pointer as a reference.
fn fragment(pointer: &str) -> String {
    format!("#{}", utf8_percent_encode(pointer, NOT_PLAIN))
}
