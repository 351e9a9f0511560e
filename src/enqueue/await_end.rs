//! Waiting for the end of a job, wherever it is worked.

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::database::Database;
use crate::driver::{Failure, FailureReason, Memory, Postgres};
use crate::error::{Error, Result};
use crate::job::{Enqueued, JobState};
use crate::job::payload::Payload;

/// How a job ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Finished {
    /// The job.
    pub id: i64,
    /// How it ended, in a word.
    pub outcome: Ended,
    /// What its handler returned to be kept; `None` if nothing was.
    pub result: Option<Payload>,
    /// Why attempts failed, the last hundred, oldest first.
    pub errors: Vec<Failure>,
}

/// How a job ended, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is done.
    Completed,
    /// It was ended without being done.
    Cancelled,
    /// It is dead, and can be revived.
    Dead,
}

impl Ended {
    /// As it is called in the database.
    pub fn name(self) -> &'static str {
        match self {
            Ended::Completed => "completed",
            Ended::Cancelled => "cancelled",
            Ended::Dead => "dead",
        }
    }

    fn from_name(name: &str) -> Option<Ended> {
        [Ended::Completed, Ended::Cancelled, Ended::Dead].into_iter().find(|ending| ending.name() == name)
    }
}

impl Finished {
    /// Whether it is done.
    pub fn is_completed(&self) -> bool {
        self.outcome == Ended::Completed
    }

    /// The error of its last attempt that failed, also if a later one succeeded.
    pub fn last_error(&self) -> Option<&str> {
        Some(&self.errors.last()?.error)
    }

    /// What its handler returned, as a value; for one that returned nothing to be kept, the value of `null`.
    ///
    /// # Errors
    /// Invalid if the job was cancelled or is dead, saying of what, or if its result is no such value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        let (id, outcome) = (self.id, self.outcome.name());
        match (self.outcome, self.last_error()) {
            (Ended::Completed, _) => serde_json::from_slice(self.result.as_ref().map_or(b"null", Payload::as_bytes))
                .map_err(|error| Error::invalid(format!("the result of job {id} is not as expected: {error}"))),
            (Ended::Dead, Some(error)) => Err(Error::invalid(format!("job {id} is dead: {error}"))),
            _ => Err(Error::invalid(format!("job {id} is {outcome}, and has no result"))),
        }
    }
}

/// Where the end of a job can be waited for: a [`Database`], or a driver.
pub trait Awaiter: Sync {
    #[doc(hidden)]
    fn finished(&self, id: i64) -> BoxFuture<'_, Result<Option<Finished>>>;
}

impl Enqueued {
    /// Wait for the job's end, as [`Database::finished`] does. If another job held the unique key, it is that one's.
    ///
    /// # Errors
    /// As there.
    pub async fn finished(&self, at: &impl Awaiter) -> Result<Option<Finished>> {
        at.finished(self.id).await
    }
}

impl Database {
    /// Wait for the end of a job: until it is completed, cancelled or dead, however many attempts that takes.
    ///
    /// `None` if nothing is known of it: it never was, or its history is over. Where its queue keeps no history, the
    /// end of a job that is waited for is known for a minute all the same. The job must be committed. To wait for so
    /// long at most, put it into `tokio::time::timeout`; any number can wait at once, on one connection that listens.
    ///
    /// ```no_run
    /// # use reveille::{enqueue, Database, Job};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] struct Count { text: String }
    /// # impl Job for Count { const KIND: &'static str = "count"; }
    /// # #[derive(Deserialize)] struct Counted { words: usize }
    /// # async fn example(database: Database) -> reveille::Result<()> {
    /// let job = enqueue(&database, &Count { text: "to be or not".into() }).await?;
    /// if let Some(finished) = job.finished(&database).await? {
    ///     let counted: Counted = finished.decode()?;
    ///     println!("{} words", counted.words);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What the server says. Once the wait has begun, one that is away is waited for as well.
    pub async fn finished(&self, id: i64) -> Result<Option<Finished>> {
        let mut wait = self.ends().of(self, id);
        let mut has_lived = false;
        wait.begin().await;
        loop {
            match self.look(id).await {
                Ok(Look::Over(finished)) => return Ok(Some(finished)),
                Ok(Look::Unknown) => return Ok(None),
                Ok(Look::Live) => has_lived = true,
                Err(error) if has_lived && error.is_unavailable() => {
                    tracing::debug!(name: "ends.look_failed", target: "reveille::database", id, %error, "cannot look whether a job has ended; looking again");
                }
                Err(error) => return Err(error),
            }
            wait.next().await;
        }
    }

    async fn look(&self, id: i64) -> Result<Look> {
        let client = self.client().await?;
        let sql = self.schema().apply(include_str!("../../sql/await.sql"));
        let rows = client.query_typed(&sql, &[(&id, Type::INT8)]).await;
        let rows = rows.map_err(|error| Error::database("wait for a job", error))?;
        rows.first().map_or(Ok(Look::Unknown), |row| seen(id, row))
    }
}

/// What there is to see of a job.
enum Look {
    Live,
    Over(Finished),
    Unknown,
}

fn seen(id: i64, row: &Row) -> Result<Look> {
    let unreadable = |error| Error::database("read how a job ended", error);
    let state: String = row.try_get("state").map_err(unreadable)?;
    let Some(outcome) = Ended::from_name(&state) else {
        return Ok(if state == "live" { Look::Live } else { Look::Unknown });
    };
    let errors: Option<Payload> = row.try_get("errors").map_err(unreadable)?;
    let errors = errors.and_then(|errors| errors.decode::<Vec<Box<RawValue>>>().ok()).unwrap_or_default();
    let errors = errors.iter().map(|error| failure(error)).collect();
    Ok(Look::Over(Finished { id, outcome, result: row.try_get("result").map_err(unreadable)?, errors }))
}

/// An attempt's failure; of what is none, as much as can be read.
fn failure(error: &RawValue) -> Failure {
    let error = Payload::parse(error.get()).ok();
    let text = |name| error.as_ref().and_then(|error| error.member::<String>(name).ok().flatten());
    Failure {
        reason: text("reason").as_deref().and_then(FailureReason::from_name).unwrap_or(FailureReason::Failed),
        error: text("error").unwrap_or_default(),
    }
}

impl Memory {
    /// Wait for the end of a job, as [`Database::finished`] does; `None` if nothing is known of it.
    pub async fn finished(&self, id: i64) -> Option<Finished> {
        loop {
            let ends = self.ends();
            // From here on no end is missed.
            let next = ends.notified();
            let job = self.job(id)?;
            let outcome = match job.state {
                JobState::Completed => Ended::Completed,
                JobState::Cancelled => Ended::Cancelled,
                JobState::Dead => Ended::Dead,
                JobState::Ready | JobState::Delayed | JobState::Running => {
                    next.await;
                    continue;
                }
            };
            return Some(Finished { id, outcome, result: job.result, errors: job.errors });
        }
    }
}

impl Awaiter for Database {
    fn finished(&self, id: i64) -> BoxFuture<'_, Result<Option<Finished>>> {
        self.finished(id).boxed()
    }
}

impl Awaiter for Postgres {
    fn finished(&self, id: i64) -> BoxFuture<'_, Result<Option<Finished>>> {
        self.database().finished(id).boxed()
    }
}

impl Awaiter for Memory {
    fn finished(&self, id: i64) -> BoxFuture<'_, Result<Option<Finished>>> {
        self.finished(id).map(Ok).boxed()
    }
}
