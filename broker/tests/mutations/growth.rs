//! Streams made to grow: lists and objects of very many tiny things in every place that has one, and events that come
//! again and again.

use std::collections::BTreeSet;
use std::fmt::Write;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};
use toolpool_broker::decode::{Decoder, Dialect};

use super::ALONE;
use super::fixtures::{FIXTURES, Fixture};
use super::reading::run;
use super::seeds::events;

/// So many `{}` are a list of half a megabyte.
const ELEMENTS: usize = 200_000;
const MEMBERS: usize = 50_000;
/// What an event may take while it is read: as much as lists are permitted to, and a few times the text.
const MEMORY_BASE: usize = 12 << 20;
const MEMORY_FACTOR: usize = 4;

#[test]
fn no_list_or_object_in_an_event_takes_more_than_a_few_times_its_text() {
    let _alone = ALONE.lock();
    for Fixture { dialect, text, .. } in FIXTURES {
        let values: Vec<Value> = events(text)
            .filter_map(|event| serde_json::from_slice(event).ok())
            .collect();
        let mut seen = BTreeSet::new();
        for (at, value) in values.iter().enumerate() {
            let mut paths = Vec::new();
            walk(value, "", &mut paths);
            for path in paths {
                let place: String = path.chars().filter(|c| !c.is_ascii_digit()).collect();
                if !seen.insert((value["type"].to_string(), place)) {
                    continue;
                }
                let mut large = value.clone();
                let grown = large.pointer_mut(&path).unwrap();
                *grown = if grown.is_array() {
                    Value::Array(vec![json!({}); ELEMENTS])
                } else {
                    let members = (0..MEMBERS).map(|n| (n.to_string(), Value::Null));
                    let had = grown.as_object().unwrap().clone();
                    Value::Object(had.into_iter().chain(members).collect::<Map<_, _>>())
                };
                check(dialect, &values[..at], &large, &path);
            }
        }
    }
}

/// The paths of all lists and objects.
fn walk(value: &Value, path: &str, paths: &mut Vec<String>) {
    match value {
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                walk(element, &format!("{path}/{index}"), paths);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                walk(
                    member,
                    &format!("{path}/{}", name.replace('/', "~1")),
                    paths,
                );
            }
        }
        _ => return,
    }
    paths.push(path.to_owned());
}

fn check(dialect: Dialect, before: &[Value], large: &Value, path: &str) {
    let before: Vec<String> = before.iter().map(Value::to_string).collect();
    let large = large.to_string();
    let took = run(Some(dialect), &[], |decoder| {
        for event in &before {
            decoder.event(event.as_bytes());
        }
        decoder.event(large.as_bytes());
    });
    let most = MEMORY_BASE + MEMORY_FACTOR * large.len();
    assert!(
        took.memory <= most,
        "{dialect:?} {path}: {} bytes for {}",
        took.memory,
        large.len()
    );
}

const FEW: usize = 1_000;
/// As many calls as a turn can have at most.
const MANY: usize = 10 * FEW;
/// Ten times as many events must not take more than so many times as long: caches, the growth of maps and other
/// processes are in it.
const MOST_TIMES: u64 = 22;

/// In debug builds what is linear is so slow that what is not would not be seen.
#[test]
fn the_work_grows_with_the_text_and_no_faster() {
    if std::env::var_os("TOOLPOOL_LONG").is_none() {
        eprintln!("skipped: TOOLPOOL_LONG is not set");
        return;
    }
    let _alone = ALONE.lock();
    let mut slow = String::new();
    for Fixture { dialect, text, .. } in FIXTURES {
        let events: Vec<&[u8]> = events(text).filter(|event| event[0] == b'{').collect();
        for at in 0..events.len() {
            for fresh in [false, true] {
                let time = |times| {
                    let tries = (0..5).map(|_| time(dialect, &events[..=at], times, fresh));
                    tries.min().unwrap()
                };
                let (few, many) = (time(FEW), time(MANY));
                if many > few * MOST_TIMES {
                    let event = events[at].escape_ascii();
                    writeln!(
                        slow,
                        "{dialect:?}: {few} and {many} ns, fresh {fresh}: {event}"
                    )
                    .unwrap();
                }
            }
        }
    }
    assert!(slow.is_empty(), "{slow}");
}

/// The CPU time that the events take, the last of them so many times; `fresh` gives each another number and another id.
fn time(dialect: Dialect, events: &[&[u8]], times: usize, fresh: bool) -> u64 {
    let (last, before) = events.split_last().unwrap();
    let last = std::str::from_utf8(last).unwrap();
    let repeated: Vec<String> = (0..times)
        .map(|n| {
            if fresh {
                renumbered(last, n)
            } else {
                last.to_owned()
            }
        })
        .collect();
    let mut decoder = Decoder::new(Some(dialect), 1 << 20);
    for event in before {
        decoder.event(event);
    }
    let start = cpu();
    for event in &repeated {
        decoder.event(event.as_bytes());
    }
    cpu() - start
}

/// The same with another index, id and name.
fn renumbered(event: &str, n: usize) -> String {
    let mut event = event.to_owned();
    for field in ["index", "contentBlockIndex", "output_index"] {
        let field = format!("\"{field}\":");
        let mut from = 0;
        while let Some(found) = event[from..].find(&field) {
            let start = from + found + field.len();
            let digits = event[start..].bytes().take_while(u8::is_ascii_digit);
            let end = start + digits.count();
            event.replace_range(start..end, &n.to_string());
            from = start;
        }
    }
    for field in ["id", "toolUseId", "toolCallId", "call_id"] {
        event = event.replace(&format!("\"{field}\":\""), &format!("\"{field}\":\"{n}-"));
    }
    event
}

fn cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}
