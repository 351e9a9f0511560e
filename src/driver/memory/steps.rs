//! Steps and events of the store.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::entries::{EventEntry, JobEntry, StepEntry, later};
use super::store::Store;
use crate::driver::{Pausing, Recorded, SleepState, Step, WaitState};
use crate::job::{JobState, NewJob, Payload, Reservation};

/// The time for which an event is kept.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The payload of the event that a job has ended.
#[derive(Serialize)]
struct ChildEnd<'a> {
    outcome: String,
    result: Option<&'a Payload>,
    error: Option<&'a str>,
}

impl Store {
    pub(super) fn steps(&self, job: i64) -> Vec<(String, Step)> {
        let steps = self.jobs.get(&job).into_iter().flat_map(|entry| &entry.steps);
        steps.map(|(name, recorded)| (name.clone(), recorded.step.clone())).collect()
    }

    pub(super) fn record_step(&mut self, reservation: &Reservation, name: &str, value: &Payload) -> Option<Recorded> {
        let now = self.now();
        let entry = held(self.jobs.get_mut(&reservation.id)?, reservation)?;
        if !entry.steps.contains_key(name) {
            let step = Step::Value(value.clone());
            entry.steps.insert(name.to_owned(), StepEntry { step, until: now });
            entry.stored.failures = 0;
        }
        Some(Recorded::new(entry.steps.get(name)?.step.clone(), entry.stored.failures))
    }

    pub(super) fn record_wait(&mut self, reservation: &Reservation, name: &str, pausing: Pausing) -> Option<Recorded> {
        let now = self.now();
        let come = self.events.get(name).map(|event| event.payload.clone());
        let entry = held(self.jobs.get_mut(&reservation.id)?, reservation)?;
        let (new, limit) = match pausing {
            Pausing::Sleep(limit) => (Step::Sleep(SleepState::Open), limit),
            Pausing::Event(limit) => (Step::Wait(WaitState::Open), limit),
        };
        if !entry.steps.contains_key(name) {
            entry.steps.insert(name.to_owned(), StepEntry { step: new, until: later(now, limit) });
            entry.stored.failures = 0;
        }
        let recorded = entry.steps.get_mut(name)?;
        let left = recorded.until.duration_since(now).unwrap_or_default();
        let over = match (&recorded.step, come) {
            (Step::Wait(WaitState::Open), Some(payload)) => Some(Step::Wait(WaitState::Event(payload))),
            (Step::Wait(WaitState::Open), None) if left.is_zero() => Some(Step::Wait(WaitState::TimedOut)),
            (Step::Sleep(SleepState::Open), _) if left.is_zero() => Some(Step::Sleep(SleepState::Over)),
            _ => None,
        };
        if let Some(step) = over {
            recorded.step = step;
            entry.stored.failures = 0;
        }
        Some(Recorded::new(recorded.step.clone(), entry.stored.failures).left(left))
    }

    pub(super) fn run_child(&mut self, reservation: &Reservation, name: &str, job: &NewJob) -> Option<Recorded> {
        let entry = held(self.jobs.get_mut(&reservation.id)?, reservation)?;
        if !entry.steps.contains_key(name) {
            let child = self.enqueue(std::slice::from_ref(job)).first()?.id;
            self.children.insert(child);
            return self.record_step(reservation, name, &Payload::encode(&child).ok()?);
        }
        Some(Recorded::new(entry.steps.get(name)?.step.clone(), entry.stored.failures))
    }

    /// Emits the end of a job as an event if a handler waits for it.
    pub(super) fn emit_end(&mut self, id: i64) {
        if !self.children.remove(&id) {
            return;
        }
        let Some(JobEntry { stored, .. }) = self.jobs.get(&id) else { return };
        let error = stored.errors.last().filter(|_| stored.state == JobState::Dead);
        let end = ChildEnd {
            outcome: stored.state.to_string(),
            result: stored.result.as_ref(),
            error: error.map(|error| error.error.as_str()),
        };
        if let Ok(end) = Payload::encode(&end) {
            self.emit(&format!("reveille:end:{id}"), &end);
        }
    }

    pub(super) fn emit(&mut self, event: &str, payload: &Payload) -> bool {
        if self.events.contains_key(event) {
            return false;
        }
        let now = self.now();
        self.events.insert(event.to_owned(), EventEntry { payload: payload.clone(), until: now + KEPT_FOR });
        let waits =
            |entry: &&JobEntry| entry.reservation.is_none() && entry.ended_at.is_none() && entry.waits_for(event);
        let waiting: Vec<i64> = self.jobs.values().filter(waits).map(|entry| entry.stored.id).collect();
        for id in waiting {
            let due = self.jobs.get(&id).map_or(now, |entry| entry.stored.available_at.min(now));
            self.put_back(id, due);
        }
        true
    }

    /// Returns true if an event has come for which the job waits.
    pub(super) fn has_event_of(&self, id: i64) -> bool {
        self.jobs.get(&id).is_some_and(|entry| entry.open_waits().any(|event| self.events.contains_key(event)))
    }

    /// Forgets the events whose time is over, unless a job still waits for them.
    pub(super) fn forget_events(&mut self, now: SystemTime) {
        let jobs = &self.jobs;
        self.events.retain(|name, event| event.until > now || jobs.values().any(|entry| entry.waits_for(name)));
    }
}

impl JobEntry {
    /// Returns the events for which the job waits.
    fn open_waits(&self) -> impl Iterator<Item = &str> {
        let is_open = |recorded: &StepEntry| recorded.step == Step::Wait(WaitState::Open);
        self.steps.iter().filter(move |(_, recorded)| is_open(recorded)).map(|(name, _)| name.as_str())
    }

    fn waits_for(&self, event: &str) -> bool {
        self.open_waits().any(|name| name == event)
    }
}

/// Returns the entry if this reservation of the job stands.
fn held<'a>(entry: &'a mut JobEntry, reservation: &Reservation) -> Option<&'a mut JobEntry> {
    Some(entry).filter(|entry| entry.reservation == Some(*reservation))
}
