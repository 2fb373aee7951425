//! Small sums over few numbers.

/// The median; of an even count the mean of the middle two, of none zero.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[upper],
        _ => f64::midpoint(values[upper - 1], values[upper]),
    }
}

/// The slope of the line through the points with the least squares.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |of: fn(&(f64, f64)) -> f64| {
        let count = points.iter().map(|_| 1.0).sum::<f64>();
        points.iter().map(of).sum::<f64>() / count
    };
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let across: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    if spread > 0.0 { across / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::{median, slope};

    fn check(actual: f64, expected: f64) {
        assert!(
            (actual - expected).abs() < 1e-9,
            "{actual} is not {expected}"
        );
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        check(median([3.0, 1.0, 2.0]), 2.0);
        check(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        check(median([]), 0.0);
    }

    #[test]
    fn the_slope_of_a_line_is_its_own() {
        check(slope(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), 2.0);
        check(slope(&[(1.0, 7.0)]), 0.0);
    }
}
