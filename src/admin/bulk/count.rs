//! Counting the jobs that a change would meet, and fixing its start.

use std::time::{Duration, Instant};

use super::{Bulk, JobCount, Start};
use crate::admin::slices::{Reached, Slices};
use crate::error::{Error, Result};

impl Bulk {
    /// Counts the jobs that pass the filter now, and changes none. A later [`step`](Bulk::step) or [`run`](Bulk::run)
    /// touches no job that was enqueued, or that died or finished, after the first count.
    ///
    /// # Errors
    /// The server's error.
    pub async fn count(&mut self) -> Result<u64> {
        Ok(self.count_up_to(u64::MAX, Duration::MAX).await?.jobs)
    }

    /// Counts as [`count`](Bulk::count) does, but stops at this number of jobs, or once this time is over.
    ///
    /// At least one slice is read, and a slice that has begun is read to its end. It takes at most about half a second.
    ///
    /// ```no_run
    /// # async fn example(mut bulk: reveille::admin::Bulk) -> reveille::Result<()> {
    /// use std::time::Duration;
    ///
    /// let count = bulk.count_up_to(10_000, Duration::from_millis(80)).await?;
    /// println!("{}{} jobs", count.jobs, if count.is_exact { "" } else { " or more" });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The server's error.
    pub async fn count_up_to(&mut self, most: u64, time: Duration) -> Result<JobCount> {
        let start = self.start().await?;
        let began = Instant::now();
        let mut slices = self.slices.clone();
        let mut jobs = 0;
        while !slices.has_ended() && jobs < most {
            slices.limit = i32::try_from(most - jobs).unwrap_or(i32::MAX);
            jobs += self.read_ids(&mut slices).await?.len() as u64;
            if began.elapsed() >= time {
                break;
            }
        }
        let is_exact = slices.has_ended();
        self.start = Some(Start { matching: is_exact.then_some(jobs).or(start.matching), ..start });
        Ok(JobCount { jobs, is_exact })
    }

    /// Fixes the start of the change, if it is not fixed yet, and returns it.
    ///
    /// Show the number of jobs first, keep the start, and give it to the change that follows:
    ///
    /// ```no_run
    /// # use reveille::admin::{Admin, BulkAction, Filter};
    /// # async fn example(admin: Admin, filter: Filter) -> reveille::Result<()> {
    /// let mut counting = admin.bulk(BulkAction::Revive, &filter)?;
    /// println!("revive {} jobs?", counting.count().await?);
    /// let start = counting.start().await?;
    ///
    /// // Later, perhaps in another process:
    /// let result = admin.bulk(BulkAction::Revive, &filter)?.starting_at(start).run().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The server's error.
    pub async fn start(&mut self) -> Result<Start> {
        if let Some(start) = self.start {
            return Ok(start);
        }
        let rows = self.admin.read("count jobs", self.slices.table.highest_id(), &[]).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("cannot count jobs: the server returned no row"))?;
        let start = Start::new(row.get("id"), row.get("time"));
        self.fix(start);
        Ok(start)
    }

    /// Starts the change where an earlier one has fixed its [`start`](Bulk::start). Jobs that came later are not
    /// touched.
    pub fn starting_at(mut self, start: Start) -> Bulk {
        self.fix(start);
        self
    }

    fn fix(&mut self, start: Start) {
        self.slices.high = start.highest_id;
        self.slices.until = Some(start.time);
        self.start = Some(start);
    }

    /// Returns the ids of the jobs in the next slice that pass the filter.
    pub(super) async fn read_ids(&self, slices: &mut Slices) -> Result<Vec<i64>> {
        let began = Instant::now();
        let rows = self.admin.read("count jobs", slices.table.ids(), &slices.params().list()).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("cannot count jobs: the server returned no row"))?;
        let ids: Vec<i64> = row.get("ids");
        slices.advance(Reached::of_row(row), began);
        Ok(ids)
    }
}
