//! Isolating: finds a job that cannot be claimed because of its odd row, and makes it a dead job or passes it over. The
//! other jobs of the queue can then be claimed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::parameters::Places;
use crate::driver::postgres::session::{Params, Transaction};
use crate::driver::postgres::{Postgres, SLOW_ANSWER_WITHIN};
use crate::driver::{Claimed, Failure, FailureReason, Marks};
use crate::error::{Error, Result};

/// The time for which a worker passes over a job. Then it tries the job again, since the job's row may have been
/// repaired.
const PASSED_OVER_FOR: Duration = Duration::from_secs(600);
/// The largest number of jobs of a queue that a worker passes over. If more jobs cannot be claimed, the claim returns
/// its error, because odd rows are hardly the reason.
const MOST_ODD_JOBS: usize = 100;

/// The jobs with odd rows that this worker passes over.
#[derive(Default)]
pub(crate) struct OddJobs {
    queues: Mutex<HashMap<String, Vec<PassedOver>>>,
    /// Held while the worker locks jobs with odd rows. Only one queue at a time may do this, because these locks take a
    /// second session.
    turn: tokio::sync::Mutex<()>,
}

struct PassedOver {
    id: i64,
    since: Instant,
    /// True if the worker has tried to make the job a dead job, and failed. While it passes over the job, it does not
    /// try this again.
    stays: bool,
}

impl OddJobs {
    /// Returns the ids of the passed-over jobs of a queue that satisfy `which`.
    fn of(&self, queue: &str, which: impl Fn(&PassedOver) -> bool) -> Vec<i64> {
        let mut queues = self.lock();
        let Some(jobs) = queues.get_mut(queue) else { return Vec::new() };
        jobs.retain(|job| job.since.elapsed() < PASSED_OVER_FOR);
        let ids = jobs.iter().filter(|job| which(job)).map(|job| job.id).collect();
        if jobs.is_empty() {
            queues.remove(queue);
        }
        ids
    }

    /// Passes over this job from now on, unless the worker already passes over 100 jobs of the queue. Returns whether
    /// the job is passed over.
    fn remember(&self, queue: &str, id: i64) -> bool {
        let mut queues = self.lock();
        let jobs = queues.entry(queue.to_owned()).or_default();
        let has_room = jobs.len() < MOST_ODD_JOBS;
        if has_room {
            jobs.push(PassedOver { id, since: Instant::now(), stays: false });
        }
        has_room
    }

    fn learn(&self, queue: &str, id: i64, is_still_odd: bool) {
        let mut queues = self.lock();
        let Some(jobs) = queues.get_mut(queue) else { return };
        if is_still_odd {
            jobs.iter_mut().filter(|job| job.id == id).for_each(|job| job.stays = true);
        } else {
            jobs.retain(|job| job.id != id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<PassedOver>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks the jobs with odd rows that the queue is known to have, so that a claim skips them. Returns the transaction
/// that holds the locks, and the guard that keeps the claims of other queues from locking odd rows at the same time.
pub(crate) async fn lock_odd_jobs<'a>(
    driver: &'a Postgres,
    queue: &str,
) -> Result<Option<(Transaction, tokio::sync::MutexGuard<'a, ()>)>> {
    let ids = driver.odd_jobs.of(queue, |_| true);
    if ids.is_empty() {
        return Ok(None);
    }
    let turn = driver.odd_jobs.turn.lock().await;
    let params: &Params<'_> = &[(&ids, Type::INT8_ARRAY)];
    let statement = (&*driver.statements.pass_over, params);
    let (patience, what) = (driver.claim_timeout.get(), "pass over jobs with odd rows");
    let transaction = driver.sessions.begin(patience, what).await?;
    transaction.query(patience, what, statement).await?;
    Ok(Some((transaction, turn)))
}

/// Finds the odd row that made a claim of a single job fail. Makes its job a dead job, or passes over the job from now
/// on. The next claim may then find another odd row. Returns the error of the claim if there is no odd row.
pub(crate) async fn isolate(driver: &Postgres, queue: &str, from: Marks, error: Error) -> Result<Claimed> {
    let limited = driver.limits.kind(queue).is_some();
    let places = Places::of(if limited { Marks::default() } else { from });
    let [times, ids] = places.params();
    let known = driver.odd_jobs.of(queue, |_| true);
    let params: &Params<'_> = &[(&queue, Type::TEXT), times, ids, (&known, Type::INT8_ARRAY)];
    let what = "find the job that cannot be claimed";
    let rows = driver.sessions.query(SLOW_ANSWER_WITHIN, what, &driver.statements.isolate, params).await?;
    let Some(row) = rows.first() else { return Err(error) };
    let found = Isolated::read(row);
    if !found.buried && !driver.odd_jobs.remember(queue, found.id) {
        return Err(error);
    }
    found.log(queue);
    Ok(Claimed { more: true, limited, ..Claimed::default() })
}

/// Makes the passed-over jobs of the queue dead jobs. Call this after other jobs of the queue could be claimed: that
/// proves that only the passed-over jobs have odd rows.
pub(crate) async fn bury_odd_jobs(driver: &Postgres, queue: &str) {
    let ids = driver.odd_jobs.of(queue, |job| !job.stays);
    if ids.is_empty() {
        return;
    }
    let params: &Params<'_> = &[(&ids, Type::INT8_ARRAY)];
    let what = "make jobs with odd rows dead jobs";
    match driver.sessions.query(SLOW_ANSWER_WITHIN, what, &driver.statements.isolate_known, params).await {
        Ok(rows) => {
            for found in rows.iter().map(Isolated::read) {
                driver.odd_jobs.learn(queue, found.id, !found.buried && found.code.is_some());
                found.log(queue);
            }
        }
        Err(error) => tracing::debug!(
            name: "job.isolating_failed", target: "reveille::job", queue, %error,
            "cannot turn jobs with odd rows into dead jobs; the worker still passes over them"
        ),
    }
}

/// The result of trying to claim one job.
struct Isolated<'a> {
    id: i64,
    code: Option<&'a str>,
    error: Option<&'a str>,
    buried: bool,
}

impl Isolated<'_> {
    fn read(row: &Row) -> Isolated<'_> {
        let buried: Option<bool> = row.get("buried");
        Isolated { id: row.get("id"), code: row.get("code"), error: row.get("error"), buried: buried == Some(true) }
    }

    fn log(&self, queue: &str) {
        let (Isolated { id, buried, .. }, Some(code), Some(error)) = (self, self.code, self.error) else { return };
        let fate = if *buried { "dead" } else { "passed over" };
        tracing::error!(
            name: "job.isolated", target: "reveille::job", id, queue, code, error, fate,
            "a job cannot be claimed; the other jobs of its queue are claimed"
        );
        if *buried {
            Failure::new(FailureReason::Undecodable, error).log_death(*id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_100_jobs_of_a_queue_are_passed_over_for_10_minutes() {
        let odd = OddJobs::default();
        assert!((0..MOST_ODD_JOBS as i64).all(|id| odd.remember("q", id)));
        assert!(!odd.remember("q", 100) && odd.remember("other", 100));
        odd.lock().get_mut("q").unwrap()[7].since -= PASSED_OVER_FOR;
        assert!(!odd.of("q", |_| true).contains(&7));
        odd.learn("q", 8, true);
        odd.learn("q", 9, false);
        assert!(odd.of("q", |_| true).contains(&8) && !odd.of("q", |_| true).contains(&9));
        assert!(!odd.of("q", |job| !job.stays).contains(&8), "it was tried");
    }
}
