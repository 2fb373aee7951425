//! The catalogue as a provider's `tools` value, over the wire.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use serde_json::{Value, json};
use support::worker::{once, read_only};
use support::{Broker, soon};
use tonic::{Code, Status};
use toolpool_proto::v1::{self, Dialect, ListToolsRequest, ListToolsResponse};

const FORMATS: [Dialect; 7] = [
    Dialect::Anthropic,
    Dialect::OpenaiChat,
    Dialect::OpenaiResponses,
    Dialect::Gemini,
    Dialect::Bedrock,
    Dialect::Cohere,
    Dialect::Ollama,
];

async fn list(broker: &Broker, request: ListToolsRequest) -> Result<ListToolsResponse, Status> {
    let mut client = broker.client().await;
    soon(client.list_tools(request))
        .await
        .map(tonic::Response::into_inner)
}

fn in_format(format: Dialect, names: &[&str]) -> ListToolsRequest {
    ListToolsRequest {
        format: Some(format.into()),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        ..ListToolsRequest::default()
    }
}

fn described(name: &str, schema: &Value) -> v1::Tool {
    v1::Tool {
        name: name.to_owned(),
        description: format!("What {name} does."),
        input_schema: schema.to_string().into(),
        policy: Some(once()),
    }
}

/// The elements of a provider's list.
fn elements(format: Dialect, page: &ListToolsResponse) -> Vec<Value> {
    let list: Value = serde_json::from_slice(&page.provider_tools).unwrap();
    let list = match format {
        Dialect::Gemini if list != json!([]) => &list[0]["functionDeclarations"],
        _ => &list,
    };
    list.as_array().unwrap().clone()
}

fn name_of(element: &Value) -> &str {
    let at = [&element["function"], &element["toolSpec"], element];
    at.iter().find_map(|of| of["name"].as_str()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_dotted_tool_is_declared_under_a_permitted_name() {
    let broker = Broker::start();
    let schema =
        json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    let tools = [described("add", &schema), described("fs.read", &schema)];
    let _worker = broker.worker("w", 1, tools).await;

    let page = list(&broker, in_format(Dialect::Anthropic, &[]))
        .await
        .unwrap();
    let elements = elements(Dialect::Anthropic, &page);
    assert_eq!(
        elements[0],
        json!({"name": "add", "description": "What add does.", "input_schema": schema})
    );
    let name = name_of(&elements[1]);
    assert!(name.starts_with("fs_read_"), "{name}");
    let adaptation = v1::Adaptation {
        tool: "fs.read".to_owned(),
        name: name.to_owned(),
        changes: Vec::new(),
    };
    assert_eq!(page.adaptations, [adaptation], "add is as it was");
    assert_eq!(page.tools.len(), 2, "the catalogue's own entries come too");

    // Whatever else is there, its name is the same, and so is its text.
    let again = list(&broker, in_format(Dialect::Anthropic, &["fs.read"]))
        .await
        .unwrap();
    let element = serde_json::to_string(&elements[1]).unwrap();
    let alone: Value = serde_json::from_slice(&again.provider_tools).unwrap();
    assert_eq!(
        alone,
        json!([serde_json::from_str::<Value>(&element).unwrap()])
    );

    let gemini = list(&broker, in_format(Dialect::Gemini, &[]))
        .await
        .unwrap();
    assert!(gemini.adaptations.is_empty(), "Gemini permits dots");
}

#[tokio::test(start_paused = true)]
async fn every_format_lists_every_tool_and_says_what_its_schema_lost() {
    let broker = Broker::start();
    let union = json!({"type": "object", "oneOf": [
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"properties": {"b": {"type": "string"}}, "required": ["b"]}]});
    let tools = [read_only("any"), described("union", &union)];
    let _worker = broker.worker("w", 1, tools).await;
    for format in FORMATS {
        let page = list(&broker, in_format(format, &[])).await.unwrap();
        let elements = elements(format, &page);
        let names: Vec<_> = elements.iter().map(name_of).collect();
        assert_eq!(names, ["any", "union"], "{format:?}");
        let [adaptation] = &page.adaptations[..] else {
            panic!("{:?}", page.adaptations);
        };
        assert_eq!((&*adaptation.tool, &*adaptation.name), ("union", "union"));
        assert!(
            adaptation.changes[0].starts_with("/oneOf: "),
            "{adaptation:?}"
        );
    }
    let page = list(&broker, ListToolsRequest::default()).await.unwrap();
    assert!(page.provider_tools.is_empty() && page.adaptations.is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_named_tools_are_listed_and_unknown_names_are_absent() {
    let broker = Broker::start();
    let _worker = broker.worker("w", 1, ["a", "b", "c"].map(read_only)).await;
    for format in FORMATS {
        let page = list(&broker, in_format(format, &["c", "nobody", "a", "c"]))
            .await
            .unwrap();
        let elements = elements(format, &page);
        let names: Vec<_> = elements.iter().map(name_of).collect();
        assert_eq!(names, ["a", "c"], "{format:?}");
        let page = list(&broker, in_format(format, &["nobody"])).await.unwrap();
        assert_eq!(page.provider_tools, "[]", "{format:?}");
    }
    let names = ListToolsRequest {
        names: vec!["b".to_owned()],
        ..ListToolsRequest::default()
    };
    let page = list(&broker, names).await.unwrap();
    assert_eq!(page.tools.len(), 1);
    assert_eq!(page.tools[0].tool.as_ref().unwrap().name, "b");
}

#[tokio::test(start_paused = true)]
async fn pages_hold_what_fits_with_both_forms_of_a_tool() {
    let broker = Broker::start();
    let large = json!({"type": "object", "properties": {}, "description": "x".repeat(200_000)});
    let names: Vec<_> = (0..9).map(|at| format!("t{at}")).collect();
    let tools: [v1::Tool; 9] = std::array::from_fn(|at| described(&names[at], &large));
    let _worker = broker.worker("w", 1, tools).await;
    let (mut seen, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let request = ListToolsRequest {
            page_token,
            ..in_format(Dialect::OpenaiChat, &[])
        };
        let page = list(&broker, request).await.unwrap();
        let elements = elements(Dialect::OpenaiChat, &page);
        assert_eq!(elements.len(), page.tools.len());
        assert!(page.tools.len() <= 3, "{} tools", page.tools.len());
        seen.extend(elements.iter().map(|element| name_of(element).to_owned()));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, names);
    assert_eq!(pages, 3);
}

#[tokio::test(start_paused = true)]
async fn two_tools_never_share_a_name() {
    let broker = Broker::start();
    let taken = "fs_read_4f70ea29";
    let _worker = broker.worker("w", 1, [read_only(taken)]).await;
    let _other = broker.worker("other", 1, [read_only("fs.read")]).await;
    let page = list(&broker, in_format(Dialect::Cohere, &[]))
        .await
        .unwrap();
    let elements = elements(Dialect::Cohere, &page);
    assert_eq!(elements.len(), 1);
    assert_eq!(name_of(&elements[0]), taken);
    assert_eq!(page.adaptations[0].tool, "fs.read");
    assert_eq!(page.adaptations[0].name, "", "left out");
    assert_eq!(page.tools.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_format_for_tools_is_refused() {
    let broker = Broker::start();
    for format in [
        Dialect::Unspecified.into(),
        Dialect::Auto.into(),
        Dialect::VercelUi.into(),
        99,
    ] {
        let request = ListToolsRequest {
            format: Some(format),
            ..ListToolsRequest::default()
        };
        let refused = list(&broker, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with("format is "), "{refused}");
    }
}
