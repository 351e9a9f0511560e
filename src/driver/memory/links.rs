//! What the store keeps of linked jobs: dependencies and workflows.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::SystemTime;

use crate::job::{FiresOn, JobState, Payload, WorkflowJobState, WorkflowState};

/// An event in the life of a linked job that others may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkedEnd {
    Completed,
    Dead,
    Cancelled,
    Skipped,
    /// The dead job was removed.
    Purged,
    /// The dead job waits again.
    Revived,
}

/// The state of a dependency. A met or skipped dependency keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DependencyState {
    Open,
    Met,
    /// The prerequisite is dead, and may be revived.
    Held,
    Skipped,
}

/// A dependency of a job on another one. Its key is the id of the waiting job and the label of the other one.
pub(super) struct DependencyEntry {
    pub(super) on_job: i64,
    pub(super) fires_on: FiresOn,
    pub(super) cancel_if_dead: bool,
    pub(super) state: DependencyState,
}

/// A job that waits for others and has never been able to start.
#[derive(Default)]
pub(super) struct BlockedEntry {
    /// The number of dependencies that must still be met.
    pub(super) needs: usize,
    /// The number of dependencies that can still be met.
    pub(super) chances: usize,
    /// True if one met dependency is enough.
    pub(super) needs_one: bool,
    /// True if the job cleans up: it waits for others, but not for `completed` or `dead`. A cancel leaves the job.
    pub(super) cleanup: bool,
}

/// A workflow.
pub(super) struct WorkflowEntry {
    pub(super) name: String,
    pub(super) unique_key: Option<String>,
    pub(super) state: WorkflowState,
    pub(super) sealed: bool,
    pub(super) input: Payload,
    pub(super) result: Option<Payload>,
    pub(super) created_at: SystemTime,
    pub(super) finished_at: Option<SystemTime>,
    pub(super) parent_id: Option<i64>,
    /// The ids of the jobs, by their names.
    pub(super) members: BTreeMap<String, i64>,
    /// The number of blocked jobs.
    pub(super) blocked: usize,
    /// The numbers of jobs that have ended, by their outcomes.
    pub(super) ended: HashMap<WorkflowJobState, usize>,
}

/// A job of a workflow. It is kept as long as the workflow, even if the job is forgotten earlier.
pub(super) struct MemberEntry {
    pub(super) workflow: i64,
    pub(super) kind: String,
    pub(super) cleanup: bool,
    pub(super) outcome: Option<WorkflowJobState>,
    pub(super) result: Option<Payload>,
}

/// All linked jobs of the store.
#[derive(Default)]
pub(super) struct Links {
    pub(super) workflows: BTreeMap<i64, WorkflowEntry>,
    /// The workflow that has not ended, by its name and unique key.
    pub(super) unique: HashMap<(String, String), i64>,
    pub(super) last_id: i64,
    pub(super) members: HashMap<i64, MemberEntry>,
    pub(super) blocked: BTreeMap<i64, BlockedEntry>,
    pub(super) dependencies: BTreeMap<(i64, String), DependencyEntry>,
    /// The keys of the dependencies on each job.
    pub(super) waiters: HashMap<i64, Vec<(i64, String)>>,
    /// The ends that are not applied yet. They are applied one after another before the store is unlocked.
    pub(super) ends: VecDeque<(i64, LinkedEnd)>,
    /// True while a change is made that may end jobs, and while these ends are applied.
    pub(super) is_applying: bool,
}

impl LinkedEnd {
    pub(super) fn of(state: JobState) -> LinkedEnd {
        match state {
            JobState::Completed => LinkedEnd::Completed,
            JobState::Dead => LinkedEnd::Dead,
            _ => LinkedEnd::Cancelled,
        }
    }

    /// Returns the outcome that the job has in its workflow.
    pub(super) fn outcome(self) -> Option<WorkflowJobState> {
        match self {
            LinkedEnd::Completed => Some(WorkflowJobState::Completed),
            LinkedEnd::Dead => Some(WorkflowJobState::Dead),
            LinkedEnd::Cancelled | LinkedEnd::Purged => Some(WorkflowJobState::Cancelled),
            LinkedEnd::Skipped => Some(WorkflowJobState::Skipped),
            LinkedEnd::Revived => None,
        }
    }

    /// Returns the end of a job that has this outcome in its workflow.
    pub(super) fn of_outcome(outcome: WorkflowJobState) -> LinkedEnd {
        match outcome {
            WorkflowJobState::Completed => LinkedEnd::Completed,
            WorkflowJobState::Dead => LinkedEnd::Dead,
            WorkflowJobState::Skipped => LinkedEnd::Skipped,
            _ => LinkedEnd::Cancelled,
        }
    }
}

impl DependencyEntry {
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.state, DependencyState::Open | DependencyState::Held)
    }

    /// Returns the state after an end of the prerequisite, as `reveille.dependency_state` does.
    pub(super) fn state_after(&self, end: LinkedEnd) -> DependencyState {
        use LinkedEnd::{Cancelled, Completed, Dead, Purged, Revived, Skipped};
        if !self.is_undecided() {
            return self.state;
        }
        match (self.fires_on, end) {
            (_, Revived) => DependencyState::Open,
            (FiresOn::Any, _)
            | (FiresOn::Completed, Completed)
            | (FiresOn::Dead, Dead | Purged)
            | (FiresOn::Cancelled, Cancelled | Skipped) => DependencyState::Met,
            (FiresOn::Completed, Dead) if !self.cancel_if_dead => DependencyState::Held,
            _ => DependencyState::Skipped,
        }
    }
}

impl BlockedEntry {
    /// Counts a further dependency.
    pub(super) fn wait(&mut self, fires_on: FiresOn, is_first: bool) {
        self.needs += usize::from(!self.needs_one);
        self.chances += 1;
        self.cleanup = (is_first || self.cleanup) && matches!(fires_on, FiresOn::Any | FiresOn::Cancelled);
    }

    /// Counts the new state of a dependency.
    pub(super) fn decide(&mut self, state: DependencyState) {
        self.needs = self.needs.saturating_sub(usize::from(state == DependencyState::Met));
        self.chances -= usize::from(matches!(state, DependencyState::Met | DependencyState::Skipped));
    }
}

impl WorkflowEntry {
    pub(super) fn count(&self, outcome: WorkflowJobState) -> usize {
        self.ended.get(&outcome).copied().unwrap_or_default()
    }

    /// Returns the state that the counts give, as `reveille.update_workflows` does.
    pub(super) fn next_state(&self) -> WorkflowState {
        use WorkflowState::{Cancelled, Cancelling, Completed, Failed, Running, Stalled};
        let pending = self.members.len() - self.ended.values().sum::<usize>();
        let is_cancelled = matches!(self.state, Cancelling | Cancelled);
        if pending == 0 && (self.sealed || is_cancelled) {
            return match (is_cancelled, self.count(WorkflowJobState::Dead), self.count(WorkflowJobState::Cancelled)) {
                (true, ..) => Cancelled,
                (_, 1.., _) => Failed,
                (_, _, 1..) => Cancelled,
                _ => Completed,
            };
        }
        match self.state {
            Cancelling => Cancelling,
            _ if self.sealed && self.count(WorkflowJobState::Dead) > 0 && pending == self.blocked => Stalled,
            _ => Running,
        }
    }
}

impl Links {
    /// True if the job belongs to a workflow, waits or has waited for others, or if others wait for it.
    pub(super) fn is_linked(&self, id: i64) -> bool {
        self.members.contains_key(&id) || self.waiters.contains_key(&id) || self.of_waiter(id, "").next().is_some()
    }

    /// Returns the dependencies of a job whose labels come after this one, with their labels.
    pub(super) fn of_waiter(&self, id: i64, after: &str) -> impl Iterator<Item = (&str, &DependencyEntry)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = self.dependencies.range((Excluded((id, after.to_owned())), Unbounded));
        from.take_while(move |((waiter, _), _)| *waiter == id).map(|((_, label), entry)| (label.as_str(), entry))
    }

    /// Stores a dependency of a blocked job.
    pub(super) fn depend(&mut self, waiter: i64, label: String, entry: DependencyEntry) {
        let is_first = self.of_waiter(waiter, "").next().is_none();
        if let Some(blocked) = self.blocked.get_mut(&waiter) {
            blocked.wait(entry.fires_on, is_first);
            if let Some(member) = self.members.get_mut(&waiter) {
                member.cleanup = blocked.cleanup;
            }
        }
        self.waiters.entry(entry.on_job).or_default().push((waiter, label.clone()));
        self.dependencies.insert((waiter, label), entry);
    }

    /// Returns the workflow of a job, with its id.
    pub(super) fn workflow_of(&self, job: i64) -> Option<(i64, &WorkflowEntry)> {
        let id = self.members.get(&job)?.workflow;
        Some((id, self.workflows.get(&id)?))
    }

    /// Returns the result of the only completed job of a workflow that no other job of the workflow waits for.
    pub(super) fn result_of(&self, workflow: &WorkflowEntry) -> Option<Payload> {
        let is_waited_for = |job: &i64| {
            let waits = |(waiter, _): &(i64, String)| self.members.contains_key(waiter);
            self.waiters.get(job).is_some_and(|keys| keys.iter().any(waits))
        };
        let sinks = workflow.members.values().filter(|job| !is_waited_for(job)).filter_map(|job| self.members.get(job));
        let mut completed = sinks.filter(|member| member.outcome == Some(WorkflowJobState::Completed));
        let only = completed.next()?;
        completed.next().is_none().then(|| only.result.clone()).flatten()
    }
}
