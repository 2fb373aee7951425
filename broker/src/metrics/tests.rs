//! What is shown, and that names cannot blow it up.

use std::collections::{BTreeSet, HashSet};

use toolpool_proto::v1::ErrorCode;

use super::*;
use crate::call_error::{Code, Scope};
use crate::ingest::dialect::{Limits, ProviderTurn, Void};

/// What is shown, as a parser of Prometheus' own format reads it.
fn shown(metrics: &Metrics) -> Vec<prometheus_parse::Sample> {
    let text = metrics.encode(Readings::default).unwrap();
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    prometheus_parse::Scrape::parse(lines).unwrap().samples
}

fn tools(metrics: &Metrics) -> BTreeSet<String> {
    let tool = |sample: &prometheus_parse::Sample| sample.labels.get("tool").map(str::to_owned);
    shown(metrics).iter().filter_map(tool).collect()
}

fn with_room_for(tools: usize, named: &[&str]) -> Arc<Metrics> {
    let named = named
        .iter()
        .map(|name| ((*name).to_owned(), crate::policy::PolicyPatch::default()));
    let config = Config {
        max_metric_tools: tools,
        tools: named.collect(),
        ..Config::default()
    };
    Metrics::new(&config).unwrap()
}

#[test]
fn the_table_has_each_name_once_and_follows_the_rules_for_names() {
    let mut names = HashSet::new();
    for metric in METRICS {
        let Metric {
            name,
            kind,
            unit,
            labels,
            meaning,
        } = metric;
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("toolpool_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert_eq!(name.ends_with("_seconds"), *unit == "s", "{name}");
        assert!(
            meaning.ends_with('.') && meaning.len() > 20,
            "{name}: {meaning}"
        );
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(name.bytes().all(legal), "{name}");
        assert!(
            labels.iter().all(|label| label.bytes().all(legal)),
            "{name}"
        );
    }
}

#[test]
fn an_outcome_is_the_errors_code_as_it_is_on_the_wire() {
    let on_the_wire = |code: ErrorCode| {
        let name = code.as_str_name().to_lowercase();
        name.trim_start_matches("error_code_").to_owned()
    };
    let codes = [
        (Code::InvalidArguments, ErrorCode::InvalidArguments),
        (Code::UnknownTool, ErrorCode::UnknownTool),
        (Code::NoWorker, ErrorCode::NoWorker),
        (Code::Overloaded, ErrorCode::Overloaded),
        (Code::RateLimited, ErrorCode::RateLimited),
        (Code::Timeout(Scope::Call), ErrorCode::Timeout),
        (Code::ToolFailed, ErrorCode::ToolFailed),
        (Code::WorkerLost, ErrorCode::WorkerLost),
        (Code::OutcomeUnknown, ErrorCode::OutcomeUnknown),
        (Code::ResultTooLarge, ErrorCode::ResultTooLarge),
        (Code::Cancelled, ErrorCode::Cancelled),
        (Code::Aborted, ErrorCode::Aborted),
        (Code::Incomplete, ErrorCode::Incomplete),
        (Code::TruncatedTurn, ErrorCode::TruncatedTurn),
        (Code::DuplicateId, ErrorCode::DuplicateId),
        (Code::PermissionDenied, ErrorCode::PermissionDenied),
        (Code::Internal, ErrorCode::Internal),
    ];
    let mut places = HashSet::from([0]);
    for (code, wire) in codes {
        assert_eq!(code.name(), on_the_wire(wire));
        assert!(places.insert(tool::outcome(code)), "{code:?}");
    }
    assert_eq!(places, (0..OUTCOMES).collect());
}

/// A turn of Vercel's stream that is cut, with a call of each kind that is dropped.
fn turn_with_drops() -> Turn {
    let limits = Limits {
        event_bytes: 1 << 20,
        arguments_bytes: 1 << 20,
        calls: 100,
    };
    let mut turn = ProviderTurn::new(Some(Dialect::VercelUi), Vec::new(), limits, 7);
    let part = |kind: &str, id: &str| {
        format!(r#"{{"type":"tool-{kind}","toolCallId":"{id}","toolName":"f","input":{{"q":1}}}}"#)
    };
    let damaged = r#"{"type":"tool-input-del"#.to_owned();
    for event in [
        part("input-available", "whole"),
        part("input-start", "again"),
        part("input-start", "again"),
        part("input-available", "again"),
        part("input-error", "wrong"),
        part("input-error", "wrong too"),
        part("input-start", "damaged"),
        damaged,
        part("input-start", "open"),
    ] {
        turn.event(event.as_bytes(), &mut Vec::new());
    }
    turn.finish(&mut Vec::new());
    // As ingest says of a block that is open at the end, and schema of one that is no JSON.
    turn.drop_call(6, Void::Incomplete);
    turn.drop_call(0, Void::NotJson);
    turn.into_turn()
}

#[test]
fn a_dropped_call_is_counted_under_its_reason() {
    let metrics = with_room_for(9, &[]);
    metrics.provider_turn(&turn_with_drops());
    let samples = shown(&metrics);
    let dropped: BTreeSet<(String, u64)> = (samples.iter())
        .filter(|sample| sample.metric == "toolpool_provider_calls_dropped_total")
        .map(|sample| {
            let prometheus_parse::Value::Counter(count) = sample.value else {
                panic!("{sample:?}");
            };
            let reason = sample.labels.get("reason").unwrap().to_owned();
            (reason, format!("{count}").parse().unwrap())
        })
        .collect();
    let expected = [
        ("incomplete", 1),
        ("not_json", 1),
        ("superseded", 1),
        ("unreadable", 1),
        ("withdrawn", 2),
    ];
    let expected = expected.map(|(reason, count)| (reason.to_owned(), count));
    assert_eq!(dropped, BTreeSet::from(expected));
}

#[test]
fn a_thousand_tools_have_no_more_label_values_than_there_may_be() {
    let metrics = with_room_for(20, &[]);
    let series = (0..1_000).map(|number| metrics.tool(&format!("tool-{number}").into()));
    let series: Vec<_> = series.collect();
    for series in &series {
        series.outcome(None);
    }
    // What each is known for of late is no label, and its own.
    assert!(series.iter().all(|series| series.recent().ended == 1));
    let tools = tools(&metrics);
    assert_eq!(tools.len(), 21, "{tools:?}");
    assert!(tools.contains(OTHER_TOOLS));
    let others: f64 = shown(&metrics)
        .iter()
        .filter(|sample| sample.labels.get("tool") == Some(OTHER_TOOLS))
        .map(|sample| match sample.value {
            prometheus_parse::Value::Counter(count) => count,
            _ => 0.0,
        })
        .sum();
    assert!((others - 980.0).abs() < 0.5, "{others}");
}

#[test]
fn a_tool_that_the_configuration_names_has_its_place_whoever_comes_first() {
    let metrics = with_room_for(2, &["mine"]);
    for tool in ["a", "b", "c", "mine"] {
        metrics.tool(&tool.into()).outcome(None);
    }
    let expected = ["(other)", "a", "mine"].map(str::to_owned);
    assert_eq!(tools(&metrics), BTreeSet::from(expected));
}

#[test]
fn a_hostile_name_stays_one_label_value() {
    let metrics = with_room_for(9, &[]);
    let hostile = "a\"} 1\ntoolpool_calls_total{tool=\"b\\";
    metrics.tool(&hostile.into()).outcome(None);
    let text = metrics.encode(Readings::default).unwrap();
    let calls = text
        .lines()
        .filter(|line| line.starts_with("toolpool_calls_total"));
    assert_eq!(calls.count(), 1, "{text}");
}

#[test]
fn what_has_never_happened_is_shown_as_none() {
    let metrics = with_room_for(9, &[]);
    metrics.tool(&"search".into());
    let shown: HashSet<String> = shown(&metrics)
        .into_iter()
        .filter(|sample| matches!(sample.value, prometheus_parse::Value::Counter(0.0)))
        .map(|sample| sample.metric)
        .collect();
    for metric in METRICS {
        // What may come in a provider's turn is too much to show all that never may.
        let unseen = metric.name.contains("_provider_");
        // Read with the gauges, of which there are none here.
        let unread = *metric == table::SPANS_DROPPED;
        let expected = metric.kind == Kind::Counter && !unseen && !unread;
        assert_eq!(shown.contains(metric.name), expected, "{}", metric.name);
    }
}
