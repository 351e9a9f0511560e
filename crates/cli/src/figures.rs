//! Writing figures for people.

use serde_json::Value;

/// Rounds a figure. A smaller figure keeps more decimals.
pub fn rounded(figure: f64) -> Value {
    let digits = match figure.abs() {
        f if f >= 1000.0 => 0,
        f if f >= 10.0 => 1,
        f if f >= 0.1 => 3,
        _ => 5,
    };
    let factor = 10f64.powi(digits);
    Value::from((figure * factor).round() / factor)
}

/// Returns a percentile of sorted figures by nearest rank; 0 if there are no figures.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Writes a count, and marks an estimate with `~`. Counts up to 10,000 are exact even in a column of estimates.
pub fn about(n: u64, estimated: bool) -> String {
    if estimated && n > 10_000 { format!("~{}", count(n)) } else { count(n) }
}

/// Writes a count with up to five characters: `9999`, `12.3k`, `4.56M`.
pub fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..100_000 => format!("{:.1}k", n as f64 / 1e3),
        100_000..1_000_000 => format!("{}k", n / 1000),
        1_000_000..100_000_000 => format!("{:.1}M", n as f64 / 1e6),
        _ => format!("{:.1}G", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!([50, 95, 99, 100].map(|percent| percentile(&sorted, percent)), [100.0, 190.0, 198.0, 200.0]);
        assert_eq!((percentile(&[], 50), percentile(&[7.0], 1)), (0.0, 7.0));
    }

    #[test]
    fn a_figure_keeps_its_significant_digits() {
        assert_eq!(
            [12345.678, 12.345, 0.12345, 0.0012345].map(rounded),
            [12346.0, 12.3, 0.123, 0.00123].map(Value::from)
        );
    }
}
