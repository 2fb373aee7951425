//! What is permitted, what wins, and what an error says.

use super::kind::parse_bytes;
use super::*;

fn flags(key: &str, value: &str) -> Result<Config, Error> {
    Config::load(Sources {
        flags: vec![(key.to_owned(), value.to_owned())],
        ..Sources::default()
    })
}

fn file(text: &str) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().display().to_string();
    Config::load(Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    })
    .map_err(|error| error.to_string().replace(&path, "FILE"))
}

#[test]
fn the_defaults_are_those_of_the_table_and_within_their_ranges() {
    for setting in SETTINGS {
        assert!(
            flags(setting.key, setting.default).is_ok(),
            "{}",
            setting.key
        );
    }
    let config = Config::default();
    assert_eq!(
        (config.max_calls_per_batch, config.max_arguments_bytes),
        (256, 1 << 20)
    );
    assert_eq!(
        (config.call_timeout, config.missed_beats),
        (Duration::from_mins(1), 3)
    );
}

#[test]
fn a_later_source_wins() {
    let toml = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        toml.path(),
        "threads = 2\nmax_parallel = 3\nmissed_beats = 4\n",
    )
    .unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let config = Config::load(Sources {
        file: Some(toml.path().to_owned()),
        env: vec![
            pair("TOOLPOOL_MAX_PARALLEL", "5"),
            pair("TOOLPOOL_THREADS", "6"),
            pair("PATH", "x"),
        ],
        flags: vec![pair("threads", "7")],
    });
    let config = config.unwrap();
    assert_eq!(
        (config.threads, config.max_parallel, config.missed_beats),
        (7, 5, 4)
    );
}

#[test]
fn an_error_names_the_place_the_key_the_value_and_what_is_permitted() {
    assert_eq!(
        flags("max_parallel", "0").unwrap_err().to_string(),
        "--max-parallel: max_parallel = \"0\": permitted is 1 to 10000 calls"
    );
    assert_eq!(
        file("call_timeout = 5").unwrap_err(),
        "FILE: call_timeout = \"5\": permitted is 1ms to 24h"
    );
    assert_eq!(
        file("max_paralel = 5").unwrap_err(),
        "FILE: there is no setting max_paralel; did you mean max_parallel?"
    );
    let tool = file("[tools.search]\nrate = -1.0").unwrap_err();
    assert!(tool.starts_with("FILE: tools.search.rate = -1"), "{tool}");
    assert!(
        file("[tools.search]\nrte = 1.0")
            .unwrap_err()
            .contains("rte")
    );
    assert!(
        file("max_result_bytes = \"65MiB\"")
            .unwrap_err()
            .contains("max_batch_bytes")
    );
}

#[test]
fn what_is_printed_can_be_read_back() {
    let config = Config {
        beat_interval: Duration::from_millis(1_500),
        max_arguments_bytes: 1_537,
        ..Config::default()
    };
    assert_eq!(file(&config.to_toml()), Ok(config));
}

#[test]
fn an_address_that_may_be_none_can_be_off() {
    let off = flags("admin_listen", "off").unwrap();
    assert_eq!(off.admin_listen, None);
    assert_eq!(file(&off.to_toml()), Ok(off));
    let error = flags("admin_listen", "7401").unwrap_err().to_string();
    assert!(error.ends_with("or off"), "{error}");
}

#[test]
fn times_and_sizes_have_units() {
    assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1_500)));
    assert_eq!(parse_duration("10m"), parse_duration("10 min"));
    assert!(
        parse_duration("10").is_err()
            && parse_duration("s").is_err()
            && parse_duration("-1s").is_err()
    );
    assert_eq!(
        (parse_bytes("2KiB"), parse_bytes("2kb")),
        (Some(2_048), None)
    );
}
