//! Reading or changing many jobs slice by slice, so that no statement takes long, whatever the filter is.

use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::filter::{Filter, Listing};
use super::{Record, as_bytes};
use crate::database::{Param, insert::seconds};
use crate::driver::FailureReason;
use crate::error::{Error, Result};

/// The table whose jobs a filter chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Live,
    Blocked,
    Dead,
    Finished,
}

/// The way to the jobs of a filter: the index that is read, and its order. See `sql/slice_of_jobs.sql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    Id,
    Queue,
    Due,
    Key,
    Failing,
    Held,
    Parked,
    Ids,
    Recent,
}

/// The slices of one walk through the jobs of a filter: what the next slice reads, and how far the last one came.
#[derive(Debug, Clone)]
pub(super) struct Slices {
    filter: Filter,
    pub(super) table: Table,
    /// The state, reason or outcome of the jobs.
    chosen: Option<&'static str>,
    pub(super) walk: Walk,
    is_newest_first: bool,
    pub(super) low: i64,
    pub(super) high: i64,
    /// Dead and finished jobs that ended after this time do not pass.
    pub(super) until: Option<SystemTime>,
    pub(super) due: Option<String>,
    /// The maximum number of jobs that a slice reads.
    most: i32,
    /// The maximum number of jobs that a slice returns or changes.
    pub(super) limit: i32,
    ids: Vec<i64>,
    /// The day of the history and the page of its partition, for the walk [`Walk::Recent`].
    pub(super) page: Option<(i16, i64)>,
    has_ended: bool,
    /// A slice that takes longer is followed by one of half the size; one that takes a quarter of it, by one twice as
    /// large.
    pub(super) long: Duration,
}

/// The parameters of a slice.
pub(super) struct SliceParams<'a> {
    slices: &'a Slices,
    walk: &'static str,
    tags: Option<&'a Vec<String>>,
    older_than: Option<f64>,
    newer_than: Option<f64>,
    day: Option<i16>,
    page: Option<i64>,
}

/// The place that a slice has reached.
pub(super) struct Reached {
    walked: i64,
    passed: i64,
    /// True if there are too many jobs for the walk, so that the slice has read none.
    pub(super) is_too_many: bool,
    /// The last job that the slice has read, or the last that it has returned, if the limit was reached.
    pub(super) last_id: Option<i64>,
    last_due: Option<String>,
    pub(super) last_page: Option<i64>,
}

/// The first and the largest number of jobs that a slice reads.
const FIRST: i32 = 1000;
const LARGEST: i32 = 20_000;
const SMALLEST: i32 = 50;
const LONG: Duration = Duration::from_millis(400);

/// Joins the part of a statement that reads a slice and the part that uses it.
macro_rules! slice {
    ($of:literal, $rest:literal) => {{
        static SQL: &str = concat!(
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $of)),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $rest))
        );
        SQL
    }};
}
pub(super) use slice;

impl Table {
    /// Returns the statement for the ids of the jobs in a slice that pass the filter.
    pub(super) fn ids(self) -> &'static str {
        match self {
            Table::Live => slice!("slice_of_jobs.sql", "slice_ids.sql"),
            Table::Blocked => slice!("slice_of_blocked_jobs.sql", "slice_ids.sql"),
            Table::Dead => slice!("slice_of_dead_jobs.sql", "slice_ids.sql"),
            Table::Finished => slice!("slice_of_finished_jobs.sql", "slice_ids.sql"),
        }
    }

    /// Returns the statement for the rows of the jobs in a slice that pass the filter.
    pub(super) fn rows(self) -> &'static str {
        match self {
            Table::Live => {
                as_bytes!(include_str!("../../sql/slice_of_jobs.sql"), include_str!("../../sql/slice_rows.sql"))
            }
            Table::Blocked => {
                as_bytes!(
                    include_str!("../../sql/slice_of_blocked_jobs.sql"),
                    include_str!("../../sql/slice_blocked_rows.sql")
                )
            }
            Table::Dead => {
                as_bytes!(
                    include_str!("../../sql/slice_of_dead_jobs.sql"),
                    include_str!("../../sql/slice_dead_rows.sql")
                )
            }
            Table::Finished => {
                as_bytes!(
                    include_str!("../../sql/slice_of_finished_jobs.sql"),
                    include_str!("../../sql/slice_finished_rows.sql")
                )
            }
        }
    }

    /// Returns the statement for the highest id in the table, and the server's time.
    pub(super) fn highest_id(self) -> &'static str {
        match self {
            Table::Live => "select coalesce(max(id), 0) as id, clock_timestamp() as time from reveille.jobs",
            Table::Blocked => "select coalesce(max(id), 0) as id, clock_timestamp() as time from reveille.blocked_jobs",
            Table::Dead => "select coalesce(max(id), 0) as id, clock_timestamp() as time from reveille.dead_jobs",
            Table::Finished => {
                "select coalesce(max(id), 0) as id, clock_timestamp() as time from reveille.finished_jobs"
            }
        }
    }
}

impl Walk {
    fn name(self) -> &'static str {
        match self {
            Walk::Id => "id",
            Walk::Queue => "queue",
            Walk::Due => "due",
            Walk::Key => "key",
            Walk::Failing => "failing",
            Walk::Held => "held",
            Walk::Parked => "parked",
            Walk::Ids => "ids",
            Walk::Recent => "recent",
        }
    }
}

impl Slices {
    /// Returns the slices of all jobs that pass the filter, oldest first.
    pub(super) fn new(filter: &Filter, listing: Listing) -> Slices {
        let (table, chosen) = match listing {
            Listing::Live(state) => (Table::Live, state),
            Listing::Blocked => (Table::Blocked, None),
            Listing::Dead(reason) => (Table::Dead, reason.map(FailureReason::name)),
            Listing::Finished(outcome) => (Table::Finished, outcome),
        };
        let walk = match (table, chosen) {
            (Table::Finished, _) => Walk::Id,
            (Table::Live, Some("running" | "stuck")) => Walk::Held,
            (Table::Live, Some("parked")) => Walk::Parked,
            (Table::Live, _) if filter.queue.is_some() && filter.key.is_some() => Walk::Key,
            (Table::Live, Some("failing" | "retrying" | "failed_waiting")) => Walk::Failing,
            _ if filter.queue.is_some() => Walk::Queue,
            _ => Walk::Id,
        };
        Slices {
            filter: filter.clone(),
            table,
            chosen,
            walk,
            is_newest_first: false,
            low: i64::MIN,
            high: i64::MAX,
            until: None,
            due: None,
            most: FIRST,
            limit: i32::MAX,
            ids: Vec::new(),
            page: None,
            has_ended: false,
            long: LONG,
        }
    }

    /// Turns the walk around: newest first.
    pub(super) fn newest_first(mut self) -> Slices {
        self.is_newest_first = true;
        self
    }

    /// Reads the jobs by another way.
    pub(super) fn by(mut self, walk: Walk) -> Slices {
        self.walk = walk;
        self
    }

    /// Reads only the jobs with these ids.
    pub(super) fn of_ids(mut self, ids: Vec<i64>) -> Slices {
        self.ids = ids;
        (self.low, self.high, self.has_ended) = (i64::MIN, i64::MAX, false);
        self.by(Walk::Ids)
    }

    /// The filter whose jobs are read.
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Reads few jobs first. The slices grow as long as they are quick.
    pub(super) fn begin_small(&mut self) {
        self.most = SMALLEST;
    }

    /// True if the last slice was the end of the walk.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Returns the parameters of the statements whose files begin with `sql/slice_of_`.
    pub(super) fn params(&self) -> SliceParams<'_> {
        SliceParams {
            slices: self,
            walk: self.walk.name(),
            tags: (!self.filter.tags.is_empty()).then_some(&self.filter.tags),
            older_than: self.filter.older_than.map(seconds),
            newer_than: self.filter.newer_than.map(seconds),
            day: self.page.map(|(day, _)| day),
            page: self.page.map(|(_, page)| page),
        }
    }

    /// Moves on to the next slice. The last one began at `began`.
    pub(super) fn advance(&mut self, reached: Reached, began: Instant) {
        if reached.is_too_many {
            self.walk = Walk::Id;
            return;
        }
        let is_full = reached.passed >= i64::from(self.limit);
        self.has_ended = reached.walked < i64::from(self.most) && !is_full;
        self.most = match began.elapsed() {
            elapsed if elapsed > self.long => (self.most / 2).max(SMALLEST),
            // A slice that ends at the limit reads jobs in vain.
            _ if is_full => self.most.min(self.limit.saturating_mul(2)).max(SMALLEST),
            elapsed if elapsed * 4 < self.long => self.most.saturating_mul(2).min(LARGEST),
            _ => self.most,
        };
        match reached.last_id {
            Some(last) => self.go_on_behind(last),
            None => self.has_ended = true,
        }
        self.due = reached.last_due;
    }

    /// Makes the next slice half as large.
    pub(super) fn halve(&mut self) {
        self.limit = (self.limit / 2).max(1);
        self.most = (self.most / 2).max(SMALLEST);
    }

    /// Begins the next slice behind the job with this id.
    pub(super) fn go_on_behind(&mut self, id: i64) {
        let next = match self.walk {
            // In this walk, the lowest id is the id at which the last slice ended.
            Walk::Due => Some(id),
            _ if self.is_newest_first => id.checked_sub(1),
            _ => id.checked_add(1),
        };
        match next {
            Some(next) if self.is_newest_first => self.high = next,
            Some(next) => self.low = next,
            None => self.has_ended = true,
        }
    }
}

impl SliceParams<'_> {
    /// Returns the parameters with their types.
    pub(super) fn list(&self) -> [Param<'_>; 22] {
        let SliceParams { slices, .. } = self;
        let filter = &slices.filter;
        [
            (&self.walk, Type::TEXT),
            (&slices.is_newest_first, Type::BOOL),
            (&slices.low, Type::INT8),
            (&slices.due, Type::TEXT),
            (&slices.high, Type::INT8),
            (&slices.most, Type::INT4),
            (&slices.limit, Type::INT4),
            (&slices.ids, Type::INT8_ARRAY),
            (&filter.queue, Type::TEXT),
            (&filter.kind, Type::TEXT),
            (&slices.chosen, Type::TEXT),
            (&filter.key, Type::TEXT),
            (&self.tags, Type::TEXT_ARRAY),
            (&filter.since, Type::TIMESTAMPTZ),
            (&self.older_than, Type::FLOAT8),
            (&self.newer_than, Type::FLOAT8),
            (&filter.error, Type::TEXT),
            (&filter.payload, Type::JSONB),
            (&self.day, Type::INT2),
            (&self.page, Type::INT8),
            (&slices.until, Type::TIMESTAMPTZ),
            (&filter.error_line, Type::TEXT),
        ]
    }
}

impl Reached {
    pub(super) fn of_row(row: &Row) -> Reached {
        Reached {
            walked: row.get("walked"),
            passed: row.get("passed"),
            is_too_many: row.get("is_too_many"),
            last_id: row.get("last_id"),
            last_due: None,
            last_page: None,
        }
    }

    /// Splits the answer of [`Table::rows`] into the jobs and the place that was reached.
    pub(super) fn split(records: Vec<Record>) -> Result<(Vec<Record>, Reached)> {
        let (mut reached, jobs): (Vec<Record>, Vec<Record>) =
            records.into_iter().partition(|record| record.get("walked").is_some());
        let reached = reached
            .pop()
            .ok_or_else(|| Error::unavailable("cannot list jobs: the server did not say how far it came"))?;
        let place = Reached {
            walked: reached.decode("walked")?,
            passed: reached.decode("passed")?,
            is_too_many: reached.decode("is_too_many")?,
            last_id: reached.decode("last_id")?,
            last_due: reached.decode("last_due")?,
            last_page: reached.decode("last_page")?,
        };
        Ok((jobs, place))
    }
}
