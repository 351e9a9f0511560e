//! Listing jobs a page at a time, within a bounded time.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::types::Type;

use super::slices::{Reached, Slices, Table, Walk};
use super::{Admin, Filter, JobRow, Sort, as_bytes, records};
use crate::error::{Error, Result};

/// One page of a listing; returned by [`Admin::page`].
#[derive(Debug)]
#[non_exhaustive]
pub struct JobPage {
    /// The jobs, in the order of the listing, without payload, metadata, progress and result, and with their last error
    /// only.
    pub jobs: Vec<JobRow>,
    /// The place at which the next page begins; `None` if there are no more jobs.
    pub next: Option<PagePlace>,
    /// If the time was up before the page was full: the time at which the last job that was looked at was enqueued.
    pub looked_back_to: Option<SystemTime>,
}

/// The place in a listing at which a page begins. It can be written as text and read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagePlace {
    id: i64,
    /// The due time of the last job, in a listing by due time.
    due: Option<String>,
}

/// A slice that takes longer is followed by a smaller one.
const LONG: Duration = Duration::from_millis(60);

impl Admin {
    /// Lists one page of the jobs that pass the filter. Ends early once it has taken `within`.
    ///
    /// [`Sort::Due`] needs a queue. Other orders than [`Sort::Id`] and [`Sort::Due`] sort each page by itself.
    ///
    /// ```no_run
    /// # async fn example(database: reveille::Database) -> reveille::Result<()> {
    /// use std::time::Duration;
    ///
    /// use reveille::admin::{Filter, Sort};
    ///
    /// let admin = database.admin();
    /// let (filter, mut from) = (Filter::new().tag("import"), None);
    /// loop {
    ///     let page = admin.page(&filter, Sort::Id, 50, from.as_ref(), Duration::from_millis(80)).await?;
    ///     page.jobs.iter().for_each(|job| println!("{} {}", job.id, job.kind));
    ///     from = page.next;
    ///     if from.is_none() {
    ///         return Ok(());
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid if the jobs cannot be sorted so, or as [`Admin::jobs`]; else the server's error.
    pub async fn page(
        &self,
        filter: &Filter,
        sort: Sort,
        limit: u32,
        from: Option<&PagePlace>,
        within: Duration,
    ) -> Result<JobPage> {
        let began = Instant::now();
        let mut slices = sort.slices(filter)?;
        slices.long = LONG;
        if filter.payload.is_some() {
            // Payloads are slow to read if they are large.
            slices.begin_small();
        }
        if let Some(place) = from {
            slices.go_on_at(place.id, place.due.clone());
        }
        let sql = if filter.payload.is_some() { slices.table.page() } else { slices.table.page_of_list() };
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let (mut jobs, mut last) = (Vec::new(), None);
        while !slices.has_ended()
            && (jobs.len() as i64) < i64::from(limit)
            && (last.is_none() || began.elapsed() < within)
        {
            slices.limit = limit - jobs.len() as i32;
            let slice_began = Instant::now();
            let rows = self.read("list jobs", sql, &slices.params().list()).await?;
            let (found, reached) = Reached::split(records(&rows)?)?;
            last = reached.last_id.or(last);
            slices.advance(reached, slice_began);
            for record in found {
                jobs.push(JobRow::from_record(record)?);
            }
        }
        sort.sort(&mut jobs);
        let next = (!slices.has_ended()).then(|| PagePlace { id: slices.begins_at(), due: slices.due.clone() });
        let looked_back_to = match last {
            Some(last) if next.is_some() && (jobs.len() as i64) < i64::from(limit) => {
                self.listed_job(last).await?.and_then(|job| job.created_at)
            }
            _ => None,
        };
        Ok(JobPage { jobs, next, looked_back_to })
    }

    /// Returns one job as [`Admin::job`] does, but without payload, metadata, progress and result. A role that may read
    /// only the views can call this.
    ///
    /// # Errors
    /// The server's error.
    pub async fn listed_job(&self, id: i64) -> Result<Option<JobRow>> {
        static SQL: LazyLock<String> = LazyLock::new(|| of_lists(as_bytes!(include_str!("../../sql/job.sql"))));
        let rows = self.read("read a job", &SQL, &[(&id, Type::INT8)]).await?;
        records(&rows)?.pop().map(JobRow::from_record).transpose()
    }
}

impl Admin {
    /// Returns up to 20 jobs that a job's handler has enqueued, without payload, metadata, progress, result and errors,
    /// lowest id first. Looks at the next 10,000 live, blocked, dead and finished jobs each.
    ///
    /// # Errors
    /// The server's error.
    pub async fn children(&self, id: i64) -> Result<Vec<JobRow>> {
        let sql = as_bytes!(include_str!("../../sql/children.sql"));
        let rows = self.read("find the children of a job", sql, &[(&id, Type::INT8)]).await?;
        records(&rows)?.into_iter().map(JobRow::from_record).collect()
    }
}

impl Table {
    /// Returns the statement for a page of jobs. It reads the tables, so it can filter by the payload.
    fn page(self) -> &'static str {
        match self {
            Table::Live => {
                as_bytes!(include_str!("../../sql/slice_of_jobs.sql"), include_str!("../../sql/page_of_jobs.sql"))
            }
            Table::Blocked => as_bytes!(
                include_str!("../../sql/slice_of_blocked_jobs.sql"),
                include_str!("../../sql/page_of_blocked_jobs.sql")
            ),
            Table::Dead => as_bytes!(
                include_str!("../../sql/slice_of_dead_jobs.sql"),
                include_str!("../../sql/page_of_dead_jobs.sql")
            ),
            Table::Finished => as_bytes!(
                include_str!("../../sql/slice_of_finished_jobs.sql"),
                include_str!("../../sql/page_of_finished_jobs.sql")
            ),
        }
    }

    /// Returns the same statement, reading only the views without payloads.
    fn page_of_list(self) -> &'static str {
        static LIVE: LazyLock<String> = LazyLock::new(|| of_lists(Table::Live.page()));
        static BLOCKED: LazyLock<String> = LazyLock::new(|| of_lists(Table::Blocked.page()));
        static DEAD: LazyLock<String> = LazyLock::new(|| of_lists(Table::Dead.page()));
        static FINISHED: LazyLock<String> = LazyLock::new(|| of_lists(Table::Finished.page()));
        match self {
            Table::Live => &LIVE,
            Table::Blocked => &BLOCKED,
            Table::Dead => &DEAD,
            Table::Finished => &FINISHED,
        }
    }
}

/// Makes a statement read the views without payloads in place of the tables of jobs, with null for what they lack.
fn of_lists(sql: &str) -> String {
    let mut sql = sql.to_owned();
    for (table, view) in [
        ("jobs", "select *, null::jsonb as payload, null::xid as xmin from reveille.job_list"),
        ("blocked_jobs", "select *, null::jsonb as payload, null::xid as xmin from reveille.blocked_jobs_overview"),
        ("dead_jobs", "select *, null::jsonb as payload, null::xid as xmin from reveille.dead_job_list"),
        ("finished_jobs", "select *, null::jsonb as payload, null::tid as ctid from reveille.finished_job_list"),
    ] {
        for end in ['\n', ' '] {
            sql = sql.replace(&format!("from reveille.{table}{end}"), &format!("from ({view}) as {table}{end}"));
        }
    }
    sql
}

impl fmt::Display for PagePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.due {
            Some(due) => write!(f, "{}@{due}", self.id),
            None => write!(f, "{}", self.id),
        }
    }
}

impl FromStr for PagePlace {
    type Err = Error;

    fn from_str(text: &str) -> Result<PagePlace> {
        let (id, due) = text.split_once('@').map_or((text, None), |(id, due)| (id, Some(due.to_owned())));
        // The server reads the due time, so only its characters are checked here.
        let is_time =
            |due: &String| due.len() <= 64 && due.chars().all(|c| c.is_ascii_alphanumeric() || "-+:. ".contains(c));
        match id.parse() {
            Ok(id) if due.as_ref().is_none_or(is_time) => Ok(PagePlace { id, due }),
            _ => Err(Error::invalid(format!("{text:?} is no place in a listing; begin at its first page"))),
        }
    }
}

impl Slices {
    /// Begins at this place.
    fn go_on_at(&mut self, id: i64, due: Option<String>) {
        match self.walk {
            Walk::Due => (self.low, self.due) = (id, due),
            _ => self.high = id,
        }
    }

    /// Returns the id of the place that was reached.
    fn begins_at(&self) -> i64 {
        if self.walk == Walk::Due { self.low } else { self.high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        for text in ["7", "-9223372036854775808", "7@2026-11-23T07:59:58.5+00:00", "7@infinity"] {
            assert_eq!(text.parse::<PagePlace>().unwrap().to_string(), text);
        }
        for text in ["", "x", "7@'", "7@\u{0}", &format!("7@{}", "1".repeat(65))] {
            assert!(text.parse::<PagePlace>().unwrap_err().is_invalid(), "{text}");
        }
    }

    #[test]
    fn a_list_reads_no_table_of_jobs() {
        for table in [Table::Live, Table::Blocked, Table::Dead, Table::Finished] {
            let sql = table.page_of_list();
            for name in ["jobs", "blocked_jobs", "dead_jobs", "finished_jobs"] {
                for end in ["\n", " ", ")", ","] {
                    assert!(!sql.contains(&format!("from reveille.{name}{end}")), "{sql}");
                }
            }
        }
    }
}
