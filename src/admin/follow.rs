//! Following jobs: new and changed jobs as they come.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use super::filter::{Filter, Listing};
use super::slices::{Slices, Walk};
use super::{Admin, JobRow, StateFilter};
use crate::error::{Error, Result};
use crate::job::JobState;

/// The new and changed jobs that pass a filter, as they come; made by [`Admin::follow`].
///
/// A follower looks at the tables twice a second, and reads only what may have changed:
///
/// - jobs that were enqueued since, and jobs that workers hold;
/// - the last 1,000 live jobs that it has returned, until they have ended;
/// - jobs that have ended since.
///
/// A job that changes several times between two looks is returned once, as it is then. An older waiting job that fails
/// between two looks and waits again is not noticed, unless the follower has returned it before or follows the state
/// failing.
#[derive(Debug)]
pub struct Follower {
    admin: Admin,
    filter: Filter,
    listing: Listing,
    /// The places of the last looks, oldest first. A look begins at the oldest of them, because transactions commit
    /// late, and not in the order of their ids.
    places: VecDeque<Place>,
    seen: Seen,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    now: SystemTime,
    last_id: i64,
    day: i16,
    page: i64,
}

/// The jobs that were returned, with a hash of their columns.
#[derive(Debug, Default)]
struct Seen {
    jobs: HashMap<i64, SeenJob>,
    order: VecDeque<i64>,
    /// The number of looks so far.
    looks: usize,
}

#[derive(Debug, Clone, Copy)]
struct SeenJob {
    hash: u64,
    is_live: bool,
    /// The last look that has read the job.
    look: usize,
}

/// The time between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// The number of looks whose places are kept: a transaction may commit 3 s late.
const PLACES: usize = 6;
/// The number of jobs that are remembered beside those of the last looks, and the maximum number of live jobs among all
/// these that each look reads again.
const MOST_SEEN: usize = 10_000;
const MOST_LIVE: usize = 1000;
/// The maximum number of failing jobs that a look reads, newest first.
const MOST_FAILING: i32 = 1000;
/// The maximum number of slices that one look reads of the new jobs.
const SLICES_PER_LOOK: usize = 20;

impl Admin {
    /// Follows the jobs that pass a filter: [`Follower::next`] returns new and changed jobs as they come.
    ///
    /// Without a state, the filter chooses live jobs, and shows how they end. The ages of a filter count from the end
    /// of a job that has ended.
    ///
    /// ```no_run
    /// # async fn example(database: reveille::Database) -> reveille::Result<()> {
    /// use reveille::admin::Filter;
    ///
    /// let mut follower = database.admin().follow(&Filter::new().queue("mail")).await?;
    /// loop {
    ///     for job in follower.next().await? {
    ///         println!("{} {} {}", job.id, job.kind, job.state);
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// Invalid as for [`Admin::jobs`]; else the server's error.
    pub async fn follow(&self, filter: &Filter) -> Result<Follower> {
        let listing = filter.listing()?;
        let mut follower = Follower {
            admin: self.clone(),
            filter: filter.clone(),
            listing,
            places: VecDeque::new(),
            seen: Seen::default(),
        };
        follower.note_place().await?;
        Ok(follower)
    }
}

impl Follower {
    /// Lists at most `limit` jobs that pass the filter now, oldest first. The follower returns them again only when
    /// they have changed.
    ///
    /// # Errors
    /// The server's error.
    pub async fn list(&mut self, limit: u32) -> Result<Vec<JobRow>> {
        let mut jobs = self.admin.jobs(&self.filter, limit).await?;
        jobs.reverse();
        jobs.retain(|job| self.seen.is_news(job));
        Ok(jobs)
    }

    /// Waits for half a second, and returns the jobs that have come or changed since the last look, in the order of
    /// their ids.
    ///
    /// # Errors
    /// The server's error. After an error that [is about availability](Error::is_unavailable), the next call goes on
    /// where this one began.
    pub async fn next(&mut self) -> Result<Vec<JobRow>> {
        tokio::time::sleep(PAUSE).await;
        let from = *self.places.front().ok_or_else(|| Error::unavailable("cannot follow jobs: no look has begun"))?;
        let last = self.places.back().map_or(from, |last| *last);
        let here = self.note_place().await?;
        let mut jobs = Vec::new();
        match self.listing {
            Listing::Dead(reason) => self.read_dead(Listing::Dead(reason), from, &mut jobs).await?,
            Listing::Finished(outcome) => self.read_finished(outcome, from, here, &mut jobs).await?,
            Listing::Blocked => {
                self.read_blocked(from, &mut jobs).await?;
                self.read_lost(&mut jobs).await?;
            }
            Listing::Live(state) => {
                self.read_live(state, from, &mut jobs).await?;
                if state.is_none() {
                    self.read_dead(Listing::Dead(None), from, &mut jobs).await?;
                    self.read_finished(None, from, here, &mut jobs).await?;
                }
                self.read_lost(&mut jobs).await?;
            }
        }
        if last.day != here.day {
            // The pages of another day say nothing about today's.
            self.places.retain(|place| place.day == here.day);
        }
        jobs.sort_by_key(|job| (job.id, is_ended(job)));
        jobs.retain(|job| self.seen.is_news(job));
        self.seen.end_look();
        Ok(jobs)
    }

    async fn note_place(&mut self) -> Result<Place> {
        let rows = self.admin.read("follow jobs", include_str!("../../sql/follow_place.sql"), &[]).await?;
        let row = rows.first().ok_or_else(|| Error::unavailable("cannot follow jobs: the server returned no row"))?;
        let place = Place {
            now: row.get("now"),
            last_id: row.get("last_id"),
            day: row.get("day"),
            page: row.get::<_, i64>("pages").saturating_sub(1).max(0),
        };
        self.places.push_back(place);
        if self.places.len() > PLACES {
            self.places.pop_front();
        }
        Ok(place)
    }

    /// Reads new jobs, running jobs, and live jobs that were returned before.
    async fn read_live(&self, state: Option<&'static str>, from: Place, jobs: &mut Vec<JobRow>) -> Result<()> {
        let slices = |walk| Slices::new(&self.filter, Listing::Live(state)).by(walk);
        let mut new = slices(Walk::Id);
        new.low = from.last_id.saturating_add(1);
        self.read_all(new, jobs).await?;
        self.read_all(slices(Walk::Held), jobs).await?;
        self.read_all(slices(Walk::Id).of_ids(self.seen.live()), jobs).await?;
        if self.filter.state == Some(StateFilter::Failing) {
            let mut failing = slices(Walk::Failing).newest_first();
            failing.limit = MOST_FAILING;
            jobs.extend(self.admin.read_slice(&mut failing).await?.0);
        }
        Ok(())
    }

    /// Reads new blocked jobs, and blocked jobs that were returned before.
    async fn read_blocked(&self, from: Place, jobs: &mut Vec<JobRow>) -> Result<()> {
        let slices = || Slices::new(&self.filter, Listing::Blocked);
        let mut new = slices();
        new.low = from.last_id.saturating_add(1);
        self.read_all(new, jobs).await?;
        self.read_all(slices().of_ids(self.seen.live()), jobs).await
    }

    async fn read_dead(&self, listing: Listing, from: Place, jobs: &mut Vec<JobRow>) -> Result<()> {
        let mut filter = self.filter.clone();
        filter.since = Some(filter.since.map_or(from.now, |since| since.max(from.now)));
        self.read_all(Slices::new(&filter, listing).by(Walk::Recent), jobs).await
    }

    /// Reads the jobs that have finished since: on the pages of the history that were written last.
    async fn read_finished(
        &self,
        outcome: Option<&'static str>,
        from: Place,
        here: Place,
        jobs: &mut Vec<JobRow>,
    ) -> Result<()> {
        let mut filter = self.filter.clone();
        filter.since = Some(filter.since.map_or(from.now, |since| since.max(from.now)));
        let slices = Slices::new(&filter, Listing::Finished(outcome)).by(Walk::Recent);
        let mut starts = vec![(from.day, from.page)];
        if from.day != here.day {
            starts.push((here.day, 0));
        }
        for start in starts {
            let mut slices = slices.clone();
            slices.page = Some(start);
            for _ in 0..SLICES_PER_LOOK {
                let (read, page) = self.admin.read_slice(&mut slices).await?;
                jobs.extend(read);
                match page {
                    Some(page) if !slices.has_ended() => slices.page = Some((start.0, page)),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Reads how those jobs ended that were returned as live and are missing now. Forgets a job whose end is not to be
    /// shown, or is not known.
    async fn read_lost(&mut self, jobs: &mut Vec<JobRow>) -> Result<()> {
        let found: HashSet<i64> = jobs.iter().map(|job| job.id).collect();
        let mut lost = self.seen.live();
        lost.retain(|id| !found.contains(id));
        if lost.is_empty() {
            return Ok(());
        }
        if self.listing == Listing::Live(None) {
            for listing in [Listing::Dead(None), Listing::Finished(None)] {
                self.read_all(Slices::new(&self.filter, listing).of_ids(lost.clone()), jobs).await?;
            }
        }
        for id in lost {
            if let Some(seen) = self.seen.jobs.get_mut(&id) {
                seen.is_live = false;
            }
        }
        Ok(())
    }

    async fn read_all(&self, mut slices: Slices, jobs: &mut Vec<JobRow>) -> Result<()> {
        for _ in 0..SLICES_PER_LOOK {
            if slices.has_ended() {
                break;
            }
            jobs.extend(self.admin.read_slice(&mut slices).await?.0);
        }
        Ok(())
    }
}

impl Seen {
    /// Returns true if the job is new or has changed, and remembers it.
    fn is_news(&mut self, job: &JobRow) -> bool {
        let mut hasher = DefaultHasher::new();
        // Progress is left out: a handler may report it twice a second.
        job.record().iter().filter(|(column, _)| *column != "progress").for_each(|column| column.hash(&mut hasher));
        let seen = SeenJob { hash: hasher.finish(), is_live: !is_ended(job), look: self.looks };
        let before = self.jobs.insert(job.id, seen);
        if before.is_none() {
            self.order.push_back(job.id);
        }
        before.is_none_or(|before| before.hash != seen.hash)
    }

    /// Forgets the oldest jobs, but none that the next looks may read again.
    fn end_look(&mut self) {
        for _ in MOST_SEEN..self.order.len() {
            let Some(oldest) = self.order.pop_front() else { break };
            let is_recent = self.jobs.get(&oldest).is_some_and(|job| job.look + PLACES >= self.looks);
            if is_recent {
                self.order.push_back(oldest);
            } else {
                self.jobs.remove(&oldest);
            }
        }
        self.looks += 1;
    }

    /// Returns the ids of the jobs that were live when they were last returned, newest first.
    fn live(&self) -> Vec<i64> {
        let is_live = |id: &&i64| self.jobs.get(id).is_some_and(|job| job.is_live);
        self.order.iter().rev().filter(is_live).take(MOST_LIVE).copied().collect()
    }
}

fn is_ended(job: &JobRow) -> bool {
    matches!(job.state, JobState::Dead | JobState::Completed | JobState::Cancelled)
}
