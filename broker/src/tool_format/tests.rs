//! The catalogue in each provider's shape.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::policy::PolicyPatch;

const ALL: [Format; 7] = [
    Format::Anthropic,
    Format::OpenAiChat,
    Format::OpenAiResponses,
    Format::Gemini,
    Format::Bedrock,
    Format::Cohere,
    Format::Ollama,
];

fn tool(name: &str, description: &str, schema: &Value) -> Definition {
    Definition {
        name: name.into(),
        description: description.to_owned(),
        input_schema: Bytes::from(schema.to_string()),
        policy: PolicyPatch::default(),
    }
}

fn listed(format: Format, tools: &[Definition]) -> Value {
    let tools: Vec<_> = tools.iter().map(|tool| format.declare(tool)).collect();
    serde_json::from_slice(&format.list(&tools)).unwrap()
}

#[test]
fn every_provider_has_its_own_shape() {
    let schema =
        json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
    let tools = [tool("a", "Adds.", &schema), tool("b", " ", &schema)];
    let function = |name: &str| match name {
        "a" => json!({"name": "a", "description": "Adds.", "parameters": schema}),
        name => json!({"name": name, "parameters": schema}),
    };
    let chat = json!([
        {"type": "function", "function": function("a")},
        {"type": "function", "function": function("b")}]);
    let wanted = [
        json!([{"name": "a", "description": "Adds.", "input_schema": schema},
               {"name": "b", "input_schema": schema}]),
        chat.clone(),
        json!([{"type": "function", "name": "a", "description": "Adds.", "parameters": schema, "strict": false},
               {"type": "function", "name": "b", "parameters": schema, "strict": false}]),
        json!([{"functionDeclarations": [
            {"name": "a", "description": "Adds.", "parametersJsonSchema": schema},
            {"name": "b", "parametersJsonSchema": schema}]}]),
        json!([{"toolSpec": {"name": "a", "description": "Adds.", "inputSchema": {"json": schema}}},
               {"toolSpec": {"name": "b", "inputSchema": {"json": schema}}}]),
        chat.clone(),
        chat,
    ];
    for (format, wanted) in ALL.into_iter().zip(wanted) {
        assert_eq!(listed(format, &tools), wanted, "{format:?}");
        assert_eq!(listed(format, &[]), json!([]), "{format:?}");
        for tool in &tools {
            let declared = format.declare(tool);
            assert!(declared.changes.is_empty(), "{declared:?}");
        }
    }
}

#[test]
fn a_description_is_clipped_where_the_provider_takes_no_longer_one() {
    let schema = json!({"type": "object", "properties": {}});
    let [fits, long] = [102, 103].map(|words| "word äöü, ".repeat(words) + "end.");
    assert_eq!(fits.chars().count(), 1_024);
    for format in ALL {
        let declared = format.declare(&tool("a", &fits, &schema));
        assert!(declared.changes.is_empty(), "{format:?}");
        let declared = format.declare(&tool("a", &long, &schema));
        let json = String::from_utf8(declared.json).unwrap();
        if matches!(format, Format::OpenAiChat | Format::OpenAiResponses) {
            assert!(json.contains(r#"word äöü,…""#), "{json}");
            let wanted = "description: clipped from 1034 characters to the 1024 that are taken";
            assert_eq!(declared.changes, [wanted], "{format:?}");
        } else {
            assert!(json.contains(&long), "{format:?}");
            assert!(declared.changes.is_empty(), "{format:?}");
        }
    }
}

#[test]
fn a_tool_without_a_schema_takes_any_object() {
    let mut any = tool("a", "", &json!({}));
    for schema in [
        "",
        "{}",
        "true",
        r#"{"$schema":"https://json-schema.org/draft/2020-12/schema"}"#,
    ] {
        any.input_schema = Bytes::copy_from_slice(schema.as_bytes());
        for format in ALL {
            let listed = listed(format, std::slice::from_ref(&any)).to_string();
            let wanted = r#""properties":{},"type":"object"}"#;
            assert!(listed.contains(wanted), "{format:?}: {listed}");
        }
    }
}

#[test]
fn the_order_of_an_authors_arguments_is_kept() {
    let schema = r#"{"type":"object","properties":{"z":{"type":"string"},"a":{"enum":[1,1.50]}},"required":["z"]}"#;
    let mut ordered = tool("a", "", &json!({}));
    ordered.input_schema = Bytes::from_static(schema.as_bytes());
    for format in ALL {
        let declared = format.declare(&ordered);
        let json = String::from_utf8(declared.json).unwrap();
        assert!(json.contains(&schema.replace("1.50", "1.5")), "{json}");
    }
}
