//! Schedules: jobs that recur, by a cron text in a time zone or at a fixed interval.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::job::{Due, Enqueueable, MAX_PAYLOAD, NewJob, Priority, check_name};

mod ticks;

pub(crate) use ticks::{Ticks, lacks_zone};

/// A job that recurs; declared with a worker (`WorkerBuilder::schedule`), or added by `Admin::add_schedule`.
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
pub struct Schedule {
    /// What it is called, 1 to 128 characters.
    pub name: String,
    /// When it is due.
    pub timing: Timing,
    /// The zone of a cron text, by its name in the IANA database.
    pub time_zone: String,
    /// What becomes of ticks that were missed.
    pub catch_up: CatchUp,
    /// What is enqueued at each tick, at its time. It has no unique key.
    pub job: NewJob,
    /// Whether its jobs pass the middleware of the worker that enqueues them, which then is one that declares the
    /// schedule. A worker that has middleware sets this for what it declares.
    pub through_middleware: bool,
}

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Timing {
    /// Five fields (minute, hour, day of the month, month, day of the week), or six with seconds first; or `@hourly`,
    /// `@daily`, `@weekly`, `@monthly`, `@yearly`.
    Cron(String),
    /// At this interval, a millisecond to a hundred years, counted from when it was added, changed or resumed.
    Every(Duration),
}

/// What becomes of the ticks that were missed because no worker was there.
///
/// A tick that is at most three seconds late is not missed: it is enqueued, whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// None of them is made up for: it goes on with the next tick.
    Skip,
    /// A single job for all of them, due at the last one's time.
    #[default]
    One,
    /// A job for each of them, oldest first.
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

    /// By its name: `skip`, `one`, `all`.
    fn from_str(text: &str) -> Result<CatchUp> {
        match text {
            "skip" => Ok(CatchUp::Skip),
            "one" => Ok(CatchUp::One),
            "all" => Ok(CatchUp::All),
            _ => Err(Error::invalid(format!("unknown catch-up {text:?}; use skip, one or all"))),
        }
    }
}

/// Limits of an interval, as the table has them.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

impl Schedule {
    /// A job at each time that a cron text says, in UTC unless [told otherwise](Schedule::time_zone).
    ///
    /// # Errors
    /// Invalid if the text makes no sense, says a time that never comes, or the job does not serialise.
    pub fn cron(name: impl Into<String>, cron: impl Into<String>, job: &impl Enqueueable) -> Result<Schedule> {
        let schedule = Schedule::new(name.into(), Timing::Cron(cron.into()), job)?;
        schedule.ticks(SystemTime::now())?;
        Ok(schedule)
    }

    /// A job at a fixed interval.
    ///
    /// # Errors
    /// Invalid if the interval is shorter than a millisecond or longer than a hundred years, or the job does not
    /// serialise.
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

    /// Read the cron text in this time zone, such as `Europe/Berlin`; default UTC.
    pub fn time_zone(mut self, name: impl Into<String>) -> Schedule {
        self.time_zone = name.into();
        self
    }

    /// What becomes of missed ticks; default: a single job for all of them.
    pub fn catch_up(mut self, catch_up: CatchUp) -> Schedule {
        self.catch_up = catch_up;
        self
    }

    /// Its jobs go to this queue, instead of their kind's.
    pub fn queue(mut self, queue: impl Into<String>) -> Schedule {
        self.job.queue = queue.into();
        self
    }

    /// Its jobs run before or after others of their queue.
    pub fn priority(mut self, priority: Priority) -> Schedule {
        self.job.priority = priority;
        self
    }

    /// Its jobs are dead after this many failures, at least 1.
    pub fn max_attempts(mut self, max_attempts: u32) -> Schedule {
        self.job.max_attempts = max_attempts;
        self
    }

    /// One attempt at a job of it may take this long.
    pub fn timeout(mut self, timeout: Duration) -> Schedule {
        self.job.timeout = Some(timeout);
        self
    }

    /// What its jobs belong to, such as a tenant or an account.
    pub fn key(mut self, key: impl Into<String>) -> Schedule {
        self.job.key = Some(key.into());
        self
    }

    /// A free label of its jobs; may be called up to 64 times.
    pub fn tag(mut self, tag: impl Into<String>) -> Schedule {
        self.job.tags.push(tag.into());
        self
    }

    /// Free facts about its jobs, to which the schedule's name and the tick are added.
    pub fn metadata(mut self, metadata: Map<String, Value>) -> Schedule {
        self.job.metadata = Some(metadata);
        self
    }

    /// Its ticks after a time, one after another, for as long as the calendar goes; an interval is counted from that
    /// time.
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use reveille::{job::{NewJob, Payload}, schedule::Schedule};
    /// # fn example() -> reveille::Result<()> {
    /// let job = NewJob::new("report", Payload::parse("{}")?); let daily = Schedule::cron("daily", "@daily", &job)?;
    /// let day = Duration::from_secs(86_400); let ticks: Vec<SystemTime> =
    /// daily.ticks_after(SystemTime::UNIX_EPOCH)?.take(2).collect(); assert_eq!(ticks, [SystemTime::UNIX_EPOCH + day,
    /// SystemTime::UNIX_EPOCH + day * 2]);
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    /// Invalid if the cron text or the time zone makes no sense.
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
    pub fn job_at(&self, tick: SystemTime) -> NewJob {
        let mut metadata = self.job.metadata.clone().unwrap_or_default();
        metadata.insert("schedule".into(), Value::from(self.name.clone()));
        if let Ok(tick) = jiff::Timestamp::try_from(tick) {
            metadata.insert("tick".into(), Value::from(tick.to_string()));
        }
        NewJob { due: Due::At(tick), metadata: Some(metadata), ..self.job.clone() }
    }

    /// Refuses what workers could not read or the table's constraints would refuse.
    pub(crate) fn check(&self) -> Result<()> {
        let of_it = |error: Error| Error::invalid(format!("schedule {:?}: {error}", self.name));
        check_name("name", &self.name).map_err(of_it)?;
        self.ticks(SystemTime::now()).map_err(of_it)?;
        self.job.check(MAX_PAYLOAD).map_err(of_it)?;
        if self.job.unique_key.is_some() {
            return Err(of_it(Error::invalid("its job cannot have a unique key")));
        }
        if self.job.due != Due::In(Duration::ZERO) {
            return Err(of_it(Error::invalid("its job is due at each tick, and not at a time of its own")));
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
    fn what_makes_no_sense_is_refused_with_the_schedules_name() {
        type Spoil = fn(Schedule) -> Schedule;
        let spoils: [(Spoil, &str); 6] = [
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
                "due at each tick",
            ),
        ];
        let good = Schedule::cron("nightly", "0 3 * * *", &job()).unwrap();
        good.check().unwrap();
        for (spoil, part) in spoils {
            let error = spoil(good.clone()).check().unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains(part), "{part}: {error}");
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
