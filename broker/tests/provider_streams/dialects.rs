//! A turn of each dialect through a whole batch: every call that is known to be in it runs once, and is answered in the
//! provider's own shape.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use toolpool_broker::decode::Dialect as Known;
use toolpool_proto::v1::{self, Dialect, Owner, TurnEnd};

use crate::support::Broker;
use crate::support::batch::Finished;
use crate::support::fixtures::{FIXTURES, Fixture};
use crate::support::provider::{not_ours, piped};
use crate::support::worker::{FakeWorker, register, side_effecting};

fn wire(dialect: Known) -> Dialect {
    match dialect {
        Known::Anthropic => Dialect::Anthropic,
        Known::OpenAiChat => Dialect::OpenaiChat,
        Known::OpenAiResponses => Dialect::OpenaiResponses,
        Known::Gemini => Dialect::Gemini,
        Known::Bedrock => Dialect::Bedrock,
        Known::Cohere => Dialect::Cohere,
        Known::Ollama => Dialect::Ollama,
        Known::VercelUi => Dialect::VercelUi,
    }
}

/// A worker of all the tools that a fixture's calls are of.
async fn worker(broker: &Broker, fixture: &Fixture) -> FakeWorker {
    let names: BTreeSet<&str> = fixture.calls.iter().map(|(_, name, _)| *name).collect();
    let register = v1::Register {
        tools: names.into_iter().map(side_effecting).collect(),
        ..register("w", 9, [])
    };
    broker.join(register).await.unwrap()
}

/// Pipes a fixture in, in small pieces, and answers what comes of it in the model's order with `1`, `2` and so on.
async fn run(fixture: &Fixture, open: v1::Open, calls: &[(&str, &str, &str)]) -> Finished {
    let dialect = fixture.dialect;
    let broker = Broker::start();
    let mut worker = worker(&broker, fixture).await;
    let mut agent = broker.agent_with(open).await;
    for piece in fixture.text.chunks(100) {
        agent.data(piece).await;
    }
    agent.half_close();
    let assignments = worker.assignments(calls.len()).await;
    for (number, (assignment, call)) in (1..).zip(assignments.iter().zip(calls)) {
        let arguments = std::str::from_utf8(&assignment.arguments).unwrap();
        let (_, name, written) = call;
        assert_eq!(
            (&*assignment.tool, arguments),
            (*name, *written),
            "{dialect:?}"
        );
        worker.answer(assignment, &number.to_string()).await;
    }
    worker.expect_no_assignment().await;
    let batch = agent.finished().await.unwrap();
    let succeeded: Vec<_> = (batch.succeeded().into_iter())
        .map(|id| batch.result(id))
        .map(|result| (result.provider_id(), &*result.tool))
        .collect();
    let wanted: Vec<_> = calls.iter().map(|(id, name, _)| (*id, *name)).collect();
    assert_eq!(succeeded, wanted, "{dialect:?}");
    assert_eq!(batch.turn().dialect(), wire(dialect));
    assert_eq!(batch.turn().turn_end(), TurnEnd::Complete, "{dialect:?}");
    batch
}

/// The answer that these outputs belong into, each with its call's id (empty where the provider gave none) and name.
fn answer(dialect: Known, outputs: &[(&str, &str, String)]) -> Value {
    let results: Vec<Value> = (outputs.iter())
        .map(|(id, name, text)| match dialect {
            Known::Anthropic => json!({"type": "tool_result", "tool_use_id": id, "content": text}),
            Known::OpenAiChat | Known::Cohere => {
                json!({"role": "tool", "tool_call_id": id, "content": text})
            }
            Known::OpenAiResponses if *name == "run_python" => {
                json!({"type": "custom_tool_call_output", "call_id": id, "output": text})
            }
            // A program of the model's made this call.
            Known::OpenAiResponses if *name == "inventory" => {
                let caller = json!({"type": "program", "caller_id": "prog_1"});
                json!({"type": "function_call_output", "call_id": id, "output": text, "caller": caller})
            }
            Known::OpenAiResponses => {
                json!({"type": "function_call_output", "call_id": id, "output": text})
            }
            Known::Gemini if id.is_empty() => {
                json!({"functionResponse": {"name": name, "response": {"output": text}}})
            }
            Known::Gemini => {
                json!({"functionResponse": {"id": id, "name": name, "response": {"output": text}}})
            }
            Known::Bedrock => {
                json!({"toolResult": {"toolUseId": id, "content": [{"text": text}]}})
            }
            Known::Ollama if id.is_empty() => {
                json!({"role": "tool", "tool_name": name, "content": text})
            }
            Known::Ollama => {
                json!({"role": "tool", "tool_name": name, "tool_call_id": id, "content": text})
            }
            Known::VercelUi => {
                json!({"type": "tool-output-available", "toolCallId": id, "output": text})
            }
        })
        .collect();
    match dialect {
        Known::Anthropic | Known::Bedrock => json!([{"role": "user", "content": results}]),
        Known::Gemini => json!([{"role": "user", "parts": results}]),
        _ => json!(results),
    }
}

fn numbered<'a>(calls: &[(&'a str, &'a str, &str)]) -> Vec<(&'a str, &'a str, String)> {
    (1..)
        .zip(calls)
        .map(|(number, (id, name, _)): (u32, _)| (*id, *name, number.to_string()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn every_call_of_every_dialect_runs_once_and_is_answered_in_its_shape() {
    for fixture in &FIXTURES {
        for named in [wire(fixture.dialect), Dialect::Auto] {
            let batch = run(fixture, piped(named), fixture.calls).await;
            let wanted = answer(fixture.dialect, &numbered(fixture.calls));
            assert_eq!(batch.answer(), wanted, "{:?}", fixture.dialect);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_agents_own_tools_are_passed_over_in_every_dialect() {
    for fixture in &FIXTURES {
        let (_, local, _) = fixture.calls[0];
        let open = v1::Open {
            local_tools: vec![local.to_owned()],
            ..piped(wire(fixture.dialect))
        };
        let (theirs, ours): (Vec<_>, Vec<_>) =
            (fixture.calls.iter().copied()).partition(|(_, name, _)| *name == local);
        let batch = run(fixture, open, &ours).await;
        let passed_over: Vec<_> = (not_ours(batch.turn()).into_iter())
            .filter(|(.., owner)| *owner == Owner::Agent)
            .map(|(id, name, ..)| (id, name))
            .collect();
        let wanted: Vec<_> = theirs.iter().map(|(id, name, _)| (*id, *name)).collect();
        assert_eq!(passed_over, wanted, "{:?}", fixture.dialect);
        let wanted = answer(fixture.dialect, &numbered(&ours));
        assert_eq!(batch.answer(), wanted, "{:?}", fixture.dialect);
    }
}
