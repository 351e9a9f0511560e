//! Linked jobs: applying their ends, and reading what a job has waited for.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::session::Params;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::error::Result;
use crate::job::{Input, Labels, Payload};

/// One statement applies at most this many ends, which takes about a tenth of a second.
const MOST: i32 = 1000;

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
        let (sql, params) = (&self.statements.apply_linked_ends, &[(&MOST as _, Type::INT4)]);
        let applied = self.sessions.query(SLOW_ANSWER_WITHIN, "apply the ends of linked jobs", sql, params).await;
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
