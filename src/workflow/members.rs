//! The jobs of a workflow, and what they wait for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::job::linked::{Dependency, LinkedJob};
use crate::job::{Enqueueable, FiresOn, NewJob};

/// Jobs that are about to be added to a workflow.
///
/// [`Workflow`](super::Workflow) has its own. Make a value of this type to add jobs to a workflow that was enqueued
/// before, by [`WorkflowHandle::add`](super::WorkflowHandle::add).
#[derive(Debug, Clone, Default)]
pub struct Members(Arc<Mutex<Vec<Node>>>);

/// A job and its dependencies. In place of a job that cannot be enqueued, there is an error's text.
#[derive(Debug, Clone)]
struct Node {
    name: String,
    job: Result<NewJob, String>,
    after: Option<Vec<Dependency>>,
    before: Vec<Dependency>,
    needs_one: bool,
}

/// A job that was added to a workflow. Chain what it waits for.
///
/// If a job waits for several others, all of their outcomes must come, unless
/// [`on_first`](Member::on_first) is set. If an outcome can no longer come, the job is skipped.
#[derive(Debug, Clone)]
pub struct Member {
    members: Members,
    place: usize,
}

/// The jobs that a job waits for: a [`Member`], several, or their names.
pub trait Prerequisites {
    /// Returns the names of the jobs.
    fn names(self) -> Vec<String>;
}

impl Prerequisites for &Member {
    fn names(self) -> Vec<String> {
        vec![self.name()]
    }
}

impl<const N: usize> Prerequisites for [&Member; N] {
    fn names(self) -> Vec<String> {
        self.iter().map(|member| member.name()).collect()
    }
}

impl Prerequisites for &[Member] {
    fn names(self) -> Vec<String> {
        self.iter().map(Member::name).collect()
    }
}

impl Prerequisites for &Vec<Member> {
    fn names(self) -> Vec<String> {
        self.as_slice().names()
    }
}

impl Prerequisites for &str {
    fn names(self) -> Vec<String> {
        vec![self.to_owned()]
    }
}

impl<const N: usize> Prerequisites for [&str; N] {
    fn names(self) -> Vec<String> {
        self.map(str::to_owned).into()
    }
}

impl Members {
    /// Begins with no jobs.
    pub fn new() -> Members {
        Members::default()
    }

    /// Adds a job under a name, 1 to 128 characters, which no other job of the workflow has.
    pub fn add(&self, name: impl Into<String>, job: &impl Enqueueable) -> Member {
        let job = job.to_new_job().map_err(|error| error.to_string());
        self.push(Node { name: name.into(), job, after: None, before: Vec::new(), needs_one: false })
    }

    /// Adds a job that waits for the seal, and for the jobs that are added before it.
    pub(super) fn add_callback(&self, name: &str, job: &impl Enqueueable, needs_one: bool) {
        let job = job.to_new_job().map_err(|error| error.to_string());
        self.push(Node { name: name.to_owned(), job, after: Some(Vec::new()), before: Vec::new(), needs_one });
    }

    fn push(&self, node: Node) -> Member {
        let mut nodes = self.nodes();
        nodes.push(node);
        Member { members: self.clone(), place: nodes.len() - 1 }
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job with its dependencies.
    pub(super) fn add_linked(&self, LinkedJob { name, job, after, before, needs_one }: LinkedJob) {
        self.push(Node { name, job: Ok(job), after, before, needs_one });
    }

    /// Returns the jobs as they are stored: as `prepare` changes and checks them.
    pub(super) fn prepare(&self, prepare: impl Fn(NewJob) -> Result<NewJob>) -> Result<Vec<LinkedJob>> {
        let prepare = |node: Node| {
            let Node { name, job, after, before, needs_one } = node;
            let job = prepare(job.map_err(crate::Error::invalid)?)?;
            let linked = LinkedJob { name, job, after, before, needs_one };
            linked.check()?;
            Ok(linked)
        };
        let nodes = self.nodes().clone();
        nodes.into_iter().map(prepare).collect()
    }
}

impl Member {
    /// The name of the job within the workflow.
    pub fn name(&self) -> String {
        self.members.nodes()[self.place].name.clone()
    }

    /// Lets the job wait until these jobs are completed. While one of them is dead, the job waits until that job is
    /// revived or purged; see [`cancel_if_dead`](Member::cancel_if_dead).
    pub fn after(self, others: impl Prerequisites) -> Member {
        self.wait(others, FiresOn::Completed)
    }

    /// Lets the job wait until these jobs are dead, to undo what they have done.
    pub fn after_dead(self, others: impl Prerequisites) -> Member {
        self.wait(others, FiresOn::Dead)
    }

    /// Lets the job wait until these jobs are cancelled or skipped.
    pub fn after_cancelled(self, others: impl Prerequisites) -> Member {
        self.wait(others, FiresOn::Cancelled)
    }

    /// Lets the job wait until these jobs have ended, in any way.
    pub fn after_any_end(self, others: impl Prerequisites) -> Member {
        self.wait(others, FiresOn::Any)
    }

    /// Skips the job once one of the jobs is dead that it waits for to be completed. By default it waits until that
    /// job is revived or purged.
    pub fn cancel_if_dead(self) -> Member {
        self.change(|node| {
            node.after.iter_mut().flatten().for_each(|dependency| dependency.cancel_if_dead = true);
        })
    }

    /// Starts the job once the first of the outcomes has come that it waits for.
    pub fn on_first(self) -> Member {
        self.change(|node| node.needs_one = true)
    }

    /// Lets these jobs, which were enqueued before and wait for others, wait until this job is completed, too.
    pub fn before(self, others: impl Prerequisites) -> Member {
        self.precede(others, FiresOn::Completed)
    }

    /// Lets these jobs, which were enqueued before and wait for others, wait for any end of this job, too.
    pub fn before_any_end(self, others: impl Prerequisites) -> Member {
        self.precede(others, FiresOn::Any)
    }

    /// Lets these jobs, which were enqueued before and wait for others, wait for the death of this job, too.
    pub fn before_dead(self, others: impl Prerequisites) -> Member {
        self.precede(others, FiresOn::Dead)
    }

    /// Changes the job's options: `member.with(|job| job.queue("reports").max_attempts(3))`.
    pub fn with(self, options: impl FnOnce(NewJob) -> NewJob) -> Member {
        self.change(|node| {
            node.job = std::mem::replace(&mut node.job, Err(String::new())).map(options);
        })
    }

    fn wait(self, others: impl Prerequisites, fires_on: FiresOn) -> Member {
        let names = others.names();
        self.change(|node| node.after.get_or_insert_default().extend(dependencies(names, fires_on)))
    }

    fn precede(self, others: impl Prerequisites, fires_on: FiresOn) -> Member {
        let names = others.names();
        self.change(|node| node.before.extend(dependencies(names, fires_on)))
    }

    fn change(self, change: impl FnOnce(&mut Node)) -> Member {
        change(&mut self.members.nodes()[self.place]);
        self
    }
}

fn dependencies(names: Vec<String>, fires_on: FiresOn) -> impl Iterator<Item = Dependency> {
    names.into_iter().map(move |name| Dependency { name, fires_on, cancel_if_dead: false })
}
