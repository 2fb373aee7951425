//! What alerts, dashboards and autoscalers ask for is there: every metric that they name, with every label.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toolpool_broker::metrics::{Kind, METRICS, Metric};

/// Labels that come with a scrape.
const OF_THE_SCRAPE: [&str; 4] = ["job", "instance", "namespace", "service"];

/// What is wrong with a query, with the texts that show its labels beside it.
fn faults(query: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut metrics = Vec::new();
    for (at, _) in query.match_indices("toolpool_") {
        let is_part = query[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name = word(&query[at..]);
        if is_part {
            continue;
        }
        let Some((metric, is_bucket)) = metric(name) else {
            faults.push(format!("there is no series {name}"));
            continue;
        };
        for label in matched(&query[at + name.len()..]) {
            if !has(metric, is_bucket, label) {
                faults.push(format!("{name} has no label {label}"));
            }
        }
        metrics.push((metric, is_bucket));
    }
    for label in shared(query) {
        for &(metric, is_bucket) in &metrics {
            if !has(metric, is_bucket, label) {
                faults.push(format!("{} has no label {label}", metric.name));
            }
        }
    }
    faults
}

/// The metric whose series has this name, and whether the series is of its buckets.
fn metric(series: &str) -> Option<(&'static Metric, bool)> {
    METRICS.iter().find_map(|metric| match metric.kind {
        Kind::Counter | Kind::Gauge => (metric.name == series).then_some((metric, false)),
        Kind::Histogram => match series.strip_prefix(metric.name)? {
            "_bucket" => Some((metric, true)),
            "_sum" | "_count" => Some((metric, false)),
            _ => None,
        },
    })
}

fn has(metric: &Metric, is_bucket: bool, label: &str) -> bool {
    metric.labels.contains(&label) || OF_THE_SCRAPE.contains(&label) || (is_bucket && label == "le")
}

/// The name that the text begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// The labels in the braces behind a metric's name, if there are any.
fn matched(text: &str) -> Vec<&str> {
    let mut labels = Vec::new();
    let Some(mut rest) = text.strip_prefix('{') else {
        return labels;
    };
    loop {
        rest = rest.trim_start_matches([' ', ',', '\n']);
        let label = word(rest);
        if label.is_empty() {
            return labels;
        }
        labels.push(label);
        rest = rest[label.len()..].trim_start_matches(['=', '!', '~', ' ', '\\']);
        rest = behind_string(rest);
    }
}

/// What follows a string in quotes, in which a template of Helm may have quotes of its own.
fn behind_string(text: &str) -> &str {
    let mut rest = text.strip_prefix('"').unwrap();
    loop {
        let at = rest.find(['"', '{', '\\']).unwrap();
        rest = match &rest[at..] {
            template if template.starts_with("{{") => template.split_once("}}").unwrap().1,
            end if end.starts_with('"') => return &end[1..],
            escaped if escaped.starts_with('\\') => &escaped[2..],
            brace => &brace[1..],
        };
    }
}

/// The labels that all metrics of a query must have: what it groups and joins by, and what is shown of its result.
fn shared(query: &str) -> Vec<&str> {
    let mut labels = Vec::new();
    for begin in ["by (", "on (", "without (", "ignoring ("] {
        for (at, _) in query.match_indices(begin) {
            let list = query[at + begin.len()..].split_once(')').unwrap().0;
            labels.extend(list.split(',').map(str::trim));
        }
    }
    for (at, begin) in query.match_indices("label_values(") {
        let list = query[at + begin.len()..].split_once(')').unwrap().0;
        labels.extend(list.split(',').skip(1).map(str::trim));
    }
    // A legend, an alert's text, a selector of Kubernetes.
    for begin in ["{{", "$labels.", "{ key: "] {
        for (at, _) in query.match_indices(begin) {
            let label = word(&query[at + begin.len()..]);
            labels.extend((!label.is_empty()).then_some(label));
        }
    }
    labels
}

/// The texts of a dashboard in which a query, and what is shown of it, stand together.
fn of_dashboard(value: &Value, queries: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            let texts: Vec<_> = object.values().filter_map(Value::as_str).collect();
            queries.push(texts.join("\n"));
            for value in object.values() {
                of_dashboard(value, queries);
            }
        }
        Value::Array(list) => {
            for value in list {
                of_dashboard(value, queries);
            }
        }
        _ => {}
    }
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(folder);
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|has| has == ending))
        .collect()
}

#[test]
fn every_metric_and_label_that_is_asked_for_is_there() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    let mut look = |path: &Path, query: &str| {
        seen += query.matches("toolpool_").count();
        let name = path.file_name().unwrap().to_string_lossy();
        wrong.extend(faults(query).iter().map(|fault| format!("{name}: {fault}")));
    };
    for path in files("prometheus", "yml") {
        // A rule is a paragraph.
        for rule in fs::read_to_string(&path).unwrap().split("\n\n") {
            look(&path, rule);
        }
    }
    for path in files("grafana/dashboards", "json") {
        let dashboard = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let mut queries = Vec::new();
        of_dashboard(&dashboard, &mut queries);
        for query in queries {
            look(&path, &query);
        }
    }
    for path in files("helm/toolpool/templates", "yaml") {
        for document in fs::read_to_string(&path).unwrap().split("\n---\n") {
            look(&path, document);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen > 100, "{seen}");
}

#[test]
fn a_name_that_is_not_there_is_found() {
    for (query, fault) in [
        (
            "sum(toolpool_calls_lost_total)",
            "no series toolpool_calls_lost_total",
        ),
        (
            "toolpool_call_run_seconds{}",
            "no series toolpool_call_run_seconds",
        ),
        (
            "toolpool_calls_queued_total",
            "no series toolpool_calls_queued_total",
        ),
        (
            r#"toolpool_calls_total{tool="a", code!~"b|c"}"#,
            "no label code",
        ),
        (
            r#"toolpool_slots_needed{tool=~"{{ join "|" .tools }}", worker="a"}"#,
            "no label worker",
        ),
        (
            "sum by (tool, le) (rate(toolpool_call_run_seconds_sum[5m]))",
            "no label le",
        ),
        ("max by (tols) (toolpool_calls_queued)", "no label tols"),
        ("toolpool_calls_queued\n{{instance}} {{name}}", "label name"),
        (
            "label_values(toolpool_tool_workers, worker)",
            "label worker",
        ),
        (
            "name: toolpool_slots_needed\n- { key: worker, operator: In }",
            "label worker",
        ),
    ] {
        let found = faults(query);
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        assert!(found[0].ends_with(fault), "{query}: {found:?}");
    }
}
