//! Fires the schedules: enqueues a job at each tick. Every worker runs this task.
//!
//! No tick fires twice, because the first worker that fires a tick moves the schedule to its next tick. The store then
//! refuses to fire the earlier tick again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::driver::{DueSchedule, DueSchedules, Firing};
use crate::error::Result;
use crate::job::{MAX_PAYLOAD, NewJob};
use crate::schedule::{CatchUp, Schedule, Ticks, lacks_zone};
use crate::worker::bells::{Wake, WakeReason};
use crate::worker::shared::Shared;

/// One query for due ticks returns at most 256 schedules.
const MOST_SCHEDULES: usize = 256;
/// One transaction enqueues jobs for at most 1000 ticks, and for at most 100 ticks of one schedule.
const MOST_TICKS: usize = 1000;
const MOST_TICKS_OF_ONE: usize = 100;
/// A tick that is at most 3 s late was not missed, so the schedule's catch-up does not apply to it.
const MISSED_AFTER: Duration = Duration::from_secs(3);
/// The time between two checks for due ticks if no signal arrives. These checks are needed since a signal may have been
/// missed.
pub(crate) const POLL: Duration = Duration::from_secs(30);
/// Two checks for due ticks are at least 50 ms apart, however many signals say that a schedule may fire soon.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// If another worker has fired a tick first, this worker rests for a random time of at most 2 ms. Each further such
/// tick in a row doubles this limit, up to `LONGEST_REST`.
const FIRST_REST: Duration = Duration::from_millis(2);
const LONGEST_REST: Duration = Duration::from_millis(256);
/// Once another worker was faster, this worker adds a random wait of at most 8 ms at each tick. Otherwise all workers
/// would try to fire each tick at the same time. The waits end when this worker has fired a tick itself.
const LONGEST_TICK_DELAY: Duration = Duration::from_millis(8);

/// Fires schedules for one worker.
pub(crate) struct FireSchedules {
    shared: Arc<Shared>,
    /// The schedules that the worker's code declares.
    declared: Vec<Schedule>,
    /// The worker id under which the schedules were declared last.
    declared_by: i64,
    wake: Wake,
    /// The schedules that other hosts have to fire, since this host lacks the time zones of these schedules.
    left_to_others: HashSet<ScheduleVersion>,
}

/// A schedule with its present timing. If the timing changes, the schedule gets another version.
#[derive(PartialEq, Eq, Hash)]
struct ScheduleVersion {
    id: i64,
    counted_from: SystemTime,
}

/// The result of one check for due ticks.
enum FireResult {
    /// No schedule has a due tick. The next tick is due in this time.
    NothingDue(Option<Duration>),
    /// This worker fired all due ticks that it had found. There may be more due ticks.
    Fired,
    /// Another worker fired some of the due ticks first. The next tick is due in this time.
    Outpaced(Option<Duration>),
}

impl ScheduleVersion {
    fn of(due: &DueSchedule) -> ScheduleVersion {
        ScheduleVersion { id: due.id, counted_from: due.counted_from }
    }
}

impl FireSchedules {
    /// Returns the task of a worker. The worker must already have declared the schedules `declared` under its present
    /// id.
    pub(crate) fn new(shared: &Arc<Shared>, declared: Vec<Schedule>) -> FireSchedules {
        FireSchedules {
            shared: Arc::clone(shared),
            declared,
            declared_by: shared.id(),
            wake: shared.bells.wake_for_schedules(POLL, shared.options.listen),
            left_to_others: HashSet::new(),
        }
    }

    /// Fires schedules until the task is dropped.
    pub(crate) async fn run(mut self) {
        let mut backoff = self.shared.backoff("fire the schedules");
        let mut longest_rest = Duration::ZERO;
        loop {
            let looked_at = Instant::now();
            match self.look().await {
                Ok(result) => {
                    backoff.worked();
                    match result {
                        FireResult::Fired => longest_rest = Duration::ZERO,
                        FireResult::Outpaced(due_in) => {
                            longest_rest = (longest_rest * 2).clamp(FIRST_REST, LONGEST_REST);
                            let rest = up_to(longest_rest);
                            tokio::time::sleep(due_in.map_or(rest, |due_in| due_in.min(rest))).await;
                        }
                        FireResult::NothingDue(due_in) => {
                            self.sleep(looked_at, due_in).await;
                            longest_rest = longest_rest.min(LONGEST_TICK_DELAY);
                            tokio::time::sleep(up_to(longest_rest)).await;
                        }
                    }
                }
                // The worker's database role lacks the right to fire schedules. The worker still runs jobs, and this
                // task tries again after 30 s.
                Err(error) if error.is_denied() => {
                    let _ = backoff.failed(&error);
                    tokio::time::sleep(POLL).await;
                }
                Err(error) => backoff.failed(&error).over().await,
            }
        }
    }

    /// Sleeps until a tick is due, or until a signal says that a tick may be due sooner. `looked_at`: the time at which
    /// the last check began.
    async fn sleep(&mut self, looked_at: Instant, due_in: Option<Duration>) {
        let can_listen = self.wake.listener().is_some_and(|listener| !listener.unsupported);
        let poll_in = (!can_listen).then_some(self.shared.options.poll_interval);
        if self.wake.next(due_in.into_iter().chain(poll_in).min()).await == WakeReason::Bell {
            tokio::time::sleep_until(looked_at + LOOK_EVERY).await;
        }
    }

    async fn look(&mut self) -> Result<FireResult> {
        let worker = self.shared.id();
        if worker != self.declared_by {
            let stored = self.shared.attempts.middlewares.declare(&self.declared)?;
            self.shared.driver.declare(worker, &stored).await?;
            self.declared_by = worker;
        }
        let mut due = self.shared.driver.due_schedules(MOST_SCHEDULES).await?;
        self.leave_to_others(&mut due).await?;
        due.schedules.retain(|due| !due.through_middleware || self.declaration_of(due).is_some());
        let firings = plan(&due);
        if firings.is_empty() {
            return Ok(FireResult::NothingDue(due.due_in));
        }
        let moved = self.fire(&due, &firings).await?;
        if moved == firings.len() {
            return Ok(FireResult::Fired);
        }
        let following = firings.iter().filter_map(|firing| firing.following.as_ref().ok());
        let ahead =
            following.filter_map(|next| next.duration_since(due.looked_at).ok()).filter(|ahead| !ahead.is_zero());
        Ok(FireResult::Outpaced(ahead.chain(due.due_in).min()))
    }
}

impl FireSchedules {
    /// Returns this worker's declaration of the schedule, if there is one.
    fn declaration_of(&self, due: &DueSchedule) -> Option<&Schedule> {
        self.declared.iter().find(|schedule| schedule.name == due.name)
    }

    /// Enqueues the jobs of these firings and moves their schedules to the next ticks. Returns the number of schedules
    /// that this worker moved.
    ///
    /// The jobs of schedules that this worker declares pass through this worker's middlewares. If a middleware refuses
    /// a job, this fires all other schedules and then returns the error. The next check tries again to fire the
    /// schedule of the refused job.
    async fn fire(&self, due: &DueSchedules, firings: &[Firing]) -> Result<usize> {
        let through_middleware = |firing: &Firing| {
            let due = due.schedules.iter().find(|due| due.id == firing.id && due.through_middleware)?;
            self.declaration_of(due).filter(|_| !firing.ticks.is_empty())
        };
        let plain: Vec<Firing> =
            firings.iter().filter(|firing| through_middleware(firing).is_none()).cloned().collect();
        let mut moved = if plain.is_empty() { 0 } else { self.shared.driver.fire(&plain).await? };
        let mut refused = None;
        for (firing, schedule) in firings.iter().filter_map(|firing| Some((firing, through_middleware(firing)?))) {
            let job_at = |tick: &SystemTime| {
                let job = self.shared.attempts.middlewares.enqueue(schedule.job_at(*tick)?)?;
                job.check(MAX_PAYLOAD).map(|()| job)
            };
            match firing.ticks.iter().map(job_at).collect::<Result<Vec<NewJob>>>() {
                Ok(jobs) => moved += usize::from(self.shared.driver.fire_jobs(firing, &jobs).await?),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(moved), Err)
    }

    /// Removes the schedules whose time zone this host lacks, if the store knows the time zone. If the store lacks the
    /// time zone too, the schedule stays, so that its error is recorded.
    async fn leave_to_others(&mut self, due: &mut DueSchedules) -> Result<()> {
        for schedule in due.schedules.iter().filter(|due| lacks_zone(&due.timing, &due.time_zone)) {
            let version = ScheduleVersion::of(schedule);
            if !self.left_to_others.contains(&version) && self.shared.driver.knows_zone(&schedule.time_zone).await? {
                self.left_to_others.insert(version);
                tracing::warn!(
                    name: "schedule.zone_missing", target: "reveille::worker",
                    schedule = schedule.id, time_zone = ?schedule.time_zone,
                    "this host lacks a schedule's time zone, so only other hosts fire the schedule; \
                     install the time zones (package tzdata)"
                );
            }
        }
        let left = &self.left_to_others;
        due.schedules
            .retain(|due| !(left.contains(&ScheduleVersion::of(due)) && lacks_zone(&due.timing, &due.time_zone)));
        Ok(())
    }
}

/// Returns a random time of up to `longest`.
fn up_to(longest: Duration) -> Duration {
    longest.mul_f64(fastrand::f64())
}

/// Returns the firings of the schedules with due ticks. Schedules beyond the first 1000 ticks wait for the next check.
fn plan(due: &DueSchedules) -> Vec<Firing> {
    let mut room = MOST_TICKS;
    let mut firings = Vec::new();
    for schedule in &due.schedules {
        if room == 0 {
            break;
        }
        let firing = fire(schedule, due.looked_at, room.min(MOST_TICKS_OF_ONE));
        if let Err(error) = &firing.following {
            tracing::warn!(
                name: "schedule.unreadable", target: "reveille::worker", schedule = schedule.id, %error,
                "cannot read a schedule; it does not fire until it is changed"
            );
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

/// Returns the ticks at which to enqueue jobs, and the next tick after these ticks.
fn ticks(due: &DueSchedule, now: SystemTime, most: usize) -> Result<(Vec<SystemTime>, SystemTime)> {
    let timing = Ticks::new(&due.timing, &due.time_zone, due.counted_from)?;
    let mut next = match due.next_at {
        Some(next) => next,
        None => timing.after(due.counted_from)?,
    };
    let mut ticks = Vec::new();
    // Ticks up to this time were missed. Jobs for later ticks are enqueued under any catch-up.
    let missed_until = now.checked_sub(MISSED_AFTER).filter(|until| next < *until);
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
    async fn signals_lead_to_one_look_in_50_ms_at_most() {
        let shared = crate::worker::shared::tests::shared(&Memory::new(), &[]);
        let (mut firing, bells) = (FireSchedules::new(&shared, Vec::new()), &shared.bells);
        let first = Instant::now();
        tokio::time::sleep(HOUR).await;
        bells.ring_for_schedules();
        firing.sleep(first, None).await;
        assert_eq!(first.elapsed(), HOUR, "after a quiet time it looks at once");
        for _ in 0..100 {
            bells.ring_for_schedules();
            firing.sleep(Instant::now(), None).await;
        }
        assert!(first.elapsed() >= HOUR + LOOK_EVERY * 100, "{:?}", first.elapsed() - HOUR);
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + HOUR * 500_000
    }

    /// Returns a schedule with a tick at each full hour. Its next tick is late by the time `late`.
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

    /// Returns the ticks that are enqueued, and the next tick, in hours from now.
    fn fired(due: &DueSchedule, most: usize) -> (Vec<i64>, i64) {
        let hours = |tick: SystemTime| match tick.duration_since(now()) {
            Ok(ahead) => (ahead.as_secs() / 3600) as i64,
            Err(behind) => -((behind.duration().as_secs() / 3600) as i64),
        };
        let (ticks, next) = ticks(due, now() + MISSED_AFTER / 2, most).unwrap();
        (ticks.into_iter().map(hours).collect(), hours(next))
    }

    #[test]
    fn missed_ticks_are_enqueued_by_the_catch_up_policy() {
        // The tick of this hour is 1.5 s late, so it was not missed.
        assert_eq!(fired(&hourly(CatchUp::Skip, HOUR * 5), 100), (vec![0], 1));
        assert_eq!(fired(&hourly(CatchUp::One, HOUR * 5), 100), (vec![-1, 0], 1));
        assert_eq!(fired(&hourly(CatchUp::All, HOUR * 5), 100), (vec![-5, -4, -3, -2, -1, 0], 1));
        assert_eq!(fired(&hourly(CatchUp::All, HOUR * 5), 2), (vec![-5, -4], -3), "the oldest first");
        assert_eq!(fired(&hourly(CatchUp::One, HOUR * 100_000), 100), (vec![-1, 0], 1));
    }

    #[test]
    fn after_an_outage_the_ticks_of_the_last_3_seconds_are_not_missed() {
        let often = |catch_up| DueSchedule { timing: Timing::Every(MISSED_AFTER / 10), ..hourly(catch_up, HOUR) };
        let recent = |catch_up| ticks(&often(catch_up), now(), 100).unwrap().0;
        let late = |tick: &SystemTime| now().duration_since(*tick).unwrap();
        assert_eq!(recent(CatchUp::Skip).len(), 10, "each tick of the three seconds, and no earlier one");
        assert!(recent(CatchUp::Skip).iter().all(|tick| late(tick) < MISSED_AFTER));
        let one = recent(CatchUp::One);
        assert_eq!(one.len(), 11, "and one missed tick");
        assert_eq!(late(&one[0]), MISSED_AFTER);
    }

    #[test]
    fn a_tick_up_to_3_seconds_late_is_enqueued_under_any_policy() {
        for catch_up in [CatchUp::Skip, CatchUp::One, CatchUp::All] {
            assert_eq!(fired(&hourly(catch_up, Duration::ZERO), 100), (vec![0], 1));
            let often = DueSchedule { timing: Timing::Every(MISSED_AFTER / 6), ..hourly(catch_up, MISSED_AFTER / 6) };
            assert_eq!(ticks(&often, now() + MISSED_AFTER / 2, 100).unwrap().0.len(), 5, "each of the five ticks");
        }
    }

    #[test]
    fn a_new_schedule_starts_at_the_first_tick_after_it_was_set() {
        let mut new = hourly(CatchUp::All, Duration::ZERO);
        (new.next_at, new.counted_from) = (None, now());
        assert_eq!(fired(&new, 100), (vec![], 1));
        new.counted_from = now() - HOUR * 2;
        assert_eq!(fired(&new, 100), (vec![-1, 0], 1));
    }

    #[test]
    fn a_transaction_fires_1000_ticks_at_most() {
        // One schedule cannot be read. The other schedules still fire.
        let late = hourly(CatchUp::All, HOUR * 1000);
        let mut schedules = vec![late; 30];
        schedules[0].timing = Timing::Cron("nonsense".into());
        let firings = plan(&DueSchedules { schedules, due_in: None, looked_at: now() });
        assert!(firings[0].following.as_ref().is_err_and(|error| error.contains("nonsense")));
        assert_eq!(firings.iter().map(|firing| firing.ticks.len()).sum::<usize>(), MOST_TICKS);
        assert_eq!(firings.len(), 11);
    }
}
