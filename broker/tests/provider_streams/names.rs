//! Ids and names between the provider and the tools.

use toolpool_proto::v1::{self, Dialect};

use super::look_up_and_send;
use crate::support::provider::{answered_ids, anthropic, chat, piped};
use crate::support::worker::read_only;
use crate::support::{Broker, seconds, soon};

#[tokio::test(start_paused = true)]
async fn results_go_back_under_the_providers_ids_even_if_those_are_useless() {
    let broker = Broker::start();
    let (mut worker, agent) = look_up_and_send(&broker, piped(Dialect::OpenaiChat)).await;
    agent
        .events(&[
            chat::start(0, "twice", "look_up"),
            chat::start(1, "twice", "look_up"),
            chat::start(2, "", "look_up"),
            chat::finish("tool_calls"),
        ])
        .await;
    agent.data("data: [DONE]\n\n").await;
    for (call, text) in worker.assignments(3).await.iter().zip(["1", "2", "3"]) {
        worker.answer(call, text).await;
    }
    let batch = agent.finished().await.unwrap();
    let given: Vec<_> = batch
        .results
        .iter()
        .map(|result| result.provider_id.as_deref())
        .collect();
    assert_eq!(given, [Some("twice"), Some("twice"), None]);
    let answer = batch.answer();
    // The one that was made is the result's, so that the agent can put it into the assistant's message.
    let made = &*batch.results[2].id;
    assert_eq!(answered_ids(&answer), ["twice", "twice", made]);
    assert_eq!(answer[1]["content"], "2");
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_known_by_the_name_that_its_provider_permits() {
    let broker = Broker::start();
    let mut worker = broker.worker("w", 9, [read_only("files.read")]).await;
    let request = v1::ListToolsRequest {
        format: Some(Dialect::Anthropic.into()),
        ..Default::default()
    };
    let mut client = broker.client().await;
    let listed = soon(client.list_tools(request)).await.unwrap();
    let name = &listed.into_inner().adaptations[0].name;
    assert_ne!(name, "files.read");

    let agent = broker.agent_with(piped(Dialect::Anthropic)).await;
    agent.events(&anthropic::call(0, "toolu_1", name)).await;
    let call = worker.assignment().await;
    assert_eq!(call.tool, "files.read");
    worker.answer(&call, "found").await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    assert_eq!(&batch.result("toolu_1").tool, name);
    // And to an agent that assembles blocks by itself too.
    let plain = broker.agent().await;
    plain.call("a", name, "{}").await;
    assert_eq!(worker.assignment().await.tool, "files.read");
}

#[tokio::test(start_paused = true)]
async fn names_that_are_close_are_those_that_the_model_knows() {
    let broker = Broker::start();
    let _worker = broker.worker("w", 9, [read_only("files.read")]).await;
    tokio::time::sleep(seconds(10)).await;
    let agent = broker.agent_with(piped(Dialect::Anthropic)).await;
    agent
        .events(&anthropic::call(0, "toolu_1", "files_read"))
        .await;
    agent.events(&anthropic::end("tool_use")).await;
    let batch = agent.finished().await.unwrap();
    let error = batch.error("toolu_1");
    assert_eq!(error.near_names, ["files_read_059c287d"]);
    assert!(error.message.contains("files_read_059c287d"), "{error:?}");
    let plain = broker.run(&[("a", "files_read", "{}")]).await;
    assert_eq!(plain.error("a").near_names, ["files.read"]);
}
