//! What a tool may do and how often: the registered defaults, the operator's word over them, and the two merged.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// What a tool does to the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effects {
    /// Changes nothing.
    ReadOnly,
    /// Twice is the same as once.
    Idempotent,
    /// Anything else.
    #[default]
    SideEffecting,
}

impl Effects {
    /// Whether a call may start before the turn is sealed, and may run again.
    #[must_use]
    pub fn repeatable(self) -> bool {
        !matches!(self, Self::SideEffecting)
    }
}

/// What a failed call means for its siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureAction {
    /// Nothing.
    #[default]
    Return,
    /// Those that have not ended are aborted.
    AbortBatch,
}

/// The effective policy of a tool: every question answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether calls may start early and run again.
    pub effects: Effects,
    /// The longest that one attempt may run.
    pub attempt_timeout: Duration,
    /// The longest from the moment a call may start (complete, not held, room in the fan-out) to its result.
    pub call_timeout: Duration,
    /// The longest that an attempt may wait for a limit or a slot.
    pub queue_timeout: Duration,
    /// Attempts in all; 1 where running again is not harmless.
    pub max_attempts: NonZeroU32,
    /// The pause before the second attempt; doubled for each further one.
    pub retry_backoff: Duration,
    /// How often calls may start.
    pub rate: Option<Rate>,
    /// Calls that may run at the same time.
    pub max_in_flight: Option<NonZeroU32>,
    /// What a failure means for the rest of the batch.
    pub on_failure: FailureAction,
}

/// A token bucket's two numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Starts per second; more than 0.
    pub per_second: f64,
    /// Starts that may come at once.
    pub burst: NonZeroU32,
}

/// A policy with gaps: as a worker registers it, or as the operator writes it under `[tools.NAME]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyPatch {
    /// See [`Policy::effects`].
    pub effects: Option<Effects>,
    /// See [`Policy::attempt_timeout`].
    #[serde(default, deserialize_with = "duration")]
    pub attempt_timeout: Option<Duration>,
    /// See [`Policy::call_timeout`].
    #[serde(default, deserialize_with = "duration")]
    pub call_timeout: Option<Duration>,
    /// See [`Policy::queue_timeout`].
    #[serde(default, deserialize_with = "duration")]
    pub queue_timeout: Option<Duration>,
    /// See [`Policy::max_attempts`].
    pub max_attempts: Option<u32>,
    /// See [`Policy::retry_backoff`].
    #[serde(default, deserialize_with = "duration")]
    pub retry_backoff: Option<Duration>,
    /// Starts per second.
    pub rate: Option<f64>,
    /// Starts that may come at once.
    pub burst: Option<u32>,
    /// See [`Policy::max_in_flight`].
    pub max_in_flight: Option<u32>,
    /// See [`Policy::on_failure`].
    pub on_failure: Option<FailureAction>,
}

/// A field of a policy that is out of its range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{field} = {value}: {permitted}")]
pub struct OutOfRange {
    /// The field's name.
    pub field: &'static str,
    /// What was given.
    pub value: String,
    /// What may be given.
    pub permitted: &'static str,
}

const MAX_ATTEMPTS: u32 = 10;
const MAX_RATE: f64 = 1_000_000.0;
const MAX_TIME: Duration = Duration::from_hours(24);
const DEFAULT_ATTEMPTS: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
const DEFAULT_BACKOFF: Duration = Duration::from_millis(100);

impl PolicyPatch {
    /// Says which field is out of its range, if one is.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let times = [
            ("attempt_timeout", self.attempt_timeout),
            ("call_timeout", self.call_timeout),
            ("queue_timeout", self.queue_timeout),
            ("retry_backoff", self.retry_backoff),
        ];
        for (field, time) in times {
            if let Some(time) = time
                && (time.is_zero() || time > MAX_TIME)
            {
                let value = format!("{time:?}");
                return Err(OutOfRange {
                    field,
                    value,
                    permitted: "permitted is more than 0 and at most 24 h",
                });
            }
        }
        let counts = [
            (
                "max_attempts",
                self.max_attempts,
                MAX_ATTEMPTS,
                "permitted is 1 to 10",
            ),
            ("burst", self.burst, 1_000_000, "permitted is 1 to 1000000"),
            (
                "max_in_flight",
                self.max_in_flight,
                1_000_000,
                "permitted is 1 to 1000000",
            ),
        ];
        for (field, count, most, permitted) in counts {
            if let Some(count) = count
                && !(1..=most).contains(&count)
            {
                return Err(OutOfRange {
                    field,
                    value: count.to_string(),
                    permitted,
                });
            }
        }
        match self.rate {
            Some(rate) if !(rate > 0.0 && rate <= MAX_RATE) => Err(OutOfRange {
                field: "rate",
                value: rate.to_string(),
                permitted: "permitted is more than 0 and at most 1000000 a second",
            }),
            _ => Ok(()),
        }
    }

    /// This patch where it speaks, `under` where it is silent.
    #[must_use]
    pub fn over(&self, under: &Self) -> Self {
        Self {
            effects: self.effects.or(under.effects),
            attempt_timeout: self.attempt_timeout.or(under.attempt_timeout),
            call_timeout: self.call_timeout.or(under.call_timeout),
            queue_timeout: self.queue_timeout.or(under.queue_timeout),
            max_attempts: self.max_attempts.or(under.max_attempts),
            retry_backoff: self.retry_backoff.or(under.retry_backoff),
            rate: self.rate.or(under.rate),
            burst: self.burst.or(under.burst),
            max_in_flight: self.max_in_flight.or(under.max_in_flight),
            on_failure: self.on_failure.or(under.on_failure),
        }
    }

    /// The patch with its gaps filled; values must have passed [`check`](Self::check).
    #[must_use]
    pub fn effective(&self, default_call_timeout: Duration) -> Policy {
        let effects = self.effects.unwrap_or_default();
        let call_timeout = self.call_timeout.unwrap_or(default_call_timeout);
        let attempts = self
            .max_attempts
            .and_then(NonZeroU32::new)
            .unwrap_or(DEFAULT_ATTEMPTS);
        Policy {
            effects,
            call_timeout,
            attempt_timeout: self
                .attempt_timeout
                .unwrap_or(call_timeout)
                .min(call_timeout),
            queue_timeout: self.queue_timeout.unwrap_or(call_timeout).min(call_timeout),
            max_attempts: if effects.repeatable() {
                attempts
            } else {
                NonZeroU32::MIN
            },
            retry_backoff: self.retry_backoff.unwrap_or(DEFAULT_BACKOFF),
            rate: self.rate.map(|per_second| Rate {
                per_second,
                burst: self
                    .burst
                    .and_then(NonZeroU32::new)
                    .unwrap_or(NonZeroU32::MIN),
            }),
            max_in_flight: self.max_in_flight.and_then(NonZeroU32::new),
            on_failure: self.on_failure.unwrap_or_default(),
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let time = crate::config::parse_duration(&text);
    time.map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_wins_field_by_field() {
        let registered = PolicyPatch {
            rate: Some(5.0),
            burst: Some(2),
            max_attempts: Some(4),
            ..Default::default()
        };
        let operator = PolicyPatch {
            rate: Some(1.0),
            effects: Some(Effects::ReadOnly),
            ..Default::default()
        };
        let policy = operator.over(&registered).effective(Duration::from_mins(1));
        assert_eq!(
            policy.rate.map(|rate| (rate.per_second, rate.burst.get())),
            Some((1.0, 2))
        );
        assert_eq!(
            (policy.effects, policy.max_attempts.get()),
            (Effects::ReadOnly, 4)
        );
    }

    #[test]
    fn a_side_effecting_tool_has_one_attempt_whatever_is_asked() {
        let patch = PolicyPatch {
            max_attempts: Some(5),
            ..Default::default()
        };
        assert_eq!(
            patch.effective(Duration::from_mins(1)).max_attempts.get(),
            1
        );
    }

    #[test]
    fn a_value_out_of_range_is_named_with_what_is_permitted() {
        let check = |patch: PolicyPatch| patch.check().unwrap_err().to_string();
        let none = PolicyPatch::default();
        assert_eq!(
            check(PolicyPatch {
                max_attempts: Some(11),
                ..none.clone()
            }),
            "max_attempts = 11: permitted is 1 to 10"
        );
        assert!(
            check(PolicyPatch {
                rate: Some(f64::NAN),
                ..none.clone()
            })
            .starts_with("rate = NaN")
        );
        assert!(
            check(PolicyPatch {
                queue_timeout: Some(Duration::ZERO),
                ..none
            })
            .starts_with("queue_timeout = 0ns")
        );
    }
}
