//! Odds and ends: arithmetic, a hash, the time, and a tool that only takes time.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};

use super::calculator;
use crate::{Context, Effects, Tool, ToolError};

const MAX_EXPRESSION: usize = 4096;
const MAX_SLEEP: f64 = 60.0;
const SLEEP_STEPS: u32 = 10;

/// Arguments of `calculate`.
#[derive(Deserialize, JsonSchema)]
struct Calculate {
    /// The expression, for example "2 * (3 + 4) ^ 2"; at most 4096 bytes.
    expression: String,
}

/// Arguments of `hash`.
#[derive(Deserialize, JsonSchema)]
struct Hash {
    /// The text; its UTF-8 bytes are hashed.
    text: String,
}

/// Arguments of `current_time`.
#[derive(Deserialize, JsonSchema)]
struct CurrentTime {}

/// Arguments of `sleep`.
#[derive(Deserialize, JsonSchema)]
struct Sleep {
    /// How long, in seconds.
    #[schemars(range(min = 0, max = 60))]
    seconds: f64,
}

#[derive(Serialize)]
struct Value {
    value: f64,
}

#[derive(Serialize)]
struct Sha256Sum {
    sha256: String,
}

#[derive(Serialize)]
struct Now {
    utc: String,
}

#[derive(Serialize)]
struct Slept {
    slept_seconds: f64,
}

pub(super) fn tools() -> Vec<Tool> {
    let calculate = Tool::typed(
        "calculate",
        "Calculates an arithmetic expression. Knows + - * / % ^, brackets, the constants pi and e, and the functions \
         abs, ceil, cos, exp, floor, ln, log10, max, min, round, sin, sqrt and tan (angles in radians).",
        |args: Calculate, _| async move { calculate(&args.expression) },
    );
    let hash = Tool::typed(
        "hash",
        "Gives the SHA-256 hash of a text, in hexadecimal.",
        |args: Hash, _| async move {
            Ok(Sha256Sum {
                sha256: sha256(&args.text),
            })
        },
    );
    let current_time = Tool::typed(
        "current_time",
        "Gives the current time in UTC, as RFC 3339.",
        |_: CurrentTime, _| async {
            Ok(Now {
                utc: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            })
        },
    );
    let sleep = Tool::typed(
        "sleep",
        "Does nothing for some seconds, 60 at most, and says how far it is. For trying out timeouts and cancelling.",
        sleep,
    );
    [calculate, hash, current_time, sleep]
        .map(|tool| tool.effects(Effects::ReadOnly))
        .into()
}

fn calculate(expression: &str) -> Result<Value, ToolError> {
    if expression.len() > MAX_EXPRESSION {
        let message = format!(
            "has {} bytes, at most {MAX_EXPRESSION} are permitted",
            expression.len()
        );
        return Err(ToolError::invalid_arguments("The expression is too long.")
            .violation("/expression", message));
    }
    match calculator::evaluate(expression) {
        Ok(value) => Ok(Value { value }),
        Err(error) => Err(ToolError::invalid_arguments(format!(
            "The expression has no value: {error}."
        ))
        .violation("/expression", error.to_string())),
    }
}

fn sha256(text: &str) -> String {
    format!("{:x}", Bytes::copy_from_slice(&Sha256::digest(text)))
}

async fn sleep(args: Sleep, context: Context) -> Result<Slept, ToolError> {
    if !(0.0..=MAX_SLEEP).contains(&args.seconds) {
        let error = ToolError::invalid_arguments("The sleep is too long, or less than nothing.");
        return Err(error.violation("/seconds", "must be from 0 to 60"));
    }
    let start = Instant::now();
    let step = Duration::from_secs_f64(args.seconds) / SLEEP_STEPS;
    for done in 0..SLEEP_STEPS {
        context.progress("sleeping", f64::from(done) / f64::from(SLEEP_STEPS));
        tokio::select! {
            () = sleep_until(start + step * (done + 1)) => {}
            () = context.cancelled() => return Err(ToolError::failed("The sleep was cut short.")),
        }
    }
    Ok(Slept {
        slept_seconds: args.seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_known_one() {
        assert_eq!(
            sha256("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn an_expression_without_a_value_is_a_bad_argument() {
        assert!(calculate("1 +").is_err());
        assert!(calculate(&"1+".repeat(MAX_EXPRESSION)).is_err());
        assert!(calculate("1 + 1").is_ok());
    }
}
