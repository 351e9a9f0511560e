//! The ticks of a schedule: by a cron text in a time zone, or at a fixed interval.

use std::time::{Duration, SystemTime};

use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Year};
use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, TimeZone};

use super::{LONGEST, SHORTEST, Timing};
use crate::error::{Error, Result};

/// The ticks of a schedule's timing.
pub(crate) enum Ticks {
    /// Ticks by local time.
    Cron { cron: Box<Cron>, zone: TimeZone, text: String },
    /// Ticks by elapsed time.
    Every { micros: u128, from: SystemTime },
}

/// The lengths of the windows before a limit in which the last tick is searched, one after the other. If no window
/// holds a tick, the search goes through all ticks from the first tick on.
const WINDOWS: [Duration; 4] = [
    Duration::from_secs(60),
    Duration::from_secs(3600),
    Duration::from_secs(86_400),
    Duration::from_secs(400 * 86_400),
];

impl Ticks {
    /// Makes the ticks of a timing. An interval is counted from `from`.
    pub(crate) fn new(timing: &Timing, time_zone: &str, from: SystemTime) -> Result<Ticks> {
        match timing {
            Timing::Every(every) if (SHORTEST..=LONGEST).contains(every) => {
                Ok(Ticks::Every { micros: every.as_micros(), from })
            }
            Timing::Every(every) => {
                Err(Error::invalid(format!("the interval must be a millisecond to a hundred years, not {every:?}")))
            }
            Timing::Cron(text) => {
                if differs_by_host(time_zone) {
                    return Err(Error::invalid(format!(
                        "the time zone {time_zone:?} depends on the host; use a name like UTC or Europe/Berlin"
                    )));
                }
                let zone = TimeZone::get(time_zone).map_err(|_| {
                    Error::invalid(format!("unknown time zone {time_zone:?}; use a name like UTC or Europe/Berlin"))
                })?;
                Ok(Ticks::Cron { cron: read(text)?.into(), zone, text: text.clone() })
            }
        }
    }

    /// Returns the first tick after a time.
    ///
    /// # Errors
    /// Invalid if no tick follows.
    pub(crate) fn after(&self, time: SystemTime) -> Result<SystemTime> {
        match self {
            Ticks::Every { micros, from } => {
                let elapsed = time.duration_since(*from).unwrap_or_default().as_micros();
                let until = u64::try_from((elapsed / micros + 1) * micros).unwrap_or(u64::MAX);
                from.checked_add(Duration::from_micros(until)).ok_or_else(|| never("the interval"))
            }
            Ticks::Cron { cron, zone, text } => {
                let never = |_| never(&format!("cron text {text:?}"));
                let time = Timestamp::try_from(time).map_err(|_| never(CronError::InvalidDate))?;
                let tick = if runs_by_the_clock(cron) {
                    at_local_time(cron, zone, time)
                } else {
                    at_each_instant(cron, zone, time)
                };
                Ok(tick.map_err(never)?.into())
            }
        }
    }

    /// Returns the last tick that is not after `limit`. `first` is a tick that is not after `limit` either.
    pub(crate) fn last_until(&self, first: SystemTime, limit: SystemTime) -> Result<SystemTime> {
        let mut last = first;
        for window in WINDOWS {
            let Some(from) = limit.checked_sub(window).filter(|from| *from > first) else { break };
            let tick = self.after(from)?;
            if tick <= limit {
                last = tick;
                break;
            }
        }
        loop {
            let tick = self.after(last)?;
            if tick > limit {
                return Ok(last);
            }
            last = tick;
        }
    }
}

/// True if this host does not know the time zone. Another host may know it.
pub(crate) fn lacks_zone(timing: &Timing, time_zone: &str) -> bool {
    matches!(timing, Timing::Cron(_)) && !differs_by_host(time_zone) && TimeZone::get(time_zone).is_err()
}

/// True if the name belongs to a file of the host and not to a zone of the IANA database. `localtime` is the zone of
/// the host, and `posixrules` is a pattern for other zones. The zones under `right` count leap seconds, which Postgres
/// does not count.
fn differs_by_host(time_zone: &str) -> bool {
    let name = time_zone.to_ascii_lowercase();
    matches!(name.as_str(), "localtime" | "posixrules") || name.starts_with("right/")
}

fn never(what: &str) -> Error {
    Error::invalid(format!("{what} names a time that never comes; change it"))
}

fn read(text: &str) -> Result<Cron> {
    if text.trim_start().to_ascii_lowercase().starts_with("@every") {
        return Err(Error::invalid(format!(
            "cron text {text:?} is an interval; use --every 5m, Schedule::every, or in SQL every => '5 minutes'"
        )));
    }
    let known = if text.trim().eq_ignore_ascii_case("@midnight") { "@daily" } else { text };
    CronParser::builder().year(Year::Disallowed).build().parse(known).map_err(|error| {
        let reason = match error {
            CronError::InvalidPattern(reason) | CronError::ComponentError(reason) => reason,
            error => error.to_string(),
        };
        let reason = reason.trim_end_matches('.');
        Error::invalid(format!(
            "cron text {text:?} cannot be read: {reason}; write minute, hour, day, month and weekday, like 0 3 * * *"
        ))
    })
}

/// True if a cron text means times of day: none of its seconds, minutes and hours begins with a star. This is cron's
/// traditional rule. Other cron texts have a tick at each instant whose local time fits.
fn runs_by_the_clock(cron: &Cron) -> bool {
    let pattern = &cron.pattern;
    [&pattern.seconds, &pattern.minutes, &pattern.hours].iter().all(|field| !field.from_wildcard)
}

/// Returns the next tick at a local time. All local times in a gap of the clock give one tick, right after the gap. A
/// local time that exists twice gives one tick, at its first instant.
fn at_local_time(cron: &Cron, zone: &TimeZone, time: Timestamp) -> Result<Timestamp, CronError> {
    let mut local = zone.to_datetime(time);
    loop {
        local = cron.find_next_occurrence(&local, false)?;
        let out_of_range = |_| CronError::InvalidDate;
        let tick = match zone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).map_err(out_of_range)?,
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).map_err(out_of_range)?,
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the offset after the gap, this local time is an instant just before the clock changes.
                let before = after.to_timestamp(local).map_err(out_of_range)?;
                zone.following(before).next().map_or(before, |transition| transition.timestamp())
            }
        };
        // In a repeated hour, or right after a gap, the found tick may lie before `time`.
        if tick > time {
            return Ok(tick);
        }
    }
}

fn at_each_instant(cron: &Cron, zone: &TimeZone, time: Timestamp) -> Result<Timestamp, CronError> {
    Ok(cron.find_next_occurrence(&time.to_zoned(zone.clone()), false)?.timestamp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BERLIN: &str = "Europe/Berlin";
    const NEW_YORK: &str = "America/New_York";

    fn ticks(cron: &str, zone: &str) -> Ticks {
        Ticks::new(&Timing::Cron(cron.into()), zone, SystemTime::UNIX_EPOCH).unwrap()
    }

    fn time(utc: &str) -> SystemTime {
        utc.parse::<Timestamp>().unwrap().into()
    }

    /// Returns the ticks between two times, in UTC, as `27T01:30`.
    fn between(ticks: &Ticks, from: &str, until: &str) -> Vec<String> {
        let (mut tick, mut found) = (time(from), Vec::new());
        loop {
            tick = ticks.after(tick).unwrap();
            if tick >= time(until) {
                return found;
            }
            found.push(Timestamp::try_from(tick).unwrap().strftime("%dT%H:%M").to_string());
        }
    }

    /// Returns the ticks on the days around a change of the clock.
    fn around(cron: &str, zone: &str, month: &str, days: [u32; 2]) -> Vec<String> {
        let [from, until] = days.map(|day| format!("{month}-{day:02}T12:00:00Z"));
        between(&ticks(cron, zone), &from, &until)
    }

    #[test]
    fn a_local_time_in_a_gap_ticks_right_after_the_gap() {
        // In Berlin, the clock goes from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC. In New York, it goes from 02:00
        // to 03:00 on 8 March, at 07:00 UTC.
        let berlin = |cron| around(cron, BERLIN, "2026-03", [27, 30]);
        assert_eq!(berlin("30 2 * * *"), ["28T01:30", "29T01:00", "30T00:30"]);
        assert_eq!(berlin("0 2 * * *"), ["28T01:00", "29T01:00", "30T00:00"]);
        assert_eq!(berlin("59 59 2 * * *"), ["28T01:59", "29T01:00", "30T00:59"]);
        assert_eq!(around("30 2 * * *", NEW_YORK, "2026-03", [6, 9]), ["07T07:30", "08T07:00", "09T06:30"]);
    }

    #[test]
    fn several_local_times_in_a_gap_give_one_tick() {
        let berlin = |cron| around(cron, BERLIN, "2026-03", [28, 29]);
        assert_eq!(berlin("15,45 2 * * *"), ["29T01:00"]);
        assert_eq!(berlin("15 1,2,3 * * *"), ["29T00:15", "29T01:00", "29T01:15"]);
        assert_eq!(berlin("0 2,3 * * *"), ["29T01:00"]);
    }

    #[test]
    fn a_local_time_that_exists_twice_ticks_the_first_time() {
        // In Berlin, the clock goes from 03:00 back to 02:00 on 25 October 2026, at 01:00 UTC. In New York, it goes
        // from 02:00 back to 01:00 on 1 November, at 06:00 UTC.
        let berlin = |cron| around(cron, BERLIN, "2026-10", [23, 26]);
        assert_eq!(berlin("30 2 * * *"), ["24T00:30", "25T00:30", "26T01:30"]);
        assert_eq!(berlin("0 2,3 * * *"), ["24T00:00", "24T01:00", "25T00:00", "25T02:00", "26T01:00", "26T02:00"]);
        let new_york = between(&ticks("30 1 * * *", NEW_YORK), "2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z");
        assert_eq!(new_york, ["01T05:30", "02T06:30"]);
        let second_time = time("2026-10-25T01:10:00Z");
        assert_eq!(ticks("30 2 * * *", BERLIN).after(second_time).unwrap(), time("2026-10-26T01:30:00Z"));
    }

    #[test]
    fn hourly_and_minutely_ticks_go_by_elapsed_time() {
        let hourly = |month, days| around("30 * * * *", BERLIN, month, days).len();
        assert_eq!((hourly("2026-03", [28, 29]), hourly("2026-10", [24, 25])), (24, 24));
        let in_gap = between(&ticks("*/30 * * * *", BERLIN), "2026-03-29T00:20:00Z", "2026-03-29T01:40:00Z");
        assert_eq!(in_gap, ["29T00:30", "29T01:00", "29T01:30"]);
        let minutes = between(&ticks("* * * * *", NEW_YORK), "2026-11-01T04:59:30Z", "2026-11-01T07:00:00Z");
        assert_eq!(minutes.len(), 120, "of both hours");
        let repeated = between(&ticks("*/20 2 * * *", BERLIN), "2026-10-24T22:00:00Z", "2026-10-25T12:00:00Z");
        assert_eq!(repeated, ["25T00:00", "25T00:20", "25T00:40", "25T01:00", "25T01:20", "25T01:40"]);
        let skipped = between(&ticks("*/20 2 * * *", BERLIN), "2026-03-28T22:00:00Z", "2026-03-29T12:00:00Z");
        assert!(skipped.is_empty(), "{skipped:?}");
    }

    #[test]
    fn seconds_names_and_nicknames_are_read() {
        let first = |cron: &str| ticks(cron, "UTC").after(time("2026-01-01T00:00:00.5Z")).unwrap();
        assert_eq!(first("*/10 * * * * *"), time("2026-01-01T00:00:10Z"));
        assert_eq!(first("0 0 * * MON-FRI"), time("2026-01-02T00:00:00Z"));
        assert_eq!(first("0 12 1 FEB *"), time("2026-02-01T12:00:00Z"));
        assert_eq!(first("0 0 29 2 *"), time("2028-02-29T00:00:00Z"));
        for (nickname, next) in [("@hourly", "2026-01-01T01:00:00Z"), ("@daily", "2026-01-02T00:00:00Z")] {
            assert_eq!(first(nickname), time(next));
        }
        assert_eq!((first("@midnight"), first("@weekly")), (first("@daily"), time("2026-01-04T00:00:00Z")));
        assert_eq!((first("@monthly"), first("@yearly")), (time("2026-02-01T00:00:00Z"), time("2027-01-01T00:00:00Z")));
    }

    #[test]
    fn an_unreadable_or_impossible_time_is_refused_in_one_line() {
        for text in ["", "* * * *", "61 * * * *", "* * * * * * *", "0 25 * * *", "whenever", "@never", "0 0 * * XYZ"] {
            let error = Ticks::new(&Timing::Cron(text.into()), "UTC", SystemTime::UNIX_EPOCH).err().unwrap();
            assert!(error.is_invalid() && error.to_string().contains("cannot be read"), "{text}: {error}");
        }
        let error = ticks("0 0 30 2 *", BERLIN).after(time("2026-01-01T00:00:00Z")).unwrap_err();
        assert!(error.to_string().contains("never comes"), "{error}");
        let error = Ticks::new(&Timing::Cron("@daily".into()), "Mars/Olympus", SystemTime::UNIX_EPOCH).err().unwrap();
        assert!(error.to_string().contains("unknown time zone"), "{error}");
    }

    #[test]
    fn an_interval_is_counted_from_its_beginning() {
        let from = time("2026-01-01T00:00:00.25Z");
        let every = Ticks::new(&Timing::Every(Duration::from_millis(1500)), "", from).unwrap();
        assert_eq!(every.after(from - Duration::from_secs(9)).unwrap(), from + Duration::from_millis(1500));
        assert_eq!(every.after(from).unwrap(), from + Duration::from_millis(1500));
        assert_eq!(every.after(from + Duration::from_millis(1500)).unwrap(), from + Duration::from_secs(3));
        let year = Duration::from_secs(365 * 86_400);
        assert_eq!(every.last_until(from, from + year).unwrap(), from + year);
    }

    #[test]
    fn the_last_of_many_ticks_is_found_at_once() {
        let last = |cron, first, limit| ticks(cron, BERLIN).last_until(time(first), time(limit)).unwrap();
        let (years_ago, now) = ("2020-01-01T00:00:00Z", "2026-05-05T10:20:30.5Z");
        assert_eq!(last("* * * * * *", years_ago, now), time("2026-05-05T10:20:30Z"));
        assert_eq!(last("0 3 * * *", "2020-01-01T02:00:00Z", now), time("2026-05-05T01:00:00Z"));
        assert_eq!(last("0 0 29 2 *", "2020-02-28T23:00:00Z", now), time("2024-02-28T23:00:00Z"));
        assert_eq!(last("@daily", "2026-05-04T22:00:00Z", now), time("2026-05-04T22:00:00Z"), "the first is the last");
    }

    proptest! {
        #[test]
        fn a_tick_is_after_the_time_and_there_is_none_between(
            minute in prop_oneof!["[0-5]?[0-9]", "\\*/[1-9]", "\\*", "[0-9],[3-5][0-9]"],
            hour in prop_oneof!["[0-9]", "1[0-9]", "\\*", "1,2,3", "\\*/2"],
            seconds in 1_700_000_000u64..1_900_000_000,
            millis in 0u64..1000,
            zone in prop_oneof![Just(BERLIN), Just(NEW_YORK), Just("Australia/Lord_Howe"), Just("UTC")],
        ) {
            let ticks = ticks(&format!("{minute} {hour} * * *"), zone);
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
            let tick = ticks.after(time).unwrap();
            prop_assert!(tick > time);
            let between = time + (tick - Duration::from_secs(1)).duration_since(time).unwrap_or_default() / 2;
            prop_assert_eq!(ticks.after(between).unwrap(), tick);
            prop_assert_eq!(ticks.last_until(tick, tick).unwrap(), tick);
        }

        #[test]
        fn any_text_is_read_or_refused(
            text in prop_oneof![".*", "[-0-9*/,LW#?+A-Z ]{1,30}", "([-0-9*/,L#]{1,4} ){5}"],
        ) {
            if let Ok(ticks) = Ticks::new(&Timing::Cron(text), BERLIN, SystemTime::UNIX_EPOCH) {
                let _ = ticks.after(SystemTime::UNIX_EPOCH);
            }
        }
    }
}
