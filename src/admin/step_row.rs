//! The steps that the handlers of jobs have recorded.

use std::sync::LazyLock;
use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::{Admin, Record, as_bytes, records};
use crate::error::{Error, Result};
use crate::job::Payload;

/// A step, a sleep or a wait that the handler of a job has recorded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StepRow {
    /// The name of the step or the sleep, or the event that the job waits for.
    pub name: String,
    /// What was recorded.
    pub kind: StepKind,
    /// The value of a step, or the payload of the event; `None` if there is none, or if it was not asked for.
    pub value: Option<Payload>,
    /// The time at which a sleep or a wait ends at the latest.
    pub until: Option<SystemTime>,
    /// True if the job still sleeps or waits.
    pub is_open: bool,
    /// True if the event did not come in time.
    pub has_timed_out: bool,
    /// The attempt that first recorded this.
    pub attempt: u32,
    /// The time at which this was recorded, or got its outcome.
    pub recorded_at: Option<SystemTime>,
}

/// What a handler has recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepKind {
    /// A step, which has run.
    Step,
    /// A sleep.
    Sleep,
    /// A wait for an event.
    Wait,
}

/// The statement on the view without values.
const LISTED: &str = as_bytes!(include_str!("../../sql/job_steps.sql"));

impl Admin {
    /// Returns what the handler of a job has recorded: the latest `limit` steps, sleeps and waits, oldest first. They
    /// are kept until the job has ended. A dead job keeps them.
    ///
    /// # Errors
    /// The server's error.
    pub async fn job_steps(&self, id: i64, limit: u32) -> Result<Vec<StepRow>> {
        static SQL: LazyLock<String> = LazyLock::new(|| LISTED.replace("reveille.job_steps", "reveille.steps"));
        self.steps_by(&SQL, id, limit).await
    }

    /// As [`Admin::job_steps`], without the values. A role that may read only the views can call this.
    ///
    /// # Errors
    /// The server's error.
    pub async fn listed_steps(&self, id: i64, limit: u32) -> Result<Vec<StepRow>> {
        self.steps_by(LISTED, id, limit).await
    }

    async fn steps_by(&self, sql: &'static str, id: i64, limit: u32) -> Result<Vec<StepRow>> {
        let limit = i64::from(limit);
        let rows = self.read("read the steps of a job", sql, &[(&id, Type::INT8), (&limit, Type::INT8)]).await?;
        records(&rows)?.iter().rev().map(StepRow::of).collect()
    }
}

impl StepRow {
    fn of(row: &Record) -> Result<StepRow> {
        let (kind, outcome): (String, Option<String>) = (row.decode("kind")?, row.decode("outcome")?);
        let kind = match kind.as_str() {
            "step" => StepKind::Step,
            "sleep" => StepKind::Sleep,
            "wait" => StepKind::Wait,
            other => {
                return Err(Error::unavailable(format!(
                    "cannot read a step: the server answered the kind {other:?}, which this version does not know"
                )));
            }
        };
        Ok(StepRow {
            name: row.decode("name")?,
            kind,
            value: row.get("value").filter(|json| *json != "null").map(Payload::from_stored),
            until: row.time("until"),
            is_open: outcome.is_none(),
            has_timed_out: outcome.as_deref() == Some("timed_out"),
            attempt: row.decode("attempt")?,
            recorded_at: row.time("recorded_at"),
        })
    }
}
