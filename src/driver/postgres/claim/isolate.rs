//! Jobs that cannot be claimed: they are found, made dead or passed over, so that the others of their queue are
//! claimed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::parameters::Places;
use crate::driver::postgres::session::{Params, Transaction};
use crate::driver::postgres::{Postgres, SLOW_ANSWER_WITHIN};
use crate::driver::{Claimed, Marks};
use crate::error::{Error, Result};

/// How long a worker passes over a job before it tries the job again: somebody may have mended it.
const PASSED_OVER_FOR: Duration = Duration::from_secs(600);
/// With so many odd jobs in a queue and none that can be claimed, it is not the jobs.
const MOST: usize = 100;

/// The jobs that this worker passes over.
#[derive(Default)]
pub(crate) struct Odd {
    queues: Mutex<HashMap<String, Vec<PassedOver>>>,
    /// Passing over takes a second session, so that one queue does it at a time.
    turn: tokio::sync::Mutex<()>,
}

struct PassedOver {
    id: i64,
    since: Instant,
    /// It could not be made dead although others of its queue could be claimed.
    for_good: bool,
}

impl Odd {
    /// The jobs of a queue that are passed over now.
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

    /// Whether there is room for it.
    fn remember(&self, queue: &str, id: i64) -> bool {
        let mut queues = self.lock();
        let jobs = queues.entry(queue.to_owned()).or_default();
        let there_is_room = jobs.len() < MOST;
        if there_is_room {
            jobs.push(PassedOver { id, since: Instant::now(), for_good: false });
        }
        there_is_room
    }

    fn learn(&self, queue: &str, id: i64, is_still_odd: bool) {
        let mut queues = self.lock();
        let Some(jobs) = queues.get_mut(queue) else { return };
        if is_still_odd {
            jobs.iter_mut().filter(|job| job.id == id).for_each(|job| job.for_good = true);
        } else {
            jobs.retain(|job| job.id != id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<PassedOver>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the claim that is made meanwhile from the queue's odd jobs, if it has any: a claim skips what another session
/// has locked.
pub(crate) async fn pass_over<'a>(
    driver: &'a Postgres,
    queue: &str,
) -> Result<Option<(Transaction, tokio::sync::MutexGuard<'a, ()>)>> {
    let ids = driver.odd.of(queue, |_| true);
    if ids.is_empty() {
        return Ok(None);
    }
    let turn = driver.odd.turn.lock().await;
    let params: &Params<'_> = &[(&ids, Type::INT8_ARRAY)];
    let statement = (&*driver.statements.pass_over, params);
    let (patience, what) = (driver.claim_within.get(), "pass over odd jobs");
    let aside = driver.sessions.begin(patience, what).await?;
    aside.query(patience, what, statement).await?;
    Ok(Some((aside, turn)))
}

/// A claim of a single job has failed because of a row: finds the row, and makes it a dead job or remembers to pass
/// over it. There may be more to claim then. The error if there is no such row.
pub(crate) async fn isolate(driver: &Postgres, queue: &str, from: Marks, error: Error) -> Result<Claimed> {
    let limited = driver.limits.kind(queue).is_some();
    let places = Places::of(if limited { Marks::default() } else { from });
    let [times, ids] = places.params();
    let known = driver.odd.of(queue, |_| true);
    let params: &Params<'_> = &[(&queue, Type::TEXT), times, ids, (&known, Type::INT8_ARRAY)];
    let what = "find the job that cannot be claimed";
    let rows = driver.sessions.query(SLOW_ANSWER_WITHIN, what, &driver.statements.isolate, params).await?;
    let Some(row) = rows.first() else { return Err(error) };
    let found = Isolated::read(row);
    if !found.buried && !driver.odd.remember(queue, found.id) {
        return Err(error);
    }
    found.log(queue);
    Ok(Claimed { more: true, limited, ..Claimed::default() })
}

/// Jobs of the queue have been claimed beside those that are passed over, so that it is these that are odd and not
/// all: makes them dead.
pub(crate) async fn others_pass(driver: &Postgres, queue: &str) {
    let ids = driver.odd.of(queue, |job| !job.for_good);
    if ids.is_empty() {
        return;
    }
    let params: &Params<'_> = &[(&ids, Type::INT8_ARRAY)];
    let what = "make odd jobs dead";
    match driver.sessions.query(SLOW_ANSWER_WITHIN, what, &driver.statements.isolate_known, params).await {
        Ok(rows) => {
            for found in rows.iter().map(Isolated::read) {
                driver.odd.learn(queue, found.id, !found.buried && found.code.is_some());
                found.log(queue);
            }
        }
        Err(error) => tracing::debug!(
            name: "job.isolating_failed", target: "reveille::job", queue, %error,
            "jobs that cannot be claimed are passed over still"
        ),
    }
}

/// What came of trying one job.
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
            "a job cannot be claimed; the others of its queue are"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_passed_over_for_a_while_and_no_more_than_a_hundred_of_a_queue() {
        let odd = Odd::default();
        assert!((0..MOST as i64).all(|id| odd.remember("q", id)));
        assert!(!odd.remember("q", 100) && odd.remember("other", 100));
        odd.lock().get_mut("q").unwrap()[7].since -= PASSED_OVER_FOR;
        assert!(!odd.of("q", |_| true).contains(&7));
        odd.learn("q", 8, true);
        odd.learn("q", 9, false);
        assert!(odd.of("q", |_| true).contains(&8) && !odd.of("q", |_| true).contains(&9));
        assert!(!odd.of("q", |job| !job.for_good).contains(&8), "it was tried");
    }
}
