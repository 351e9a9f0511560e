use std::time::{Duration, SystemTime};

const SECONDS_A_DAY: i64 = 86_400;

/// Reads a time in the form that Postgres uses in JSON: `2026-11-23T08:59:58.123456+00:00`.
///
/// Returns `None` for any other text, and for `infinity` and `-infinity`.
pub(super) fn parse(text: &str) -> Option<SystemTime> {
    let (text, is_bc) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (date, time) = text.split_once('T')?;
    let (time, zone) = time.split_at(time.find(['+', '-'])?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let year = if is_bc { 1 - year } else { year };
    let since_midnight = seconds(time)?;
    let east_of_utc = match zone.strip_prefix('-') {
        Some(zone) => -seconds(zone)?,
        None => seconds(zone.strip_prefix('+')?)?,
    };
    let seconds = days_since_1970(year, month, day) * SECONDS_A_DAY + since_midnight - east_of_utc;
    let nanos = format!("{fraction:0<9}").parse().ok()?;
    let whole = match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
        Err(_) => SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(seconds.unsigned_abs())),
    };
    whole?.checked_add(Duration::from_nanos(nanos))
}

fn numbers<const COUNT: usize>(text: &str, separator: char) -> Option<[i64; COUNT]> {
    let numbers: Option<Vec<i64>> = text.split(separator).map(|part| part.parse::<u32>().ok().map(i64::from)).collect();
    numbers?.try_into().ok()
}

/// Returns the seconds of a time of day, such as `08:59:58`, or of a zone's offset, such as `01:00`.
fn seconds(text: &str) -> Option<i64> {
    let [hours, minutes, seconds] = numbers(text, ':').or_else(|| {
        let [hours, minutes] = numbers(text, ':')?;
        Some([hours, minutes, 0])
    })?;
    Some(hours * 3600 + minutes * 60 + seconds)
}

/// Counts days in the Gregorian calendar, as Postgres does for all times.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // A year that begins in March has its leap day at its end.
    let (year, months_since_march) = (year - i64::from(month < 3), (month + 9) % 12);
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since_1970(text: &str) -> Option<f64> {
        let time = parse(text)?;
        Some(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => after.as_secs_f64(),
            Err(error) => -error.duration().as_secs_f64(),
        })
    }

    #[test]
    fn a_time_is_read_as_postgres_prints_it() {
        for (text, expected) in [
            ("1970-01-01T00:00:00+00:00", 0.0),
            ("1969-12-31T23:59:59.25+00:00", -0.75),
            ("2024-02-29T12:00:00.5+01:00", 1_709_204_400.5),
            ("2026-11-23T08:59:58.123456-05:30", 1_795_444_198.123_456),
            ("1900-03-01T00:00:00+00:53:28", -2_203_894_408.0),
            ("0044-03-15T00:00:00+00:00 BC", -63_517_824_000.0),
            ("12026-01-01T00:00:00+00:00", 317_336_745_600.0),
        ] {
            assert_eq!(since_1970(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_finite_time_is_none() {
        for text in
            ["infinity", "-infinity", "", "T", "2026-11-23", "2026-11-23T08:59:58", "soon+", "2026-x-23T0:0:0+0:0"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = parse(&text);
        }
    }
}
