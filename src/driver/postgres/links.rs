//! Linked jobs: applying their ends, and reading what a job has waited for.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::session::Params;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::error::{Error, Result};
use crate::job::{Input, Labels, Payload};

/// One statement applies at most this many ends, which takes about a tenth of a second if the payloads are small.
const MOST: i32 = 1000;
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
    /// Sets the number after a statement for `had` ends.
    fn learn(&self, had: i32, took: Duration, was_given_up: bool) {
        let next = match took {
            _ if was_given_up => had / 4,
            took if took > SLOW => had / 2,
            took if took < FAST => had.saturating_mul(2),
            _ => had,
        };
        self.0.store(next.clamp(1, MOST), Ordering::Relaxed);
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
        self.ends_at_once.learn(most, begun.elapsed(), applied.as_ref().is_err_and(Error::is_conflict));
        // Events come even while ends cannot be applied.
        let more = self.serve_waits().await?;
        Ok(applied?.iter().any(|row| row.get::<_, i32>("changes") > 0) || more)
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
        let next = |took, was_given_up| {
            at_once.learn(at_once.0.load(Ordering::Relaxed), Duration::from_secs(took), was_given_up);
            at_once.0.load(Ordering::Relaxed)
        };
        assert_eq!([next(30, true), next(8, false), next(3, false), next(0, false)], [250, 125, 125, 250]);
        assert_eq!([next(0, false), next(0, false), next(0, false)], [500, 1000, 1000]);
        assert_eq!([(); 6].map(|()| next(30, true)), [250, 62, 15, 3, 1, 1]);
    }
}
