//! What a tool may do and how often, as the worker registers it. What is not set is left to the broker.

use std::time::Duration;

use toolpool_proto::v1 as proto;

/// What a tool does to the world. It decides when a call may start and whether it may run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effects {
    /// Changes nothing. Starts while the model is still writing; may be retried.
    ReadOnly,
    /// Running it twice is the same as running it once. Starts while the model is still writing; may be retried.
    Idempotent,
    /// Anything else, and what a tool is that says nothing. Held until the model's turn is complete; started at most
    /// once.
    SideEffecting,
}

/// What a failure means for the other calls of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Return,
    AbortBatch,
}

/// A field without a value has the broker's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Policy {
    pub(crate) effects: Option<Effects>,
    pub(crate) attempt_timeout: Option<Duration>,
    pub(crate) call_timeout: Option<Duration>,
    pub(crate) queue_timeout: Option<Duration>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) retry_backoff: Option<Duration>,
    pub(crate) rate: Option<f64>,
    pub(crate) burst: Option<u32>,
    pub(crate) max_in_flight: Option<u32>,
    pub(crate) on_failure: Option<OnFailure>,
}

/// A policy's field that has a value outside its limits.
#[derive(Debug, PartialEq)]
pub(crate) struct Violation {
    pub(crate) field: &'static str,
    pub(crate) value: String,
    pub(crate) permitted: &'static str,
}

const MAX_TIME: Duration = Duration::from_hours(24);
const MAX_COUNT: u32 = 1_000_000;

impl Policy {
    /// The first field that the broker would refuse.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        let durations = [
            ("attempt_timeout", self.attempt_timeout),
            ("call_timeout", self.call_timeout),
            ("queue_timeout", self.queue_timeout),
            ("retry_backoff", self.retry_backoff),
        ];
        for (field, duration) in durations {
            if let Some(value) = duration.filter(|value| value.is_zero() || *value > MAX_TIME) {
                return Err(Violation {
                    field,
                    value: format!("{value:?}"),
                    permitted: "more than 0, at most 24 h",
                });
            }
        }
        let counts = [
            ("max_attempts", self.max_attempts, 10, "1 to 10"),
            ("burst", self.burst, MAX_COUNT, "1 to 1000000"),
            (
                "max_in_flight",
                self.max_in_flight,
                MAX_COUNT,
                "1 to 1000000",
            ),
        ];
        for (field, count, max, permitted) in counts {
            if let Some(value) = count.filter(|value| !(1..=max).contains(value)) {
                return Err(Violation {
                    field,
                    value: value.to_string(),
                    permitted,
                });
            }
        }
        if let Some(value) = self.rate.filter(|rate| !(*rate > 0.0 && *rate <= 1e6)) {
            return Err(Violation {
                field: "rate",
                value: value.to_string(),
                permitted: "more than 0, at most 1000000 starts per second",
            });
        }
        Ok(())
    }

    pub(crate) fn to_proto(&self) -> proto::Policy {
        let duration = |value: Option<Duration>| value.and_then(|value| value.try_into().ok());
        proto::Policy {
            effects: self.effects.map(|effects| match effects {
                Effects::ReadOnly => proto::Effects::ReadOnly.into(),
                Effects::Idempotent => proto::Effects::Idempotent.into(),
                Effects::SideEffecting => proto::Effects::SideEffecting.into(),
            }),
            attempt_timeout: duration(self.attempt_timeout),
            call_timeout: duration(self.call_timeout),
            queue_timeout: duration(self.queue_timeout),
            max_attempts: self.max_attempts,
            retry_backoff: duration(self.retry_backoff),
            rate: self.rate,
            burst: self.burst,
            max_in_flight: self.max_in_flight,
            on_failure: self.on_failure.map(|action| match action {
                OnFailure::Return => proto::FailureAction::Return.into(),
                OnFailure::AbortBatch => proto::FailureAction::AbortBatch.into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_outside_its_limits_is_named_with_what_is_permitted() {
        let policy = Policy {
            max_attempts: Some(11),
            ..Policy::default()
        };
        let violation = policy.check().unwrap_err();
        assert_eq!(
            (violation.field, violation.value.as_str()),
            ("max_attempts", "11")
        );
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e6 + 1.0] {
            assert!(
                Policy {
                    rate: Some(rate),
                    ..Policy::default()
                }
                .check()
                .is_err(),
                "{rate}"
            );
        }
        for time in [Duration::ZERO, MAX_TIME + Duration::from_nanos(1)] {
            let policy = Policy {
                call_timeout: Some(time),
                ..Policy::default()
            };
            assert_eq!(
                policy.check().unwrap_err().field,
                "call_timeout",
                "{time:?}"
            );
        }
        for count in [0, MAX_COUNT + 1] {
            let policy = Policy {
                burst: Some(count),
                ..Policy::default()
            };
            assert_eq!(policy.check().unwrap_err().field, "burst", "{count}");
            let policy = Policy {
                max_in_flight: Some(count),
                ..Policy::default()
            };
            assert_eq!(
                policy.check().unwrap_err().field,
                "max_in_flight",
                "{count}"
            );
        }
    }

    #[test]
    fn a_value_at_its_limit_is_permitted() {
        let policy = Policy {
            attempt_timeout: Some(MAX_TIME),
            call_timeout: Some(MAX_TIME),
            queue_timeout: Some(MAX_TIME),
            retry_backoff: Some(MAX_TIME),
            max_attempts: Some(10),
            rate: Some(1e6),
            burst: Some(MAX_COUNT),
            max_in_flight: Some(MAX_COUNT),
            ..Policy::default()
        };
        assert_eq!(policy.check(), Ok(()));
        assert_eq!(Policy::default().check(), Ok(()));
    }
}
