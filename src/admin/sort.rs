//! The order of a listing.

use std::cmp::Reverse;
use std::str::FromStr;

use super::JobRow;
use super::filter::{Filter, Listing, StateFilter};
use super::slices::{Slices, Walk};
use crate::error::{Error, Result};

/// The order of the jobs of a listing.
///
/// Jobs are read by their ids, or by the index of due times. So [`Sort::Id`] is exact, and so is [`Sort::Due`] for the
/// jobs of one queue. In all other cases, a listing takes the newest jobs up to its limit, and sorts these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Sort {
    /// Highest id first, which is the newest job.
    #[default]
    Id,
    /// The job that is due first. Lists only ready and delayed jobs.
    Due,
    /// The job that was enqueued last.
    Created,
    /// The job that ended last.
    Finished,
}

impl Sort {
    /// All orders.
    pub const ALL: [Sort; 4] = [Sort::Id, Sort::Due, Sort::Created, Sort::Finished];

    /// The name of the order in the command: id, due, created or finished.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Id => "id",
            Sort::Due => "due",
            Sort::Created => "created",
            Sort::Finished => "finished",
        }
    }

    /// Returns the slices in which a listing reads its jobs.
    pub(super) fn slices(self, filter: &Filter) -> Result<Slices> {
        let listing = filter.listing()?;
        let wrong = |what: &str| {
            let state = filter.state.map_or("live", StateFilter::name);
            Err(Error::invalid(format!("{state} jobs have no {what}; sort them by another column")))
        };
        match (self, listing) {
            (Sort::Due, Listing::Live(state @ (None | Some("ready" | "delayed")))) => {
                let slices = Slices::new(filter, Listing::Live(state.or(Some("waiting"))));
                Ok(if filter.queue.is_some() { slices.by(Walk::Due) } else { slices.newest_first() })
            }
            (Sort::Due, Listing::Dead(_) | Listing::Finished(_)) => wrong("due time any more"),
            (Sort::Due, Listing::Blocked) => wrong("due time yet"),
            (Sort::Finished, Listing::Live(_) | Listing::Blocked) => wrong("end yet"),
            _ => Ok(Slices::new(filter, listing).newest_first()),
        }
    }

    /// Sorts the jobs of a listing.
    pub(super) fn sort(self, jobs: &mut [JobRow]) {
        match self {
            Sort::Id => jobs.sort_by_key(|job| Reverse(job.id)),
            Sort::Due => jobs.sort_by_key(|job| (job.available_at, job.id)),
            Sort::Created => jobs.sort_by_key(|job| Reverse((job.created_at, job.id))),
            Sort::Finished => jobs.sort_by_key(|job| Reverse((job.finished_at, job.id))),
        }
    }
}

impl FromStr for Sort {
    type Err = Error;

    /// Reads an order by its name.
    fn from_str(name: &str) -> Result<Sort> {
        Sort::ALL
            .into_iter()
            .find(|sort| sort.name() == name)
            .ok_or_else(|| Error::invalid(format!("unknown order {name:?}; use id, due, created or finished")))
    }
}
