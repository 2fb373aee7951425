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

/// The same in at most six columns, for tables that are full: `340ms`, `1.2s`, `2m05s`, `3h12m`, `5d07h`.
pub(crate) fn compact(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let whole = duration.as_secs() + u64::from(duration.subsec_millis() >= 500);
    let (minute, hour, day) = (60, 60 * 60, 24 * 60 * 60);
    if seconds < 0.9995 {
        format!("{:.0}ms", seconds * 1000.0)
    } else if seconds < 9.95 {
        format!("{seconds:.1}s")
    } else if whole < minute {
        format!("{whole}s")
    } else if whole < hour {
        format!("{}m{:02}s", whole / minute, whole % minute)
    } else if whole < day {
        format!("{}h{:02}m", whole / hour, whole % hour / minute)
    } else {
        format!("{}d{:02}h", whole / day, whole % day / hour)
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
    fn compact_durations_have_two_parts_at_most() {
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (9_949, "9.9s"),
            (9_950, "10s"),
            (59_499, "59s"),
            (59_500, "1m00s"),
            (125_000, "2m05s"),
            (3_599_499, "59m59s"),
            (3_599_500, "1h00m"),
            (11_520_000, "3h12m"),
            (457_200_000, "5d07h"),
        ] {
            assert_eq!(compact(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn stamps_stand_in_a_column() {
        assert_eq!(stamp(Duration::from_millis(1_234)), "  1.23s");
        assert_eq!(stamp(Duration::from_secs(100)), "100.00s");
    }
}
