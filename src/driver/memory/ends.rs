//! Applying the ends of linked jobs.
//!
//! An end is applied at once, under the lock of the store. So, unlike in Postgres, no end waits for a worker, and no
//! session can see a job ended whose followers still wait for it.

use super::entries::due_at;
use super::links::LinkedEnd;
use super::store::Store;
use crate::driver::settlement::too_large_result;
use crate::driver::{Ending, Failure, FailureReason, Settlement};
use crate::error::Error;
use crate::job::graph::MOST_BYTES;
use crate::job::{Due, JobState, WorkflowJobState, WorkflowState};

/// The error of a skipped job.
const SKIPPED: &str = "not started: the outcomes that the job waited for can no longer come";

impl Store {
    /// Applies an end to the jobs that wait for it, and to the workflow of the job.
    pub(super) fn apply_end(&mut self, id: i64, end: LinkedEnd) {
        self.apply_after(|store| store.links.ends.push_back((id, end)));
    }

    /// Makes a change. Then applies the ends of jobs that the change has made.
    ///
    /// Applying an end may skip a job, and so end it. The outermost call applies this end too, after those before it.
    /// So jobs start in the order in which Postgres starts them, and the depth of a chain needs no stack.
    pub(super) fn apply_after(&mut self, change: impl FnOnce(&mut Store)) {
        let is_outermost = !std::mem::replace(&mut self.links.is_applying, true);
        change(self);
        if !is_outermost {
            return;
        }
        while let Some((id, end)) = self.links.ends.pop_front() {
            self.count_in_workflow(id, end);
            self.decide_waiters(id, end);
            if let Some(workflow) = self.links.members.get(&id).map(|member| member.workflow) {
                self.update_workflow(workflow);
            }
        }
        self.links.is_applying = false;
    }

    /// Refuses a result that is too large for the jobs that wait for it.
    pub(super) fn refusal(&self, settlement: &Settlement) -> Option<Error> {
        let (id, Ending::Completed(Some(result))) = (settlement.reservation.id, &settlement.ending) else {
            return None;
        };
        let is_too_large = result.as_bytes().len() > MOST_BYTES / 2 && result.written_len() > MOST_BYTES;
        (is_too_large && (self.links.is_linked(id) || self.children.contains(&id))).then(|| too_large_result(id))
    }

    fn count_in_workflow(&mut self, id: i64, end: LinkedEnd) {
        let Some(member) = self.links.members.get_mut(&id) else { return };
        let Some(workflow) = self.links.workflows.get_mut(&member.workflow) else { return };
        if let Some(before) = member.outcome
            && let Some(count) = workflow.ended.get_mut(&before)
        {
            *count -= 1;
        }
        member.outcome = end.outcome();
        if let Some(outcome) = member.outcome {
            *workflow.ended.entry(outcome).or_default() += 1;
        }
        member.result = self.jobs.get(&id).and_then(|entry| entry.stored.result.clone());
    }

    /// Decides the dependencies on a job that has ended. Starts or skips the jobs for which that was the last one.
    pub(super) fn decide_waiters(&mut self, id: i64, end: LinkedEnd) {
        for key in self.links.waiters.get(&id).cloned().unwrap_or_default() {
            let Some(blocked) = self.links.blocked.get_mut(&key.0) else { continue };
            let Some(dependency) = self.links.dependencies.get_mut(&key) else { continue };
            let state = dependency.state_after(end);
            if dependency.is_undecided() && state != dependency.state {
                dependency.state = state;
                blocked.decide(state);
                self.settle_blocked(key.0);
            }
        }
    }

    /// Starts, skips or cancels a blocked job if its dependencies are decided.
    pub(super) fn settle_blocked(&mut self, id: i64) {
        let Some(blocked) = self.links.blocked.get(&id) else { return };
        let (is_met, is_lost, cleanup) = (blocked.needs == 0, blocked.chances < blocked.needs, blocked.cleanup);
        let workflow = self.links.workflow_of(id).map(|(_, workflow)| (workflow.state, workflow.sealed));
        let (state, is_sealed) = workflow.unwrap_or((WorkflowState::Running, true));
        let is_cancelling = state == WorkflowState::Cancelling;
        if !(is_met || is_lost) || !is_sealed && !is_cancelling {
            return;
        }
        if is_cancelling && !cleanup {
            self.end(id, JobState::Cancelled);
        } else if is_met {
            self.start_blocked(id);
        } else {
            if let Some(entry) = self.jobs.get_mut(&id) {
                entry.stored.errors.push(Failure::new(FailureReason::Failed, SKIPPED));
            }
            self.end_as(id, JobState::Cancelled, LinkedEnd::Skipped);
        }
    }

    /// Moves a blocked job to its queue. A delay counts from now.
    fn start_blocked(&mut self, id: i64) {
        self.unblock(id);
        let now = self.now();
        let due = self.jobs.get(&id).map_or(now, |entry| match entry.stored.job.due {
            Due::In(_) => due_at(&entry.stored.job, now),
            Due::At(at) => at.max(now),
        });
        self.put_back(id, due);
    }

    /// Notes that a job is not blocked any more.
    pub(super) fn unblock(&mut self, id: i64) {
        let was_blocked = self.links.blocked.remove(&id).is_some();
        if let Some(member) = self.links.members.get(&id).filter(|_| was_blocked)
            && let Some(workflow) = self.links.workflows.get_mut(&member.workflow)
        {
            workflow.blocked -= 1;
        }
    }

    /// Brings the state of a workflow up to date with its counts.
    pub(super) fn update_workflow(&mut self, id: i64) {
        let now = self.now();
        let Some(workflow) = self.links.workflows.get(&id) else { return };
        let state = workflow.next_state();
        if state == workflow.state && state.is_ended() == workflow.finished_at.is_some() {
            return;
        }
        let result = if state.is_ended() { self.links.result_of(workflow) } else { None };
        let Some(workflow) = self.links.workflows.get_mut(&id) else { return };
        workflow.finished_at = state.is_ended().then(|| workflow.finished_at.unwrap_or(now));
        (workflow.state, workflow.result) = (state, result);
        if state.is_ended()
            && let Some(key) = workflow.unique_key.clone()
        {
            let unique = (workflow.name.clone(), key);
            if self.links.unique.get(&unique) == Some(&id) {
                self.links.unique.remove(&unique);
            }
        }
    }

    /// Cancels the revived job of a workflow that is being cancelled.
    pub(super) fn cancel_revived(&mut self, id: i64) {
        let workflow = self.links.workflow_of(id);
        let is_cancelling = workflow.is_some_and(|(_, workflow)| workflow.state == WorkflowState::Cancelling);
        if is_cancelling && self.links.members.get(&id).is_some_and(|member| !member.cleanup) {
            self.cancel(id);
        }
    }
}

/// Returns the state of a job of a workflow from its outcome, or from the state of the live job.
pub(super) fn state_of(outcome: Option<WorkflowJobState>, live: Option<JobState>) -> WorkflowJobState {
    outcome.unwrap_or(match live {
        Some(JobState::Blocked) => WorkflowJobState::Blocked,
        Some(JobState::Delayed) => WorkflowJobState::Delayed,
        Some(JobState::Running) => WorkflowJobState::Running,
        Some(_) => WorkflowJobState::Ready,
        None => WorkflowJobState::Ended,
    })
}
