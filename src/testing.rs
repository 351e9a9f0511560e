//! A test kit for programs that enqueue and work jobs.
//!
//! ```no_run
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Serialize, Deserialize)]
//! # struct SendWelcome { user_id: i64 }
//! # impl reveille::Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
//! # async fn example(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use reveille::{enqueue, testing};
//!
//! let tx = client.transaction().await?;
//! enqueue(&tx, &SendWelcome { user_id: 7 }).await?; // or your code that enqueues the job
//! assert_eq!(testing::enqueued(&tx).await?.one::<SendWelcome>().job.queue, "default");
//! tx.rollback().await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`enqueued`] lists the jobs that a transaction has enqueued. [`Worker::attempt`] runs a handler on a job that is
//! stored nowhere. Neither needs a commit, so both work in a test that rolls its transaction back.
//! [`Worker::work_one`], [`Worker::run_until_drained`] and [`Worker::inline`] run stored jobs, and the jobs that wait
//! for them. On [`Memory`], [`Worker::run_until_empty`] also runs delayed jobs, and ends sleeps. The guide:
//! [testing](crate::guide::features::testing), [testing workflows](crate::guide::features::testing_workflows).
//!
//! [`Worker::attempt`]: crate::Worker::attempt
//! [`Worker::work_one`]: crate::Worker::work_one
//! [`Worker::run_until_drained`]: crate::Worker::run_until_drained
//! [`Worker::inline`]: crate::Worker::inline
//! [`Worker::run_until_empty`]: crate::Worker::run_until_empty

use std::fmt;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient, Row};

use crate::database::Database;
use crate::database::schema::Schema;
use crate::driver::{Memory, StoredJob};
use crate::error::{Error, Result};
use crate::job::{Due, Job, NewJob, Priority};

#[cfg(feature = "conformance")]
pub mod conformance;
mod work;

pub use work::Worked;

/// Lists enqueued jobs: the jobs that a transaction has enqueued, or all jobs of a [`Database`] or a [`Memory`].
///
/// ```
/// # use reveille::{driver::Memory, enqueue, testing, Job};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, PartialEq, Serialize, Deserialize)] struct SendWelcome { user_id: i64 }
/// # impl Job for SendWelcome { const KIND: &'static str = "send_welcome"; }
/// # #[derive(Serialize, Deserialize)] struct SendBill;
/// # impl Job for SendBill { const KIND: &'static str = "send_bill"; }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> reveille::Result<()> {
/// # let memory = Memory::new();
/// enqueue(&memory, &SendWelcome { user_id: 7 }).queue("mail").await?;
///
/// let jobs = testing::enqueued(&memory).await?;
/// assert_eq!(jobs.one::<SendWelcome>().job.queue, "mail");
/// jobs.assert_has(&SendWelcome { user_id: 7 });
/// jobs.assert_none::<SendBill>();
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Invalid if the source is a client outside a transaction; else the server's error.
pub async fn enqueued<S: Source + ?Sized>(source: &S) -> Result<Jobs> {
    enqueued_in(source, "reveille").await
}

/// Lists enqueued jobs as [`enqueued`] does, in the tables of another schema. A [`Database`] always uses its own
/// schema.
///
/// # Errors
/// As in [`enqueued`].
pub async fn enqueued_in<S: Source + ?Sized>(source: &S, schema: &str) -> Result<Jobs> {
    Ok(Jobs(source.look(schema).await?))
}

/// A source of enqueued jobs for a test.
///
/// - A transaction of tokio-postgres or deadpool-postgres: the waiting and blocked jobs that the transaction itself has
///   enqueued, and those that it has replaced or debounced, also in savepoints.
/// - A client of tokio-postgres or deadpool-postgres: the same jobs of the client's current transaction.
/// - A [`Database`] or a [`Memory`]: all its jobs that have not been purged, in any state. [`Jobs::since`] leaves out
///   earlier jobs.
#[diagnostic::on_unimplemented(
    message = "a test cannot find enqueued jobs in `{Self}`",
    note = "pass a reference to a transaction or a client of tokio-postgres or deadpool-postgres, a `Database`, or a \
            `Memory`"
)]
pub trait Source: Sync {
    #[doc(hidden)]
    fn look<'a>(&'a self, schema: &'a str) -> BoxFuture<'a, Result<Vec<Found>>>;
}

/// A job that was enqueued.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Found {
    /// The id of the job.
    pub id: i64,
    /// The job as it was enqueued. Its `due` is the time from its enqueue to its due time. Its `unique_mode` and
    /// `unique_until` have their default values, because the store does not keep them.
    pub job: NewJob,
    /// The time at which the job is due.
    pub available_at: SystemTime,
    /// The time at which the job was enqueued.
    pub created_at: SystemTime,
}

/// Enqueued jobs, in the order of their ids. A failed assertion panics with a list of the jobs.
#[derive(Debug, Clone)]
pub struct Jobs(Vec<Found>);

impl Jobs {
    /// Returns all jobs.
    pub fn all(&self) -> &[Found] {
        &self.0
    }

    /// Returns the jobs that an earlier list does not have.
    pub fn since(&self, before: &Jobs) -> Jobs {
        let is_new = |found: &&Found| before.0.iter().all(|earlier| earlier.id != found.id);
        Jobs(self.0.iter().filter(is_new).cloned().collect())
    }

    /// Returns the payloads of the jobs of a kind.
    ///
    /// # Panics
    /// If one of the payloads does not decode.
    #[track_caller]
    pub fn of<J: Job>(&self) -> Vec<J> {
        let decode = |found: &Found| match found.job.payload.decode() {
            Ok(job) => job,
            Err(error) => panic!("the payload of job {} does not decode to its kind: {error}; {self}", found.id),
        };
        self.kind(J::KIND).map(decode).collect()
    }

    /// Returns the only job of a kind.
    ///
    /// # Panics
    /// If there is no job of the kind, or if there are several.
    #[track_caller]
    pub fn one<J: Job>(&self) -> &Found {
        let mut of_kind = self.kind(J::KIND);
        match (of_kind.next(), of_kind.count()) {
            (Some(found), 0) => found,
            (None, _) => panic!("no job of the kind {:?} was enqueued; {self}", J::KIND),
            (Some(_), more) => panic!("{} jobs of the kind {:?} were enqueued, not one; {self}", more + 1, J::KIND),
        }
    }

    /// Asserts that there is a job with this kind and payload, and returns the first job that has both.
    ///
    /// # Panics
    /// If no job has this kind and payload.
    #[track_caller]
    pub fn assert_has<J: Job>(&self, job: &J) -> &Found {
        // Decodes and encodes the payload again, so that defaults and the spelling of numbers make no difference.
        let wanted = serde_json::to_value(job).ok();
        let is_wanted = |found: &&Found| {
            let decoded = found.job.payload.decode::<J>().ok();
            decoded.and_then(|job| serde_json::to_value(job).ok()) == wanted
        };
        match self.kind(J::KIND).find(is_wanted) {
            Some(found) => found,
            None => {
                let wanted = wanted.unwrap_or_default();
                panic!("no job of the kind {:?} with the payload {wanted} was enqueued; {self}", J::KIND)
            }
        }
    }

    /// Asserts that there is no job of this kind.
    ///
    /// # Panics
    /// If there is a job of this kind.
    #[track_caller]
    pub fn assert_none<J: Job>(&self) {
        assert!(self.kind(J::KIND).next().is_none(), "a job of the kind {:?} was enqueued; {self}", J::KIND);
    }

    /// Asserts that there is no job at all.
    ///
    /// # Panics
    /// If there is a job.
    #[track_caller]
    pub fn assert_empty(&self) {
        assert!(self.0.is_empty(), "jobs were enqueued; {self}");
    }

    fn kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Found> {
        self.0.iter().filter(move |found| found.job.kind == kind)
    }
}

/// Lists the jobs, one per line, for the message of a failed assertion.
impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing was enqueued");
        }
        f.write_str("these were enqueued:")?;
        self.0.iter().try_for_each(|found| write!(f, "\n  {found}"))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 200;
        let Found { id, job, .. } = self;
        let payload = String::from_utf8_lossy(job.payload.as_bytes());
        let shown: String = payload.chars().take(MOST).collect();
        let more = if shown.len() < payload.len() { "…" } else { "" };
        write!(f, "job {id}: {} {shown}{more} in the queue {:?}", job.kind, job.queue)?;
        match self.delay() {
            Duration::ZERO => Ok(()),
            delay => write!(f, ", due after {delay:?}"),
        }
    }
}

impl Found {
    fn new(id: i64, job: NewJob, available_at: SystemTime, created_at: SystemTime) -> Found {
        let due = Due::In(available_at.duration_since(created_at).unwrap_or_default());
        Found { id, job: NewJob { due, ..job }, available_at, created_at }
    }

    fn delay(&self) -> Duration {
        self.available_at.duration_since(self.created_at).unwrap_or_default()
    }

    fn read(row: &Row) -> Result<Found, tokio_postgres::Error> {
        let timeout: Option<f64> = row.try_get("timeout_seconds")?;
        let job = NewJob {
            queue: row.try_get("queue")?,
            priority: Priority::from_level(row.try_get("priority")?),
            max_attempts: row.try_get::<_, i32>("max_attempts")?.max(0) as u32,
            timeout: timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            unique_key: row.try_get("unique_key")?,
            key: row.try_get("key")?,
            tags: row.try_get::<_, Option<Vec<String>>>("tags")?.unwrap_or_default(),
            metadata: row.try_get("metadata")?,
            parent_id: row.try_get("parent_id")?,
            ..NewJob::new(row.try_get::<_, String>("kind")?, row.try_get("payload")?)
        };
        Ok(Found::new(row.try_get("id")?, job, row.try_get("available_at")?, row.try_get("created_at")?))
    }
}

async fn look(client: &Client, schema: &str, sql: &'static str) -> Result<Vec<Found>> {
    let failed = |error| Error::database("find enqueued jobs", error);
    let rows = client.query_typed(&Schema::new(schema)?.apply(sql), &[]).await.map_err(failed)?;
    rows.iter().map(Found::read).collect::<Result<_, _>>().map_err(failed)
}

async fn look_here(client: &Client, schema: &str) -> Result<Vec<Found>> {
    look(client, schema, include_str!("../sql/enqueued_here.sql")).await
}

/// Checks by a savepoint that a client is in a transaction: outside a transaction, the server refuses a savepoint.
async fn check_is_in_transaction(client: &Client) -> Result<()> {
    let savepoint = async {
        client.batch_execute("savepoint reveille_testing").await?;
        client.batch_execute("release savepoint reveille_testing").await
    };
    savepoint.await.map_err(|error| match error.code() {
        Some(&SqlState::NO_ACTIVE_SQL_TRANSACTION) => Error::invalid(
            "cannot find enqueued jobs: the client is not in a transaction; pass the transaction, \
                or a Database to find all its jobs",
        ),
        _ => Error::database("find enqueued jobs", error),
    })
}

macro_rules! look_in_transaction {
    ($($transaction:ty),+) => {$(
        impl Source for $transaction {
            fn look<'a>(&'a self, schema: &'a str) -> BoxFuture<'a, Result<Vec<Found>>> {
                look_here(self.client(), schema).boxed()
            }
        }
    )+};
}

macro_rules! look_in_client {
    ($($client:ty),+) => {$(
        impl Source for $client {
            fn look<'a>(&'a self, schema: &'a str) -> BoxFuture<'a, Result<Vec<Found>>> {
                async move {
                    check_is_in_transaction(self.client()).await?;
                    look_here(self.client(), schema).await
                }
                .boxed()
            }
        }
    )+};
}

look_in_transaction!(tokio_postgres::Transaction<'_>, deadpool_postgres::Transaction<'_>);
look_in_client!(tokio_postgres::Client, deadpool_postgres::Client);

impl Source for Database {
    fn look<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Found>>> {
        async move {
            let client = self.client().await?;
            look(client.client(), self.schema().name(), include_str!("../sql/enqueued_all.sql")).await
        }
        .boxed()
    }
}

impl Source for Memory {
    fn look<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Found>>> {
        let found = |stored: StoredJob| Found::new(stored.id, stored.job, stored.available_at, stored.created_at);
        async move { Ok(self.jobs().into_iter().map(found).collect()) }.boxed()
    }
}
