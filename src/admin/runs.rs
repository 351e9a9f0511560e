//! The rows that record runs: changes of many jobs, and other actions that take several transactions.

use serde_json::Value;
use tokio_postgres::types::Type;

use super::{ActionState, Admin, Filter, JobEdit};
use crate::database::Param;
use crate::error::{Error, Result};

/// A run that is about to begin.
pub(super) struct NewRun<'a> {
    pub(super) action: &'static str,
    pub(super) filter: Option<&'a Filter>,
    pub(super) edit: Option<&'a JobEdit>,
    pub(super) matching: Option<u64>,
    pub(super) highest_id: Option<i64>,
}

/// What one transaction of a run adds to its row.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) done: u64,
    pub(super) requested: u64,
    pub(super) left_over: u64,
    /// The number of jobs that the whole run has passed over so far.
    pub(super) passed_over: u64,
    /// The jobs that the server has refused to change, and the SQLSTATE of each refusal.
    pub(super) refused: Vec<(i64, String)>,
    /// The id at which the slice has ended.
    pub(super) last_id: Option<i64>,
}

/// The parameters of `sql/note_slice.sql`.
pub(super) struct ProgressParams {
    run: i64,
    counts: [i64; 4],
    refused: Vec<i64>,
    codes: Vec<String>,
    last_id: Option<i64>,
}

/// The statement that writes a [`Progress`].
pub(super) const NOTE_SLICE: &str = include_str!("../../sql/note_slice.sql");

impl Admin {
    /// Records the beginning of a run. Returns the id of its action; `None` without an actor.
    pub(super) async fn begin_run(&self, what: &str, run: NewRun<'_>) -> Result<Option<i64>> {
        let Some(actor) = &self.actor else { return Ok(None) };
        let filter = run.filter.map(Filter::described);
        let (since, contained) = run.filter.map_or((None, None), |filter| (filter.since, filter.payload.as_ref()));
        let edit = run.edit.map(JobEdit::params);
        let new = edit.as_ref().map(|edit| edit.described());
        let (at, payload) = edit.as_ref().map_or((None, None), |edit| (edit.at, edit.payload));
        let matching = run.matching.map(|count| count as i64);
        let params: [Param<'_>; 12] = [
            (&actor.name, Type::TEXT),
            (&actor.source, Type::TEXT),
            (&run.action, Type::TEXT),
            (&filter, Type::JSONB),
            (&since, Type::TIMESTAMPTZ),
            (&contained, Type::JSONB),
            (&new, Type::JSONB),
            (&at, Type::TIMESTAMPTZ),
            (&payload, Type::JSONB),
            (&matching, Type::INT8),
            (&run.highest_id, Type::INT8),
            (&actor.request, Type::TEXT),
        ];
        let rows = self.query(what, include_str!("../../sql/begin_run.sql"), &params).await;
        let rows = rows.map_err(|error| Admin::not_recorded(what, error))?;
        Ok(rows.first().map(|row| row.get("id")))
    }

    /// Records the end of a run. The outcome is done, stopped or failed.
    pub(super) async fn end_run(
        &self,
        run: i64,
        outcome: ActionState,
        error: Option<&Error>,
        detail: Value,
    ) -> Result<()> {
        let params: [Param<'_>; 4] = [
            (&run, Type::INT8),
            (&outcome.name(), Type::TEXT),
            (&error.map(without_payload), Type::TEXT),
            (&detail, Type::JSONB),
        ];
        self.query("record the end of a run", include_str!("../../sql/end_run.sql"), &params).await.map(drop)
    }
}

impl Progress {
    pub(super) fn params(&self, run: i64) -> ProgressParams {
        ProgressParams {
            run,
            counts: [self.done, self.requested, self.left_over, self.passed_over].map(|count| count as i64),
            refused: self.refused.iter().map(|(id, _)| *id).collect(),
            codes: self.refused.iter().map(|(_, code)| code.clone()).collect(),
            last_id: self.last_id,
        }
    }
}

impl ProgressParams {
    pub(super) fn list(&self) -> [Param<'_>; 8] {
        let [done, requested, left_over, passed_over] = &self.counts;
        [
            (&self.run, Type::INT8),
            (done, Type::INT8),
            (requested, Type::INT8),
            (left_over, Type::INT8),
            (passed_over, Type::INT8),
            (&self.refused, Type::INT8_ARRAY),
            (&self.codes, Type::TEXT_ARRAY),
            (&self.last_id, Type::INT8),
        ]
    }
}

/// Returns the SQLSTATE of the server's error; an empty text for another error.
pub(super) fn code(error: &Error) -> String {
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

/// Returns the text of an error that ended a run. The message of an error about data may quote a payload, so only its
/// SQLSTATE is kept.
fn without_payload(error: &Error) -> String {
    match error.is_about_data() {
        true => format!("the server refused the jobs (SQLSTATE {})", code(error)),
        false => error.to_string(),
    }
}
