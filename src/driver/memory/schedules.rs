//! The store's schedules.

use super::entries::ScheduleEntry;
use super::store::Store;
use crate::driver::{DueSchedule, DueSchedules, Firing, Signal};
use crate::job::NewJob;
use crate::schedule::Schedule;

impl Store {
    pub(super) fn declare(&mut self, schedules: &[Schedule]) {
        for schedule in schedules {
            let id = self.schedules.entries.get(&schedule.name).map(|entry| entry.due.id).unwrap_or_else(|| {
                self.schedules.last_id += 1;
                self.schedules.last_id
            });
            let mut due = DueSchedule::new(id, schedule, self.now());
            if let Some(ScheduleEntry { due: before, .. }) = self.schedules.entries.get(&schedule.name)
                && (&before.timing, &before.time_zone) == (&due.timing, &due.time_zone)
            {
                (due.counted_from, due.next_at) = (before.counted_from, before.next_at);
            }
            let entry = ScheduleEntry { schedule: schedule.clone(), due, unreadable: false };
            self.schedules.entries.insert(schedule.name.clone(), entry);
        }
        self.signal(&Signal::Schedules);
    }

    pub(super) fn due_schedules(&self, limit: usize) -> DueSchedules {
        let now = self.now();
        let readable = || self.schedules.entries.values().filter(|entry| !entry.unreadable).map(|entry| &entry.due);
        let is_due = |due: &&DueSchedule| due.next_at.is_none_or(|at| at <= now);
        let mut schedules: Vec<DueSchedule> = readable().filter(is_due).cloned().collect();
        schedules.sort_by_key(|due| due.next_at);
        schedules.truncate(limit);
        let next = readable().filter_map(|due| due.next_at.filter(|at| *at > now)).min();
        DueSchedules::new(schedules, now).due_in(next.and_then(|at| at.duration_since(now).ok()))
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

    /// Moves a schedule to its next tick, unless the schedule has changed since it was read.
    fn move_on(&mut self, firing: &Firing) -> Option<&Schedule> {
        let is_unchanged = |due: &DueSchedule| {
            (due.id, due.counted_from, due.next_at) == (firing.id, firing.counted_from, firing.next_at)
        };
        let entry = self.schedules.entries.values_mut().find(|entry| is_unchanged(&entry.due))?;
        entry.due.next_at = firing.following.as_ref().ok().copied();
        entry.unreadable = firing.following.is_err();
        Some(&entry.schedule)
    }
}
