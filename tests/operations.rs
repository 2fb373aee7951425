//! The operator's page beside the code: its tables are complete, and nothing else is in them.

#![expect(clippy::expect_used, reason = "tests may fail loudly")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use support::{shipped, stdout, toolpool};
use toolpool_broker::config::SETTINGS;
use toolpool_broker::metrics::{Kind, METRICS};

fn page() -> String {
    fs::read_to_string(shipped("docs/operations.md")).expect("the page is there")
}

/// The rows of the table below a heading, without its head.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let (_, below) = page
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("the page has no {heading:?}"));
    let section = below.split("\n#").next().unwrap_or_default();
    let table = section.lines().skip_while(|line| !line.starts_with('|'));
    table
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .collect()
}

/// What is to be written is printed as it is to be written.
#[track_caller]
fn same(page: &[&str], code: &[String]) {
    assert!(page == code, "the table should be:\n{}", code.join("\n"));
}

#[test]
fn every_setting_is_on_the_page_with_its_variable_its_default_and_its_range() {
    let row = |setting: &toolpool_broker::config::Setting| {
        let key = setting.key;
        let variable = key.to_ascii_uppercase();
        format!(
            "| `{key}` | `TOOLPOOL_{variable}` | {} | {} | {} |",
            setting.default,
            setting.permitted,
            setting.doc.trim()
        )
    };
    let settings: Vec<_> = SETTINGS.iter().map(row).collect();
    same(&rows(&page(), "### Every setting"), &settings);
}

#[test]
fn every_metric_is_on_the_page_with_its_kind_and_its_labels() {
    let row = |metric: &toolpool_broker::metrics::Metric| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<_> = metric.labels.iter().map(|of| format!("`{of}`")).collect();
        let labels = labels.join(", ");
        format!(
            "| `{}` | {kind} | {labels} | {} |",
            metric.name, metric.meaning
        )
    };
    let metrics: Vec<_> = METRICS.iter().map(row).collect();
    same(&rows(&page(), "### Every metric"), &metrics);
}

#[test]
fn every_alert_leads_to_what_is_to_be_done() {
    let alerts = fs::read_to_string(shipped("deploy/prometheus/alerts.yml"));
    let alerts = alerts.expect("the alerts are there");
    let page = page();
    let alert = |line: &str| line.trim().strip_prefix("- alert: ").map(str::to_owned);
    let names: Vec<_> = alerts.lines().filter_map(alert).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_flag_of_a_worker_is_on_the_page() {
    let page = page();
    for adapter in ["exec", "demo"] {
        let help = toolpool().args(["worker", adapter, "--help"]).output();
        let help = stdout(&help.expect("the program runs"));
        let flags = help
            .split_whitespace()
            .filter(|word| word.starts_with("--"));
        for flag in flags {
            assert!(page.contains(&format!("`{flag}")), "{adapter} {flag}");
        }
    }
}

/// The text of every source file below a folder of this repository, its own tests apart.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the folder is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).expect("it can be read");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            found.push(code.to_owned());
        }
    }
}

/// The string literals up to the parenthesis that closes; there are no raw ones in what is logged.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth = 0;
    let mut chars = code.chars();
    while let Some(char) = chars.next() {
        match char {
            '(' => depth += 1,
            ')' if depth == 0 => break,
            ')' => depth -= 1,
            '"' => {
                let mut literal = String::new();
                while let Some(char) = chars.next().filter(|char| *char != '"') {
                    literal.push(char);
                    if char == '\\' {
                        literal.extend(chars.next());
                    }
                }
                found.push(literal);
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_warning_and_error_of_the_log_is_on_the_page_with_its_level() {
    let mut logged = BTreeSet::new();
    let mut files = Vec::new();
    for folder in ["broker/src", "worker/src", "src"] {
        sources(&shipped(folder), &mut files);
    }
    for code in &files {
        for level in ["warn", "error"] {
            for (at, call) in code.match_indices(&format!("{level}!(")) {
                if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                    continue;
                }
                // A message comes last; the other literals are fields.
                let message = literals(&code[at + call.len()..]).pop();
                let message = message.expect("a message is a literal");
                logged.insert(format!("| `{message}` | {level} |"));
            }
        }
    }
    assert!(logged.len() > 20, "{logged:?}");
    let page = page();
    let told = rows(&page, "### Every warning and error");
    let told = told.iter().map(|row| {
        let cells: Vec<_> = row.splitn(4, '|').collect();
        format!("|{}|{}|", cells[1], cells[2])
    });
    let told: BTreeSet<_> = told.collect();
    let missing: Vec<_> = logged.difference(&told).collect();
    let unknown: Vec<_> = told.difference(&logged).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not on the page: {missing:#?}\nnot in the code: {unknown:#?}"
    );
}

#[test]
fn every_attribute_of_a_span_is_on_the_page() {
    let page = page();
    let (_, spans) = page.split_once("\n## Traces\n").expect("it has a section");
    let mut named = 0;
    for file in ["broker/src/telemetry/spans.rs", "worker/src/trace.rs"] {
        let code = fs::read_to_string(shipped(file)).expect("it can be read");
        for line in code.lines().filter(|line| !line.trim().starts_with("//")) {
            for literal in line.split('"').skip(1).step_by(2) {
                let prefixes = ["toolpool.", "gen_ai.", "rpc.", "error."];
                let is_key = prefixes.iter().any(|prefix| literal.starts_with(prefix));
                if is_key {
                    assert!(spans.contains(&format!("`{literal}`")), "{file}: {literal}");
                    named += 1;
                }
            }
        }
    }
    assert!(named > 20, "{named}");
}
