//! Results in the shape of each provider.

mod accepted;

use std::time::Duration;

use serde_json::{Value, json};
use toolpool_proto::v1;

use super::*;

const ALL: [Dialect; 8] = [
    Dialect::Anthropic,
    Dialect::OpenAiChat,
    Dialect::OpenAiResponses,
    Dialect::Gemini,
    Dialect::Bedrock,
    Dialect::Cohere,
    Dialect::Ollama,
    Dialect::VercelUi,
];
/// Formats whose content is a string and nothing else.
const TEXT_ONLY: [Dialect; 3] = [Dialect::OpenAiChat, Dialect::Cohere, Dialect::Ollama];
const MUCH: usize = 64 << 20;

fn text(text: &str) -> v1::content::Kind {
    v1::content::Kind::Text(text.to_owned())
}

fn json(text: &str) -> v1::content::Kind {
    v1::content::Kind::Json(text.to_owned().into())
}

fn blob(media_type: &str, data: &[u8]) -> v1::content::Kind {
    v1::content::Kind::Blob(v1::Blob {
        media_type: media_type.to_owned(),
        data: data.to_vec().into(),
    })
}

fn output<const N: usize>(kinds: [v1::content::Kind; N]) -> Output {
    let content = kinds.map(|kind| v1::Content { kind: Some(kind) }).to_vec();
    Output::from(v1::Output { content })
}

fn call<'a>(id: &'a str, ending: Result<&'a Output, &'a CallError>) -> Call<'a> {
    Call {
        id: Id::Provider(id),
        name: "tool",
        kind: Kind::Function,
        caller: None,
        ending,
    }
}

fn answered(dialect: Dialect, calls: &[Call<'_>]) -> Value {
    serde_json::from_slice(&answer(dialect, calls, MUCH)).unwrap()
}

/// The results themselves, without the message around them.
fn results(dialect: Dialect, answer: &Value) -> Vec<Value> {
    let results = match dialect {
        Dialect::Anthropic | Dialect::Bedrock => &answer[0]["content"],
        Dialect::Gemini => &answer[0]["parts"],
        _ => answer,
    };
    results.as_array().unwrap().clone()
}

/// What the format says of one output, or of one error.
fn said(dialect: Dialect, ending: Result<&Output, &CallError>) -> Value {
    let answer = answered(dialect, &[call("c1", ending)]);
    let mut results = results(dialect, &answer);
    assert_eq!(results.len(), 1, "{dialect:?}: {answer}");
    let result = results.remove(0);
    match dialect {
        Dialect::Gemini => result["functionResponse"]["response"].clone(),
        Dialect::Bedrock => result["toolResult"]["content"].clone(),
        Dialect::VercelUi if ending.is_err() => result["errorText"].clone(),
        Dialect::OpenAiResponses | Dialect::VercelUi => result["output"].clone(),
        _ => result["content"].clone(),
    }
}

#[test]
fn calls_are_answered_in_order_under_their_ids() {
    let (sum, failed) = (output([text("5")]), CallError::new(Code::ToolFailed, "no"));
    let calls = [call("a", Ok(&sum)), call("b", Err(&failed))];
    let anthropic = json!([{"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "a", "content": "5"},
        {"type": "tool_result", "tool_use_id": "b", "content": "no", "is_error": true}]}]);
    let chat = json!([
        {"role": "tool", "tool_call_id": "a", "content": "5"},
        {"role": "tool", "tool_call_id": "b", "content": "error: no"}]);
    let responses = json!([
        {"type": "function_call_output", "call_id": "a", "output": "5"},
        {"type": "function_call_output", "call_id": "b", "output": "error: no"}]);
    let gemini = json!([{"role": "user", "parts": [
        {"functionResponse": {"id": "a", "name": "tool", "response": {"output": "5"}}},
        {"functionResponse": {"id": "b", "name": "tool", "response": {"error": "no"}}}]}]);
    let bedrock = json!([{"role": "user", "content": [
        {"toolResult": {"toolUseId": "a", "content": [{"text": "5"}]}},
        {"toolResult": {"toolUseId": "b", "content": [{"text": "no"}], "status": "error"}}]}]);
    let ollama = json!([
        {"role": "tool", "tool_name": "tool", "tool_call_id": "a", "content": "5"},
        {"role": "tool", "tool_name": "tool", "tool_call_id": "b", "content": "error: no"}]);
    let vercel = json!([
        {"type": "tool-output-available", "toolCallId": "a", "output": "5"},
        {"type": "tool-output-error", "toolCallId": "b", "errorText": "no"}]);
    let wanted = [
        &anthropic, &chat, &responses, &gemini, &bedrock, &chat, &ollama, &vercel,
    ];
    for (dialect, wanted) in ALL.into_iter().zip(wanted) {
        assert_eq!(&answered(dialect, &calls), wanted, "{dialect:?}");
    }
}

#[test]
fn without_calls_nothing_is_said() {
    for dialect in ALL {
        assert_eq!(answer(dialect, &[], 0), "[]");
    }
}

#[test]
fn an_id_that_was_made_here_is_left_out_where_the_format_does_without() {
    let sum = output([text("5")]);
    for dialect in ALL {
        let call = Call {
            id: Id::Made("made"),
            ..call("", Ok(&sum))
        };
        let named = answered(dialect, &[call]).to_string().contains("made");
        let wanted = !matches!(dialect, Dialect::Gemini | Dialect::Ollama);
        assert_eq!(named, wanted, "{dialect:?}");
    }
}

#[test]
fn the_kind_of_a_call_and_its_caller_come_back() {
    let sum = output([text("5")]);
    let caller = RawValue::from_string(r#"{"type":"program","caller_id":"p"}"#.to_owned()).unwrap();
    let custom = Call {
        kind: Kind::Custom,
        caller: Some(&caller),
        ..call("a", Ok(&sum))
    };
    assert_eq!(
        answered(Dialect::OpenAiResponses, &[custom]),
        json!([{"type": "custom_tool_call_output", "call_id": "a", "output": "5",
                "caller": {"type": "program", "caller_id": "p"}}])
    );
    let legacy = Call {
        kind: Kind::LegacyFunction,
        ..call("", Ok(&sum))
    };
    assert_eq!(
        answered(Dialect::OpenAiChat, &[legacy]),
        json!([{"role": "function", "name": "tool", "content": "5"}])
    );
}

#[test]
fn an_error_says_when_to_try_again_and_is_never_without_words() {
    let busy =
        CallError::new(Code::Overloaded, "Too many calls wait.").after(Duration::from_secs(5));
    let blank = CallError::new(Code::ToolFailed, " \n");
    for dialect in ALL {
        let text = said(dialect, Err(&busy)).to_string();
        assert!(text.contains("wait. Try again after 5.0s."), "{text}");
        let text = said(dialect, Err(&blank)).to_string();
        assert!(text.contains("The call failed."), "{text}");
    }
}

#[test]
fn json_goes_in_as_it_is_where_a_value_may_stand() {
    // A number that not every parser can hold, and a key that comes twice.
    let object = r#"{"n":12345678901234567890.10,"a":1,"a":2}"#;
    let given = output([json(object)]);
    for dialect in [Dialect::Gemini, Dialect::Bedrock, Dialect::VercelUi] {
        let answer = answer(dialect, &[call("c", Ok(&given))], MUCH);
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        assert!(answer.contains(object), "{answer}");
    }
    for dialect in TEXT_ONLY {
        assert_eq!(said(dialect, Ok(&given)), object, "{dialect:?}");
    }
    assert_eq!(said(Dialect::Anthropic, Ok(&given)), object);
    assert_eq!(said(Dialect::OpenAiResponses, Ok(&given)), object);
}

#[test]
fn values_that_are_no_objects_are_wrapped_where_an_object_is_wanted() {
    for value in [json!([1, 2]), json!(3), json!(null), json!("x")] {
        let given = output([json(&value.to_string())]);
        assert_eq!(
            said(Dialect::Gemini, Ok(&given)),
            json!({ "output": value })
        );
        assert_eq!(
            said(Dialect::Bedrock, Ok(&given)),
            json!([{ "json": { "output": value } }])
        );
        assert_eq!(said(Dialect::VercelUi, Ok(&given)), value);
    }
}

#[test]
fn what_is_no_json_or_too_deep_is_text() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for text in ["{\"a\":", "1 2", &deep] {
        let given = output([json(text)]);
        for dialect in ALL {
            let said = said(dialect, Ok(&given));
            let said = match dialect {
                Dialect::Gemini => said["output"].clone(),
                Dialect::Bedrock => said[0]["text"].clone(),
                _ => said,
            };
            assert_eq!(said, text, "{dialect:?}");
        }
    }
    let quoted = output([json(r#"{"a":"[[[[\"[[[["}"#)]);
    assert_eq!(
        said(Dialect::Gemini, Ok(&quoted)),
        json!({"a": "[[[[\"[[[["})
    );
    let bytes = v1::content::Kind::Json(vec![b'"', 0xff, b'"'].into());
    let bytes = output([bytes]);
    for dialect in ALL {
        assert!(
            said(dialect, Ok(&bytes)).to_string().contains('\u{fffd}'),
            "{dialect:?}"
        );
    }
}

#[test]
fn gemini_is_given_no_reference_that_it_would_follow() {
    let schema = r##"{"p":{"$ref":"#/$defs/a"}}"##;
    let given = output([json(schema)]);
    assert_eq!(
        said(Dialect::Gemini, Ok(&given)),
        json!({ "output": schema })
    );
}

#[test]
fn several_pieces_are_put_together() {
    let given = output([text("two:"), json("[1,2]"), json(r#"{"a":1}"#)]);
    for dialect in TEXT_ONLY {
        assert_eq!(said(dialect, Ok(&given)), "two:\n[1,2]\n{\"a\":1}");
    }
    assert_eq!(
        said(Dialect::OpenAiResponses, Ok(&given)),
        "two:\n[1,2]\n{\"a\":1}"
    );
    assert_eq!(
        said(Dialect::Anthropic, Ok(&given)),
        json!([{"type": "text", "text": "two:"}, {"type": "text", "text": "[1,2]"},
               {"type": "text", "text": "{\"a\":1}"}])
    );
    assert_eq!(
        said(Dialect::Bedrock, Ok(&given)),
        json!([{"text": "two:"}, {"json": {"output": [1, 2]}}, {"json": {"a": 1}}])
    );
    let values = json!(["two:", [1, 2], {"a": 1}]);
    assert_eq!(
        said(Dialect::Gemini, Ok(&given)),
        json!({ "output": values })
    );
    assert_eq!(said(Dialect::VercelUi, Ok(&given)), values);
}

#[test]
fn an_empty_output_has_each_formats_empty_form() {
    for given in [output([]), output([text("")])] {
        for dialect in ALL {
            let wanted = match dialect {
                Dialect::Anthropic => Value::Null,
                Dialect::Bedrock => json!([{"text": "(no output)"}]),
                Dialect::Gemini => json!({"output": ""}),
                _ => json!(""),
            };
            assert_eq!(said(dialect, Ok(&given)), wanted, "{dialect:?}");
        }
    }
    // Refused as text, and nothing is lost with it.
    let blank = output([text(" \n"), text("x")]);
    assert_eq!(said(Dialect::Anthropic, Ok(&blank)), "x");
    assert_eq!(said(Dialect::Bedrock, Ok(&blank)), json!([{"text": "x"}]));
}

#[test]
fn images_and_documents_are_carried_where_there_is_a_place_for_them() {
    let given = output([
        text("see"),
        blob("Image/JPG; q=1", b"\x01\x02"),
        blob("application/pdf", b"%PDF"),
    ]);
    assert_eq!(
        said(Dialect::Anthropic, Ok(&given)),
        json!([{"type": "text", "text": "see"},
               {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AQI="}},
               {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}}])
    );
    assert_eq!(
        said(Dialect::OpenAiResponses, Ok(&given)),
        json!([{"type": "input_text", "text": "see"},
               {"type": "input_image", "image_url": "data:image/jpeg;base64,AQI="},
               {"type": "input_file", "filename": "output.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}])
    );
    assert_eq!(
        said(Dialect::Bedrock, Ok(&given)),
        json!([{"text": "see"},
               {"image": {"format": "jpeg", "source": {"bytes": "AQI="}}},
               {"document": {"format": "pdf", "name": "output-3-of-c1", "source": {"bytes": "JVBERg=="}}}])
    );
    let gemini = answered(Dialect::Gemini, &[call("c1", Ok(&given))]);
    let gemini = &gemini[0]["parts"][0]["functionResponse"];
    assert_eq!(
        gemini["parts"],
        json!([{"inlineData": {"mimeType": "image/jpeg", "data": "AQI="}},
               {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}}])
    );
    assert_eq!(
        gemini["response"]["output"][1],
        "[image/jpeg, 2 bytes: attached]"
    );
}

#[test]
fn what_cannot_be_carried_is_said() {
    let given = output([blob("audio/wav", &[0; 7])]);
    for dialect in ALL {
        let said = said(dialect, Ok(&given)).to_string();
        assert!(
            said.contains("[audio/wav, 7 bytes: it cannot be shown here]"),
            "{dialect:?}: {said}"
        );
    }
    // Gemini 2.5 gives no ids, and takes no attachments.
    let image = output([blob("image/png", &[0; 7])]);
    let old = Call {
        id: Id::Made("made"),
        ..call("", Ok(&image))
    };
    let answer = answered(Dialect::Gemini, &[old]);
    assert_eq!(
        answer[0]["parts"],
        json!([{"functionResponse": {"name": "tool", "response":
            {"output": "[image/png, 7 bytes: it cannot be shown here]"}}}])
    );
    let large = output([blob("image/png", &vec![0; 16 << 20])]);
    for dialect in [
        Dialect::Anthropic,
        Dialect::OpenAiResponses,
        Dialect::Bedrock,
    ] {
        let said = said(dialect, Ok(&large)).to_string();
        assert!(said.contains("cannot be shown here"), "{dialect:?}");
    }
}

#[test]
fn bytes_that_are_text_are_text() {
    let given = output([blob("text/csv", b"a,b")]);
    for dialect in ALL {
        let said = said(dialect, Ok(&given));
        assert!(said.to_string().contains("a,b"), "{dialect:?}: {said}");
    }
    let plain = output([blob("text/plain", b"hello")]);
    assert_eq!(
        said(Dialect::Anthropic, Ok(&plain)),
        json!([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}}])
    );
    let latin = output([blob("text/plain; charset=latin1", b"\xe4")]);
    assert_eq!(
        said(Dialect::Bedrock, Ok(&latin)),
        json!([{"document": {"format": "txt", "name": "output-1-of-c1", "source": {"bytes": "5A=="}}}])
    );
}

#[test]
fn a_string_that_openai_would_refuse_becomes_an_error() {
    let long = output([text(&"ä".repeat(MOST_OPENAI_CHARACTERS))]);
    let too_long = output([text(&"ä".repeat(MOST_OPENAI_CHARACTERS)), text("")]);
    for dialect in [Dialect::OpenAiChat, Dialect::OpenAiResponses] {
        assert!(said(dialect, Ok(&long)).as_str().unwrap().starts_with('ä'));
        let said = said(dialect, Ok(&too_long));
        assert_eq!(
            said,
            "error: The call succeeded, but its output of 10485761 characters was left out: a message takes 10485760 at \
             most. It is in the batch's result. Ask for less, or for a reference to the data."
        );
    }
    assert!(
        said(Dialect::Cohere, Ok(&too_long))
            .as_str()
            .unwrap()
            .starts_with('ä')
    );
}

#[test]
fn what_does_not_fit_is_left_out_and_every_call_is_answered() {
    let (large, small) = (output([text(&"x".repeat(5_000))]), output([text("5")]));
    let failed = CallError::new(Code::ToolFailed, "y".repeat(5_000));
    let endings = [Ok(&large), Ok(&small), Err(&failed), Ok(&large), Ok(&small)];
    let calls: Vec<_> = endings
        .into_iter()
        .map(|ending| call("c1", ending))
        .collect();
    for dialect in ALL {
        let shortest = answer(dialect, &calls, 0).len();
        for most in [0, 1_000, 2_000, 3_000, 7_000, 12_000, 20_000] {
            let answer = answer(dialect, &calls, most);
            assert!(answer.len() <= most.max(shortest), "{dialect:?} {most}");
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            let results: Vec<_> = results(dialect, &answer)
                .iter()
                .map(Value::to_string)
                .collect();
            assert_eq!(results.len(), calls.len(), "{dialect:?} {most}");
            // The short ones are never longer than what would stand for them.
            assert!(results[1].contains("\"5\"") && results[4].contains("\"5\""));
            assert_eq!(results[0].contains("xxxx"), most >= 7_000);
            assert_eq!(results[2].contains("yyyy"), most >= 12_000);
            assert_eq!(results[3].contains("xxxx"), most >= 20_000);
            for left_out in results
                .iter()
                .filter(|result| result.contains("max_answer_bytes"))
            {
                assert!(left_out.contains("in the batch's result"), "{left_out}");
            }
        }
    }
}
