//! Jobs as JSON, the parameter of SQL functions that take many jobs.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::insert::seconds;
use crate::error::{Error, Result};
use crate::job::{Due, MAX_PAYLOAD, NewJob, Priority, UniqueMode, UniqueUntil};

/// The limit that the table sets for a payload, in bytes.
pub(crate) const LARGEST_PAYLOAD: usize = 8 * 1024 * 1024;

/// Writes a job that was checked. Members that have the default of `reveille.enqueue` are left out.
pub(crate) fn write_job(job: &NewJob, json: &mut Vec<u8>) -> Result<()> {
    json.extend_from_slice(b"{\"kind\":");
    write_value(&job.kind, json)?;
    json.extend_from_slice(b",\"payload\":");
    json.extend_from_slice(job.payload.as_bytes());
    let mut members = Members(json);
    members.add("queue", Some(&job.queue).filter(|queue| *queue != "default"))?;
    match job.due {
        Due::In(delay) => members.add("delay", (!delay.is_zero()).then(|| seconds(delay)))?,
        Due::At(time) => members.add("available_at", Some(time_text(time)))?,
    }
    members.add("priority", Some(job.priority.level()).filter(|level| *level != Priority::default().level()))?;
    members.add("max_attempts", Some(job.max_attempts).filter(|attempts| *attempts != 20))?;
    members.add("timeout", job.timeout.map(seconds))?;
    members.add("unique_key", job.unique_key.as_ref())?;
    members.add("unique_mode", Some(job.unique_mode.name()).filter(|_| job.unique_mode != UniqueMode::Keep))?;
    members.add("unique_until", Some(job.unique_until.name()).filter(|_| job.unique_until != UniqueUntil::Finished))?;
    members.add("key", job.key.as_ref())?;
    members.add("tags", Some(&job.tags).filter(|tags| !tags.is_empty()))?;
    members.add("metadata", job.metadata.as_ref())?;
    members.add("parent_id", job.parent_id)?;
    // This program has measured the payload as it wrote it. The server measures it with a space behind each comma and
    // colon.
    let is_large = job.payload.as_bytes().len() > MAX_PAYLOAD / 2 && job.payload.written_len() > MAX_PAYLOAD;
    members.add("max_payload", is_large.then_some(LARGEST_PAYLOAD))?;
    members.0.push(b'}');
    Ok(())
}

pub(crate) fn write_value(value: &impl Serialize, json: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(json, value).map_err(|error| Error::invalid(format!("the job is not JSON: {error}")))
}

/// The members of a JSON object behind its first member.
pub(crate) struct Members<'a>(pub(crate) &'a mut Vec<u8>);

impl Members<'_> {
    pub(crate) fn add(&mut self, name: &str, member: Option<impl Serialize>) -> Result<()> {
        let Some(member) = member else { return Ok(()) };
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        write_value(&member, self.0)
    }
}

const MICROS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;
/// The seconds from 1970 to 2000, the year from which Postgres counts.
const SECONDS_TO_2000: u64 = 946_684_800;

/// Returns a time as Postgres reads it: `2026-11-23 08:59:58.123456+00`, with ` BC` behind a time before the year 1.
/// As in the binary format, parts of a microsecond are cut off in the direction of the year 2000.
fn time_text(time: SystemTime) -> String {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let since_2000 = match time.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS_TO_2000)) {
        Ok(after) => micros(after),
        Err(before) => -micros(before.duration()),
    };
    let (seconds, micros) = (since_2000.div_euclid(MICROS_A_SECOND), since_2000.rem_euclid(MICROS_A_SECOND));
    let seconds = seconds.saturating_add_unsigned(SECONDS_TO_2000);
    let (year, month, day) = date(seconds.div_euclid(SECONDS_A_DAY));
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let second = seconds.rem_euclid(SECONDS_A_DAY);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}+00{era}")
}

/// Returns the year, the month and the day of a number of days since 1970-01-01, in the Gregorian calendar. This is
/// Howard Hinnant's algorithm `civil_from_days`, in which a year begins in March and has its leap day at its end.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (400 * era + year + i64::from(month <= 2), month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> SystemTime {
        let duration = Duration::from_secs_f64(seconds.abs());
        if seconds < 0.0 { SystemTime::UNIX_EPOCH - duration } else { SystemTime::UNIX_EPOCH + duration }
    }

    #[test]
    fn a_time_is_written_as_postgres_reads_it() {
        for (seconds, expected) in [
            (0.0, "1970-01-01 00:00:00.000000+00"),
            (-0.75, "1969-12-31 23:59:59.250000+00"),
            (951_782_400.5, "2000-02-29 00:00:00.500000+00"),
            (1_709_204_400.5, "2024-02-29 11:00:00.500000+00"),
            (-63_517_824_000.0, "0044-03-15 00:00:00.000000+00 BC"),
            (317_336_745_600.0, "12026-01-01 00:00:00.000000+00"),
        ] {
            assert_eq!(time_text(at(seconds)), expected);
        }
        let before_2000 = at(946_684_799.0) + Duration::from_nanos(999_999_001);
        assert_eq!(time_text(before_2000), "2000-01-01 00:00:00.000000+00", "nanoseconds are cut off towards 2000");
    }
}
