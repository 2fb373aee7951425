//! Alternatives and parts of an object as one object.
//!
//! No provider takes `allOf`, `anyOf` or `oneOf` at the top of a tool's schema. Without them a model would know nothing of
//! the arguments that stand in there only, so these are gathered in the object itself.

use std::collections::HashSet;

use indexmap::IndexMap;

use crate::tool_format::json::{Json, Object};

use super::names;
use super::notes::Notes;

/// Schemas of one property that are told apart; with more, any value is shown as permitted.
const MOST_SCHEMAS: usize = 64;

/// `allOf`: what its parts say is said by the schema itself. Of two that speak of the same, the first is kept.
pub(super) fn parts(schema: &mut Object, notes: &mut Notes) {
    let Some(Json::List(parts)) = schema.shift_remove("allOf") else {
        return;
    };
    for (at, part) in parts.into_iter().enumerate() {
        let Json::Object(part) = part else { continue };
        for (keyword, value) in part {
            match (&*keyword, value) {
                ("properties", Json::Object(more)) => add_properties(schema, more, notes),
                ("required", Json::List(names)) => require(schema, names),
                (_, value) => match schema.get(&keyword) {
                    None => {
                        schema.insert(keyword, value);
                    }
                    Some(same) if *same == value => {}
                    Some(_) => notes.tell_at(["allOf", &at.to_string(), &keyword], "left out"),
                },
            }
        }
    }
}

fn add_properties(schema: &mut Object, more: Object, notes: &mut Notes) {
    let mut properties = take_properties(schema);
    for (name, property) in more {
        match properties.get(&name) {
            None => {
                properties.insert(name, property);
            }
            Some(same) if *same == property => {}
            Some(_) => {
                let why = "the second of its schemas is left out";
                notes.tell_at(["properties", &name], why);
            }
        }
    }
    put_properties(schema, properties);
}

/// `anyOf` or `oneOf`: the arguments of all alternatives are shown as possible, and those as required that all require.
pub(super) fn alternatives(schema: &mut Object, keyword: &str, notes: &mut Notes) {
    let Some(Json::List(alternatives)) = schema.shift_remove(keyword) else {
        return;
    };
    let mut objects = Vec::new();
    for alternative in alternatives {
        if let Json::Object(mut alternative) = alternative {
            parts(&mut alternative, notes);
            objects.push(alternative);
        }
    }
    let required_by_all = required_by_all(&objects);
    let mut found: IndexMap<String, Vec<Json>> = IndexMap::new();
    for mut alternative in objects {
        for (name, property) in take_properties(&mut alternative) {
            let schemas = found.entry(name).or_default();
            if schemas.len() <= MOST_SCHEMAS && !schemas.contains(&property) {
                schemas.push(property);
            }
        }
    }
    let mut properties = take_properties(schema);
    for (name, mut schemas) in found {
        // What the schema itself says of it holds in every alternative.
        properties.entry(name).or_insert_with(|| {
            if schemas.len() > MOST_SCHEMAS {
                return Json::anything();
            }
            match schemas.pop() {
                Some(single) if schemas.is_empty() => single,
                last => {
                    schemas.extend(last);
                    Json::Object(Object::from([("anyOf".to_owned(), Json::List(schemas))]))
                }
            }
        });
    }
    put_properties(schema, properties);
    require(schema, required_by_all);
    notes.tell_at(
        [keyword],
        "its alternatives are shown as one object; which arguments go together, and all else they say, is left out",
    );
}

fn required_by_all(objects: &[Object]) -> Vec<Json> {
    let Some((first, others)) = objects.split_first() else {
        return Vec::new();
    };
    let mut common = names(first, "required");
    for other in others {
        let required: HashSet<_> = names(other, "required").into_iter().collect();
        common.retain(|name| required.contains(name));
    }
    common.into_iter().map(Json::string).collect()
}

fn require(schema: &mut Object, names: Vec<Json>) {
    if names.is_empty() {
        return;
    }
    let required = schema.entry("required".to_owned());
    if let Json::List(required) = required.or_insert_with(|| Json::List(Vec::new())) {
        for name in names {
            if !required.contains(&name) {
                required.push(name);
            }
        }
    }
}

/// The schema's properties, to be put back.
fn take_properties(schema: &mut Object) -> Object {
    match schema.shift_remove("properties") {
        Some(Json::Object(properties)) => properties,
        _ => Object::new(),
    }
}

fn put_properties(schema: &mut Object, properties: Object) {
    schema.insert("properties".to_owned(), Json::Object(properties));
}
