//! Waits for the end of a job, whichever worker runs the job.

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::database::Database;
use crate::driver::{Failure, FailureReason, Memory, Postgres};
use crate::error::{Error, Result};
#[cfg(feature = "encryption")]
use crate::handler::encryption::{EncryptedField, Encryption};
use crate::job::payload::Payload;
use crate::job::{Enqueued, JobState};

/// A job that has ended, with its state, its result and its failures.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FinishedJob {
    /// The id of the job.
    pub id: i64,
    /// The state in which the job ended: completed, cancelled or dead.
    pub state: JobState,
    /// The result that the handler returned; `None` if there is none.
    pub result: Option<Payload>,
    /// The failures of the job's attempts: the last 100 failures, oldest first.
    pub errors: Vec<Failure>,
}

impl FinishedJob {
    /// Returns true if the job is completed.
    pub fn is_completed(&self) -> bool {
        self.state == JobState::Completed
    }

    /// Returns true if the job was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.state == JobState::Cancelled
    }

    /// Returns true if the job is dead.
    pub fn is_dead(&self) -> bool {
        self.state == JobState::Dead
    }

    /// Returns the error of the last failed attempt, even if a later attempt succeeded.
    pub fn last_error(&self) -> Option<&str> {
        Some(&self.errors.last()?.error)
    }

    /// Returns this job with its result and its errors decrypted.
    ///
    /// ```no_run
    /// # use reveille::{Database, Job, handler::Encryption, job::Enqueued};
    /// # async fn example<J: Job>(job: Enqueued, database: Database, encryption: Encryption) -> reveille::Result<()> {
    /// if let Some(finished) = job.finished(&database).await? {
    ///     let words: usize = finished.decrypt(&encryption, J::KIND)?.decode()?;
    /// #   drop(words);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid if the result or an error cannot be decrypted; see
    /// [`Encryption::open`](crate::handler::Encryption::open).
    #[cfg(feature = "encryption")]
    pub fn decrypt(mut self, encryption: &Encryption, kind: &str) -> Result<FinishedJob> {
        let result = self.result.map(|result| encryption.open(kind, EncryptedField::Result, &result));
        self.result = result.transpose()?;
        for failure in &mut self.errors {
            failure.error = encryption.open_error(kind, &failure.error)?;
        }
        Ok(self)
    }

    /// Decodes the result that the handler returned. A completed job without a result decodes as `null`.
    ///
    /// # Errors
    /// Invalid if the job was cancelled or is dead, or if its result does not decode to the type `T`. If the job is
    /// dead, the message contains the last error of the job.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        let (id, state) = (self.id, self.state);
        match (state, self.last_error()) {
            (JobState::Completed, _) => serde_json::from_slice(self.result.as_ref().map_or(b"null", Payload::as_bytes))
                .map_err(|error| {
                    Error::invalid(format!("the result of job {id} does not decode to the expected type: {error}"))
                }),
            (JobState::Dead, Some(error)) => Err(Error::invalid(format!("job {id} is dead: {error}"))),
            _ => Err(Error::invalid(format!("job {id} is {state} and has no result"))),
        }
    }
}

/// A store on which the end of a job can be awaited: a [`Database`], or a driver.
pub trait Awaiter: Sync {
    /// Waits for the end of the job `id`. Returns `None` if the store knows nothing of the job.
    ///
    /// # Errors
    /// The store's error. After the store's first answer, the wait goes on even while the store is unavailable.
    fn finished(&self, id: i64) -> BoxFuture<'_, Result<Option<FinishedJob>>>;
}

impl Enqueued {
    /// Waits for the end of the job, as [`Database::finished`] does. If another job held the unique key, this waits for
    /// that other job.
    ///
    /// # Errors
    /// As in [`Database::finished`].
    pub async fn finished(&self, at: &impl Awaiter) -> Result<Option<FinishedJob>> {
        at.finished(self.id).await
    }
}

impl Database {
    /// Waits until a job is completed, cancelled or dead, however many attempts that takes.
    ///
    /// Returns `None` if the database knows nothing of the job: no job ever had this id, or the job's history was
    /// deleted. If the queue keeps no history, the end of an awaited job is still known for a minute. The enqueue must
    /// be committed before the wait begins. To limit the wait, put this future into `tokio::time::timeout`. Any number
    /// of waits share one listening connection.
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
    /// The server's error. After the server's first answer, the wait goes on even while the server is unavailable.
    pub async fn finished(&self, id: i64) -> Result<Option<FinishedJob>> {
        let mut wait = self.ends().of(self, id);
        let mut has_lived = false;
        wait.begin().await;
        loop {
            match self.look(id).await {
                Ok(Look::Ended(finished)) => return Ok(Some(finished)),
                Ok(Look::Unknown) => return Ok(None),
                Ok(Look::Live) => has_lived = true,
                Err(error) if has_lived && error.is_unavailable() => {
                    tracing::debug!(
                        name: "ends.look_failed", target: "reveille::database", id, %error,
                        "cannot check whether a job has ended; trying again"
                    );
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

/// The answer to one query that asks whether a job has ended.
enum Look {
    Live,
    Ended(FinishedJob),
    Unknown,
}

fn seen(id: i64, row: &Row) -> Result<Look> {
    let unreadable = |error| Error::database("read how a job ended", error);
    let state: String = row.try_get("state").map_err(unreadable)?;
    let Some(state) = state.parse().ok().filter(|state: &JobState| state.is_ended()) else {
        return Ok(if state == "live" { Look::Live } else { Look::Unknown });
    };
    let errors: Option<Payload> = row.try_get("errors").map_err(unreadable)?;
    let errors = errors.and_then(|errors| errors.decode::<Vec<Box<RawValue>>>().ok()).unwrap_or_default();
    let errors = errors.iter().map(|error| failure(error)).collect();
    Ok(Look::Ended(FinishedJob { id, state, result: row.try_get("result").map_err(unreadable)?, errors }))
}

/// Reads the failure of an attempt. A JSON member that cannot be read gets a default.
fn failure(error: &RawValue) -> Failure {
    let error = Payload::parse(error.get()).ok();
    let text = |name| error.as_ref().and_then(|error| error.member::<String>(name).ok().flatten());
    Failure {
        reason: text("reason").as_deref().and_then(FailureReason::from_name).unwrap_or(FailureReason::Failed),
        error: text("error").unwrap_or_default(),
    }
}

impl Memory {
    /// Waits for the end of a job, as [`Database::finished`] does. Returns `None` if the store knows nothing of the
    /// job.
    pub async fn finished(&self, id: i64) -> Option<FinishedJob> {
        loop {
            let ends = self.ends();
            // `next` is created before the job is read, so that an end after the read is not missed.
            let next = ends.notified();
            let job = self.job(id)?;
            if job.state.is_ended() {
                return Some(FinishedJob { id, state: job.state, result: job.result, errors: job.errors });
            }
            next.await;
        }
    }
}

impl Awaiter for Database {
    fn finished(&self, id: i64) -> BoxFuture<'_, Result<Option<FinishedJob>>> {
        self.finished(id).boxed()
    }
}

impl Awaiter for Postgres {
    fn finished(&self, id: i64) -> BoxFuture<'_, Result<Option<FinishedJob>>> {
        self.database().finished(id).boxed()
    }
}

impl Awaiter for Memory {
    fn finished(&self, id: i64) -> BoxFuture<'_, Result<Option<FinishedJob>>> {
        self.finished(id).map(Ok).boxed()
    }
}
