//! A bound on what one check of arguments may cost, for schemas that refer to themselves.
//!
//! Without references a check costs at most schema times arguments. With them it can double at every level: forty short
//! definitions, each of which names the one before it twice, would keep the broker busy for hours. So each step through
//! a reference is counted, and a check that takes too many is broken off.

use std::cell::Cell;
use std::panic::resume_unwind;

use jsonschema::{Keyword, ValidationError};
use serde_json::{Value, json};

/// Steps through references that one check may take: far more than honest arguments need, and done in milliseconds.
pub(super) const STEPS_TO_CHECK: u32 = 100_000;
/// And to list what is wrong, where each step may leave a complaint that quotes the arguments.
pub(super) const STEPS_TO_LIST: u32 = 2_000;
/// The keyword that counts; no schema of a tool means anything by it.
pub(super) const KEYWORD: &str = "toolpool:step";

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(0) };
}

/// A check that took too many steps; carried by an unwind.
pub(super) struct Spent;

/// The keyword as a validator.
pub(super) struct Step;

impl<'i> Keyword<'i> for Step {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        take();
        Ok(())
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        take();
        true
    }
}

/// A check begins, which may take so many steps.
pub(super) fn renew(steps: u32) {
    LEFT.set(steps);
}

fn take() {
    match LEFT.get().checked_sub(1) {
        Some(left) => LEFT.set(left),
        // The validator has no other way to stop; no panic hook runs for this.
        None => resume_unwind(Box::new(Spent)),
    }
}

/// Puts a step in front of every reference below `schema`.
pub(super) fn count_references(schema: &mut Value) {
    let Value::Object(keywords) = schema else {
        return;
    };
    for (keyword, value) in keywords.iter_mut() {
        match keyword.as_str() {
            // Values, not schemas.
            "const" | "enum" | "default" | "examples" | "required" | "type" => {}
            // Schemas by name, whatever the names are.
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
                if let Value::Object(named) = value {
                    named.values_mut().for_each(count_references);
                }
            }
            _ => match value {
                Value::Array(schemas) => schemas.iter_mut().for_each(count_references),
                value => count_references(value),
            },
        }
    }
    let refers = ["$ref", "$dynamicRef", "$recursiveRef"]
        .iter()
        .any(|key| keywords.contains_key(*key));
    // One that others can refer into keeps its place: it is mostly the root, which is checked once.
    let has_inside = ["$defs", "definitions", "$id", "$anchor", "$dynamicAnchor"];
    if refers && !has_inside.iter().any(|key| keywords.contains_key(*key)) {
        let reference = schema.take();
        *schema = json!({"allOf": [{KEYWORD: true}, reference]});
    }
}
