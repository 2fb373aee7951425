//! The turns of `fixtures/streams`, one of each dialect, and what is known to be in them.

use toolpool_broker::decode::Dialect;

pub(crate) struct Fixture {
    pub(crate) dialect: Dialect,
    pub(crate) text: &'static [u8],
    /// The calls: id (empty where the provider gave none), name, and the arguments as they were written.
    pub(crate) calls: &'static [(&'static str, &'static str, &'static str)],
}

pub(crate) const FIXTURES: [Fixture; 8] = [
    Fixture {
        dialect: Dialect::Anthropic,
        text: include_bytes!("../fixtures/streams/anthropic.sse"),
        calls: &[
            (
                "toolu_01Tide",
                "tide_table",
                r#"{"port": "Saint‑Malo", "days": 3, "note": "line one\nline \"two\""}"#,
            ),
            ("toolu_01Now", "current_time", "{}"),
            (
                "toolu_01Book",
                "book_table",
                r#"{"place":"Café Corsaire","guests":2}"#,
            ),
        ],
    },
    Fixture {
        dialect: Dialect::OpenAiChat,
        text: include_bytes!("../fixtures/streams/openai_chat.sse"),
        calls: &[
            (
                "call_geo",
                "geocode",
                r#"{"place": "Łódź, ulica „Piotrkowska”", "limit": 2}"#,
            ),
            (
                "functions.send_note:1",
                "send_note",
                r#"{"text": "see you 😀 at \"8\""}"#,
            ),
            ("call_now", "current_time", "{}"),
        ],
    },
    Fixture {
        dialect: Dialect::OpenAiResponses,
        text: include_bytes!("../fixtures/streams/openai_responses.sse"),
        calls: &[
            (
                "call_wx",
                "forecast",
                r#"{"city": "Zürich", "units": "°C", "days": [1, 2]}"#,
            ),
            (
                "call_py",
                "run_python",
                r#"{"input":"print(\"ça va?\")\n# 100 % \\ done"}"#,
            ),
            ("call_inv", "inventory", "{}"),
        ],
    },
    Fixture {
        dialect: Dialect::Gemini,
        text: include_bytes!("../fixtures/streams/gemini.sse"),
        calls: &[
            ("", "stock", r#"{"item":"Schraube M4×20","min":2.5}"#),
            ("", "stock", r#"{"item":"Mutter \"M4\"\n","min":0}"#),
            (
                "",
                "order",
                r#"{"supplier":"Müller & Söhne","lines":[{"count":500,"exact":false},{"part no":null}]}"#,
            ),
            ("k0srpqrc", "ping", "{}"),
        ],
    },
    Fixture {
        dialect: Dialect::Bedrock,
        text: include_bytes!("../fixtures/streams/bedrock.ndjson"),
        calls: &[
            (
                "tooluse_Pay.1",
                "convert",
                r#"{"from": "€", "to": "¥", "amount": 12.3, "memo": "tab\tand \\ slash"}"#,
            ),
            ("tooluse_Now:2", "current_time", "{}"),
            (
                "tooluse_Now:2",
                "holiday",
                r#"{"land": "日本", "year": 2027}"#,
            ),
        ],
    },
    Fixture {
        dialect: Dialect::Cohere,
        text: include_bytes!("../fixtures/streams/cohere.sse"),
        calls: &[
            (
                "get_animal_dg5wq1",
                "get_animal",
                "{\n    \"name\": \"żółw\",\n    \"wild\": true,\n    \"legs\": 4\n}",
            ),
            ("list_zoos_7h1m2k", "list_zoos", "{}"),
            (
                "get_animal_dg5wq1",
                "get_animal",
                r#"{"name": "kot 🐈", "wild": false}"#,
            ),
        ],
    },
    Fixture {
        dialect: Dialect::Ollama,
        text: include_bytes!("../fixtures/streams/ollama.ndjson"),
        calls: &[
            ("", "add", r#"{"a":2,"b":3.0,"label":"deux \"et\" trois"}"#),
            ("call_z1", "translate", r#"{"text":"Größe 📏\n","to":"fr"}"#),
            ("call_z1", "add", r#"{"a":9007199254740993,"b":-1}"#),
            ("call_z2", "current_time", "{}"),
        ],
    },
    Fixture {
        dialect: Dialect::VercelUi,
        text: include_bytes!("../fixtures/streams/vercel_ui.sse"),
        calls: &[
            (
                "call_m1",
                "move_piece",
                r#"{"from":"e2","to":"e4","why":"¡control del \"centro\"!\n"}"#,
            ),
            ("call_m2", "clock", "{}"),
            (
                "call_m4",
                "say",
                r#"{"text":"jaque \ud83d\udc51 \u00a1","times":1.50}"#,
            ),
        ],
    },
];
