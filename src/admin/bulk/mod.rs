//! Changing many jobs: slice by slice, each slice in a transaction of its own.

use std::time::Duration;

use super::filter::Filter;
use super::slices::Slices;
use super::{ActionState, Admin, JobEdit};
use crate::error::{Error, Result};

mod action;
mod count;
mod start;
mod step;

pub use action::BulkAction;
pub use start::{JobCount, Start};

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
    /// The number of jobs that stay dead because live jobs hold their unique keys; of an edit, the number of jobs that
    /// stay unchanged because their payloads are encrypted, and the new one is not.
    pub left_over: u64,
    /// The jobs that the server refused to change. A trigger or constraint that you have added may do that.
    pub refused: Vec<RefusedJob>,
    /// The highest id so far: all jobs up to this id that pass the filter were looked at.
    pub last_id: Option<i64>,
    /// The id of the action that records the run; `None` if the administrator acts on behalf of nobody.
    pub action: Option<i64>,
    /// True if the run was stopped before its end.
    pub is_stopped: bool,
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
    /// The start, once it is fixed. Jobs that came later are not touched.
    start: Option<Start>,
    /// The outcome, once the change has ended.
    ended: Option<ActionState>,
    /// The jobs that the last round has passed over.
    passed_over: Vec<i64>,
    /// True if the server's answer to the last slice was lost, so that the slice may have been changed.
    is_unsure: bool,
    /// The number of rounds in which jobs that were passed over are looked at again.
    rounds: u32,
    result: BulkResult,
}

/// The number of jobs that one transaction changes.
const JOBS_PER_TRANSACTION: i32 = 1000;
/// If the server has refused this number of jobs and has changed none, the change ends with the server's error.
const MOST_REFUSED: usize = 100;
/// How often a slice is tried again that met a deadlock, another conflict or a timeout. Each try takes half the jobs.
const MOST_CONFLICTS: u32 = 5;
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
    /// change has begun are not touched, nor are jobs that die or finish after that.
    ///
    /// A slice that meets a deadlock or a timeout is tried again a few times, with half of the jobs each time.
    ///
    /// If this administrator [acts on behalf of someone](Admin::acting_as), the run is an action: each transaction also
    /// writes how many jobs it has changed, [`Admin::action`] shows the progress, and [`Admin::stop_action`] stops the
    /// run. If the [`Bulk`] is dropped before its end, or its process ends, the action is shown as interrupted.
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
    /// Invalid if the filter chooses jobs to which the action cannot be done, or if an edit changes nothing or cannot
    /// be stored.
    pub fn bulk(&self, action: BulkAction, filter: &Filter) -> Result<Bulk> {
        let listing = action.listing(filter)?;
        action.edit().map_or(Ok(()), JobEdit::check)?;
        let mut slices = Slices::new(filter, listing);
        slices.limit = JOBS_PER_TRANSACTION;
        Ok(Bulk {
            admin: self.clone(),
            action,
            slices,
            start: None,
            ended: None,
            passed_over: Vec::new(),
            is_unsure: false,
            rounds: 0,
            result: BulkResult::default(),
        })
    }
}

impl Bulk {
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
