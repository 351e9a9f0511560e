//! Workflows: sets of jobs that wait for each other.
//! The public names stand in `enqueue`, and `Inputs` in `handler`.

use serde::Serialize;

use crate::database::EnqueueOn;
use crate::enqueue::Enqueuer;
use crate::error::{Error, Result};
use crate::job::linked::{Dependency, LinkedJobs, LinkedTarget};
use crate::job::{Enqueueable, Enqueued, FiresOn, NewJob, Payload};

mod handle;
mod inputs;
mod json;
mod members;
mod start;

pub use handle::WorkflowHandle;
pub use inputs::Inputs;
pub use members::{Member, Members, Prerequisites};
pub(crate) use start::starter;

/// The names of the jobs that a workflow adds for its callbacks.
const ON_COMPLETE: &str = "on complete";
const ON_SUCCESS: &str = "on success";
const ON_DEAD: &str = "on dead";

/// The answer to the enqueue of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnqueuedWorkflow {
    /// The id of the workflow.
    pub id: i64,
    /// True if a workflow of the name with the unique key has not ended: this is its id, and nothing was enqueued.
    pub existed: bool,
}

/// A workflow about to be enqueued: jobs that start once the jobs that they wait for have ended.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// # macro_rules! kinds { ($($name:ident $kind:literal),*) => { $(
/// #     #[derive(Serialize, Deserialize)] struct $name;
/// #     impl reveille::Job for $name { const KIND: &'static str = $kind; }
/// # )* } }
/// # kinds!(Extract "extract", Load "load", Undo "undo", Report "report");
/// # async fn example(tx: &tokio_postgres::Transaction<'_>) -> reveille::Result<()> {
/// use reveille::enqueue::Workflow;
///
/// let mut workflow = Workflow::new("onboard").unique_key("customer 42");
/// let extract = workflow.add("extract", &Extract);
/// let load = workflow.add("load", &Load).after(&extract);
/// workflow.add("undo", &Undo).after_dead(&load);
/// workflow.add("report", &Report).after_any_end([&extract, &load]);
/// let started = workflow.enqueue(tx).await?;
/// println!("workflow {}", started.id);
/// # Ok(())
/// # }
/// ```
///
/// A workflow can also be a job, which enqueues the workflow when it runs. So `enqueue(&database, &workflow)` takes a
/// delay, and a schedule starts a workflow.
///
/// The guide: [workflows](crate::guide::features::workflows),
/// [starting workflows](crate::guide::features::starting_workflows).
#[derive(Debug, Clone)]
pub struct Workflow {
    name: String,
    unique_key: Option<String>,
    input: Result<Option<Payload>, String>,
    members: Members,
    callbacks: Vec<(&'static str, FiresOn)>,
}

impl Workflow {
    /// Begins a workflow of this name, 1 to 128 characters. Several workflows may have the same name.
    pub fn new(name: impl Into<String>) -> Workflow {
        let (name, members) = (name.into(), Members::new());
        Workflow { name, unique_key: None, input: Ok(None), members, callbacks: Vec::new() }
    }

    /// Begins a workflow in which each job waits until the job before it is completed. The names of the jobs are `1`,
    /// `2` and so on.
    pub fn chain(name: impl Into<String>, jobs: impl IntoIterator<Item = impl Enqueueable>) -> Workflow {
        let workflow = Workflow::new(name);
        for (place, job) in (1..).zip(jobs) {
            let member = workflow.members.add(place.to_string(), &job);
            if place > 1 {
                member.after((place - 1).to_string().as_str());
            }
        }
        workflow
    }

    /// Begins a workflow of jobs that do not wait for each other. Their names are `1`, `2` and so on. Add
    /// [`on_complete`](Workflow::on_complete), [`on_success`](Workflow::on_success) or
    /// [`on_dead`](Workflow::on_dead).
    pub fn batch(name: impl Into<String>, jobs: impl IntoIterator<Item = impl Enqueueable>) -> Workflow {
        let workflow = Workflow::new(name);
        for (place, job) in (1..).zip(jobs) {
            workflow.members.add(place.to_string(), &job);
        }
        workflow
    }

    /// Sets the unique key, 1 to 512 bytes: until a workflow of this name and unique key has ended, no second one is
    /// enqueued.
    #[must_use]
    pub fn unique_key(self, key: impl Into<String>) -> Workflow {
        Workflow { unique_key: Some(key.into()), ..self }
    }

    /// Sets the input, which every job of the workflow can read: any JSON of at most 1 MiB. Default: an empty object.
    /// The input passes no middleware, so it is not encrypted.
    #[must_use]
    pub fn input(self, input: &impl Serialize) -> Workflow {
        let input = Payload::encode_as("the input of the workflow", input);
        Workflow { input: input.map(Some).map_err(|error| error.to_string()), ..self }
    }

    /// Adds a job under a name, 1 to 128 characters, which no other job of the workflow has. Chain on the returned
    /// [`Member`] what the job waits for.
    pub fn add(&mut self, name: impl Into<String>, job: &impl Enqueueable) -> Member {
        self.members.add(name, job)
    }

    /// Adds a job `on complete`, which starts once all jobs that were added by hand have ended, in any way.
    #[must_use]
    pub fn on_complete(self, job: &impl Enqueueable) -> Workflow {
        self.callback(ON_COMPLETE, job, FiresOn::Any)
    }

    /// Adds a job `on success`, which starts once all jobs that were added by hand are completed. It is skipped if one
    /// of them was cancelled. While one of them is dead, it waits until that job is revived or purged.
    #[must_use]
    pub fn on_success(self, job: &impl Enqueueable) -> Workflow {
        self.callback(ON_SUCCESS, job, FiresOn::Completed)
    }

    /// Adds a job `on dead`, which starts once the first of the jobs that were added by hand is dead. It is skipped if
    /// none of them is.
    #[must_use]
    pub fn on_dead(self, job: &impl Enqueueable) -> Workflow {
        self.callback(ON_DEAD, job, FiresOn::Dead)
    }

    fn callback(mut self, name: &'static str, job: &impl Enqueueable, fires_on: FiresOn) -> Workflow {
        self.members.add_callback(name, job, fires_on == FiresOn::Dead);
        self.callbacks.push((name, fires_on));
        self
    }

    /// Enqueues the workflow, all of its jobs or none.
    ///
    /// # Errors
    /// As in [`Enqueuer::enqueue_workflow`].
    pub async fn enqueue<E: EnqueueOn>(self, on: E) -> Result<EnqueuedWorkflow> {
        Enqueuer::new().enqueue_workflow(on, self).await
    }

    /// Opens the workflow: enqueues it with the jobs that it has so far. Its jobs that wait for others start only after
    /// [`WorkflowHandle::seal`], so that the workflow can be filled in several transactions.
    ///
    /// # Errors
    /// As in [`Enqueuer::enqueue_workflow`].
    pub async fn open<E: EnqueueOn>(self, on: E) -> Result<WorkflowHandle> {
        Enqueuer::new().open_workflow(on, self).await
    }

    /// Returns the workflow as a store takes it, each job as `prepare` changes and checks it.
    fn link(self, parent: Option<i64>, seal: bool, prepare: impl Fn(NewJob) -> Result<NewJob>) -> Result<LinkedJobs> {
        let Workflow { name, unique_key, input, members, callbacks } = self;
        let mut jobs = members.prepare(prepare)?;
        let is_callback = |name: &str| callbacks.iter().any(|(callback, _)| *callback == name);
        for job in jobs.iter_mut().filter(|job| !is_callback(&job.name)) {
            job.before.extend(callbacks.iter().map(|&(name, fires_on)| Dependency {
                name: name.to_owned(),
                fires_on,
                cancel_if_dead: false,
            }));
        }
        // The callbacks must exist before the jobs that they wait for.
        jobs.sort_by_key(|job| !is_callback(&job.name));
        let input = input.map_err(Error::invalid)?;
        let target = LinkedTarget::New { name, unique_key, input, parent, seal, takes_schedule: false };
        Ok(LinkedJobs { target, jobs })
    }
}

impl Enqueuer {
    /// Enqueues a workflow, all of its jobs or none, in one statement.
    ///
    /// For more than about 100,000 jobs, use [`open_workflow`](Enqueuer::open_workflow) in a transaction, and add the
    /// jobs in parts.
    ///
    /// # Errors
    /// Invalid if the workflow has no job, or a job cannot be stored: a name occurs twice or is unknown, jobs wait for
    /// each other in a circle, or a job has a unique key. Invalid also while a worker of a version without workflows
    /// lives. Otherwise the server's error.
    pub async fn enqueue_workflow<E: EnqueueOn>(&self, on: E, workflow: Workflow) -> Result<EnqueuedWorkflow> {
        self.send(on, workflow, true).await
    }

    /// Opens a workflow, as [`Workflow::open`] does, through the middleware of this enqueuer.
    ///
    /// # Errors
    /// As in [`enqueue_workflow`](Enqueuer::enqueue_workflow).
    pub async fn open_workflow<E: EnqueueOn>(&self, on: E, workflow: Workflow) -> Result<WorkflowHandle> {
        let EnqueuedWorkflow { id, existed } = self.send(on, workflow, false).await?;
        Ok(WorkflowHandle::new(id, existed, self.clone()))
    }

    async fn send<E: EnqueueOn>(&self, on: E, workflow: Workflow, seal: bool) -> Result<EnqueuedWorkflow> {
        let linked = workflow.link(self.parent(), seal, |job| self.prepare(&job))?;
        let Enqueued { id, existed } = self.insert_linked(on, &linked).await?;
        Ok(EnqueuedWorkflow { id, existed })
    }
}
