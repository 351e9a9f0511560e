//! One step of a change of many jobs: a slice of them, in one transaction with the row that records the run.

use std::time::Instant;

use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Bulk, BulkAction, JOBS_PER_TRANSACTION, MOST_CONFLICTS, MOST_REFUSED, PAUSE, ROUNDS, RefusedJob};
use crate::admin::ActionState;
use crate::admin::runs::{NOTE_SLICE, NewRun, Progress, code};
use crate::admin::slices::Reached;
use crate::error::{Error, Result};

/// What one slice has changed.
struct Slice {
    done: u64,
    requested: u64,
    left_over: u64,
    passed_over: Vec<i64>,
    reached: Reached,
}

/// What came of one slice.
enum Tried {
    Changed(Slice),
    /// The slice was changed before, and only the answer was lost. This is the record of the run.
    WasChanged(Row),
    /// The run is to stop, and nothing was changed.
    Stopped,
}

/// What follows a step.
enum Next {
    Slice,
    End(ActionState),
}

impl Bulk {
    /// Records the beginning of the run, if the administrator acts on behalf of someone and the run has not begun yet.
    /// Returns the id of the run's action; `None` without an actor.
    ///
    /// The first [`step`](Bulk::step) does the same.
    ///
    /// # Errors
    /// Denied if the role may not write `reveille.actions`; else the server's error.
    pub async fn begin(&mut self) -> Result<Option<i64>> {
        let start = self.start().await?;
        if self.result.action.is_none() && self.ended.is_none() {
            let (what, _) = self.action.statement(self.slices.table);
            let run = NewRun {
                action: self.action.name(self.slices.table),
                filter: Some(self.slices.filter()),
                edit: self.action.edit(),
                matching: start.matching,
                highest_id: Some(start.highest_id),
            };
            self.result.action = self.admin.begin_run(what, run).await?;
        }
        Ok(self.result.action)
    }

    /// Changes the jobs of the next slice that pass the filter. Returns false once there are no more slices, or if
    /// somebody has asked the run to stop ([`Admin::stop_action`](crate::admin::Admin::stop_action)).
    ///
    /// An error ends a recorded run as failed, unless the server could not be reached: then another call goes on. It
    /// reads in the record whether the last slice was changed, so no job is changed twice. A run without a record can
    /// go on, too, but not if it runs jobs again, since it would enqueue some twice.
    ///
    /// # Errors
    /// The server's error. The jobs of earlier slices stay changed. Invalid if the run has failed before.
    pub async fn step(&mut self) -> Result<bool> {
        match self.ended {
            Some(ActionState::Failed) => {
                return Err(Error::invalid("this change of many jobs has ended by an error; begin another"));
            }
            Some(_) => return Ok(false),
            None => {}
        }
        match self.next_slice().await {
            Ok(Next::Slice) => Ok(true),
            Ok(Next::End(outcome)) => {
                self.result.is_stopped = outcome == ActionState::Stopped;
                self.end(outcome, None).await?;
                Ok(false)
            }
            Err(error) => {
                let is_recorded = self.result.action.is_some();
                if error.is_unavailable() && !is_recorded && self.action == BulkAction::RunAgain {
                    self.ended = Some(ActionState::Failed);
                }
                if !error.is_unavailable() && is_recorded {
                    // If this cannot be written either, the run is shown as interrupted.
                    let _ = self.end(ActionState::Failed, Some(&error)).await;
                }
                Err(error)
            }
        }
    }

    /// Ends the run as stopped, before its end. The jobs that were changed stay changed.
    ///
    /// # Errors
    /// The server's error.
    pub async fn stop(&mut self) -> Result<()> {
        match self.ended {
            Some(_) => Ok(()),
            None => {
                self.result.is_stopped = true;
                self.end(ActionState::Stopped, None).await
            }
        }
    }

    async fn end(&mut self, outcome: ActionState, error: Option<&Error>) -> Result<()> {
        if let Some(run) = self.result.action {
            self.admin.end_run(run, outcome, error, json!({})).await?;
        }
        self.ended = Some(outcome);
        Ok(())
    }

    async fn next_slice(&mut self) -> Result<Next> {
        self.begin().await?;
        if self.slices.has_ended() && !self.look_again().await {
            return Ok(Next::End(ActionState::Done));
        }
        let mut conflicts = 0;
        loop {
            let began = Instant::now();
            match self.change_slice().await {
                // The server refuses one of these jobs. Halving the slice finds the refused job.
                Err(error) if error.is_about_data() && self.slices.limit > 1 => self.slices.limit /= 2,
                Err(error) if error.is_about_data() => return self.refuse(error).await,
                Err(error) if error.is_conflict() && conflicts < MOST_CONFLICTS => {
                    conflicts += 1;
                    self.slices.halve();
                    tokio::time::sleep(PAUSE * conflicts).await;
                }
                Err(error) => {
                    self.is_unsure |= error.is_unavailable();
                    return Err(error);
                }
                Ok(Tried::Stopped) => return Ok(Next::End(ActionState::Stopped)),
                Ok(Tried::WasChanged(record)) => {
                    self.go_on_after(&record);
                    return Ok(Next::Slice);
                }
                Ok(Tried::Changed(slice)) => {
                    self.is_unsure = false;
                    if self.note(slice, began) {
                        return Ok(Next::Slice);
                    }
                }
            }
        }
    }

    /// Changes one slice, and adds it to the record of the run.
    async fn change_slice(&self) -> Result<Tried> {
        let (what, sql) = self.action.statement(self.slices.table);
        let slice_params = self.slices.params();
        let edit = self.action.edit().map(|edit| edit.params());
        let mut params = slice_params.list().to_vec();
        if let Some(edit) = &edit {
            params.extend(edit.list());
        }
        let mut change = self.admin.change(what);
        if let Some(run) = self.result.action {
            let look = include_str!("../../../sql/look_at_run.sql");
            let record = change.query(look, &[(&run, Type::INT8)]).await?.pop();
            let Some(record) = record.filter(|record| !record.get::<_, bool>("stops")) else {
                change.give_up().await;
                return Ok(Tried::Stopped);
            };
            if self.is_unsure && record.get::<_, Option<i64>>("last_id") > self.result.last_id {
                change.give_up().await;
                return Ok(Tried::WasChanged(record));
            }
        }
        let slice = Slice::of_row(&change.row(sql, &params).await?);
        if let (Some(run), Some(transaction)) = (self.result.action, change.into_transaction()) {
            let progress = Progress {
                done: slice.done,
                requested: slice.requested,
                left_over: slice.left_over,
                passed_over: self.passed_over_after(&slice),
                refused: Vec::new(),
                last_id: slice.reached.last_id,
            };
            let sql = self.admin.database.schema().apply(NOTE_SLICE);
            transaction.commit_with(&sql, &progress.params(run).list()).await?;
        }
        Ok(Tried::Changed(slice))
    }

    /// Goes on behind a slice whose answer was lost.
    fn go_on_after(&mut self, record: &Row) {
        let count = |column| record.get::<_, Option<i64>>(column).unwrap_or_default().max(0) as u64;
        let result = &mut self.result;
        (result.done, result.requested) = (count("done"), count("requested"));
        (result.left_over, result.passed_over) = (count("left_over"), count("passed_over"));
        result.last_id = record.get("last_id");
        if let Some(last) = result.last_id {
            self.slices.go_on_behind(last);
        }
        self.is_unsure = false;
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

    /// Returns the number of jobs that the run has passed over, if this slice is the next.
    fn passed_over_after(&self, slice: &Slice) -> u64 {
        match self.rounds {
            0 => self.result.passed_over + slice.passed_over.len() as u64,
            _ => self.result.passed_over.saturating_sub(slice.done + slice.left_over),
        }
    }

    /// Adds one slice to the result. Returns false if the slice has read nothing, since there are too many jobs for its
    /// walk.
    fn note(&mut self, slice: Slice, began: Instant) -> bool {
        if slice.reached.is_too_many {
            self.slices.advance(slice.reached, began);
            return false;
        }
        self.result.passed_over = self.passed_over_after(&slice);
        self.result.done += slice.done;
        self.result.requested += slice.requested;
        self.result.left_over += slice.left_over;
        if self.rounds == 0 {
            self.result.last_id = slice.reached.last_id.or(self.result.last_id);
        }
        self.passed_over.extend(slice.passed_over);
        self.slices.advance(slice.reached, began);
        self.slices.limit = self.slices.limit.saturating_mul(2).min(JOBS_PER_TRANSACTION);
        true
    }

    /// Notes the job that the server has refused to change, as the only job of a slice, and goes on behind it.
    async fn refuse(&mut self, error: Error) -> Result<Next> {
        let mut slices = self.slices.clone();
        let mut found = None;
        while found.is_none() && !slices.has_ended() {
            found = self.read_ids(&mut slices).await?.first().copied();
        }
        let Some(id) = found else {
            // The job has changed meanwhile, and no other one passes the filter.
            self.slices = slices;
            return Ok(Next::Slice);
        };
        if self.result.done == 0 && self.result.refused.len() == MOST_REFUSED {
            return Err(error);
        }
        let was_passed_over = u64::from(self.rounds > 0);
        let passed_over = self.result.passed_over.saturating_sub(was_passed_over);
        if let Some(run) = self.result.action {
            let progress = Progress { passed_over, refused: vec![(id, code(&error))], ..Progress::default() };
            self.admin.query("record a refused job", NOTE_SLICE, &progress.params(run).list()).await?;
        }
        self.result.passed_over = passed_over;
        self.result.refused.push(RefusedJob { id, error });
        self.slices.go_on_behind(id);
        Ok(Next::Slice)
    }
}

impl Slice {
    fn of_row(row: &Row) -> Slice {
        let count = |column| row.get::<_, i64>(column).max(0) as u64;
        Slice {
            done: count("done"),
            requested: count("requested"),
            left_over: count("left_over"),
            passed_over: row.get("passed_over"),
            reached: Reached::of_row(row),
        }
    }
}
