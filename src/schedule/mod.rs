//! Schedules: they enqueue recurring jobs, by a cron text in a time zone or at a fixed interval.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct SendWelcome { user_id: i64 }
//! # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
//! # fn main() -> reveille::Result<()> {
//! use reveille::schedule::Schedule;
//!
//! // Each working day at half past seven in Berlin, in summer and in winter.
//! let schedule = Schedule::cron("welcome", "30 7 * * MON-FRI", &SendWelcome { user_id: 7 })?
//!     .time_zone("Europe/Berlin");
//! # drop(schedule);
//! # Ok(())
//! # }
//! ```
//!
//! A worker fires the schedules that it is built with
//! ([`WorkerBuilder::schedule`](crate::worker::WorkerBuilder::schedule)). The guide:
//! [schedules](crate::guide::features::schedules).

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::job::{Due, Enqueueable, MAX_PAYLOAD, NewJob, Priority, check_name};

mod ticks;

pub(crate) use ticks::{Ticks, lacks_zone};

/// A schedule, which enqueues a job at each tick. A worker declares a schedule (`WorkerBuilder::schedule`), or
/// `Admin::add_schedule` adds it.
///
/// ```
/// use reveille::schedule::{CatchUp, Schedule};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] struct Report { pages: u32 }
/// # impl reveille::Job for Report { const KIND: &'static str = "report"; }
///
/// # fn example() -> reveille::Result<()> {
/// let nightly = Schedule::cron("nightly-report", "0 3 * * *", &Report { pages: 10 })?
///     .time_zone("Europe/Berlin")
///     .catch_up(CatchUp::One);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Schedule {
    /// The name of the schedule, 1 to 128 characters.
    pub name: String,
    /// The rule for the ticks: a cron text or an interval.
    pub timing: Timing,
    /// The time zone of the cron text, by its name in the IANA database.
    pub time_zone: String,
    /// The catch-up: what the schedule does about missed ticks.
    pub catch_up: CatchUp,
    /// The job that is enqueued for each tick, due at the tick's time. The job has no unique key.
    pub job: NewJob,
    /// True if the schedule's jobs pass the middleware of the worker that enqueues them. In this case, only workers
    /// that declare the schedule enqueue its jobs. A worker with middleware sets this field for the schedules that it
    /// declares.
    pub through_middleware: bool,
}

/// The rule for the ticks of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timing {
    /// Five fields (minute, hour, day of the month, month, day of the week), or six with seconds first; or `@hourly`,
    /// `@daily`, `@weekly`, `@monthly`, `@yearly`.
    Cron(String),
    /// A fixed interval, a millisecond to a hundred years. It is counted from the time at which the schedule was added,
    /// changed or resumed.
    Every(Duration),
}

/// The catch-up of a schedule: what it does about ticks that were missed because no worker ran.
///
/// A tick that is at most three seconds late is not missed: the tick's job is enqueued in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CatchUp {
    /// Missed ticks are dropped. The schedule goes on with the next tick.
    Skip,
    /// One job is enqueued for all missed ticks, due at the time of the last missed tick.
    #[default]
    One,
    /// One job is enqueued for each missed tick, oldest first.
    All,
}

impl CatchUp {
    pub(crate) fn name(self) -> &'static str {
        match self {
            CatchUp::Skip => "skip",
            CatchUp::One => "one",
            CatchUp::All => "all",
        }
    }
}

impl std::str::FromStr for CatchUp {
    type Err = Error;

    /// Reads a name: `skip`, `one` or `all`.
    fn from_str(text: &str) -> Result<CatchUp> {
        match text {
            "skip" => Ok(CatchUp::Skip),
            "one" => Ok(CatchUp::One),
            "all" => Ok(CatchUp::All),
            _ => Err(Error::invalid(format!("unknown catch-up {text:?}; use skip, one or all"))),
        }
    }
}

/// The shortest interval that the table accepts.
const SHORTEST: Duration = Duration::from_millis(1);
/// The longest interval that the table accepts: a hundred years.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

impl Schedule {
    /// Makes a schedule by a cron text, in UTC unless another [time zone](Schedule::time_zone) is set.
    ///
    /// # Errors
    /// Invalid if the cron text cannot be read or names a time that never comes, or if the job does not serialize.
    pub fn cron(name: impl Into<String>, cron: impl Into<String>, job: &impl Enqueueable) -> Result<Schedule> {
        let schedule = Schedule::new(name.into(), Timing::Cron(cron.into()), job)?;
        schedule.ticks(SystemTime::now())?;
        Ok(schedule)
    }

    /// Makes a schedule at a fixed interval, a millisecond to a hundred years.
    ///
    /// # Errors
    /// Invalid if the interval is shorter or longer, or if the job does not serialize.
    pub fn every(name: impl Into<String>, every: Duration, job: &impl Enqueueable) -> Result<Schedule> {
        let schedule = Schedule::new(name.into(), Timing::Every(every), job)?;
        schedule.ticks(SystemTime::now())?;
        Ok(schedule)
    }

    fn new(name: String, timing: Timing, job: &impl Enqueueable) -> Result<Schedule> {
        let job = job.to_new_job()?;
        let (time_zone, catch_up) = ("UTC".into(), CatchUp::One);
        Ok(Schedule { name, timing, time_zone, catch_up, job, through_middleware: false })
    }

    /// Reads the cron text in this time zone, such as `Europe/Berlin`; default UTC.
    pub fn time_zone(mut self, name: impl Into<String>) -> Schedule {
        self.time_zone = name.into();
        self
    }

    /// Sets the catch-up: what the schedule does about missed ticks; default [`CatchUp::One`].
    pub fn catch_up(mut self, catch_up: CatchUp) -> Schedule {
        self.catch_up = catch_up;
        self
    }

    /// Sends the schedule's jobs to this queue, instead of the queue of their kind.
    pub fn queue(mut self, queue: impl Into<String>) -> Schedule {
        self.job.queue = queue.into();
        self
    }

    /// Sets the priority of the schedule's jobs, which decides whether they start before or after other jobs of their
    /// queue.
    pub fn priority(mut self, priority: Priority) -> Schedule {
        self.job.priority = priority;
        self
    }

    /// Makes the schedule's jobs dead after this many failures, at least 1.
    pub fn max_attempts(mut self, max_attempts: u32) -> Schedule {
        self.job.max_attempts = max_attempts;
        self
    }

    /// Limits the time of each attempt at the schedule's jobs, to at least a microsecond.
    pub fn timeout(mut self, timeout: Duration) -> Schedule {
        self.job.timeout = Some(timeout);
        self
    }

    /// Sets the key of the schedule's jobs: the tenant or other thing that they belong to.
    pub fn key(mut self, key: impl Into<String>) -> Schedule {
        self.job.key = Some(key.into());
        self
    }

    /// Adds a tag to the schedule's jobs; a job has at most 64 tags.
    pub fn tag(mut self, tag: impl Into<String>) -> Schedule {
        self.job.tags.push(tag.into());
        self
    }

    /// Sets the metadata of the schedule's jobs: anything that serializes to a JSON object. The metadata of each job
    /// also has the schedule's name and the tick.
    ///
    /// # Errors
    /// Invalid if the value serializes to something else, or to JSON that Postgres cannot store.
    pub fn metadata(self, metadata: &(impl Serialize + ?Sized)) -> Result<Schedule> {
        Ok(Schedule { job: self.job.metadata(metadata)?, ..self })
    }

    /// Returns the ticks after a time, one after another, until the calendar ends. An interval is counted from `time`.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use reveille::{job::{NewJob, Payload}, schedule::Schedule};
    /// # fn example() -> reveille::Result<()> {
    /// let job = NewJob::new("report", Payload::parse("{}")?);
    /// let daily = Schedule::cron("daily", "@daily", &job)?;
    ///
    /// let day = Duration::from_secs(86_400);
    /// let ticks: Vec<SystemTime> = daily.ticks_after(SystemTime::UNIX_EPOCH)?.take(2).collect();
    /// assert_eq!(ticks, [SystemTime::UNIX_EPOCH + day, SystemTime::UNIX_EPOCH + day * 2]);
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    /// Invalid if the cron text cannot be read or names a time that never comes, or if the time zone is unknown.
    pub fn ticks_after(&self, time: SystemTime) -> Result<impl Iterator<Item = SystemTime> + use<>> {
        let ticks = self.ticks(time)?;
        let first = ticks.after(time).ok();
        Ok(std::iter::successors(first, move |tick| ticks.after(*tick).ok()))
    }

    fn ticks(&self, from: SystemTime) -> Result<Ticks> {
        let ticks = Ticks::new(&self.timing, &self.time_zone, from)?;
        ticks.after(from)?;
        Ok(ticks)
    }

    /// Returns the job of a tick.
    ///
    /// # Errors
    /// Invalid if the metadata of the job is not a JSON object.
    pub fn job_at(&self, tick: SystemTime) -> Result<NewJob> {
        let mut job = NewJob { due: Due::At(tick), ..self.job.clone() };
        job.set_metadata_member("schedule", &self.name)?;
        if let Ok(tick) = jiff::Timestamp::try_from(tick) {
            job.set_metadata_member("tick", &tick.to_string())?;
        }
        Ok(job)
    }

    /// Checks that workers can read the schedule and that the table's constraints accept it.
    pub(crate) fn check(&self) -> Result<()> {
        let of_it = |error: Error| Error::invalid(format!("schedule {:?}: {error}", self.name));
        check_name("name", &self.name).map_err(of_it)?;
        self.ticks(SystemTime::now()).map_err(of_it)?;
        self.job.check(MAX_PAYLOAD).map_err(of_it)?;
        if self.job.unique_key.is_some() {
            return Err(of_it(Error::invalid("its job cannot have a unique key; remove the unique key")));
        }
        if self.job.due != Due::In(Duration::ZERO) {
            return Err(of_it(Error::invalid(
                "its job must not have a delay or a due time, because it is due at the tick; remove it",
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Payload;

    fn job() -> NewJob {
        NewJob::new("kind", Payload::encode(&()).unwrap())
    }

    #[test]
    fn an_invalid_schedule_is_refused_by_name() {
        type Break = fn(Schedule) -> Schedule;
        let breaks: [(Break, &str); 6] = [
            (|schedule| schedule.time_zone("Mars/Olympus"), "Mars/Olympus"),
            (|schedule| schedule.queue(""), "queue"),
            (|schedule| schedule.max_attempts(0), "max_attempts"),
            (|schedule| Schedule { name: String::new(), ..schedule }, "name must have 1 to 128"),
            (
                |mut schedule| {
                    schedule.job.unique_key = Some("k".into());
                    schedule
                },
                "unique key",
            ),
            (
                |mut schedule| {
                    schedule.job.due = Due::In(SHORTEST);
                    schedule
                },
                "due at the tick",
            ),
        ];
        let good = Schedule::cron("nightly", "0 3 * * *", &job()).unwrap();
        good.check().unwrap();
        for (break_it, part) in breaks {
            let error = break_it(good.clone()).check().unwrap_err();
            let text = error.to_string();
            assert!(error.is_invalid() && text.contains(part) && text.starts_with("schedule "), "{part}: {error}");
        }
    }

    #[test]
    fn an_interval_has_limits() {
        for every in [Duration::ZERO, SHORTEST / 2, LONGEST + SHORTEST] {
            assert!(Schedule::every("often", every, &job()).unwrap_err().is_invalid(), "{every:?}");
        }
        for every in [SHORTEST, LONGEST] {
            Schedule::every("often", every, &job()).unwrap();
        }
    }
}
