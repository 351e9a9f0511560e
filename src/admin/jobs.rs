//! Listing jobs, and changing one job at a time.

use std::time::Instant;

use serde_json::json;
use tokio_postgres::types::Type;

use super::slices::{Reached, Slices};
use super::{Admin, Filter, JobRow, Sort, as_bytes, records};
use crate::error::{Error, Result};
use crate::job::{Cancelled, Retried};

/// The answer of [`Admin::run_again`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunAgain {
    /// A new job with this id was enqueued.
    Enqueued(i64),
    /// Nothing was done: the job has not ended.
    Live,
    /// Nothing was done: the job is dead. [`Admin::retry`] revives a dead job.
    Dead,
    /// Nothing was done: no job has this id, or the job's history has been deleted.
    Unknown,
}

impl Admin {
    /// Lists at most `limit` jobs that pass the filter, newest first.
    ///
    /// # Errors
    /// Invalid if the filter asks for a reason and a state other than dead; else the server's error.
    pub async fn jobs(&self, filter: &Filter, limit: u32) -> Result<Vec<JobRow>> {
        self.jobs_sorted(filter, Sort::Id, limit).await
    }

    /// Lists at most `limit` jobs that pass the filter, in an order of the caller's choice.
    ///
    /// The jobs are read slice by slice, so no statement takes long. A listing of few jobs among very many takes as
    /// many statements as it needs.
    ///
    /// # Errors
    /// Invalid if the jobs cannot be sorted so, or as [`Admin::jobs`]; else the server's error.
    pub async fn jobs_sorted(&self, filter: &Filter, sort: Sort, limit: u32) -> Result<Vec<JobRow>> {
        let mut slices = sort.slices(filter)?;
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let mut jobs = Vec::new();
        while !slices.has_ended() && (jobs.len() as i64) < i64::from(limit) {
            slices.limit = limit - jobs.len() as i32;
            jobs.extend(self.read_slice(&mut slices).await?.0);
        }
        sort.sort(&mut jobs);
        Ok(jobs)
    }

    /// Reads the jobs of the next slice that pass the filter. Also returns the last page of the history that was read.
    pub(super) async fn read_slice(&self, slices: &mut Slices) -> Result<(Vec<JobRow>, Option<i64>)> {
        let began = Instant::now();
        let rows = self.read("list jobs", slices.table.rows(), &slices.params().list()).await?;
        let (jobs, reached) = Reached::split(records(&rows)?)?;
        let page = reached.last_page;
        slices.advance(reached, began);
        let jobs = jobs.into_iter().map(JobRow::from_record).collect::<Result<Vec<_>>>()?;
        Ok((jobs, page))
    }

    /// Returns one live, blocked, dead or finished job; `None` if no job has this id, or if the job's history has been
    /// deleted. The record of a blocked job has the further columns `waits_for` and `is_held`, as in the view
    /// `blocked_jobs_overview`, and the job's `name` in its workflow.
    ///
    /// # Errors
    /// The server's error.
    pub async fn job(&self, id: i64) -> Result<Option<JobRow>> {
        let sql = as_bytes!(include_str!("../../sql/job.sql"));
        let rows = self.read("read a job", sql, &[(&id, Type::INT8)]).await?;
        records(&rows)?.pop().map(JobRow::from_record).transpose()
    }

    /// Makes a waiting job due now, or revives a dead job.
    ///
    /// # Errors
    /// The server's error.
    pub async fn retry(&self, id: i64) -> Result<Retried> {
        self.retry_by("select reveille.retry($1) as answer", id).await
    }

    /// As [`Admin::retry`], but revives a dead job also if a job that waited for its death was started. Then both have
    /// effects: the job, and the one that was to make up for its death.
    ///
    /// # Errors
    /// The server's error.
    pub async fn retry_forced(&self, id: i64) -> Result<Retried> {
        self.retry_by("select reveille.retry($1, forced => true) as answer", id).await
    }

    async fn retry_by(&self, sql: &'static str, id: i64) -> Result<Retried> {
        let what = "retry a job";
        let answer = self.answer(what, "retry", sql, id).await?;
        Retried::ALL.into_iter().find(|known| known.name() == answer).ok_or_else(|| unknown(what, &answer))
    }

    /// Cancels a waiting or blocked job, or asks the handler of a running job to stop.
    ///
    /// # Errors
    /// The server's error.
    pub async fn cancel(&self, id: i64) -> Result<Cancelled> {
        let (what, sql) = ("cancel a job", "select reveille.cancel($1) as answer");
        let answer = self.answer(what, "cancel", sql, id).await?;
        Cancelled::ALL.into_iter().find(|known| known.name() == answer).ok_or_else(|| unknown(what, &answer))
    }

    /// Runs a completed or cancelled job again: enqueues a new job like it.
    ///
    /// The new job has the same kind, payload, queue, priority, number of attempts, key, tags and metadata. The new job
    /// has no parent and no unique key. Its timeout is the timeout of its kind. The payload is copied as stored, so the
    /// new job passes no middleware.
    ///
    /// # Errors
    /// The server's error.
    pub async fn run_again(&self, id: i64) -> Result<RunAgain> {
        let mut change = self.change("run a job again");
        let row = change.row(include_str!("../../sql/run_again.sql"), &[(&id, Type::INT8)]).await?;
        let (answer, again) = match (row.get("id"), row.get("state")) {
            (Some(new), _) => (json!({"answer": "enqueued", "job": new}), RunAgain::Enqueued(new)),
            (None, "live") => (json!({"answer": "live"}), RunAgain::Live),
            (None, "dead") => (json!({"answer": "dead"}), RunAgain::Dead),
            (None, _) => (json!({"answer": "unknown"}), RunAgain::Unknown),
        };
        change.record("run_again", json!({"job": id}), answer).await?;
        Ok(again)
    }

    /// Calls a function that changes a job, and returns its answer.
    async fn answer(&self, what: &str, action: &str, sql: &'static str, id: i64) -> Result<String> {
        let mut change = self.change(what);
        let answer: String = change.row(sql, &[(&id, Type::INT8)]).await?.get("answer");
        // The function retry revives dead jobs, too.
        let action = if answer == Retried::Revived.name() { "revive" } else { action };
        change.record(action, json!({"job": id}), json!({"answer": answer})).await?;
        Ok(answer)
    }
}

fn unknown(what: &str, answer: &str) -> Error {
    Error::unavailable(format!("cannot {what}: the server answered {answer:?}, which this version does not know"))
}
