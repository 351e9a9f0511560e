//! Linked jobs: applying their ends, and reading what a job has waited for.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::session::Params;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::error::Result;
use crate::job::{Input, Labels, Payload};

/// One statement applies at most this many ends, which takes about a tenth of a second if the payloads are small.
const MOST: i32 = 1000;
/// The number is never lower: to start ten jobs of 8 MiB takes about five seconds.
const FEWEST: i32 = 10;
/// A statement that takes longer than this is followed by one that applies half as many ends, far below the
/// `statement_timeout`.
const SLOW: Duration = Duration::from_secs(5);
/// A statement that takes less than this is followed by one that applies twice as many ends.
const FAST: Duration = Duration::from_secs(1);

/// The number of ends that the next statement applies at most. Jobs with large payloads take long to start, so the
/// statement could otherwise reach its timeout again and again.
pub(super) struct EndsAtOnce(AtomicI32);

impl Default for EndsAtOnce {
    fn default() -> EndsAtOnce {
        EndsAtOnce(AtomicI32::new(MOST))
    }
}

impl EndsAtOnce {
    /// Sets the number after a statement for `had` ends. It made `changes` changes; `None`: it was given up.
    fn learn(&self, had: i32, took: Duration, changes: Option<i32>) {
        let next = match changes {
            None => had / 4,
            Some(_) if took > SLOW => had / 2,
            // A statement that found fewer ends says nothing about more of them.
            Some(changes) if took < FAST && changes >= had => had.saturating_mul(2),
            Some(_) => had,
        };
        self.0.store(next.clamp(FEWEST, MOST), Ordering::Relaxed);
    }
}

impl Postgres {
    /// Notes that ends wait if one of these settled jobs is linked.
    pub(super) fn note_linked_ends(&self, settled: &[Row]) {
        if settled.iter().any(|row| row.get("linked")) {
            self.linked_ends.notify_one();
        }
    }

    /// Notes that ends of linked jobs may wait, since another session has said so.
    pub(crate) fn linked_ends_wait(&self) {
        self.linked_ends.notify_one();
    }

    /// Waits until ends of linked jobs may have to be applied.
    pub(crate) async fn linked_ended(&self) {
        self.linked_ends.notified().await;
    }

    /// Applies ends of linked jobs, and pairs events with the jobs that wait for them. Returns whether there may be
    /// more. Ends that other sessions have locked are left.
    pub(crate) async fn apply_linked_ends(&self) -> Result<bool> {
        let (most, begun) = (self.ends_at_once.0.load(Ordering::Relaxed), Instant::now());
        let (sql, params) = (&self.statements.apply_linked_ends, &[(&most as _, Type::INT4)]);
        let applied = self.sessions.query(SLOW_ANSWER_WITHIN, "apply the ends of linked jobs", sql, params).await;
        let applied = applied.map(|rows| rows.iter().map(|row| row.get::<_, i32>("changes")).sum::<i32>());
        let changes = match &applied {
            Ok(changes) => Some(*changes),
            Err(error) if error.is_conflict() => None,
            Err(_) => Some(0),
        };
        self.ends_at_once.learn(most, begun.elapsed(), changes);
        // Events come even while ends cannot be applied.
        let more = self.serve_waits().await?;
        Ok(applied? > 0 || more)
    }

    /// Returns inputs of a job.
    pub(super) async fn read_inputs(&self, job: i64, labels: Labels<'_>) -> Result<Vec<Input>> {
        let (after, most, only) = match labels {
            Labels::One(label) => ("", 1, Some(label)),
            Labels::After { label, most } => (label, i32::try_from(most).unwrap_or(i32::MAX), None),
        };
        let params: &Params<'_> = &[(&job, Type::INT8), (&after, Type::TEXT), (&most, Type::INT4), (&only, Type::TEXT)];
        let rows = self.query("read the inputs of a job", &self.statements.inputs, params).await?;
        let input = |row: &Row| Input {
            label: row.get("label"),
            job: row.get("prerequisite"),
            kind: row.get("kind"),
            outcome: row.get("outcome"),
            result: row.get("result"),
        };
        Ok(rows.iter().map(input).collect())
    }

    pub(super) async fn blocked_of(&self, queues: &[String]) -> Result<u64> {
        let params: &Params<'_> = &[(&queues, Type::TEXT_ARRAY)];
        let rows = self.query("count blocked jobs", &self.statements.count_blocked, params).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>("blocked").unsigned_abs()))
    }

    /// Returns the id and the input of the workflow that a job belongs to.
    pub(super) async fn find_workflow_of(&self, job: i64) -> Result<Option<(i64, Payload)>> {
        let params: &Params<'_> = &[(&job, Type::INT8)];
        let rows = self.query("find the workflow of a job", &self.statements.workflow_of, params).await?;
        Ok(rows.first().map(|row| (row.get("id"), row.get("input"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_jobs_make_statements_smaller_until_these_are_fast_enough() {
        let at_once = EndsAtOnce::default();
        let next = |took, changes| {
            at_once.learn(at_once.0.load(Ordering::Relaxed), Duration::from_secs(took), changes);
            at_once.0.load(Ordering::Relaxed)
        };
        let many = Some(2000);
        assert_eq!([next(30, None), next(8, many), next(3, many), next(0, many)], [250, 125, 125, 250]);
        assert_eq!([next(0, Some(0)), next(0, many), next(0, many), next(0, many)], [250, 500, 1000, 1000]);
        assert_eq!([(); 5].map(|()| next(30, None)), [250, 62, 15, 10, 10]);
    }
}
