//! What each format makes of a schema, and what it says of the changes.

use serde_json::{Value, json};

use super::*;

const ALL: [Format; 7] = [
    Format::Anthropic,
    Format::OpenAiChat,
    Format::OpenAiResponses,
    Format::Gemini,
    Format::Bedrock,
    Format::Cohere,
    Format::Ollama,
];

fn adapted(format: Format, schema: &Value) -> (Value, Vec<String>) {
    let (schema, changes) = adapt(format, schema.to_string().as_bytes());
    (serde_json::to_value(schema).unwrap(), changes)
}

/// What becomes of the schema of one argument, `x`.
fn argument(format: Format, schema: &Value) -> (Value, Vec<String>) {
    let schema = json!({"type": "object", "properties": {"x": schema}});
    let (schema, changes) = adapted(format, &schema);
    let changes = changes
        .iter()
        .map(|change| change.replacen("/properties/x", "", 1))
        .collect();
    (schema["properties"]["x"].clone(), changes)
}

fn check(formats: &[Format], schema: &Value, wanted: &Value, changes: &[&str]) {
    for format in formats {
        let adapted = adapted(*format, schema);
        assert_eq!(
            (&adapted.0, &*adapted.1),
            (wanted, &*owned(changes)),
            "{format:?}"
        );
    }
}

fn owned(changes: &[&str]) -> Vec<String> {
    changes.iter().map(|&change| change.to_owned()).collect()
}

fn at_the_root(keyword: &str) -> String {
    format!(
        "/{keyword}: its alternatives are shown as one object; which arguments go together, and all else they say, is \
         left out"
    )
}

#[test]
fn the_schema_is_always_one_of_an_object() {
    let any = json!({"type": "object", "properties": {}});
    check(&ALL, &json!({}), &any, &[]);
    check(&ALL, &json!(true), &any, &[]);
    check(&ALL, &json!({"type": ["object", "null"]}), &any, &[]);
    let why = "/type: left out, since arguments are an object";
    check(&ALL, &json!({"type": "string"}), &any, &[why]);
}

#[test]
fn what_permits_nothing_is_an_object_too() {
    let any = json!({"type": "object", "properties": {}});
    let why = "/: left open, though nothing is permitted here";
    let openai = [Format::OpenAiChat, Format::OpenAiResponses, Format::Cohere];
    check(&openai, &json!(false), &any, &[why]);
    check(
        &[Format::Bedrock, Format::Ollama],
        &json!(false),
        &any,
        &[why],
    );
    let nothing = json!({"type": "object", "not": {}, "properties": {}});
    let formats = [Format::Anthropic, Format::Gemini];
    check(&formats, &json!(false), &nothing, &[]);
    for format in openai {
        let (part, _) = adapted(format, &json!({"allOf": [false]}));
        assert_eq!(part, any, "{format:?}");
    }
}

#[test]
fn the_draft_of_a_schema_is_not_told() {
    let draft = "http://json-schema.org/draft-07/schema#";
    let schema = json!({"$schema": draft, "type": "object", "properties": {"a": {"$schema": draft, "type": "string"}}});
    let wanted = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    check(&ALL, &schema, &wanted, &[]);
}

#[test]
fn alternatives_at_the_root_are_gathered_in_one_object() {
    for keyword in ["anyOf", "oneOf"] {
        let schema = json!({
            "type": "object",
            "properties": {"id": {"type": "string"}},
            "required": ["id"],
            keyword: [
                {"$ref": "#/$defs/ByName"},
                {"properties": {"kind": {"type": "integer"}, "id": {"type": "string", "maxLength": 3}, "n": {"type": "integer"}},
                 "required": ["n", "kind"]},
                {"properties": {"kind": {"type": "integer"}}, "required": ["kind"]},
            ],
            "$defs": {"ByName": {"properties": {"kind": {"type": "string"}, "name": {"type": "string"}}, "required": ["kind", "name"]}},
        });
        for format in ALL {
            let (mut schema, changes) = adapted(format, &schema);
            schema.as_object_mut().unwrap().remove("$defs");
            assert_eq!(
                schema,
                json!({
                    "type": "object",
                    "properties": {
                        "id": {"type": "string"},
                        "kind": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                        "name": {"type": "string"},
                        "n": {"type": "integer"},
                    },
                    "required": ["id", "kind"],
                }),
                "{format:?}"
            );
            assert!(changes.contains(&at_the_root(keyword)), "{changes:?}");
        }
    }
}

#[test]
fn one_of_several_sets_of_required_arguments_is_required_of_none() {
    let schema = json!({
        "type": "object",
        "properties": {"a": {}, "b": {}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    });
    let wanted = json!({"type": "object", "properties": {"a": {}, "b": {}}});
    check(&ALL, &schema, &wanted, &[&at_the_root("anyOf")]);
}

#[test]
fn parts_at_the_root_are_one_object_without_a_loss() {
    let schema = json!({
        "allOf": [
            {"$ref": "#/definitions/Base"},
            {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b", "a"]},
        ],
        "definitions": {"Base": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
    });
    for format in ALL {
        let (mut schema, changes) = adapted(format, &schema);
        schema.as_object_mut().unwrap().remove("definitions");
        let wanted = json!({
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        });
        assert_eq!((schema, changes), (wanted, Vec::new()), "{format:?}");
    }
}

#[test]
fn what_is_refused_at_the_root_is_left_out() {
    let schema = json!({
        "type": "object", "properties": {}, "description": "All.", "additionalProperties": false,
        "not": {"required": ["x"]}, "enum": [{}],
    });
    let openai = json!({"type": "object", "properties": {}, "description": "All.", "additionalProperties": false});
    check(
        &[Format::OpenAiChat, Format::OpenAiResponses, Format::Cohere],
        &schema,
        &openai,
        &["/enum: left out", "/not: left out"],
    );
    let bare = json!({"type": "object", "properties": {}});
    let changes = [
        "/additionalProperties: left out",
        "/description: left out",
        "/enum: left out",
        "/not: left out",
    ];
    check(&[Format::Bedrock, Format::Ollama], &schema, &bare, &changes);
    check(&[Format::Anthropic, Format::Gemini], &schema, &schema, &[]);
}

#[test]
fn names_of_arguments_that_are_not_permitted_are_left_out() {
    let schema = json!({
        "type": "object",
        "properties": {"filter[id]": {}, "a.b": {"type": "object", "properties": {"filter[id]": {}}}},
        "required": ["filter[id]", "a.b"],
    });
    let wanted = json!({
        "type": "object",
        "properties": {"a.b": {"type": "object", "properties": {"filter[id]": {}}}},
        "required": ["a.b"],
    });
    let why = "/properties/filter[id]: left out, since its name is not permitted";
    check(
        &[Format::Anthropic, Format::Bedrock],
        &schema,
        &wanted,
        &[why],
    );
    check(&[Format::OpenAiChat, Format::Gemini], &schema, &schema, &[]);
}

#[test]
fn references_are_written_out_where_they_are_not_permitted() {
    let schema = json!({
        "type": "object",
        "properties": {
            "from": {"$ref": "#/$defs/a~1b", "description": "Where from."},
            "same": {"$ref": "#/properties/from"},
        },
        "$defs": {"a/b": {"type": "object", "properties": {"c": {"$ref": "#/$defs/C%20d"}}}, "C d": {"type": "string"}},
    });
    let place = json!({"type": "object", "properties": {"c": {"type": "string"}}, "description": "Where from."});
    let written_out = json!({"type": "object", "properties": {"from": place, "same": place}});
    check(
        &[Format::Gemini, Format::Bedrock, Format::Ollama],
        &schema,
        &written_out,
        &[],
    );
    check(&[Format::Anthropic], &schema, &schema, &[]);
    let (openai, changes) = adapted(Format::OpenAiChat, &schema);
    assert_eq!(openai["properties"]["from"], schema["properties"]["from"]);
    assert_eq!(openai["properties"]["same"], schema["properties"]["from"]);
    assert_eq!(openai["$defs"], schema["$defs"]);
    assert!(changes.is_empty(), "{changes:?}");
}

#[test]
fn a_schema_that_is_a_reference_is_what_it_refers_to() {
    let schema = json!({
        "$ref": "#/$defs/Arguments",
        "$defs": {"Arguments": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
    });
    for format in ALL {
        let (schema, changes) = adapted(format, &schema);
        assert_eq!(schema["properties"]["a"]["type"], "string", "{format:?}");
        assert_eq!(schema["required"], json!(["a"]), "{format:?}");
        assert!(changes.is_empty() && schema.get("$ref").is_none());
    }
}

#[test]
fn references_that_lead_nowhere_or_in_a_circle_are_left_open() {
    let tree = json!({
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/Tree"}},
        "$defs": {"Tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}}}},
    });
    let wanted = json!({
        "type": "object",
        "properties": {"tree": {"type": "object", "properties": {"left": {"type": "object"}}}},
    });
    let why = "/properties/tree/properties/left: left open, since it refers to itself";
    check(
        &[Format::Gemini, Format::Bedrock, Format::Ollama],
        &tree,
        &wanted,
        &[why],
    );
    check(&[Format::Anthropic, Format::OpenAiChat], &tree, &tree, &[]);

    let nowhere = json!({"$ref": "#anchor"});
    let why = ": left open, since its reference cannot be written out";
    for format in [Format::Gemini, Format::OpenAiChat] {
        assert_eq!(argument(format, &nowhere), (json!({}), owned(&[why])));
    }
    assert_eq!(argument(Format::Anthropic, &nowhere), (nowhere, Vec::new()));
}

#[test]
fn references_cannot_make_a_schema_grow_without_end() {
    // Each definition refers to the next one ten times.
    let mut definitions = serde_json::Map::new();
    for level in 0..20 {
        let next = json!({"$ref": format!("#/$defs/{}", level + 1)});
        let properties: serde_json::Map<_, _> =
            (0..10).map(|at| (format!("p{at}"), next.clone())).collect();
        let schema = json!({"type": "object", "properties": properties});
        definitions.insert(level.to_string(), schema);
    }
    definitions.insert("20".to_owned(), json!({"description": "x".repeat(10_000)}));
    let schema = json!({"properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": definitions});
    for format in [Format::Gemini, Format::Bedrock, Format::Ollama] {
        let (adapted_schema, changes) = adapted(format, &schema);
        assert!(adapted_schema.to_string().len() < 1 << 17);
        assert_eq!(changes.len(), 65, "the rest is counted");
        assert!(
            changes[0].ends_with("the schema is too large"),
            "{}",
            changes[0]
        );
        assert!(changes[64].ends_with("further changes"), "{}", changes[64]);
    }
}

#[test]
fn references_cannot_lead_too_deep() {
    // Each definition is as deep as a parser takes, and refers to the next one at its deepest.
    let mut definitions = serde_json::Map::new();
    for level in 0..100 {
        let mut schema = json!({"$ref": format!("#/$defs/{}", level + 1)});
        for _ in 0..120 {
            schema = json!({ "items": schema });
        }
        definitions.insert(level.to_string(), schema);
    }
    definitions.insert("100".to_owned(), json!({}));
    let deep = json!({"properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": definitions});
    let chain: serde_json::Map<_, _> = (0..100)
        .map(|level| {
            let next = json!({"$ref": format!("#/$defs/{}", (level + 1) % 100)});
            (level.to_string(), json!({"properties": {"next": next}}))
        })
        .collect();
    let chain = json!({"properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": chain});
    for format in [Format::Gemini, Format::Bedrock, Format::Ollama] {
        for schema in [&deep, &chain] {
            let (adapted, changes) = adapted(format, schema);
            assert!(adapted.to_string().len() < 4_000, "{format:?}");
            assert_eq!(changes.len(), 1);
            assert!(changes[0].ends_with("lead too deep"), "{}", changes[0]);
        }
    }
}

#[test]
fn gemini_and_ollama_are_told_in_few_words() {
    let cases = [
        (
            json!({"const": "a"}),
            json!({"type": "string", "enum": ["a"]}),
            &[][..],
        ),
        (
            json!({"const": 3}),
            json!({"type": "integer", "enum": [3]}),
            &[],
        ),
        (
            json!({"oneOf": [{"type": "string"}, {"type": "null"}]}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            &["/oneOf: written as anyOf"],
        ),
        (
            json!({"allOf": [{"$ref": "#/properties/y"}], "description": "d"}),
            json!({"type": "integer", "description": "d"}),
            &[],
        ),
        (
            json!({"type": "boolean", "const": true}),
            json!({"type": "boolean"}),
            &["/const: left out"],
        ),
    ];
    for (schema, wanted, changes) in cases {
        for format in [Format::Gemini, Format::Ollama] {
            let schema = json!({"properties": {"x": schema, "y": {"type": "integer"}}});
            let (adapted, told) = adapted(format, &schema);
            let changes: Vec<_> = changes
                .iter()
                .map(|change| format!("/properties/x{change}"))
                .collect();
            assert_eq!(
                (&adapted["properties"]["x"], told),
                (&wanted, changes),
                "{format:?}"
            );
        }
    }
    let said = json!({"allOf": [{"const": "a"}, {"oneOf": [{"const": true}]}]});
    for format in [Format::Anthropic, Format::OpenAiChat, Format::Bedrock] {
        assert_eq!(argument(format, &said), (said.clone(), Vec::new()));
    }
}

#[test]
fn ollama_is_shown_what_it_reads() {
    let (schema, changes) = argument(
        Format::Ollama,
        &json!({
            "title": "X", "type": ["array", "null"], "description": "d", "minItems": 1, "default": [],
            "items": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a"}, "b": true},
                      "required": ["a"], "additionalProperties": false},
        }),
    );
    assert_eq!(
        schema,
        json!({
            "type": ["array", "null"], "description": "d",
            "items": {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]},
        })
    );
    let changes: std::collections::BTreeSet<_> = changes.iter().map(String::as_str).collect();
    let wanted = [
        "/default: left out",
        "/items/additionalProperties: left out",
        "/items/properties/a/pattern: left out",
        "/minItems: left out",
    ];
    assert!(changes.into_iter().eq(wanted));
}

#[test]
fn older_drafts_are_said_in_the_words_of_today() {
    for format in [
        Format::Anthropic,
        Format::OpenAiChat,
        Format::Gemini,
        Format::Bedrock,
    ] {
        let cases = [
            (
                json!({"type": "array", "items": [{"type": "string"}], "additionalItems": false}),
                json!({"type": "array", "prefixItems": [{"type": "string"}], "items": {"not": {}}}),
            ),
            (
                json!({"minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false}),
                json!({"exclusiveMinimum": 1, "maximum": 9}),
            ),
            (
                json!({"type": "array"}),
                json!({"type": "array", "items": {}}),
            ),
            (json!(true), json!({})),
        ];
        for (schema, wanted) in cases {
            assert_eq!(
                argument(format, &schema),
                (wanted, Vec::new()),
                "{format:?}"
            );
        }
    }
    let each = json!({"type": "array", "items": [{"type": "string"}]});
    let told = "/items: left out, since it has a schema for each item";
    assert_eq!(
        argument(Format::Ollama, &each),
        (json!({"type": "array", "items": {}}), owned(&[told]))
    );
}

#[test]
fn data_in_a_schema_is_no_schema() {
    let schema = json!({
        "default": {"$ref": "#/nowhere", "const": 1}, "enum": [{"$ref": "x"}, true],
        "properties": {"$ref": {"type": "string"}, "const": {"type": "string"}},
    });
    assert_eq!(
        argument(Format::Gemini, &schema),
        (schema.clone(), Vec::new())
    );
    let (kept, _) = argument(Format::Ollama, &schema);
    assert_eq!(kept["properties"], schema["properties"]);
}
