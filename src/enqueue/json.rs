//! Jobs as JSON, for clients that Reveille does not know: the parameter of the SQL function `reveille.enqueue_json`.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Enqueuer;
use crate::database::insert::seconds;
use crate::error::{Error, Result};
use crate::job::{Due, Enqueueable, MAX_PAYLOAD, NewJob, Priority, UniqueMode, UniqueUntil};

/// The limit that the table sets for a payload, in bytes.
const LARGEST_PAYLOAD: usize = 8 * 1024 * 1024;

impl NewJob {
    /// Returns the job as JSON, to enqueue it by a client that Reveille does not know, such as an object-relational
    /// mapper. The text is the parameter of one statement, in any transaction of that client:
    /// `select id, existed from reveille.enqueue_json($1::text::jsonb)`.
    ///
    /// Numbers in the payload and the metadata keep all their digits. In a handler, the job's parent is the job that
    /// the handler works. The job passes no middleware: for that, use [`Enqueuer::to_json`]. For many jobs, use
    /// [`to_json_all`].
    ///
    /// ```
    /// use reveille::job::NewJob;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
    /// # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
    ///
    /// let json = NewJob::of(&SendWelcome { user_id: 7 })?.queue("mail").to_json()?;
    /// assert_eq!(json, r#"{"kind":"send_welcome","payload":{"user_id":7},"queue":"mail"}"#);
    /// # Ok::<(), reveille::Error>(())
    /// ```
    ///
    /// # Errors
    /// Invalid if the job cannot be stored.
    pub fn to_json(&self) -> Result<String> {
        Enqueuer::new().to_json(self)
    }
}

/// Returns many jobs as one JSON array, to enqueue them by a client that Reveille does not know. The text is the
/// parameter of one statement: `select place, id, existed from reveille.enqueue_json($1::text::jsonb)`.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// let jobs: Vec<SendWelcome> = (1..=1000).map(|user_id| SendWelcome { user_id }).collect();
/// let json = reveille::enqueue::to_json_all(&jobs)?;
/// # Ok::<(), reveille::Error>(())
/// ```
///
/// # Errors
/// As in [`NewJob::to_json`].
pub fn to_json_all<'a, J: Enqueueable + 'a>(jobs: impl IntoIterator<Item = &'a J>) -> Result<String> {
    Enqueuer::new().to_json_all(jobs)
}

impl Enqueuer {
    /// Returns a job as JSON, as [`NewJob::to_json`] does, through the middleware.
    ///
    /// # Errors
    /// Refused if a middleware refuses the job; else as in [`NewJob::to_json`].
    pub fn to_json(&self, job: &impl Enqueueable) -> Result<String> {
        let mut json = Vec::new();
        write(&self.prepare(job)?, &mut json)?;
        text(json)
    }

    /// Returns many jobs as one JSON array, as [`to_json_all`] does, through the middleware.
    ///
    /// # Errors
    /// Refused if a middleware refuses one of the jobs; else as in [`NewJob::to_json`].
    pub fn to_json_all<'a, J: Enqueueable + 'a>(&self, jobs: impl IntoIterator<Item = &'a J>) -> Result<String> {
        let mut json = vec![b'['];
        for job in jobs {
            if json.len() > 1 {
                json.push(b',');
            }
            write(&self.prepare(job)?, &mut json)?;
        }
        json.push(b']');
        text(json)
    }
}

fn text(json: Vec<u8>) -> Result<String> {
    String::from_utf8(json).map_err(|error| Error::invalid(format!("the job is not UTF-8: {error}")))
}

/// Writes a job that was checked. Members that have the default of `reveille.enqueue` are left out.
fn write(job: &NewJob, json: &mut Vec<u8>) -> Result<()> {
    json.extend_from_slice(b"{\"kind\":");
    value(&job.kind, json)?;
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

fn value(value: &impl Serialize, json: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(json, value).map_err(|error| Error::invalid(format!("the job is not JSON: {error}")))
}

/// The members of a JSON object behind its first member.
struct Members<'a>(&'a mut Vec<u8>);

impl Members<'_> {
    fn add(&mut self, name: &str, member: Option<impl Serialize>) -> Result<()> {
        let Some(member) = member else { return Ok(()) };
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        value(&member, self.0)
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
    use crate::job::Payload;

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

    #[test]
    fn a_job_is_written_with_the_text_of_its_payload_and_without_defaults() {
        let digits = r#"{ "n": 12345678901234567890.0123456789012345 }"#;
        let job = NewJob::new("a \"kind\"", Payload::parse(digits).unwrap());
        assert_eq!(job.to_json().unwrap(), format!(r#"{{"kind":"a \"kind\"","payload":{digits}}}"#));
        let job = NewJob::new("k", Payload::encode(&()).unwrap())
            .queue("q")
            .delay(Duration::from_millis(1500))
            .priority(Priority::Urgent)
            .max_attempts(3)
            .timeout(Duration::from_secs(30))
            .unique_key("u")
            .unique_mode(UniqueMode::Debounce)
            .unique_until(UniqueUntil::Started)
            .key("é")
            .tag("a")
            .parent(7);
        let expected = concat!(
            r#"{"kind":"k","payload":null,"queue":"q","delay":1.5,"priority":0,"max_attempts":3,"timeout":30.0,"#,
            r#""unique_key":"u","unique_mode":"debounce","unique_until":"started","key":"é","tags":["a"],"#,
            r#""parent_id":7}"#
        );
        assert_eq!(job.to_json().unwrap(), expected);
        assert_eq!(to_json_all([&job, &job]).unwrap(), format!("[{expected},{expected}]"));
        assert_eq!(to_json_all::<NewJob>([]).unwrap(), "[]");
    }

    #[test]
    fn a_job_that_cannot_be_stored_is_no_json() {
        let job = NewJob::new("", Payload::encode(&()).unwrap());
        assert!(job.to_json().unwrap_err().is_invalid());
        let large = NewJob::new("k", Payload::encode(&"x".repeat(2 * MAX_PAYLOAD)).unwrap());
        assert!(large.to_json().unwrap_err().is_invalid());
        let json = Enqueuer::new().max_payload(LARGEST_PAYLOAD).to_json(&large).unwrap();
        assert!(json.ends_with(r#","max_payload":8388608}"#));
    }
}
