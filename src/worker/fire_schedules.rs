//! Fires the schedules: enqueues a job at each tick. Every worker does; who comes first moves the schedule on, and the
//! fence on its next tick sees to it that nobody does so twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::driver::{DueSchedule, DueSchedules, Firing};
use crate::error::Result;
use crate::job::{MAX_PAYLOAD, NewJob};
use crate::schedule::{CatchUp, Schedule, Ticks, lacks_zone};
use crate::worker::bells::{Reason, Wake};
use crate::worker::shared::Shared;

/// How many schedules are looked at at once, how many ticks are enqueued in one transaction, and how many of one
/// schedule.
const SCHEDULES: usize = 256;
const TICKS: usize = 1000;
const TICKS_OF_ONE: usize = 100;
/// Ticks that are no later than this were not missed: somebody was there, and had a moment's trouble.
const HICCUP: Duration = Duration::from_secs(3);
/// How often to look without any reason to: what was missed of the signals is caught by that.
pub(crate) const POLL: Duration = Duration::from_secs(30);
/// The time from one look to the next at least, however often somebody signals that a schedule may be due.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long to wait, in milliseconds, for who came first: at first, and at most.
const RIVALS: (u64, u64) = (2, 256);

/// A worker's part in the firing of schedules.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    /// What its code declares, and under which id it did so.
    declared: Vec<Schedule>,
    declared_by: i64,
    wake: Wake,
    /// The schedules that are left to other hosts, since this one lacks their time zone: ids, and since when their
    /// timing stands.
    left_to_others: HashSet<(i64, SystemTime)>,
}

/// What a look came to.
enum Looked {
    /// Nothing is due for this long.
    Early(Option<Duration>),
    /// Something was due, and moved on by us alone; there may be more.
    Fired,
    /// Others are at it as well; nothing else is due for this long.
    Beaten(Option<Duration>),
}

impl Ticker {
    /// For a worker that has declared the schedules of its code under the id that it has now.
    pub(crate) fn new(shared: &Arc<Shared>, declared: Vec<Schedule>) -> Ticker {
        Ticker {
            shared: Arc::clone(shared),
            declared,
            declared_by: shared.id(),
            wake: shared.bells.wake_for_schedules(POLL, shared.options.listen),
            left_to_others: HashSet::new(),
        }
    }

    /// Fires until the task is dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = self.shared.backoff("fire the schedules");
        let (first, longest) = RIVALS;
        let mut rivals = 0;
        loop {
            let looked = Instant::now();
            match self.look().await {
                Ok(found) => {
                    backoff.worked();
                    match found {
                        Looked::Fired => rivals = 0,
                        Looked::Beaten(due_in) => {
                            rivals = (rivals * 2).clamp(first, longest);
                            let rest = up_to(rivals);
                            tokio::time::sleep(due_in.map_or(rest, |due_in| due_in.min(rest))).await;
                        }
                        Looked::Early(due_in) => {
                            self.sleep(looked, due_in).await;
                            // Who was beaten the last time lets others go first, so that not all do the same work.
                            rivals = rivals.min(first * 4);
                            tokio::time::sleep(up_to(rivals)).await;
                        }
                    }
                }
                // It may work, and has not been allowed this.
                Err(error) if error.is_denied() => {
                    let _ = backoff.failed(&error);
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => backoff.failed(&error).over().await,
            }
        }
    }

    /// Until a schedule is due, or may be sooner than it was known. `looked`: when the last look began.
    async fn sleep(&mut self, looked: Instant, due_in: Option<Duration>) {
        let hears = self.wake.hearing().is_some_and(|hearing| !hearing.never);
        let polled = (!hears).then_some(self.shared.options.poll_interval);
        if self.wake.next(due_in.into_iter().chain(polled).min()).await == Reason::Bell {
            tokio::time::sleep_until(looked + LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) -> Result<Looked> {
        let worker = self.shared.id();
        if worker != self.declared_by {
            self.shared.driver.declare(worker, &self.declared).await?;
            self.declared_by = worker;
        }
        let mut due = self.shared.driver.due_schedules(SCHEDULES).await?;
        self.leave_to_others(&mut due).await?;
        due.schedules.retain(|due| !due.through_middleware || self.declares(due).is_some());
        let firings = plan(&due);
        if firings.is_empty() {
            return Ok(Looked::Early(due.due_in));
        }
        let moved = self.fire(&due, &firings).await?;
        if moved == firings.len() {
            return Ok(Looked::Fired);
        }
        let following = firings.iter().filter_map(|firing| firing.following.as_ref().ok());
        let ahead =
            following.filter_map(|next| next.duration_since(due.looked_at).ok()).filter(|ahead| !ahead.is_zero());
        Ok(Looked::Beaten(ahead.chain(due.due_in).min()))
    }
}

impl Ticker {
    /// The schedule of the worker's code, if it is one.
    fn declares(&self, due: &DueSchedule) -> Option<&Schedule> {
        self.declared.iter().find(|schedule| schedule.name == due.name)
    }

    /// Moves schedules on; returns how many. The jobs of those that are the worker's own pass its middleware. Where
    /// that refuses one, the others are fired all the same, and the schedule is tried again.
    async fn fire(&self, due: &DueSchedules, firings: &[Firing]) -> Result<usize> {
        let own = |firing: &Firing| {
            let due = due.schedules.iter().find(|due| due.id == firing.id && due.through_middleware)?;
            self.declares(due).filter(|_| !firing.ticks.is_empty())
        };
        let plain: Vec<Firing> = firings.iter().filter(|firing| own(firing).is_none()).cloned().collect();
        let mut moved = if plain.is_empty() { 0 } else { self.shared.driver.fire(&plain).await? };
        let mut refused = None;
        for (firing, schedule) in firings.iter().filter_map(|firing| Some((firing, own(firing)?))) {
            let pass = |tick: &SystemTime| {
                let job = self.shared.attempts.middlewares.enqueue(schedule.job_at(*tick)?)?;
                job.check(MAX_PAYLOAD).map(|()| job)
            };
            match firing.ticks.iter().map(pass).collect::<Result<Vec<NewJob>>>() {
                Ok(jobs) => moved += usize::from(self.shared.driver.fire_jobs(firing, &jobs).await?),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(moved), Err)
    }

    /// Takes out the schedules whose time zone this host lacks and the store knows. One that nobody knows is no zone,
    /// and is recorded as such.
    async fn leave_to_others(&mut self, due: &mut DueSchedules) -> Result<()> {
        for schedule in due.schedules.iter().filter(|due| lacks_zone(&due.timing, &due.time_zone)) {
            let which = (schedule.id, schedule.counted_from);
            if !self.left_to_others.contains(&which) && self.shared.driver.knows_zone(&schedule.time_zone).await? {
                self.left_to_others.insert(which);
                tracing::warn!(
                    name: "schedule.zone_missing", target: "reveille::worker",
                    schedule = schedule.id, time_zone = ?schedule.time_zone,
                    "this host lacks a schedule's time zone; leaving the schedule to other hosts: install the zones (tzdata)"
                );
            }
        }
        let left = &self.left_to_others;
        due.schedules
            .retain(|due| !(left.contains(&(due.id, due.counted_from)) && lacks_zone(&due.timing, &due.time_zone)));
        Ok(())
    }
}

/// Up to so many milliseconds, at random.
fn up_to(milliseconds: u64) -> Duration {
    Duration::from_micros(fastrand::u64(..=milliseconds * 1000))
}

/// What becomes of those that are due; what there is no room for is looked at again.
fn plan(due: &DueSchedules) -> Vec<Firing> {
    let mut room = TICKS;
    let mut firings = Vec::new();
    for schedule in &due.schedules {
        if room == 0 {
            break;
        }
        let firing = fire(schedule, due.looked_at, room.min(TICKS_OF_ONE));
        if let Err(error) = &firing.following {
            tracing::warn!(name: "schedule.unreadable", target: "reveille::worker", schedule = schedule.id, %error, "cannot read a schedule; leaving it alone until it is changed");
        }
        room -= firing.ticks.len();
        firings.push(firing);
    }
    firings
}

fn fire(due: &DueSchedule, now: SystemTime, most: usize) -> Firing {
    let (ticks, following) = match ticks(due, now, most) {
        Ok((ticks, following)) => (ticks, Ok(following)),
        Err(error) => (Vec::new(), Err(error.to_string())),
    };
    Firing { id: due.id, counted_from: due.counted_from, next_at: due.next_at, ticks, following }
}

/// The ticks to enqueue, and the one after them.
fn ticks(due: &DueSchedule, now: SystemTime, most: usize) -> Result<(Vec<SystemTime>, SystemTime)> {
    let timing = Ticks::new(&due.timing, &due.time_zone, due.counted_from)?;
    let mut next = match due.next_at {
        Some(next) => next,
        None => timing.after(due.counted_from)?,
    };
    let mut ticks = Vec::new();
    // Ticks up to here were missed; those after it come under any policy.
    let missed_until = now.checked_sub(HICCUP).filter(|until| next < *until);
    match (due.catch_up, missed_until) {
        (CatchUp::Skip, Some(until)) => next = timing.after(until)?,
        (CatchUp::One, Some(until)) => {
            let last = timing.last_until(next, until)?;
            ticks.push(last);
            next = timing.after(last)?;
        }
        _ => {}
    }
    while next <= now && ticks.len() < most {
        ticks.push(next);
        next = timing.after(next)?;
    }
    Ok((ticks, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Memory;
    use crate::schedule::Timing;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn signals_that_anybody_sends_lead_to_a_look_each_50_ms_at_most() {
        let shared = crate::worker::shared::tests::shared(&Memory::new(), &[]);
        let (mut ticker, bells) = (Ticker::new(&shared, Vec::new()), &shared.bells);
        let first = Instant::now();
        tokio::time::sleep(HOUR).await;
        bells.ring_for_schedules();
        ticker.sleep(first, None).await;
        assert_eq!(first.elapsed(), HOUR, "after a quiet time at once");
        for _ in 0..100 {
            bells.ring_for_schedules();
            ticker.sleep(Instant::now(), None).await;
        }
        assert!(first.elapsed() >= HOUR + LOOK_EVERY * 100, "{:?}", first.elapsed() - HOUR);
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * 500_000
    }

    /// A schedule at each full hour whose next tick was to come so long ago.
    fn hourly(catch_up: CatchUp, late: Duration) -> DueSchedule {
        DueSchedule {
            id: 1,
            name: "hourly".into(),
            through_middleware: false,
            timing: Timing::Cron("@hourly".into()),
            time_zone: "UTC".into(),
            catch_up,
            counted_from: SystemTime::UNIX_EPOCH,
            next_at: Some(now() - late),
        }
    }

    /// The ticks that are enqueued, and the next one, in hours from now.
    fn fired(due: &DueSchedule, most: usize) -> (Vec<i64>, i64) {
        let hours = |tick: SystemTime| match tick.duration_since(now()) {
            Ok(ahead) => (ahead.as_secs() / 3600) as i64,
            Err(behind) => -((behind.duration().as_secs() / 3600) as i64),
        };
        let (ticks, next) = ticks(due, now() + HICCUP / 2, most).unwrap();
        (ticks.into_iter().map(hours).collect(), hours(next))
    }

    #[test]
    fn missed_ticks_are_caught_up_with_as_is_asked_for() {
        // The tick of this hour is a moment late, and not missed.
        assert_eq!(fired(&hourly(CatchUp::Skip, HOUR * 5), 100), (vec![0], 1));
        assert_eq!(fired(&hourly(CatchUp::One, HOUR * 5), 100), (vec![-1, 0], 1));
        assert_eq!(fired(&hourly(CatchUp::All, HOUR * 5), 100), (vec![-5, -4, -3, -2, -1, 0], 1));
        assert_eq!(fired(&hourly(CatchUp::All, HOUR * 5), 2), (vec![-5, -4], -3), "the oldest first");
        assert_eq!(fired(&hourly(CatchUp::One, HOUR * 100_000), 100), (vec![-1, 0], 1));
    }

    #[test]
    fn after_an_outage_the_ticks_of_the_last_three_seconds_are_not_missed() {
        let often = |catch_up| DueSchedule { timing: Timing::Every(HICCUP / 10), ..hourly(catch_up, HOUR) };
        let recent = |catch_up| ticks(&often(catch_up), now(), 100).unwrap().0;
        let late = |tick: &SystemTime| now().duration_since(*tick).unwrap();
        assert_eq!(recent(CatchUp::Skip).len(), 10, "none of the hour, and each of the three seconds");
        assert!(recent(CatchUp::Skip).iter().all(|tick| late(tick) < HICCUP));
        let one = recent(CatchUp::One);
        assert_eq!(one.len(), 11, "one for the hour besides");
        assert_eq!(late(&one[0]), HICCUP);
    }

    #[test]
    fn a_tick_that_is_a_little_late_is_enqueued_whatever_the_policy() {
        for catch_up in [CatchUp::Skip, CatchUp::One, CatchUp::All] {
            assert_eq!(fired(&hourly(catch_up, Duration::ZERO), 100), (vec![0], 1));
            let often = DueSchedule { timing: Timing::Every(HICCUP / 6), ..hourly(catch_up, HICCUP / 6) };
            assert_eq!(ticks(&often, now() + HICCUP / 2, 100).unwrap().0.len(), 5, "each of them");
        }
    }

    #[test]
    fn the_first_tick_is_the_first_after_its_timing_was_set() {
        let mut unreckoned = hourly(CatchUp::All, Duration::ZERO);
        (unreckoned.next_at, unreckoned.counted_from) = (None, now());
        assert_eq!(fired(&unreckoned, 100), (vec![], 1));
        unreckoned.counted_from = now() - HOUR * 2;
        assert_eq!(fired(&unreckoned, 100), (vec![-1, 0], 1));
    }

    #[test]
    fn a_transaction_is_bounded_and_one_bad_text_stops_no_other() {
        let late = hourly(CatchUp::All, HOUR * 1000);
        let mut schedules = vec![late; 30];
        schedules[0].timing = Timing::Cron("nonsense".into());
        let firings = plan(&DueSchedules { schedules, due_in: None, looked_at: now() });
        assert!(firings[0].following.as_ref().is_err_and(|error| error.contains("nonsense")));
        assert_eq!(firings.iter().map(|firing| firing.ticks.len()).sum::<usize>(), TICKS);
        assert_eq!(firings.len(), 11);
    }
}
