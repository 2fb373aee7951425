//! Arguments against a tool's JSON Schema, compiled once per revision of the tool.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

mod budget;
mod references;

/// The largest schema that a tool may register, in bytes.
pub(crate) const MAX_SCHEMA_BYTES: usize = 256 * 1024;
/// The largest compiled pattern: what it costs to match is about this times the text.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Violations listed for one call; a model fixes no more than these at once.
const MAX_VIOLATIONS: usize = 64;
/// Bytes of one violation's path and of its message: both quote the arguments, which may be large.
const MAX_MESSAGE_BYTES: usize = 300;

/// A compiled schema. `None` inside means any object.
#[derive(Debug)]
pub(crate) struct Schema(Option<Validator>);

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Larger than [`MAX_SCHEMA_BYTES`].
    #[error("input_schema has {0} bytes; permitted are {MAX_SCHEMA_BYTES}")]
    TooLarge(usize),
    /// Not JSON.
    #[error("input_schema is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// Not a JSON Schema, or one that refers outside itself.
    #[error("input_schema is not a usable JSON Schema: {0}")]
    NotSchema(String),
}

/// One way in which arguments break a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// JSON Pointer into the arguments.
    pub(crate) path: String,
    /// What is wrong there.
    pub(crate) message: String,
}

/// Why arguments are not acceptable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// Not one JSON value; says where it breaks.
    NotJson(String),
    /// JSON that breaks the schema.
    Violations(Vec<Violation>),
    /// Whether they do could not be found out; why, for the log.
    Undecided(&'static str),
}

impl Schema {
    /// Compiles a schema; empty text means any object. References may not leave the document: nothing is ever fetched.
    /// Patterns are matched in linear time, so look-around and back-references are refused: one schema with a
    /// backtracking pattern and one long argument could stall every agent's calls.
    pub(crate) fn compile(text: &[u8]) -> Result<Self, Error> {
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(Error::TooLarge(text.len()));
        }
        if text.is_empty() {
            return Ok(Self(None));
        }
        let mut schema: Value = serde_json::from_slice(text)?;
        references::count(&mut schema).map_err(|why| Error::NotSchema(clip(why)))?;
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_BYTES))
            .with_keyword(budget::KEYWORD, |_, steps, _| {
                Ok(Box::new(budget::Step::of(steps)))
            })
            .build(&schema)
            .map_err(|error| Error::NotSchema(clip(error.to_string())))?;
        Ok(Self(Some(validator)))
    }

    /// Parses `arguments` strictly, without repair, and holds them against the schema.
    pub(crate) fn check(&self, arguments: &[u8]) -> Result<(), Invalid> {
        let value: Value = serde_json::from_slice(arguments)
            .map_err(|error| Invalid::NotJson(error.to_string()))?;
        if !value.is_object() {
            let message = format!("the arguments must be a JSON object, not {}", kind(&value));
            return Err(Invalid::Violations(vec![Violation {
                path: String::new(),
                message,
            }]));
        }
        let Some(validator) = &self.0 else {
            return Ok(());
        };
        // A defect of the validator, or a check without end, must cost this call only. It holds no state that an unwind
        // could leave half changed.
        match guarded(budget::STEPS_TO_CHECK, || validator.is_valid(&value)) {
            Ok(true) => Ok(()),
            // To list what is wrong can take far more steps than to see that something is: each alternative of each
            // level has its own complaint.
            Ok(false) => Err(Invalid::Violations(
                guarded(budget::STEPS_TO_LIST, || violations(validator, &value))
                    .unwrap_or_else(|_| vec![unlisted()]),
            )),
            Err(why) => Err(Invalid::Undecided(why)),
        }
    }

    /// A schema whose validator has a defect.
    #[cfg(test)]
    pub(crate) fn with_a_defect() -> Self {
        struct Defect;
        impl<'i> jsonschema::Keyword<'i> for Defect {
            fn validate(&self, _: &'i Value) -> Result<(), jsonschema::ValidationError<'i>> {
                Ok(())
            }

            fn is_valid(&self, _: &'i Value) -> bool {
                panic!("a defect of the validator, made by a test")
            }
        }
        let options = jsonschema::options().with_keyword("defect", |_, _, _| Ok(Box::new(Defect)));
        Self(options.build(&serde_json::json!({"defect": true})).ok())
    }
}

/// Runs a step of a check within its budget; says why it broke off.
fn guarded<T>(steps: u32, step: impl FnOnce() -> T) -> Result<T, &'static str> {
    budget::renew(steps);
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
        if panic.is::<budget::Spent>() {
            "too many steps through references"
        } else {
            "the validator panicked"
        }
    })
}

fn unlisted() -> Violation {
    Violation {
        path: String::new(),
        message: "the arguments do not satisfy the schema; what is wrong is nested too deeply to be listed".to_owned(),
    }
}

fn violations(validator: &Validator, value: &Value) -> Vec<Violation> {
    validator
        .iter_errors(value)
        .take(MAX_VIOLATIONS)
        .map(|error| Violation {
            path: clip(error.instance_path().to_string()),
            message: clip(error.to_string()),
        })
        .collect()
}

fn clip(mut text: String) -> String {
    if text.len() > MAX_MESSAGE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        text.push('…');
    }
    text
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    mod costs;

    fn compile(schema: &str) -> Schema {
        Schema::compile(schema.as_bytes()).unwrap()
    }

    fn paths(schema: &Schema, arguments: &str) -> Vec<String> {
        match schema.check(arguments.as_bytes()) {
            Err(Invalid::Violations(list)) => {
                list.into_iter().map(|violation| violation.path).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_violation_is_listed_with_its_path() {
        let schema = compile(
            r#"{"type":"object","required":["q"],"additionalProperties":false,
                "properties":{"q":{"type":"string"},"opts":{"type":"object","properties":{"n":{"type":"integer"}}}}}"#,
        );
        assert_eq!(schema.check(br#"{"q":"x","opts":{"n":1}}"#), Ok(()));
        assert_eq!(paths(&schema, r#"{"opts":{"n":"one"},"z":1}"#).len(), 3);
        assert!(paths(&schema, r#"{"q":"x","opts":{"n":"one"}}"#).contains(&"/opts/n".to_owned()));
    }

    #[test]
    fn broken_json_is_never_repaired() {
        let schema = Schema::compile(b"").unwrap();
        for text in [
            r#"{"a":1"#,
            r#"{"a":1,}"#,
            r#"{"a":1} x"#,
            "{'a':1}",
            r#"{"a":NaN}"#,
            "",
            "\u{feff}{}",
        ] {
            assert!(
                matches!(schema.check(text.as_bytes()), Err(Invalid::NotJson(_))),
                "{text}"
            );
        }
        assert!(
            matches!(schema.check(b"{\"a\":\"\xff\"}"), Err(Invalid::NotJson(_))),
            "not UTF-8"
        );
        assert!(
            matches!(
                schema.check("[".repeat(100_000).as_bytes()),
                Err(Invalid::NotJson(_))
            ),
            "too deep"
        );
    }

    #[test]
    fn only_an_object_is_a_set_of_arguments() {
        assert_eq!(paths(&compile("true"), "7"), [""]);
    }

    #[test]
    fn a_schema_that_refers_outside_itself_is_refused() {
        for reference in [
            "http://127.0.0.1:1/x.json",
            "file:///etc/passwd",
            "other.json",
        ] {
            let schema = format!(r#"{{"$ref":"{reference}"}}"#);
            assert!(
                matches!(Schema::compile(schema.as_bytes()), Err(Error::NotSchema(_))),
                "{reference}"
            );
        }
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        assert!(matches!(Schema::compile(b"{"), Err(Error::NotJson(_))));
        assert!(matches!(
            Schema::compile(br#"{"type":"strng"}"#),
            Err(Error::NotSchema(_))
        ));
        assert!(matches!(
            Schema::compile(&vec![b' '; MAX_SCHEMA_BYTES + 1]),
            Err(Error::TooLarge(_))
        ));
    }

    #[test]
    fn a_pattern_cannot_stall_the_broker() {
        let lookaround = br#"{"properties":{"a":{"pattern":"(?<!x)(a+)+$"}}}"#;
        assert!(matches!(
            Schema::compile(lookaround),
            Err(Error::NotSchema(_))
        ));
        let schema = compile(r#"{"properties":{"a":{"type":"string","pattern":"^(a+)+$"}}}"#);
        let arguments = format!(r#"{{"a":"{}!"}}"#, "a".repeat(100_000));
        assert_eq!(paths(&schema, &arguments), ["/a"]);
    }

    #[test]
    fn a_defect_of_the_validator_is_not_the_callers_fault() {
        assert_eq!(
            Schema::with_a_defect().check(b"{}"),
            Err(Invalid::Undecided("the validator panicked"))
        );
    }

    #[test]
    fn references_cannot_stall_the_broker() {
        let mut schema =
            serde_json::json!({"$ref": "#/$defs/l60", "$defs": {"l0": {"type": "object"}}});
        for level in 1..=60 {
            let before = serde_json::json!({"$ref": format!("#/$defs/l{}", level - 1)});
            schema["$defs"][format!("l{level}")] = serde_json::json!({"allOf": [before, before]});
        }
        let outcome = compile(&schema.to_string()).check(b"{}");
        assert_eq!(
            outcome,
            Err(Invalid::Undecided("too many steps through references"))
        );
    }

    #[test]
    fn what_is_wrong_deep_inside_alternatives_costs_no_memory() {
        let schema = compile(
            r##"{"type":"object","properties":{"expr":{"$ref":"#/$defs/e"}},"$defs":{"e":{"anyOf":[
                {"type":"object","required":["kind","arg"],"properties":{"arg":{"$ref":"#/$defs/e"},"kind":{"const":"neg"}}},
                {"type":"object","required":["kind","arg"],"properties":{"arg":{"$ref":"#/$defs/e"},"kind":{"const":"abs"}}},
                {"type":"number"}]}}}"##,
        );
        let nested = |depth: usize, leaf: &str| {
            let open = r#"{"kind":"neg","arg":"#.repeat(depth);
            format!(r#"{{"expr":{open}{leaf}{}}}"#, "}".repeat(depth))
        };
        assert_eq!(schema.check(nested(60, "1").as_bytes()), Ok(()));
        assert_eq!(paths(&schema, &nested(3, "\"x\"")), ["/expr"]);
        assert_eq!(paths(&schema, &nested(60, "\"x\"")), [""]);
    }

    #[test]
    fn references_mean_what_they_meant() {
        let schema = compile(
            r##"{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","required":["v"],"unevaluatedProperties":false,
                "properties":{"v":{"type":"integer"},"$ref":{"type":"string"},"const":{"$ref":"#/$defs/tree"},
                "kids":{"type":"array","items":{"$ref":"#/$defs/tree","maxProperties":2}}}}}}"##,
        );
        assert_eq!(
            schema
                .check(br#"{"v":1,"kids":[{"v":2,"kids":[{"v":3}]}],"const":{"v":4},"$ref":"x"}"#),
            Ok(())
        );
        assert_eq!(
            paths(&schema, r#"{"v":1,"kids":[{"v":"two"}]}"#),
            ["/kids/0/v"]
        );
        assert_eq!(paths(&schema, r#"{"v":1,"const":{"w":4}}"#).len(), 2);
        assert_eq!(
            paths(
                &schema,
                r#"{"v":1,"kids":[{"v":2,"kids":[],"const":{"v":1}}]}"#
            ),
            ["/kids/0"]
        );
    }

    #[test]
    fn a_long_value_is_not_quoted_whole() {
        let schema = compile(r#"{"properties":{"a":{"type":"integer"}}}"#);
        let arguments = format!(r#"{{"a":"{}"}}"#, "ä".repeat(5_000));
        let Err(Invalid::Violations(list)) = schema.check(arguments.as_bytes()) else {
            panic!("must not match")
        };
        assert!(list[0].message.len() < 400);
        let long_key = format!(r#"{{"{}":1}}"#, "k".repeat(100_000));
        let schema = compile(r#"{"additionalProperties":{"type":"string"}}"#);
        assert!(paths(&schema, &long_key)[0].len() < 400);
    }
}
