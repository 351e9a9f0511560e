//! Numbers and lengths of time, as people read them.

use std::time::Duration;

/// Writes a count with a comma between groups of three digits: `1,234,567`.
pub fn count(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().unwrap_or(0).to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Writes a count of a queue's jobs, and marks an estimate with `~`. The server counts the first 100 jobs of each queue
/// one by one, so a count of at most 100 is always exact.
pub fn about(n: u64, is_estimate: bool) -> String {
    if is_estimate && n > 100 { format!("~{}", count(n)) } else { count(n) }
}

/// Writes a rate per second: `0`, `0.25/s`, `12/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate <= 0.0 => "0".to_owned(),
        rate if rate < 0.01 => format!("{:.1}/h", rate * 3600.0),
        rate if rate < 1.0 => format!("{rate:.2}/s"),
        rate if rate < 10.0 => format!("{rate:.1}/s"),
        rate => format!("{}/s", count(rate.round() as u64)),
    }
}

/// Writes a length of time with its two largest units: `0.4 ms`, `12 ms`, `3.2 s`, `4 min 10 s`, `2 h 5 min`,
/// `3 d 4 h`.
pub fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let pair = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {part}"),
    };
    match seconds {
        s if s.is_nan() || s <= 0.0 => "0 s".to_owned(),
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 59.95 => format!("{s:.1} s"),
        s if s < 3599.5 => pair(whole / 60, "min", whole % 60, "s"),
        s if s < 86_399.5 => pair(whole / 3600, "h", whole % 3600 / 60, "min"),
        _ => pair(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

/// Writes a length of time, as [`seconds`] does.
pub fn duration(duration: Duration) -> String {
    seconds(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_groups_of_three_digits() {
        let written = [0, 7, 999, 1000, 123_456, 1_234_567].map(|n: u64| count(n));
        assert_eq!(written, ["0", "7", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!([about(99, true), about(9_999, true), about(10_001, false)], ["99", "~9,999", "10,001"]);
    }

    #[test]
    fn times_and_rates_have_the_unit_that_fits_them() {
        let times = [0.0, 0.0004, 0.0123, 0.9996, 3.21, 59.96, 250.0, 7500.0, 273_600.0].map(seconds);
        let written = ["0 s", "0.4 ms", "12 ms", "1.0 s", "3.2 s", "1 min", "4 min 10 s", "2 h 5 min", "3 d 4 h"];
        assert_eq!(times, written);
        assert_eq!([0.0, 0.001, 0.25, 2.5, 1234.5].map(rate), ["0", "3.6/h", "0.25/s", "2.5/s", "1,235/s"]);
    }
}
