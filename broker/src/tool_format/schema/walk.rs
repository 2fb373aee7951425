//! The way through a schema: each schema in it is made anew from the keywords that are permitted in its place.
//!
//! The work is bounded: references that are written out may add so much and lead so deep, and what is beyond that is left
//! open.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::tool_format::json::{Json, Object};

use super::join;
use super::notes::Notes;
use super::rules::{References, Rules};

/// What references that are written out may add, in about bytes. A model reads all of it with every turn.
const MOST_ADDED: usize = 64 * 1024;
/// Schemas that may be around a reference that is written out. Each definition may be as deep as a parser takes and refer
/// to a further one, and the way through them is recursion.
const MOST_AROUND: usize = 48;

/// Say nothing of the arguments.
const WITHOUT_A_WORD: [&str; 10] = [
    "title",
    "$schema",
    "$id",
    "$comment",
    "$anchor",
    "$dynamicAnchor",
    "$recursiveAnchor",
    "$vocabulary",
    "$defs",
    "definitions",
];
/// Beside a reference, these are about the place and not about what is referred to.
const ANNOTATIONS: [&str; 4] = ["title", "description", "default", "examples"];

/// Where a schema stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Root,
    /// A part or an alternative of the root: it is joined with it, so a reference in its place is seen through.
    Branch,
    Nested,
}

#[derive(Debug)]
pub(super) struct Walk<'a> {
    rules: &'static Rules,
    document: &'a Json,
    /// References that are being written out.
    open: Vec<&'a str>,
    /// What further ones may add.
    room: usize,
    /// Schemas around the one that is looked at.
    around: usize,
    notes: Notes,
}

impl<'a> Walk<'a> {
    pub(super) fn new(rules: &'static Rules, document: &'a Json) -> Self {
        Self {
            rules,
            document,
            open: vec!["#"],
            room: MOST_ADDED,
            around: 0,
            notes: Notes::default(),
        }
    }

    pub(super) fn into_changes(self) -> Vec<String> {
        self.notes.into_changes()
    }

    /// The whole schema.
    pub(super) fn root(&mut self) -> Object {
        let mut schema = self.schema(self.document, Place::Root);
        join::parts(&mut schema, &mut self.notes);
        join::alternatives(&mut schema, "anyOf", &mut self.notes);
        join::alternatives(&mut schema, "oneOf", &mut self.notes);
        match schema.get("type") {
            None => {}
            Some(kind) if kind.as_str() == Some("object") => {}
            Some(Json::List(kinds)) if kinds.contains(&Json::string("object")) => {}
            Some(_) => {
                let why = "left out, since arguments are an object";
                self.notes.tell_at(["type"], why);
            }
        }
        schema.shift_remove("type");
        schema.shift_insert(0, "type".to_owned(), Json::string("object"));
        if !schema.contains_key("properties") {
            schema.insert("properties".to_owned(), Json::anything());
        }
        if self.rules.plain_names {
            self.drop_names(&mut schema);
        }
        schema
    }

    /// To give an argument another name would be to change the arguments on their way back.
    fn drop_names(&mut self, schema: &mut Object) {
        let plain = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            (1..=64).contains(&name.len()) && name.bytes().all(plain)
        };
        if let Some(Json::Object(properties)) = schema.get_mut("properties") {
            properties.retain(|name, _| {
                let plain = plain(name);
                if !plain {
                    let why = "left out, since its name is not permitted";
                    self.notes.tell_at(["properties", name], why);
                }
                plain
            });
        }
        if let Some(Json::List(required)) = schema.get_mut("required") {
            required.retain(|name| name.as_str().is_some_and(plain));
        }
    }

    fn schema(&mut self, source: &'a Json, place: Place) -> Object {
        if self.open.len() > 1 && self.room == 0 {
            let why = "left open: with its references written out, the schema is too large";
            self.notes.tell(why);
            return Object::new();
        }
        self.around += 1;
        let schema = match source {
            Json::Object(source) => match source.get("$ref").and_then(Json::as_str) {
                Some(reference) if self.is_written_out(reference, place) => {
                    self.written_out(source, reference, place)
                }
                _ => self.keywords(source, place),
            },
            Json::Scalar(Value::Bool(false)) if self.permits("not", place) => {
                Object::from([("not".to_owned(), Json::anything())])
            }
            Json::Scalar(Value::Bool(false)) => {
                self.notes
                    .tell("left open, though nothing is permitted here");
                Object::new()
            }
            Json::Scalar(_) | Json::List(_) => Object::new(),
        };
        self.around -= 1;
        schema
    }

    fn is_written_out(&self, reference: &str, place: Place) -> bool {
        place != Place::Nested || !self.rules.references.permits(reference)
    }

    fn written_out(&mut self, source: &'a Object, reference: &'a str, place: Place) -> Object {
        let target = resolve(self.document, reference);
        let in_a_circle = self.open.contains(&reference);
        let mut schema = match target {
            Some(target) if !in_a_circle && self.around <= MOST_AROUND => {
                self.open.push(reference);
                let schema = self.schema(target, place);
                self.open.pop();
                schema
            }
            _ => {
                self.notes.tell(match target {
                    None => "left open, since its reference cannot be written out",
                    Some(_) if in_a_circle => "left open, since it refers to itself",
                    Some(_) => "left open, since its references lead too deep",
                });
                // So much is known.
                let kind = target
                    .and_then(Json::as_object)
                    .and_then(|target| target.get("type"));
                let kind = kind.map(|kind| ("type".to_owned(), kind.clone()));
                kind.into_iter().collect()
            }
        };
        for (keyword, value) in self.keywords(source, place) {
            if ANNOTATIONS.contains(&&*keyword) || !schema.contains_key(&keyword) {
                schema.insert(keyword, value);
            } else if schema.get(&keyword) != Some(&value) {
                self.notes
                    .tell_at([&keyword], "left out beside a reference");
            }
        }
        schema
    }

    fn keywords(&mut self, source: &'a Object, place: Place) -> Object {
        let mut schema = Object::with_capacity(source.len());
        for (keyword, value) in source {
            if keyword == "$ref"
                && value
                    .as_str()
                    .is_some_and(|to| self.is_written_out(to, place))
            {
                continue;
            }
            if !self.is_wanted(keyword, place) {
                if !WITHOUT_A_WORD.contains(&&**keyword) {
                    self.notes.tell_at([keyword], "left out");
                }
                continue;
            }
            let back = self.notes.enter(keyword);
            if let Some((keyword, value)) = self.keyword(source, keyword, value, place) {
                self.spend(keyword.len());
                schema.insert(keyword.to_owned(), value);
            }
            self.notes.leave(back);
        }
        if place == Place::Nested {
            if self.rules.few_words {
                self.say_in_few_words(&mut schema);
            }
            let lists = match schema.get("type") {
                Some(Json::List(kinds)) => kinds.contains(&Json::string("array")),
                Some(kind) => kind.as_str() == Some("array"),
                None => false,
            };
            if lists && !schema.contains_key("items") {
                // Nearly all refuse it otherwise (`array schema missing items`, `items: missing field`).
                schema.insert("items".to_owned(), Json::anything());
            }
        }
        schema
    }

    fn is_wanted(&self, keyword: &str, place: Place) -> bool {
        match keyword {
            // Of the draft that its author had gone by. What is said here goes by 2020-12.
            "$schema" => false,
            "$defs" | "definitions" | "$dynamicRef" | "$recursiveRef"
                if self.rules.references == References::None =>
            {
                false
            }
            // Joined, or said in other words.
            "allOf" | "anyOf" | "oneOf" if place != Place::Nested => true,
            "allOf" | "oneOf" | "const" if place == Place::Nested && self.rules.few_words => true,
            _ => self.permits(keyword, place),
        }
    }

    fn permits(&self, keyword: &str, place: Place) -> bool {
        match place {
            Place::Root | Place::Branch => self.rules.root.permit(keyword),
            Place::Nested => self.rules.nested.permit(keyword),
        }
    }

    /// A keyword in this format. Older drafts say some things in another way than 2020-12, by which all providers go.
    fn keyword(
        &mut self,
        source: &'a Object,
        keyword: &'a str,
        value: &'a Json,
        place: Place,
    ) -> Option<(&'a str, Json)> {
        let is_true = |keyword: &str| source.get(keyword).and_then(Json::as_bool) == Some(true);
        let value = match (keyword, value) {
            (
                "properties" | "patternProperties" | "dependentSchemas" | "$defs" | "definitions",
                Json::Object(schemas),
            ) => self.each_named(schemas),
            ("items", Json::List(schemas)) => {
                if !self.rules.nested.permit("prefixItems") {
                    self.notes
                        .tell("left out, since it has a schema for each item");
                    return None;
                }
                return Some(("prefixItems", self.each(schemas, Place::Nested)));
            }
            ("additionalItems", rest) => {
                source.get("items").and_then(Json::as_list)?;
                return Some(("items", Json::Object(self.schema(rest, Place::Nested))));
            }
            ("allOf" | "anyOf" | "oneOf", Json::List(schemas)) => {
                let place = match place {
                    Place::Root | Place::Branch => Place::Branch,
                    Place::Nested => Place::Nested,
                };
                self.each(schemas, place)
            }
            ("prefixItems", Json::List(schemas)) => self.each(schemas, Place::Nested),
            (
                "additionalProperties" | "unevaluatedProperties" | "unevaluatedItems",
                Json::Scalar(_),
            ) => value.clone(),
            (
                "items"
                | "not"
                | "if"
                | "then"
                | "else"
                | "contains"
                | "propertyNames"
                | "contentSchema"
                | "additionalProperties"
                | "unevaluatedProperties"
                | "unevaluatedItems",
                schema,
            ) => Json::Object(self.schema(schema, Place::Nested)),
            ("minimum", _) if is_true("exclusiveMinimum") => return None,
            ("maximum", _) if is_true("exclusiveMaximum") => return None,
            ("exclusiveMinimum", Json::Scalar(Value::Bool(true))) => source.get("minimum")?.clone(),
            ("exclusiveMaximum", Json::Scalar(Value::Bool(true))) => source.get("maximum")?.clone(),
            ("exclusiveMinimum" | "exclusiveMaximum", Json::Scalar(Value::Bool(false))) => {
                return None;
            }
            (_, value) => {
                self.spend(value.weight());
                value.clone()
            }
        };
        Some((keyword, value))
    }

    fn each_named(&mut self, schemas: &'a Object) -> Json {
        let mut adapted = Object::with_capacity(schemas.len());
        for (name, schema) in schemas {
            self.spend(name.len());
            let back = self.notes.enter(name);
            adapted.insert(
                name.clone(),
                Json::Object(self.schema(schema, Place::Nested)),
            );
            self.notes.leave(back);
        }
        Json::Object(adapted)
    }

    fn each(&mut self, schemas: &'a [Json], place: Place) -> Json {
        let mut adapted = Vec::with_capacity(schemas.len());
        for (at, schema) in schemas.iter().enumerate() {
            let back = self.notes.enter(&at.to_string());
            adapted.push(Json::Object(self.schema(schema, place)));
            self.notes.leave(back);
        }
        Json::List(adapted)
    }

    fn say_in_few_words(&mut self, schema: &mut Object) {
        match schema.shift_remove("const") {
            None => {}
            Some(Json::Scalar(value @ (Value::String(_) | Value::Number(_)))) => {
                let kind = match &value {
                    Value::String(_) => "string",
                    Value::Number(number) if number.is_f64() => "number",
                    _ => "integer",
                };
                let kind = || Json::string(kind);
                schema.entry("type".to_owned()).or_insert_with(kind);
                let only = Json::List(vec![Json::Scalar(value)]);
                schema.insert("enum".to_owned(), only);
            }
            Some(_) => self.notes.tell_at(["const"], "left out"),
        }
        join::parts(schema, &mut self.notes);
        if let Some(alternatives) = schema.shift_remove("oneOf") {
            if schema.contains_key("anyOf") {
                self.notes.tell_at(["oneOf"], "left out beside anyOf");
            } else {
                self.notes.tell_at(["oneOf"], "written as anyOf");
                schema.insert("anyOf".to_owned(), alternatives);
            }
        }
    }

    /// What is copied counts only where it is copied once more.
    fn spend(&mut self, bytes: usize) {
        const EACH: usize = 8;
        if self.open.len() > 1 {
            self.room = self.room.saturating_sub(EACH + bytes);
        }
    }
}

/// What a reference within the document refers to. Anchors are not looked for.
fn resolve<'a>(document: &'a Json, reference: &str) -> Option<&'a Json> {
    let pointer = percent_decode_str(reference.strip_prefix('#')?);
    let pointer = pointer.decode_utf8().ok()?;
    if pointer.is_empty() {
        return Some(document);
    }
    let mut at = document;
    for step in pointer.strip_prefix('/')?.split('/') {
        let step = step.replace("~1", "/").replace("~0", "~");
        at = match at {
            Json::Object(object) => object.get(&step)?,
            Json::List(list) => list.get(step.parse::<usize>().ok()?)?,
            Json::Scalar(_) => return None,
        };
    }
    Some(at)
}
