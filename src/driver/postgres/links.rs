//! Linked jobs: applying their ends, and reading what a job has waited for.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::session::Params;
use super::{Postgres, SLOW_ANSWER_WITHIN};
use crate::error::Result;
use crate::job::{Input, Payload};

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
        let rows = self.sessions.query(SLOW_ANSWER_WITHIN, "apply the ends of linked jobs", sql, params).await?;
        let has_changed = rows.iter().any(|row| row.get::<_, i32>("changes") > 0);
        Ok(self.serve_waits().await? || has_changed)
    }

    /// Returns up to `most` inputs of a job whose labels come after this one, or the only input with the label `only`.
    pub(crate) async fn inputs(&self, job: i64, after: &str, most: i32, only: Option<&str>) -> Result<Vec<Input>> {
        let params: &Params<'_> = &[(&job, Type::INT8), (&after, Type::TEXT), (&most, Type::INT4), (&only, Type::TEXT)];
        let rows = self.query("read the inputs of a job", &self.statements.inputs, params).await?;
        let input = |row: &Row| Input {
            label: row.get("label"),
            job: row.get("prerequisite"),
            outcome: row.get("outcome"),
            result: row.get("result"),
        };
        Ok(rows.iter().map(input).collect())
    }

    /// Returns the id and the input of the workflow that a job belongs to.
    pub(crate) async fn workflow_of(&self, job: i64) -> Result<Option<(i64, Payload)>> {
        let params: &Params<'_> = &[(&job, Type::INT8)];
        let rows = self.query("find the workflow of a job", &self.statements.workflow_of, params).await?;
        Ok(rows.first().map(|row| (row.get("id"), row.get("input"))))
    }
}
