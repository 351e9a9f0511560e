//! Points in time: as an age for a quick look, with the exact time for the reader's zone.

use std::time::SystemTime;

use jiff::Timestamp;
use maud::{Markup, html};

use super::number;

/// Draws a time as its distance from now, `3 min ago` or `in 2 h`. The script puts the time in the viewer's zone into
/// the title; without the script the title has the time in UTC.
pub fn ago(time: Option<SystemTime>) -> Markup {
    let Some(time) = time else { return none() };
    let distance = match SystemTime::now().duration_since(time) {
        Ok(past) if past.as_secs() < 1 => "now".to_owned(),
        Ok(past) => format!("{} ago", coarse(past.as_secs())),
        Err(future) if future.duration().as_secs() < 1 => "now".to_owned(),
        Err(future) => format!("in {}", coarse(future.duration().as_secs())),
    };
    html! { time datetime=(iso(time)) title=(utc(time)) { (distance) } }
}

/// Draws the exact time. The script shows it in the viewer's zone; without the script it is in UTC.
pub fn exact(time: Option<SystemTime>) -> Markup {
    let Some(time) = time else { return none() };
    html! { time.exact datetime=(iso(time)) title=(utc(time)) { (utc(time)) } }
}

/// Draws a time for the axis of a chart. The script shows it in the viewer's zone.
pub fn short(time: SystemTime) -> Markup {
    html! { time.short datetime=(iso(time)) title=(utc(time)) { (written(time, "%b %-d %H:%M UTC")) } }
}

/// Draws the absence of a value.
pub fn none() -> Markup {
    html! { span.none { "–" } }
}

/// Writes a time for a machine: `2026-11-23T07:59:58.123Z`.
pub fn iso(time: SystemTime) -> String {
    written(time, "%Y-%m-%dT%H:%M:%S%.3fZ")
}

/// Writes a time for people: `2026-11-23 07:59:58 UTC`.
pub fn utc(time: SystemTime) -> String {
    written(time, "%Y-%m-%d %H:%M:%S UTC")
}

fn written(time: SystemTime, format: &str) -> String {
    match Timestamp::try_from(time) {
        Ok(time) => time.strftime(format).to_string(),
        // Postgres holds years up to 294276, jiff up to 9999.
        Err(_) => "a time beyond the year 9999".to_owned(),
    }
}

/// Writes a length of time with its largest unit only.
fn coarse(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => number::seconds((seconds / 60 * 60) as f64),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_drawn_with_its_distance_and_its_exact_value() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_000_000_250);
        assert_eq!([iso(time), utc(time)], ["2026-11-18T11:06:40.250Z", "2026-11-18 11:06:40 UTC"]);
        let past = ago(Some(SystemTime::now() - Duration::from_secs(250))).into_string();
        assert!(past.contains(">4 min ago<"), "{past}");
        let future = ago(Some(SystemTime::now() + Duration::from_secs(7_500))).into_string();
        assert!(future.contains(">in 2 h 4 min<") || future.contains(">in 2 h 5 min<"), "{future}");
        assert!(exact(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1 << 40))).into_string().contains("9999"));
    }
}
