//! Schemas that try to cost more than they may.

use serde_json::{Value, json};

use super::*;

/// `levels` schemas, each of which names the one before it twice.
fn doubling(levels: usize, prefix: &str, refer: impl Fn(String) -> Value) -> Value {
    let mut schemas = json!({"a0": {"type": "object"}});
    for level in 1..=levels {
        let before = refer(format!("{prefix}/a{}", level - 1));
        schemas[format!("a{level}")] = json!({"allOf": [before, before]});
    }
    schemas
}

fn refused(schema: &Value) -> String {
    match Schema::compile(schema.to_string().as_bytes()) {
        Err(Error::NotSchema(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn accepted(schema: &Value) -> Schema {
    Schema::compile(schema.to_string().as_bytes()).unwrap()
}

#[test]
fn every_reference_is_counted_wherever_it_stands() {
    let reference = |to: String| json!({"$ref": to});
    let schemas = [
        json!({"$defs": doubling(60, "#/$defs", reference), "$ref": "#/$defs/a60"}),
        json!({"$defs": doubling(60, "#/$defs", |to| json!({"$defs": {}, "$ref": to})), "$ref": "#/$defs/a60"}),
        json!({"$defs": doubling(60, "#/$defs", |to| json!({"$anchor": "x", "$ref": to})), "$ref": "#/$defs/a60"}),
        json!({"dependencies": {"default": doubling(60, "#/dependencies/default", reference)},
            "$ref": "#/dependencies/default/a60"}),
        json!({"properties": {"const": doubling(60, "#/properties/const", reference)}, "$ref": "#/properties/const/a60"}),
        json!({"else": {"list": [[doubling(60, "#/else/list/0/0", reference)]]}, "$ref": "#/else/list/0/0/a60"}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": doubling(60, "#/definitions", reference),
            "$ref": "#/definitions/a60"}),
        json!({"$schema": "http://json-schema.org/draft-04/schema#", "id": "http://h/z",
            "definitions": doubling(60, "http://h/z#/definitions", reference), "allOf": [{"$ref": "#/definitions/a60"}]}),
    ];
    for schema in &schemas {
        assert_eq!(
            accepted(schema).check(b"{}"),
            Err(Invalid::Undecided("too many steps through references")),
            "{schema}"
        );
    }
}

#[test]
fn a_reference_into_data_is_refused() {
    for data in [
        "default",
        "examples",
        "example",
        "const",
        "enum",
        "x-any",
        "toolpool:targets",
    ] {
        let mut schema = json!({"allOf": [{"$ref": format!("#/{data}/a9")}]});
        schema[data] = doubling(9, &format!("#/{data}"), |to| json!({"$ref": to}));
        let why = refused(&schema);
        assert!(
            why.starts_with("`$ref` at /allOf/0/$ref is")
                && why.ends_with("does not lead to a schema"),
            "{why}"
        );
    }
    for (to, why) in [
        ("#/$defs", "does not lead to a schema"),
        ("#/required", "does not lead to a schema"),
        ("#/nowhere", "leads nowhere"),
        ("#name", "is no JSON Pointer"),
        ("#/%FF", "is not UTF-8"),
        ("other.json#/a", "is outside the schema"),
    ] {
        let schema = json!({"$ref": to, "$defs": {"a": {"$anchor": "name"}}, "required": ["a"]});
        assert!(refused(&schema).ends_with(why), "{to}");
    }
}

#[test]
fn a_schema_is_one_resource() {
    let named = doubling(
        14,
        "http://h/z#/$defs",
        |to| json!({"$id": "x", "$ref": to}),
    );
    let schema = json!({"$id": "http://h/z", "$defs": named, "$ref": "#/$defs/a14"});
    assert_eq!(
        refused(&schema),
        "`$id` at /$defs/a1/allOf/0/$id is not supported below the root; use `$ref` with a JSON Pointer"
    );
    let draft4 = "http://json-schema.org/draft-04/schema#";
    let schema = json!({"$schema": draft4, "properties": {"a": {"id": "http://h/a"}}});
    assert!(refused(&schema).starts_with("`id` at /properties/a/id "));
    let schema = json!({"properties": {"a": {"$schema": draft4, "id": "http://h/a"}}});
    assert!(refused(&schema).starts_with("`$schema` at /properties/a/$schema "));
    for key in ["$dynamicRef", "$recursiveRef"] {
        let schema = json!({"properties": {"a": {(key): "#"}}});
        assert!(refused(&schema).starts_with(&format!("`{key}` at /properties/a/{key} ")));
    }
    // Names of arguments, and data.
    let schema = json!({"properties": {"$id": {"type": "string"}, "id": {"type": "string"}, "$dynamicRef": {}},
        "default": {"$id": "x", "$ref": "y"}});
    assert_eq!(paths(&accepted(&schema), r#"{"$id":1}"#), ["/$id"]);
}

#[test]
fn what_is_gathered_while_compiling_is_bounded() {
    for keywords in [
        json!({"unevaluatedProperties": false, "$ref": "#/$defs/a40"}),
        json!({"unevaluatedItems": false, "$ref": "#/$defs/a40"}),
        json!({"anyOf": [{"$ref": "#/$defs/a40"}, {"type": "null"}, {"type": "object"}]}),
        json!({"oneOf": [{"properties": {"k": {"$ref": "#/$defs/a40"}}}, {"properties": {"k": {"const": 1}}}, true]}),
    ] {
        let mut schema = keywords;
        schema["$defs"] = doubling(40, "#/$defs", |to| json!({"$ref": to}));
        assert!(refused(&schema).ends_with("applied to too many references"));
    }
}

#[test]
fn a_long_chain_of_references_does_not_end_the_process() {
    let mut defs = json!({"a0": {"properties": {"n": {"$ref": "#/$defs/a2000"}}}});
    for level in 1..=2000 {
        defs[format!("a{level}")] = json!({"$ref": format!("#/$defs/a{}", level - 1)});
    }
    let schema = accepted(&json!({"$ref": "#/$defs/a2000", "$defs": defs}));
    let nested = format!("{}{{}}{}", r#"{"n":"#.repeat(100), "}".repeat(100));
    assert_eq!(
        schema.check(nested.as_bytes()),
        Err(Invalid::Undecided("too many steps through references"))
    );
}

#[test]
fn references_lead_where_they_led() {
    let schema = json!({
        "$id": "https://h/tool",
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$ref": "https://h/tool#/definitions/a~1b%20%7E0%22%25",
        "definitions": {
            "a/b ~\"%": {"type": "object", "required": ["s"], "properties": {
                "s": {"$ref": "#/components/schemas/s", "type": "null"},
                "t": {"$ref": "https://h/tool"}, "u": {"$ref": "#"}, "v": {"$ref": "#/definitions/list/items/1"}}},
            "list": {"items": [true, {"type": "integer"}]},
        },
        "components": {"schemas": {"s": {"type": "string"}}},
    });
    let schema = accepted(&schema);
    assert_eq!(
        schema.check(br#"{"s":"x","t":{"s":"y"},"u":{"s":"z","v":1}}"#),
        Ok(())
    );
    assert_eq!(paths(&schema, r#"{"s":1}"#), ["/s"]);
    assert_eq!(
        paths(&schema, r#"{"s":"x","t":{"s":1},"u":{"s":"z","v":"w"}}"#),
        ["/t/s", "/u/v"]
    );
    for circle in [
        json!({"$ref": "#"}),
        json!({"$ref": ""}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
    ] {
        assert_eq!(accepted(&circle).check(b"{}"), Ok(()), "{circle}");
    }
}

#[test]
fn a_step_to_a_large_schema_is_several() {
    let large = json!(
        (0..3_000)
            .map(|_| json!({"not": false}))
            .collect::<Vec<_>>()
    );
    let schema = |body: Value| {
        let items = json!({"type": "array", "items": {"$ref": "#/$defs/body"}});
        accepted(&json!({"properties": {"a": items}, "$defs": {"body": {"allOf": body}}}))
    };
    let arguments = format!(r#"{{"a":[0{}]}}"#, ",0".repeat(999));
    assert_eq!(schema(json!([{}])).check(arguments.as_bytes()), Ok(()));
    assert_eq!(
        schema(large).check(arguments.as_bytes()),
        Err(Invalid::Undecided("too many steps through references"))
    );
}
