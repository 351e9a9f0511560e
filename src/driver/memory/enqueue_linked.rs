//! Enqueuing jobs that wait for others.

use std::collections::{HashMap, HashSet};

use super::links::{BlockedEntry, DependencyEntry, DependencyState, LinkedEnd, MemberEntry, WorkflowEntry};
use super::store::Store;
use crate::error::{Error, Result};
use crate::job::{Enqueued, JobState, LinkedJob, LinkedJobs, LinkedTarget, NewJob, Payload, WorkflowState};

/// A dependency about to be stored.
struct NewDependency {
    waiter: i64,
    label: String,
    entry: DependencyEntry,
}

impl Store {
    /// Stores linked jobs, all or none: nothing is changed before everything is checked.
    pub(super) fn enqueue_linked(&mut self, linked: &LinkedJobs) -> Result<Enqueued> {
        match &linked.target {
            LinkedTarget::New { name, unique_key, input, parent, seal, .. } => {
                linked.check(|_| false)?;
                let unique = unique_key.clone().map(|key| (name.clone(), key));
                if let Some(&id) = unique.as_ref().and_then(|unique| self.links.unique.get(unique)) {
                    return Ok(Enqueued { id, existed: true });
                }
                let id = self.open_workflow(name, unique, input.clone(), *parent);
                self.add_members(id, &linked.jobs, self.dependencies_within(id, &linked.jobs));
                if *seal {
                    self.seal_workflow(id);
                }
                Ok(Enqueued { id, existed: false })
            }
            LinkedTarget::Existing { id, seal } => {
                let dependencies = self.check_addition(*id, linked, *seal)?;
                if !linked.jobs.is_empty() {
                    self.add_members(*id, &linked.jobs, dependencies);
                }
                if *seal {
                    self.seal_workflow(*id);
                }
                Ok(Enqueued { id: *id, existed: true })
            }
            LinkedTarget::Jobs { ids, job, needs_one, .. } => {
                linked.check(|_| false)?;
                if let Some(id) = ids.iter().find(|id| !self.knows(**id)) {
                    let advice = "The queue's retention decides how long a finished job is known.";
                    let what = "is not known: it never existed, or its history is gone";
                    return Err(refused(format!("job {id} {what} ({advice})")));
                }
                let dependencies = dependencies_on_ids(self.last_id + 1, &linked.target);
                let id = self.add_blocked(job, *needs_one);
                self.store_dependencies(dependencies);
                Ok(Enqueued { id, existed: false })
            }
        }
    }

    fn open_workflow(
        &mut self,
        name: &str,
        unique: Option<(String, String)>,
        input: Option<Payload>,
        parent_id: Option<i64>,
    ) -> i64 {
        self.links.last_id += 1;
        let (id, created_at) = (self.links.last_id, self.now());
        let workflow = WorkflowEntry {
            name: name.to_owned(),
            unique_key: unique.as_ref().map(|(_, key)| key.clone()),
            state: WorkflowState::Running,
            sealed: false,
            input: input.unwrap_or_else(|| Payload::from_stored("{}")),
            result: None,
            created_at,
            finished_at: None,
            parent_id,
            members: Default::default(),
            blocked: 0,
            ended: HashMap::new(),
        };
        self.links.workflows.insert(id, workflow);
        if let Some(unique) = unique {
            self.links.unique.insert(unique, id);
        }
        id
    }

    /// Refuses jobs that cannot be added to a workflow. Returns their dependencies.
    fn check_addition(&self, id: i64, linked: &LinkedJobs, seal: bool) -> Result<Vec<NewDependency>> {
        let workflow = self.links.workflows.get(&id);
        linked.check(|name| workflow.is_some_and(|workflow| workflow.members.contains_key(name)))?;
        let Some(workflow) = workflow else { return Err(refused(format!("workflow {id} does not exist"))) };
        let is_open = matches!(workflow.state, WorkflowState::Running | WorkflowState::Stalled);
        if !linked.jobs.is_empty() && !is_open {
            return Err(refused(format!("workflow {id} is {} (Enqueue another workflow.)", workflow.state.name())));
        }
        if seal && !workflow.sealed && workflow.members.is_empty() && linked.jobs.is_empty() {
            return Err(refused("a workflow needs at least one job"));
        }
        let started = linked.jobs.iter().flat_map(|job| &job.before).find(|waiter| {
            let existing = workflow.members.get(&waiter.name);
            existing.is_some_and(|job| !self.links.blocked.contains_key(job))
        });
        if let Some(started) = started {
            let name = serde_json::Value::from(started.name.as_str());
            return Err(refused(format!("job {name} has started or ended, so it cannot wait for another job")));
        }
        let dependencies = self.dependencies_within(id, &linked.jobs);
        if self.wait_in_a_circle(&dependencies) {
            return Err(refused("a job would wait for itself, by way of jobs that are blocked already"));
        }
        Ok(dependencies)
    }

    /// True if the store knows the job, or at least how it ended.
    fn knows(&self, id: i64) -> bool {
        self.jobs.contains_key(&id) || self.end_of(id).is_some()
    }

    /// Returns how a job has ended; `None` if it has not, or if that is not known.
    fn end_of(&self, id: i64) -> Option<LinkedEnd> {
        let outcome = self.links.members.get(&id).and_then(|member| member.outcome);
        outcome.map(LinkedEnd::of_outcome).or_else(|| {
            let entry = self.jobs.get(&id).filter(|entry| entry.stored.state.is_ended());
            entry.map(|entry| LinkedEnd::of(entry.stored.state))
        })
    }

    /// Returns the dependencies among new jobs of a workflow, and between them and its other jobs. The new jobs get the
    /// next ids, in their order.
    fn dependencies_within(&self, workflow: i64, jobs: &[LinkedJob]) -> Vec<NewDependency> {
        let ids: HashMap<&str, i64> = jobs.iter().map(|job| job.name.as_str()).zip(self.last_id + 1..).collect();
        let members = self.links.workflows.get(&workflow).map(|workflow| &workflow.members);
        let id_of = |name: &str| ids.get(name).or_else(|| members?.get(name)).copied();
        let mut found = Vec::new();
        for (job, id) in jobs.iter().zip(self.last_id + 1..) {
            let after = job.after.iter().flatten().map(|other| (other, true));
            for (other, is_after) in after.chain(job.before.iter().map(|other| (other, false))) {
                let Some(other_id) = id_of(&other.name) else { continue };
                let (waiter, on_job) = if is_after { (id, other_id) } else { (other_id, id) };
                let label = if is_after { other.name.clone() } else { job.name.clone() };
                let (fires_on, cancel_if_dead) = (other.fires_on, other.cancel_if_dead);
                let entry = DependencyEntry { on_job, fires_on, cancel_if_dead, state: DependencyState::Open };
                found.push(NewDependency { waiter, label, entry });
            }
        }
        found
    }

    /// True if a job that exists would wait for itself. Circles among new jobs have been refused before.
    fn wait_in_a_circle(&self, dependencies: &[NewDependency]) -> bool {
        let mut new: HashMap<i64, Vec<i64>> = HashMap::new();
        dependencies.iter().for_each(|new_one| new.entry(new_one.waiter).or_default().push(new_one.entry.on_job));
        new.keys().filter(|waiter| **waiter <= self.last_id).any(|waiter| {
            let mut seen = HashSet::new();
            let mut ahead = new[waiter].clone();
            while let Some(at) = ahead.pop() {
                if at == *waiter {
                    return true;
                }
                if seen.insert(at) {
                    ahead.extend(new.get(&at).into_iter().flatten());
                    let is_blocked = self.links.blocked.contains_key(&at);
                    let waits = self.links.of_waiter(at, "").filter(|(_, entry)| is_blocked && entry.is_undecided());
                    ahead.extend(waits.map(|(_, entry)| entry.on_job));
                }
            }
            false
        })
    }

    /// Adds checked jobs to a workflow.
    fn add_members(&mut self, workflow: i64, jobs: &[LinkedJob], dependencies: Vec<NewDependency>) {
        let is_sealed = self.links.workflows.get(&workflow).is_some_and(|workflow| workflow.sealed);
        let waiters: HashSet<i64> = dependencies.iter().map(|dependency| dependency.waiter).collect();
        for LinkedJob { name, job, after, needs_one, .. } in jobs {
            let waits = waiters.contains(&(self.last_id + 1)) || !is_sealed && after.is_some();
            let member = MemberEntry { workflow, kind: job.kind.clone(), cleanup: false, outcome: None, result: None };
            let id = if waits { self.add_blocked(job, *needs_one) } else { self.add_waiting(job) };
            self.links.members.insert(id, member);
            if let Some(workflow) = self.links.workflows.get_mut(&workflow) {
                workflow.members.insert(name.clone(), id);
                workflow.blocked += usize::from(waits);
            }
        }
        self.store_dependencies(dependencies);
        self.update_workflow(workflow);
    }

    fn add_blocked(&mut self, job: &NewJob, needs_one: bool) -> i64 {
        let id = self.add(job, self.now(), JobState::Blocked);
        let blocked = BlockedEntry { needs: usize::from(needs_one), needs_one, ..BlockedEntry::default() };
        self.links.blocked.insert(id, blocked);
        id
    }

    /// Stores dependencies of blocked jobs. Prerequisites that have ended count at once.
    fn store_dependencies(&mut self, dependencies: Vec<NewDependency>) {
        let decided: Vec<(i64, LinkedEnd)> = {
            let on_job = |dependency: &NewDependency| dependency.entry.on_job;
            let ended: HashSet<i64> = dependencies.iter().map(on_job).collect();
            ended.into_iter().filter_map(|id| Some((id, self.end_of(id)?))).collect()
        };
        for NewDependency { waiter, label, entry } in dependencies {
            self.links.depend(waiter, label, entry);
        }
        for (id, end) in decided {
            self.decide_waiters(id, end);
        }
    }
}

/// Returns the dependencies of a job that belongs to no workflow.
fn dependencies_on_ids(waiter: i64, target: &LinkedTarget) -> Vec<NewDependency> {
    let LinkedTarget::Jobs { ids, fires_on, cancel_if_dead, .. } = target else { return Vec::new() };
    let (fires_on, cancel_if_dead) = (*fires_on, *cancel_if_dead);
    let new = |&on_job: &i64| NewDependency {
        waiter,
        label: on_job.to_string(),
        entry: DependencyEntry { on_job, fires_on, cancel_if_dead, state: DependencyState::Open },
    };
    ids.iter().map(new).collect()
}

fn refused(refusal: impl std::fmt::Display) -> Error {
    Error::invalid(format!("cannot enqueue: {refusal}"))
}
