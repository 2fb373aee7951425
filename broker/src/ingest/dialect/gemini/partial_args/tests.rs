//! Arguments gathered from values and their paths.

use super::*;

const MOST: usize = 1 << 16;

/// Takes values that are written as the wire has them.
fn gathered(values: &[&str]) -> Result<String, Misfit> {
    let mut args = PartialArgs::default();
    for value in values {
        args.set(&serde_json::from_str(value).unwrap(), MOST)?;
    }
    Ok(args.to_json())
}

fn at(path: &str) -> Result<String, Misfit> {
    let path = serde_json::to_string(path).unwrap();
    gathered(&[&format!(r#"{{"jsonPath":{path},"numberValue":1}}"#)])
}

#[test]
fn a_string_grows_until_it_does_not_continue() {
    let parts = [
        r#"{"jsonPath":"$.a","stringValue":"x","willContinue":true}"#,
        r#"{"jsonPath":"$.b","boolValue":true}"#,
        r#"{"jsonPath":"$.a","stringValue":"\"y","willContinue":true}"#,
        r#"{"jsonPath":"$.a","stringValue":""}"#,
    ];
    assert_eq!(gathered(&parts).unwrap(), r#"{"a":"x\"y","b":true}"#);
    let after = r#"{"jsonPath":"$.a","stringValue":"z"}"#;
    assert_eq!(
        gathered(&[&parts[..], &[after]].concat()),
        Err(Misfit::Contradiction)
    );
}

#[test]
fn falsy_values_are_values_and_numbers_keep_their_text() {
    assert_eq!(
        gathered(&[
            r#"{"jsonPath":"$.a","numberValue":0}"#,
            r#"{"jsonPath":"$.b","numberValue":12345678901234567890123}"#,
            r#"{"jsonPath":"$.c","numberValue":1.0}"#,
            r#"{"jsonPath":"$.d","boolValue":false}"#,
            r#"{"jsonPath":"$.e","nullValue":"NULL_VALUE"}"#,
            r#"{"jsonPath":"$.f","nullValue":null}"#,
            r#"{"json_path":"$.g"}"#,
            r#"{"jsonPath":"$.h","stringValue":""}"#,
        ])
        .unwrap(),
        r#"{"a":0,"b":12345678901234567890123,"c":1.0,"d":false,"e":null,"f":null,"g":null,"h":""}"#
    );
    for not_a_number in [r#""NaN""#, "[1]", r#"{"b":1}"#] {
        for field in ["numberValue", "boolValue"] {
            let value = format!(r#"{{"jsonPath":"$.a","{field}":{not_a_number}}}"#);
            assert_eq!(gathered(&[&value]), Err(Misfit::Contradiction), "{value}");
        }
    }
}

#[test]
fn a_value_that_is_only_announced_is_none_yet() {
    let announced = r#"{"jsonPath":"$.a","willContinue":true}"#;
    assert_eq!(gathered(&[announced]).unwrap(), "{}");
}

#[test]
fn paths_lead_through_names_and_places() {
    assert_eq!(at("$.a").unwrap(), r#"{"a":1}"#);
    assert_eq!(
        at("$.a.b-c[0][0].d").unwrap(),
        r#"{"a":{"b-c":[[{"d":1}]]}}"#
    );
    assert_eq!(at("$['a.b'][\"c[0]\"]").unwrap(), r#"{"a.b":{"c[0]":1}}"#);
    assert_eq!(at(r"$['it\'s']").unwrap(), r#"{"it's":1}"#);
    assert_eq!(at(r#"$['a"b']"#).unwrap(), r#"{"a\"b":1}"#);
    assert_eq!(at(r#"$["a\"b\\\u00e9"]"#).unwrap(), r#"{"a\"b\\é":1}"#);
    assert_eq!(at("$['']").unwrap(), r#"{"":1}"#);
    assert_eq!(at("$.größe.0").unwrap(), r#"{"größe":{"0":1}}"#);
}

#[test]
fn a_path_that_names_no_one_place_is_none() {
    for path in [
        "",
        "$",
        "a",
        "$a",
        "$.",
        "$..a",
        "$.a..b",
        "$.*",
        "$[0]",
        "$.a[*]",
        "$.a[-1]",
        "$.a[+0]",
        "$.a[]",
        "$.a[0",
        "$.a['b]",
        "$.a['b'",
        r"$['\x']",
        "$.a[0]b",
        "$.a[99999999999999999999]",
        "$[é]",
    ] {
        assert_eq!(at(path), Err(Misfit::Contradiction), "{path}");
    }
    let deep = format!("${}", ".a".repeat(MOST_STEPS));
    assert!(at(&deep).is_ok());
    assert_eq!(at(&format!("{deep}.a")), Err(Misfit::Contradiction));
}

#[test]
fn an_array_grows_by_one() {
    let item = |index: usize| format!(r#"{{"jsonPath":"$.a[{index}].b","numberValue":{index}}}"#);
    assert_eq!(
        gathered(&[&item(0), &item(1), &item(2)]).unwrap(),
        r#"{"a":[{"b":0},{"b":1},{"b":2}]}"#
    );
    for index in [1, 1_000_000_000] {
        assert_eq!(gathered(&[&item(index)]), Err(Misfit::Contradiction));
    }
}

#[test]
fn no_value_takes_the_place_of_another() {
    let values = [
        r#"{"jsonPath":"$.a","numberValue":1}"#,
        r#"{"jsonPath":"$.a","stringValue":"x","willContinue":true}"#,
        r#"{"jsonPath":"$.a.b","numberValue":1}"#,
        r#"{"jsonPath":"$.a[0]","numberValue":1}"#,
        r#"{"jsonPath":"$.a","nullValue":"NULL_VALUE"}"#,
    ];
    for first in values {
        for second in values {
            if first == second && first.contains("willContinue") {
                continue;
            }
            assert_eq!(
                gathered(&[first, second]),
                Err(Misfit::Contradiction),
                "{first} {second}"
            );
        }
    }
}

#[test]
fn as_much_is_kept_as_a_call_may_have() {
    let mut args = PartialArgs::default();
    let part = r#"{"jsonPath":"$.a","stringValue":"xxxxxxxxxx","willContinue":true}"#;
    let part: PartialArg<'_> = serde_json::from_str(part).unwrap();
    args.set(&part, 20).unwrap();
    assert_eq!(args.set(&part, 20), Err(Misfit::TooLarge));
    assert!(args.to_json().len() > 20);
}

#[test]
fn what_is_counted_is_never_more_than_the_text() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let mut args = PartialArgs::default();
        let mut list = 0;
        for n in 0..random.usize(1..20) {
            let value = match random.usize(0..5) {
                0 => format!(r#"{{"jsonPath":"$.t{n}","stringValue":"x"}}"#),
                1 => format!(r#"{{"jsonPath":"$.n{n}.m","numberValue":1}}"#),
                2 => format!(r#"{{"jsonPath":"$.z{n}[0]","nullValue":null}}"#),
                3 => format!(r#"{{"jsonPath":"$['']['{n}']","boolValue":true}}"#),
                _ => {
                    list += 1;
                    format!(r#"{{"jsonPath":"$.l[{}]","numberValue":1}}"#, list - 1)
                }
            };
            args.set(&serde_json::from_str(&value).unwrap(), MOST)
                .unwrap();
        }
        let text = args.to_json();
        assert!(args.bytes <= text.len(), "{} of {text}", args.bytes);
    }
}
