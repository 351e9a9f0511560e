//! Changing many jobs: slice by slice, each slice in a transaction of its own.

use std::time::{Duration, Instant};

use tokio_postgres::Row;

use super::Admin;
use super::filter::{Filter, Listing, StateFilter};
use super::slices::{Reached, Slices, Table, slice};
use crate::error::{Error, Result};
use crate::job::JobState;

/// What [`Admin::bulk`] does to the jobs that pass a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BulkAction {
    /// Cancels waiting jobs, and asks the handlers of running jobs to stop. The filter may choose any live jobs.
    Cancel,
    /// Makes delayed jobs due now; without a state, the filter chooses all delayed jobs. With the state dead or a
    /// reason, revives dead jobs.
    Retry,
    /// Revives dead jobs.
    Revive,
    /// Permanently deletes dead jobs.
    Purge,
    /// Runs finished jobs again, as [`Admin::run_again`] does. The filter may choose completed or cancelled jobs.
    RunAgain,
}

/// The result of changing many jobs.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct BulkResult {
    /// The number of jobs that were changed.
    pub done: u64,
    /// The number of running jobs among these, whose handlers were asked to stop.
    pub requested: u64,
    /// The number of jobs that were not touched, because they changed after they had passed the filter, or because
    /// another session has locked them.
    pub passed_over: u64,
    /// The number of jobs that stay dead because live jobs hold their unique keys.
    pub left_over: u64,
    /// The jobs that the server refused to change. A trigger or constraint that you have added may do that.
    pub refused: Vec<RefusedJob>,
    /// The highest id so far: all jobs up to this id that pass the filter were looked at.
    pub last_id: Option<i64>,
}

/// A job that the server refused to change.
#[derive(Debug)]
#[non_exhaustive]
pub struct RefusedJob {
    /// The job's id.
    pub id: i64,
    /// The server's reason.
    pub error: Error,
}

/// A change of many jobs, made by [`Admin::bulk`]. [`run`](Bulk::run) makes it as a whole, [`step`](Bulk::step) a slice
/// at a time.
#[derive(Debug)]
#[must_use = "jobs are changed only by `run` or `step`"]
pub struct Bulk {
    admin: Admin,
    action: BulkAction,
    slices: Slices,
    /// True once the highest id is known. Jobs above it have come since, and are not touched.
    has_begun: bool,
    /// The jobs that the last round has passed over.
    passed_over: Vec<i64>,
    /// The number of rounds in which jobs that were passed over are looked at again.
    rounds: u32,
    result: BulkResult,
}

/// The number of jobs that one transaction changes.
const JOBS_PER_TRANSACTION: i32 = 1000;
/// If the server has refused this number of jobs and has changed none, the change ends with the server's error.
const MOST_REFUSED: usize = 100;
/// How often jobs that were passed over are looked at again, and how long after the last look. A worker that claims or
/// settles a job holds the lock for a shorter time.
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

impl Admin {
    /// Prepares a change of all jobs that pass a filter.
    ///
    /// The change takes 1,000 jobs or fewer at a time, each slice in a transaction of its own. It can be interrupted
    /// between two slices: drop the [`Bulk`], or the future of [`Bulk::run`]. Each job is chosen and changed in one
    /// statement, and only if its row has not changed since it passed the filter. Jobs that are enqueued after the
    /// change has begun are not touched.
    ///
    /// ```no_run
    /// # async fn example(database: reveille::Database) -> reveille::Result<()> {
    /// use reveille::admin::{BulkAction, Filter};
    ///
    /// let of_an_import = Filter::new().queue("mail").tag("import");
    /// let mut cancel = database.admin().bulk(BulkAction::Cancel, &of_an_import)?;
    /// println!("{} jobs", cancel.count().await?);
    /// while cancel.step().await? {
    ///     println!("{} cancelled so far", cancel.result().done);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid if the filter chooses jobs to which the action cannot be done.
    pub fn bulk(&self, action: BulkAction, filter: &Filter) -> Result<Bulk> {
        let listing = action.listing(filter)?;
        let mut slices = Slices::new(filter, listing);
        slices.limit = JOBS_PER_TRANSACTION;
        Ok(Bulk {
            admin: self.clone(),
            action,
            slices,
            has_begun: false,
            passed_over: Vec::new(),
            rounds: 0,
            result: BulkResult::default(),
        })
    }
}

impl BulkAction {
    /// Returns the jobs that the action changes.
    fn listing(self, filter: &Filter) -> Result<Listing> {
        let listing = filter.listing()?;
        let only = |which: &str| {
            let state = filter.state.map_or("dead", StateFilter::name);
            let done = self.participle();
            Err(Error::invalid(format!("{state} jobs cannot be {done}: only {which} can; choose another state")))
        };
        match (self, listing) {
            (BulkAction::Cancel, Listing::Live(_)) => Ok(listing),
            (BulkAction::Cancel, _) => only("live jobs"),
            (BulkAction::Retry, Listing::Live(None | Some("delayed"))) => Ok(Listing::Live(Some("delayed"))),
            (BulkAction::Retry, Listing::Live(Some("failing"))) => Ok(Listing::Live(Some("retrying"))),
            (BulkAction::Retry, Listing::Dead(_)) => Ok(listing),
            (BulkAction::Retry, Listing::Live(_)) => only("delayed, failing and dead jobs"),
            (BulkAction::Retry, Listing::Finished(_)) => {
                let state = filter.state.map_or("finished", StateFilter::name);
                Err(Error::invalid(format!("{state} jobs have ended; run them again (retry --again)")))
            }
            (BulkAction::Revive | BulkAction::Purge, Listing::Dead(_)) => Ok(listing),
            (BulkAction::Revive | BulkAction::Purge, _) if filter.state.is_none() => Ok(Listing::Dead(None)),
            (BulkAction::Revive | BulkAction::Purge, _) => only("dead jobs"),
            (BulkAction::RunAgain, Listing::Finished(_)) => Ok(listing),
            (BulkAction::RunAgain, Listing::Live(None)) => Ok(Listing::Finished(None)),
            (BulkAction::RunAgain, _) if filter.state == Some(JobState::Dead.into()) || filter.reason.is_some() => {
                Err(Error::invalid("dead jobs cannot be run again as new jobs: revive them, without --again"))
            }
            (BulkAction::RunAgain, _) => only("completed and cancelled jobs"),
        }
    }

    fn participle(self) -> &'static str {
        match self {
            BulkAction::Cancel => "cancelled",
            BulkAction::Retry => "retried",
            BulkAction::Revive => "revived",
            BulkAction::Purge => "purged",
            BulkAction::RunAgain => "run again",
        }
    }

    /// Returns what the program does, for errors, and the statement that does it to a slice.
    fn statement(self, table: Table) -> (&'static str, &'static str) {
        match self {
            BulkAction::Cancel => ("cancel jobs", slice!("slice_of_jobs.sql", "slice_cancelled.sql")),
            BulkAction::Retry if table == Table::Live => {
                ("retry jobs", slice!("slice_of_jobs.sql", "slice_retried.sql"))
            }
            BulkAction::Retry | BulkAction::Revive => {
                ("revive dead jobs", slice!("slice_of_dead_jobs.sql", "slice_revived.sql"))
            }
            BulkAction::Purge => ("purge dead jobs", slice!("slice_of_dead_jobs.sql", "slice_purged.sql")),
            BulkAction::RunAgain => ("run jobs again", slice!("slice_of_finished_jobs.sql", "slice_run_again.sql")),
        }
    }
}

impl Bulk {
    /// Counts the jobs that pass the filter now, and changes none. A later [`step`](Bulk::step) or [`run`](Bulk::run)
    /// touches no job that was enqueued after the first count.
    ///
    /// # Errors
    /// The server's error.
    pub async fn count(&mut self) -> Result<u64> {
        self.begin().await?;
        let mut slices = self.slices.clone();
        slices.limit = i32::MAX;
        let mut count = 0;
        while !slices.has_ended() {
            count += self.read_ids(&mut slices).await?.len() as u64;
        }
        Ok(count)
    }

    /// Changes the jobs of the next slice that pass the filter. Returns false once there are no more slices.
    ///
    /// # Errors
    /// The server's error. The jobs of earlier slices stay changed.
    pub async fn step(&mut self) -> Result<bool> {
        self.begin().await?;
        if self.slices.has_ended() && !self.look_again().await {
            return Ok(false);
        }
        let (what, sql) = self.action.statement(self.slices.table);
        loop {
            let began = Instant::now();
            match self.admin.query(what, sql, &self.slices.params().list()).await {
                // The server refuses one of these jobs. Halving the slice finds the refused job.
                Err(error) if error.is_about_data() && self.slices.limit > 1 => self.slices.limit /= 2,
                Err(error) if error.is_about_data() => return self.refuse(error).await,
                rows => {
                    let rows = rows?;
                    let row = rows
                        .first()
                        .ok_or_else(|| Error::unavailable(format!("cannot {what}: the server returned no row")))?;
                    if self.note(row, began) {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Notes the highest id before the first slice.
    async fn begin(&mut self) -> Result<()> {
        if !self.has_begun {
            let rows = self.admin.read("count jobs", self.slices.table.highest_id(), &[]).await?;
            self.slices.high = rows.first().map_or(0, |row| row.get("id"));
            self.has_begun = true;
        }
        Ok(())
    }

    /// Begins another round over the jobs that were passed over. Returns false if there are none, or if all rounds are
    /// over.
    async fn look_again(&mut self) -> bool {
        if self.passed_over.is_empty() || self.rounds == ROUNDS {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
        self.rounds += 1;
        let ids = std::mem::take(&mut self.passed_over);
        self.slices = self.slices.clone().of_ids(ids);
        true
    }

    /// Adds the answer of one slice to the result. Returns false if the slice has read nothing, since there are too
    /// many jobs for its walk.
    fn note(&mut self, row: &Row, began: Instant) -> bool {
        let count = |column| row.get::<_, i64>(column).max(0) as u64;
        let (done, left_over) = (count("done"), count("left_over"));
        let passed_over: Vec<i64> = row.get("passed_over");
        let reached = Reached::of_row(row);
        if reached.is_too_many {
            self.slices.advance(reached, began);
            return false;
        }
        self.result.done += done;
        self.result.requested += count("requested");
        self.result.left_over += left_over;
        if self.rounds == 0 {
            self.result.last_id = reached.last_id.or(self.result.last_id);
            self.result.passed_over += passed_over.len() as u64;
        } else {
            self.result.passed_over = self.result.passed_over.saturating_sub(done + left_over);
        }
        self.passed_over.extend(passed_over);
        self.slices.advance(reached, began);
        self.slices.limit = self.slices.limit.saturating_mul(2).min(JOBS_PER_TRANSACTION);
        true
    }

    /// Notes the job that the server has refused to change, as the only job of a slice, and goes on behind it.
    async fn refuse(&mut self, error: Error) -> Result<bool> {
        let mut slices = self.slices.clone();
        let mut found = None;
        while found.is_none() && !slices.has_ended() {
            found = self.read_ids(&mut slices).await?.first().copied();
        }
        let Some(id) = found else {
            // The job has changed meanwhile, and no other one passes the filter.
            self.slices = slices;
            return Ok(true);
        };
        if self.result.done == 0 && self.result.refused.len() == MOST_REFUSED {
            return Err(error);
        }
        if self.rounds > 0 {
            self.result.passed_over = self.result.passed_over.saturating_sub(1);
        }
        self.result.refused.push(RefusedJob { id, error });
        self.slices.go_on_behind(id);
        Ok(true)
    }

    /// Returns the ids of the jobs in the next slice that pass the filter.
    async fn read_ids(&self, slices: &mut Slices) -> Result<Vec<i64>> {
        let began = Instant::now();
        let rows = self.admin.read("count jobs", slices.table.ids(), &slices.params().list()).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("cannot count jobs: the server returned no row"))?;
        let ids: Vec<i64> = row.get("ids");
        slices.advance(Reached::of_row(row), began);
        Ok(ids)
    }

    /// The result so far.
    pub fn result(&self) -> &BulkResult {
        &self.result
    }

    /// Changes all jobs that pass the filter, and returns the result.
    ///
    /// # Errors
    /// As [`Bulk::step`].
    pub async fn run(mut self) -> Result<BulkResult> {
        while self.step().await? {}
        Ok(self.result)
    }
}
