//! What a change of many jobs does, and to which jobs it can be done.

use crate::admin::JobEdit;
use crate::admin::filter::{Filter, Listing, StateFilter};
use crate::admin::slices::{Table, slice};
use crate::error::{Error, Result};
use crate::job::JobState;

/// What [`Admin::bulk`](crate::admin::Admin::bulk) does to the jobs that pass a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BulkAction {
    /// Cancels waiting jobs, and asks the handlers of running jobs to stop. The filter may choose any live jobs, or
    /// blocked ones.
    Cancel,
    /// Makes delayed jobs due now; without a state, the filter chooses all delayed jobs. With the state dead or a
    /// reason, revives dead jobs.
    Retry,
    /// Revives dead jobs.
    Revive,
    /// Permanently deletes dead jobs.
    Purge,
    /// Runs finished jobs again, as [`Admin::run_again`](crate::admin::Admin::run_again) does. The filter may choose
    /// completed or cancelled jobs.
    RunAgain,
    /// Changes waiting jobs, as [`Admin::edit`](crate::admin::Admin::edit) does. The filter may choose any waiting
    /// jobs.
    Edit(JobEdit),
}

impl BulkAction {
    /// Returns the jobs that the action changes.
    pub(super) fn listing(&self, filter: &Filter) -> Result<Listing> {
        let listing = filter.listing()?;
        let only = |which: &str| {
            let state = filter.state.map_or("dead", StateFilter::name);
            let done = self.participle();
            Err(Error::invalid(format!("{state} jobs cannot be {done}: only {which} can; choose another state")))
        };
        match (self, listing) {
            (BulkAction::Cancel, Listing::Live(_) | Listing::Blocked) => Ok(listing),
            (BulkAction::Cancel, _) => only("live and blocked jobs"),
            (BulkAction::Retry, Listing::Live(None | Some("delayed"))) => Ok(Listing::Live(Some("delayed"))),
            (BulkAction::Retry, Listing::Live(Some("failing"))) => Ok(Listing::Live(Some("retrying"))),
            (BulkAction::Retry, Listing::Dead(_)) => Ok(listing),
            (BulkAction::Retry, Listing::Live(_) | Listing::Blocked) => only("delayed, failing and dead jobs"),
            (BulkAction::Retry, Listing::Finished(_)) => {
                let state = filter.state.map_or("finished", StateFilter::name);
                Err(Error::invalid(format!("{state} jobs have ended; run them again (retry --again)")))
            }
            (BulkAction::Revive | BulkAction::Purge, Listing::Dead(_)) => Ok(listing),
            (BulkAction::Revive | BulkAction::Purge, _) if filter.state.is_none() => Ok(Listing::Dead(None)),
            (BulkAction::Revive | BulkAction::Purge, _) => only("dead jobs"),
            (BulkAction::RunAgain, Listing::Finished(_)) => Ok(listing),
            (BulkAction::RunAgain, Listing::Live(None)) => Ok(Listing::Finished(None)),
            (BulkAction::RunAgain, _) if filter.state == Some(JobState::Dead.into()) || filter.reason.is_some() => {
                Err(Error::invalid("dead jobs cannot be run again as new jobs: revive them, without --again"))
            }
            (BulkAction::RunAgain, _) => only("completed and cancelled jobs"),
            (BulkAction::Edit(_), Listing::Live(None)) => Ok(Listing::Live(Some("waiting"))),
            (BulkAction::Edit(_), Listing::Live(Some("ready" | "delayed"))) => Ok(listing),
            (BulkAction::Edit(_), Listing::Live(Some("failing"))) => Ok(Listing::Live(Some("failed_waiting"))),
            (BulkAction::Edit(_), _) => only("ready, delayed and failing jobs"),
        }
    }

    /// The action's name in `reveille.actions`.
    pub(super) fn name(&self, table: Table) -> &'static str {
        match self {
            BulkAction::Cancel => "cancel",
            BulkAction::Retry if table == Table::Live => "retry",
            BulkAction::Retry | BulkAction::Revive => "revive",
            BulkAction::Purge => "purge",
            BulkAction::RunAgain => "run_again",
            BulkAction::Edit(_) => "edit",
        }
    }

    /// The new settings of the jobs, if the action changes settings.
    pub(super) fn edit(&self) -> Option<&JobEdit> {
        match self {
            BulkAction::Edit(edit) => Some(edit),
            _ => None,
        }
    }

    fn participle(&self) -> &'static str {
        match self {
            BulkAction::Cancel => "cancelled",
            BulkAction::Retry => "retried",
            BulkAction::Revive => "revived",
            BulkAction::Purge => "purged",
            BulkAction::RunAgain => "run again",
            BulkAction::Edit(_) => "edited by a filter",
        }
    }

    /// Returns what the program does, for errors, and the statement that does it to a slice.
    pub(super) fn statement(&self, table: Table) -> (&'static str, &'static str) {
        match self {
            BulkAction::Cancel if table == Table::Blocked => {
                ("cancel blocked jobs", slice!("slice_of_blocked_jobs.sql", "slice_cancelled_blocked.sql"))
            }
            BulkAction::Cancel => ("cancel jobs", slice!("slice_of_jobs.sql", "slice_cancelled.sql")),
            BulkAction::Retry if table == Table::Live => {
                ("retry jobs", slice!("slice_of_jobs.sql", "slice_retried.sql"))
            }
            BulkAction::Retry | BulkAction::Revive => {
                ("revive dead jobs", slice!("slice_of_dead_jobs.sql", "slice_revived.sql"))
            }
            BulkAction::Purge => ("purge dead jobs", slice!("slice_of_dead_jobs.sql", "slice_purged.sql")),
            BulkAction::RunAgain => ("run jobs again", slice!("slice_of_finished_jobs.sql", "slice_run_again.sql")),
            BulkAction::Edit(_) => ("edit jobs", slice!("slice_of_jobs.sql", "slice_edited.sql")),
        }
    }
}
