//! Durations for people.

use std::time::Duration;

/// `1.23 s`, `340 ms`, `0.4 ms`; from a minute on `2 min 05 s`.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let millis = seconds * 1000.0;
    if seconds >= 59.995 {
        let whole = duration.as_secs() + u64::from(duration.subsec_millis() >= 500);
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else if millis >= 999.5 {
        format!("{seconds:.2} s")
    } else if millis >= 9.95 {
        format!("{millis:.0} ms")
    } else {
        format!("{millis:.1} ms")
    }
}

/// A moment since the start, for a column: `  1.23s`.
pub(crate) fn stamp(since_start: Duration) -> String {
    format!("{:6.2}s", since_start.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well_on_every_scale() {
        for (micros, text) in [
            (0, "0.0 ms"),
            (412, "0.4 ms"),
            (9_949, "9.9 ms"),
            (9_950, "10 ms"),
            (340_000, "340 ms"),
            (999_499, "999 ms"),
            (999_500, "1.00 s"),
            (1_234_000, "1.23 s"),
            (59_990_000, "59.99 s"),
            (59_996_000, "1 min 00 s"),
            (125_300_000, "2 min 05 s"),
        ] {
            assert_eq!(human(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn stamps_stand_in_a_column() {
        assert_eq!(stamp(Duration::from_millis(1_234)), "  1.23s");
        assert_eq!(stamp(Duration::from_secs(100)), "100.00s");
    }
}
