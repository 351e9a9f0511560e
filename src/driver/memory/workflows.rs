//! Workflows: reading, sealing, cancelling and retrying them.

use std::time::{Duration, SystemTime};

use super::Memory;
use super::ends::state_of;
use super::links::{DependencyState, MemberEntry};
use super::store::Store;
use crate::job::{FiresOn, Input, JobState, Labels, Payload, RetriedJob, WorkflowJobState, WorkflowState};

/// The time for which a workflow is kept after its end.
const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A workflow as [`Memory`] keeps it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoredWorkflow {
    /// The id of the workflow. Ids count from 1.
    pub id: i64,
    /// The name.
    pub name: String,
    /// The unique key.
    pub unique_key: Option<String>,
    /// The state.
    pub state: WorkflowState,
    /// True once all jobs are enqueued.
    pub sealed: bool,
    /// The input, for all jobs of the workflow.
    pub input: Payload,
    /// The result of the one completed job that no other job waits for.
    pub result: Option<Payload>,
    /// The time at which the workflow was enqueued.
    pub created_at: SystemTime,
    /// The time at which the workflow ended.
    pub finished_at: Option<SystemTime>,
    /// The job whose handler enqueued the workflow.
    pub parent_id: Option<i64>,
    /// The jobs, in the order of their names.
    pub jobs: Vec<StoredMember>,
}

/// A job of a workflow as [`Memory`] keeps it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoredMember {
    /// The name of the job within the workflow.
    pub name: String,
    /// The id of the job.
    pub job: i64,
    /// The state.
    pub state: WorkflowJobState,
    /// The result that the handler of a completed job returned.
    pub result: Option<Payload>,
}

impl StoredWorkflow {
    /// Returns the job with this name.
    pub fn job(&self, name: &str) -> Option<&StoredMember> {
        self.jobs.iter().find(|job| job.name == name)
    }

    /// Returns the number of jobs in this state.
    pub fn count(&self, state: WorkflowJobState) -> usize {
        self.jobs.iter().filter(|job| job.state == state).count()
    }
}

impl Memory {
    /// Returns a workflow; `None` if no workflow has this id. A workflow is kept for 30 days after its end.
    pub fn workflow(&self, id: i64) -> Option<StoredWorkflow> {
        self.store().workflow(id)
    }

    /// Returns all workflows, in the order of their ids.
    pub fn workflows(&self) -> Vec<StoredWorkflow> {
        let store = self.store();
        store.links.workflows.keys().filter_map(|&id| store.workflow(id)).collect()
    }

    /// Cancels a workflow, as [`Admin::cancel_workflow`](crate::admin::Admin::cancel_workflow) does. Returns its state;
    /// `None` if no workflow has this id.
    pub fn cancel_workflow(&self, id: i64) -> Option<WorkflowState> {
        self.store().cancel_workflow(id)
    }

    /// Revives the dead jobs of a workflow, as [`Admin::retry_workflow`](crate::admin::Admin::retry_workflow) does.
    pub fn retry_workflow(&self, id: i64, forced: bool) -> Option<Vec<RetriedJob>> {
        self.store().retry_workflow(id, forced)
    }
}

impl Store {
    pub(super) fn workflow(&self, id: i64) -> Option<StoredWorkflow> {
        let workflow = self.links.workflows.get(&id)?;
        let member = |(name, &job): (&String, &i64)| {
            let MemberEntry { outcome, result, .. } = self.links.members.get(&job)?;
            let state = state_of(*outcome, self.job(job).map(|stored| stored.state));
            Some(StoredMember { name: name.clone(), job, state, result: result.clone() })
        };
        Some(StoredWorkflow {
            id,
            name: workflow.name.clone(),
            unique_key: workflow.unique_key.clone(),
            state: workflow.state,
            sealed: workflow.sealed,
            input: workflow.input.clone(),
            result: workflow.result.clone(),
            created_at: workflow.created_at,
            finished_at: workflow.finished_at,
            parent_id: workflow.parent_id,
            jobs: workflow.members.iter().filter_map(member).collect(),
        })
    }

    pub(super) fn seal_workflow(&mut self, id: i64) {
        let Some(workflow) = self.links.workflows.get_mut(&id) else { return };
        workflow.sealed = true;
        let members: Vec<i64> = workflow.members.values().copied().collect();
        self.apply_after(|store| members.into_iter().for_each(|job| store.settle_blocked(job)));
        self.update_workflow(id);
    }

    fn cancel_workflow(&mut self, id: i64) -> Option<WorkflowState> {
        let workflow = self.links.workflows.get_mut(&id)?;
        if matches!(workflow.state, WorkflowState::Running | WorkflowState::Stalled) {
            workflow.state = WorkflowState::Cancelling;
            let members: Vec<i64> = workflow.members.values().copied().collect();
            self.apply_after(|store| {
                for job in members {
                    match store.links.members.get(&job).map(|member| (member.outcome, member.cleanup)) {
                        Some((None, false)) => _ = store.cancel(job),
                        // The job may have waited for the seal alone.
                        Some((None, true)) => store.settle_blocked(job),
                        _ => {}
                    }
                }
            });
            self.update_workflow(id);
        }
        self.links.workflows.get(&id).map(|workflow| workflow.state)
    }

    fn retry_workflow(&mut self, id: i64, forced: bool) -> Option<Vec<RetriedJob>> {
        let members = self.links.workflows.get(&id)?.members.clone();
        let mut dead: Vec<(String, i64)> = members.into_iter().filter(|(_, job)| self.is_dead(*job)).collect();
        dead.sort_by_key(|(_, job)| *job);
        let retry = |(name, job)| RetriedJob { name, job, retried: self.retry(job, forced).ok() };
        Some(dead.into_iter().map(retry).collect())
    }

    fn is_dead(&self, id: i64) -> bool {
        self.jobs.get(&id).is_some_and(|entry| entry.is_dead())
    }

    /// True if reviving the dead job is refused: a job that waited for its death was started.
    pub(super) fn is_compensated(&self, id: i64) -> bool {
        let Some(waiters) = self.links.waiters.get(&id) else { return false };
        waiters
            .iter()
            .filter_map(|key| self.links.dependencies.get(key))
            .any(|dependency| dependency.fires_on == FiresOn::Dead && dependency.state == DependencyState::Met)
    }

    pub(super) fn inputs(&self, job: i64, labels: Labels<'_>) -> Vec<Input> {
        let (after, most, only) = match labels {
            Labels::One(label) => ("", 1, Some(label)),
            Labels::After { label, most } => (label, most, None),
        };
        let wanted = self.links.of_waiter(job, after).filter(|(label, _)| only.is_none_or(|only| only == *label));
        let input = |(label, on_job): (&str, i64)| {
            let input = Input::new(label, on_job);
            if let Some(MemberEntry { outcome: Some(outcome), kind, result, .. }) = self.links.members.get(&on_job) {
                return input.kind(kind).ended(outcome.name(), result.clone());
            }
            match self.jobs.get(&on_job).map(|entry| &entry.stored).filter(|stored| stored.state.is_ended()) {
                Some(stored) => input.kind(&stored.job.kind).ended(stored.state.name(), stored.result.clone()),
                None => input,
            }
        };
        wanted.map(|(label, entry)| input((label, entry.on_job))).take(most).collect()
    }

    pub(super) fn workflow_of(&self, job: i64) -> Option<(i64, Payload)> {
        self.links.workflow_of(job).map(|(id, workflow)| (id, workflow.input.clone()))
    }

    pub(super) fn count_blocked(&self, queues: &[String]) -> u64 {
        let is_of_these = |id: &&i64| self.jobs.get(id).is_some_and(|entry| queues.contains(&entry.stored.job.queue));
        self.links.blocked.keys().filter(is_of_these).count() as u64
    }

    /// Forgets the workflows that ended 30 days ago, and the dependencies of jobs that are forgotten.
    pub(super) fn forget_links(&mut self, now: SystemTime) {
        let links = &mut self.links;
        links.workflows.retain(|_, workflow| {
            workflow.finished_at.is_none_or(|at| now.duration_since(at).unwrap_or_default() < KEPT_FOR)
        });
        links.members.retain(|_, member| links.workflows.contains_key(&member.workflow));
        let (jobs, members) = (&self.jobs, &links.members);
        let is_dead = |id: &i64| jobs.get(id).is_some_and(|entry| entry.stored.state == JobState::Dead);
        // Whether a death was acted on is known as long as the dead job can be revived.
        links.dependencies.retain(|(waiter, _), entry| {
            jobs.contains_key(waiter) || members.contains_key(waiter) || is_dead(&entry.on_job)
        });
        let dependencies = &links.dependencies;
        links.waiters.retain(|_, keys| {
            keys.retain(|key| dependencies.contains_key(key));
            !keys.is_empty()
        });
    }
}
