//! Changing a job that waits, or a dead job before it is revived.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio_postgres::types::Type;

use super::Admin;
use super::actor::{Changed, difference};
use crate::database::{Param, insert::seconds};
use crate::error::{Error, Result};
use crate::job::{Due, MAX_PAYLOAD, NewJob, Payload, Priority};

/// Changes to a job, for [`Admin::edit`]. Everything that is not set here stays unchanged.
///
/// ```
/// use std::time::Duration;
///
/// use reveille::admin::JobEdit;
/// use reveille::job::{Payload, Priority};
///
/// # fn example() -> reveille::Result<()> {
/// let sooner = JobEdit::new().priority(Priority::Urgent).delay(Duration::ZERO);
/// let repaired = JobEdit::new().payload(Payload::parse(r#"{"month": 5}"#)?).key(None);
/// # Ok(())
/// # }
/// # example().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct JobEdit {
    queue: Option<String>,
    priority: Option<Priority>,
    due: Option<Due>,
    payload: Option<Payload>,
    max_attempts: Option<u32>,
    // In each of the following fields, the outer `None` keeps the value, and the inner `None` removes it.
    key: Option<Option<String>>,
    timeout: Option<Option<Duration>>,
}

/// The parameters of the statements that edit jobs.
pub(super) struct EditParams<'a> {
    columns: Value,
    pub(super) payload: Option<&'a Payload>,
    pub(super) at: Option<SystemTime>,
    delay: Option<f64>,
}

/// The answer of [`Admin::edit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Edited {
    /// The job waits, and was changed.
    Waiting,
    /// The job is dead, and was changed. [`Admin::retry`] revives it.
    Dead,
    /// Nothing was changed: a worker holds the job.
    Running,
    /// Nothing was changed: the job has finished.
    Finished,
    /// Nothing was changed: no job has this id, or the job's history has been deleted.
    Unknown,
}

impl JobEdit {
    /// Returns changes that change nothing yet.
    pub fn new() -> JobEdit {
        JobEdit::default()
    }

    /// Moves the job to this queue, 1 to 128 characters.
    pub fn queue(mut self, queue: impl Into<String>) -> JobEdit {
        self.queue = Some(queue.into());
        self
    }

    /// Sets the priority.
    pub fn priority(mut self, priority: Priority) -> JobEdit {
        self.priority = Some(priority);
        self
    }

    /// Makes the job due at this time, by the database's clock.
    pub fn at(mut self, time: SystemTime) -> JobEdit {
        self.due = Some(Due::At(time));
        self
    }

    /// Makes the job due after this delay, from now on. Without a delay, it is due at once.
    pub fn delay(mut self, delay: Duration) -> JobEdit {
        self.due = Some(Due::In(delay));
        self
    }

    /// Replaces the payload, at most 1 MiB. The payload passes no middleware. Plain text does not replace an
    /// [encrypted](crate::guide::features::encryption) payload.
    pub fn payload(mut self, payload: Payload) -> JobEdit {
        self.payload = Some(payload);
        self
    }

    /// Sets the number of failures at which the job is dead, at least 1.
    pub fn max_attempts(mut self, max_attempts: u32) -> JobEdit {
        self.max_attempts = Some(max_attempts);
        self
    }

    /// Sets the key, 1 to 512 bytes, or removes it.
    pub fn key<'a>(mut self, key: impl Into<Option<&'a str>>) -> JobEdit {
        self.key = Some(key.into().map(str::to_owned));
        self
    }

    /// Sets the time that one attempt may take, at least a microsecond, or removes it.
    pub fn timeout(mut self, timeout: impl Into<Option<Duration>>) -> JobEdit {
        self.timeout = Some(timeout.into());
        self
    }

    /// Checks that something is to be changed, and that the values can be stored. [`Admin::edit`] checks this first.
    ///
    /// # Errors
    /// Invalid if no change is given, or if a value cannot be stored.
    pub fn check(&self) -> Result<()> {
        let JobEdit { queue, priority, due, payload, max_attempts, key, timeout } = self;
        let changes_something = queue.is_some() || priority.is_some() || due.is_some() || payload.is_some();
        if !changes_something && max_attempts.is_none() && key.is_none() && timeout.is_none() {
            return Err(Error::invalid("no change is given; name at least one column to change"));
        }
        let mut job = NewJob::new("kind", payload.clone().unwrap_or_else(|| Payload::from_stored("{}")));
        job.queue = queue.clone().unwrap_or(job.queue);
        job.due = due.unwrap_or(job.due);
        job.max_attempts = max_attempts.unwrap_or(job.max_attempts);
        job.key = key.clone().flatten();
        job.timeout = timeout.flatten();
        job.check(MAX_PAYLOAD)
    }

    /// Returns the parameters of the statements that edit jobs.
    pub(super) fn params(&self) -> EditParams<'_> {
        let (at, delay) = match self.due {
            Some(Due::At(at)) => (Some(at), None),
            Some(Due::In(delay)) => (None, Some(seconds(delay))),
            None => (None, None),
        };
        EditParams { columns: self.columns().into(), payload: self.payload.as_ref(), at, delay }
    }

    fn columns(&self) -> Map<String, Value> {
        let mut columns = Map::new();
        let mut set = |column: &str, value: Option<Value>| {
            if let Some(value) = value {
                columns.insert(column.to_owned(), value);
            }
        };
        set("queue", self.queue.as_deref().map(Value::from));
        set("priority", self.priority.map(|priority| priority.level().into()));
        set("max_attempts", self.max_attempts.map(Value::from));
        set("key", self.key.as_ref().map(|key| json!(key)));
        set("timeout", self.timeout.map(|timeout| json!(timeout.map(seconds))));
        columns
    }
}

impl EditParams<'_> {
    /// Returns the parameters with their types.
    pub(super) fn list(&self) -> [Param<'_>; 4] {
        [
            (&self.columns, Type::JSONB),
            (&self.payload, Type::JSONB),
            (&self.at, Type::TIMESTAMPTZ),
            (&self.delay, Type::FLOAT8),
        ]
    }

    /// Returns the new settings by name, for the record of an action: all but the payload and the due time.
    pub(super) fn described(&self) -> Value {
        let mut settings = self.columns.clone();
        if let Some(delay) = self.delay {
            settings["delay"] = delay.into();
        }
        settings
    }
}

impl Admin {
    /// Changes a waiting job, or a dead job before it is revived. A running job is not changed.
    ///
    /// The bell rings if the job becomes due sooner or moves to another queue. The change is one statement: a job that
    /// a worker claims at the same time is either changed before, or not at all.
    ///
    /// ```no_run
    /// # async fn example(database: reveille::Database) -> reveille::Result<()> {
    /// use reveille::admin::{Edited, JobEdit};
    ///
    /// let edited = database.admin().edit(7, JobEdit::new().queue("mail").max_attempts(5)).await?;
    /// assert_eq!(edited, Edited::Waiting);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid if no change is given, if a value cannot be stored, if a dead job is to get a due time, or if plain text
    /// is to replace an encrypted payload; else the server's error.
    pub async fn edit(&self, id: i64, edit: JobEdit) -> Result<Edited> {
        edit.check()?;
        let edit = edit.params();
        let [columns, payload, at, delay] = edit.list();
        let params: [Param<'_>; 5] = [(&id, Type::INT8), columns, payload, at, delay];
        let mut change = self.change("edit a job");
        let before = change.settings(Changed::Job(id)).await?;
        let row = change.row(include_str!("../../sql/edit_job.sql"), &params).await?;
        let edited = match Edited::of_answer(id, row.get("answer")) {
            Ok(edited) => edited,
            Err(error) => {
                change.give_up().await;
                return Err(error);
            }
        };
        let after = change.settings(Changed::Job(id)).await?;
        change.record("edit", json!({"job": id}), difference(edited.name(), before, after)).await?;
        Ok(edited)
    }
}

impl Edited {
    fn of_answer(id: i64, answer: &str) -> Result<Edited> {
        match answer {
            "edited" => Ok(Edited::Waiting),
            "edited_dead" => Ok(Edited::Dead),
            "running" => Ok(Edited::Running),
            "dead" => Err(Error::invalid(format!(
                "cannot edit a job: job {id} is dead, so it has no due time; revive it first, or leave the time out"
            ))),
            "encrypted" => Err(Error::invalid(format!(
                "cannot edit a job: the payload of job {id} is encrypted, and the new one is not; encrypt it first"
            ))),
            "finished" => Ok(Edited::Finished),
            "unknown" => Ok(Edited::Unknown),
            other => Err(Error::unavailable(format!(
                "cannot edit a job: the server answered {other:?}, which this version does not know"
            ))),
        }
    }

    /// The answer's name in the command: edited, edited_dead, running, finished or unknown.
    pub fn name(self) -> &'static str {
        match self {
            Edited::Waiting => "edited",
            Edited::Dead => "edited_dead",
            Edited::Running => "running",
            Edited::Finished => "finished",
            Edited::Unknown => "unknown",
        }
    }
}
