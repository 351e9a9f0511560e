//! Schedules, beside the jobs.

use super::kept::KeptSchedule;
use super::store::Store;
use crate::driver::{DueSchedule, DueSchedules, Firing, Signal};
use crate::job::NewJob;
use crate::schedule::Schedule;

impl Store {
    pub(super) fn declare(&mut self, schedules: &[Schedule]) {
        let now = self.now();
        for schedule in schedules {
            let (timing, time_zone) = (schedule.timing.clone(), schedule.time_zone.clone());
            let kept = self.schedules.kept.get(&schedule.name);
            let same = kept.filter(|kept| kept.due.timing == timing && kept.due.time_zone == time_zone);
            let due = match same {
                Some(kept) => DueSchedule {
                    catch_up: schedule.catch_up,
                    through_middleware: schedule.through_middleware,
                    ..kept.due.clone()
                },
                None => {
                    let id = kept.map(|kept| kept.due.id).unwrap_or_else(|| {
                        self.schedules.last_id += 1;
                        self.schedules.last_id
                    });
                    let name = schedule.name.clone();
                    let (catch_up, through_middleware) = (schedule.catch_up, schedule.through_middleware);
                    DueSchedule {
                        id,
                        name,
                        through_middleware,
                        timing,
                        time_zone,
                        catch_up,
                        counted_from: now,
                        next_at: None,
                    }
                }
            };
            let kept = KeptSchedule { schedule: schedule.clone(), due, unreadable: false };
            self.schedules.kept.insert(schedule.name.clone(), kept);
        }
        self.signal(&Signal::Schedules);
    }

    pub(super) fn due_schedules(&self, limit: usize) -> DueSchedules {
        let now = self.now();
        let readable = || self.schedules.kept.values().filter(|kept| !kept.unreadable).map(|kept| &kept.due);
        let is_due = |due: &&DueSchedule| due.next_at.is_none_or(|at| at <= now);
        let mut schedules: Vec<DueSchedule> = readable().filter(is_due).cloned().collect();
        schedules.sort_by_key(|due| due.next_at);
        schedules.truncate(limit);
        let next = readable().filter_map(|due| due.next_at.filter(|at| *at > now)).min();
        DueSchedules { schedules, due_in: next.and_then(|at| at.duration_since(now).ok()), looked_at: now }
    }

    pub(super) fn fire(&mut self, firings: &[Firing]) -> usize {
        let (mut jobs, mut moved) = (Vec::new(), 0);
        for firing in firings {
            let Some(schedule) = self.move_on(firing) else { continue };
            jobs.extend(firing.ticks.iter().filter_map(|tick| schedule.job_at(*tick).ok()));
            moved += 1;
        }
        self.enqueue(&jobs);
        moved
    }

    pub(super) fn fire_jobs(&mut self, firing: &Firing, jobs: &[NewJob]) -> bool {
        let moved = self.move_on(firing).is_some();
        if moved {
            self.enqueue(jobs);
        }
        moved
    }

    /// Moves a schedule on that stands as it was seen.
    fn move_on(&mut self, firing: &Firing) -> Option<&Schedule> {
        let stands = |due: &DueSchedule| {
            (due.id, due.counted_from, due.next_at) == (firing.id, firing.counted_from, firing.next_at)
        };
        let kept = self.schedules.kept.values_mut().find(|kept| stands(&kept.due))?;
        kept.due.next_at = firing.following.as_ref().ok().copied();
        kept.unreadable = firing.following.is_err();
        Some(&kept.schedule)
    }
}
