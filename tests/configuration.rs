//! The broker's settings: wrong ones are refused before a port is bound.

#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod support;

use std::process::Output;

use support::{Broker, stderr, stdout, toolpool};

/// Runs a broker that must not come up; what it complains of.
fn refused(flags: &[&str], env: &[(&str, &str)], file: &str) -> String {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), file).unwrap();
    // The port is taken: a broker that bound it before it had checked its settings would complain of that.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let mut command = toolpool();
    command
        .args(["broker", "--listen", &listen, "--config"])
        .arg(config.path());
    let run: Output = command
        .args(flags)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2), "{}", stderr(&run));
    assert_eq!(stdout(&run), "");
    stderr(&run)
}

#[test]
fn a_wrong_value_is_named_with_its_place_and_what_is_permitted() {
    for (flags, env, file, place) in [
        (&["--max-parallel", "0"][..], &[][..], "", "--max-parallel"),
        (
            &[],
            &[("TOOLPOOL_MAX_PARALLEL", "0")],
            "",
            "TOOLPOOL_MAX_PARALLEL",
        ),
        (&[], &[], "max_parallel = 0", "max_parallel"),
    ] {
        let said = refused(flags, env, file);
        assert!(said.contains(place), "{said}");
        assert!(
            said.contains("max_parallel") && said.contains("1 to 10000 calls"),
            "{said}"
        );
    }
}

#[test]
fn a_key_that_is_none_is_named() {
    let said = refused(&[], &[], "max_paralel = 3");
    assert!(
        said.contains("max_paralel") && said.contains("did you mean max_parallel"),
        "{said}"
    );
    let said = refused(&["--max-paralel", "3"], &[], "");
    assert!(said.contains("--max-parallel"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_said_with_what_to_do() {
    let said = refused(&[], &[], "");
    assert!(
        said.contains("cannot listen on 127.0.0.1:") && said.contains("--listen"),
        "{said}"
    );
}

#[test]
fn a_later_source_wins() {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        config.path(),
        "max_parallel = 2\nmax_open_batches = 2\nmax_workers = 2",
    )
    .unwrap();
    let mut command = toolpool();
    command
        .args(["broker", "--print-config", "--max-workers", "4", "--config"])
        .arg(config.path());
    command
        .env("TOOLPOOL_MAX_WORKERS", "3")
        .env("TOOLPOOL_MAX_OPEN_BATCHES", "3");
    let printed = stdout(&command.output().unwrap());
    for line in [
        "max_parallel = 2",
        "max_open_batches = 3",
        "max_workers = 4",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "{line}: {printed}"
        );
    }
    std::fs::write(config.path(), &printed).unwrap();
    let again = toolpool()
        .args(["broker", "--print-config", "--config"])
        .arg(config.path())
        .output();
    assert_eq!(
        stdout(&again.unwrap()),
        printed,
        "what is printed can be read"
    );
}

#[tokio::test]
async fn a_broker_says_where_it_listens() {
    for threads in ["1", "2"] {
        let broker = Broker::start(&["--threads", threads]);
        assert!(!broker.url.ends_with(":0"), "{}", broker.url);
        assert!(broker.client().tools().await.unwrap().is_empty());
    }
}
