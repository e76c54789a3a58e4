//! Statistics of many measurements. Pure.

use serde::Serialize;

/// The least, the middle and the largest of some measurements.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spread {
    /// The least.
    pub(crate) min: f64,
    /// The middle one; of an even number, the upper of the two.
    pub(crate) median: f64,
    /// The largest.
    pub(crate) max: f64,
    /// How many there were.
    pub(crate) of: usize,
}

impl Spread {
    /// Of no measurements, all is 0.
    pub(crate) fn of(measurements: &[f64]) -> Self {
        let at = |share| quantile(measurements, share);
        Self { min: at(0.0), median: at(0.5), max: at(1.0), of: measurements.len() }
    }
}

/// The measurement that this share of them is below: 0 for the least, 1 for the
/// largest. Of no measurements, 0.
pub(crate) fn quantile(measurements: &[f64], share: f64) -> f64 {
    let mut sorted = measurements.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len().saturating_sub(1) as f64 * share.clamp(0.0, 1.0)).round();
    sorted.get(rank as usize).copied().unwrap_or(0.0)
}

/// Their average. Of no measurements, 0.
pub(crate) fn mean(measurements: &[f64]) -> f64 {
    measurements.iter().sum::<f64>() / measurements.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measurements_by_rank() {
        let measurements = [4.0, 1.0, 3.0, 2.0, 5.0];
        for (share, expected) in [(0.0, 1.0), (0.25, 2.0), (0.5, 3.0), (0.99, 5.0), (1.0, 5.0)] {
            assert_eq!(quantile(&measurements, share), expected, "{share}");
        }
        assert_eq!(quantile(&[1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_mean_is_of_all_or_nothing() {
        assert_eq!((mean(&[1.0, 2.0, 6.0]), mean(&[])), (3.0, 0.0));
    }

    #[test]
    fn a_spread_has_both_ends_and_the_middle() {
        let spread = Spread::of(&[7.0, 1.0, 2.0]);
        assert_eq!(spread, Spread { min: 1.0, median: 2.0, max: 7.0, of: 3 });
    }
}
