//! A workflow that was enqueued: adding jobs to it.

use super::members::Members;
use crate::database::EnqueueOn;
use crate::enqueue::Enqueuer;
use crate::error::{Error, Result};
use crate::handler::Context;
use crate::job::Enqueued;
use crate::job::linked::{LinkedJobs, LinkedTarget};

/// A workflow that was enqueued. Jobs can be added to it until it has ended.
#[derive(Clone)]
pub struct WorkflowHandle {
    id: i64,
    existed: bool,
    enqueuer: Enqueuer,
}

impl WorkflowHandle {
    pub(super) fn new(id: i64, existed: bool, enqueuer: Enqueuer) -> WorkflowHandle {
        WorkflowHandle { id, existed, enqueuer }
    }

    /// The id of the workflow.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Returns whether another workflow of the name had the unique key, so that nothing was enqueued.
    pub fn existed(&self) -> bool {
        self.existed
    }

    /// Adds jobs, all or none. They may wait for jobs that the workflow has already, by their names. Jobs that wait may
    /// wait for the new ones too, with [`Member::before`](super::Member::before), until they have started.
    ///
    /// Until the transaction of `on` ends, no worker applies an end of a job of this workflow, so end it soon.
    ///
    /// # Errors
    /// Invalid if the workflow has ended or is being cancelled, or a job that is to wait has started; else as in
    /// [`Enqueuer::enqueue_workflow`].
    pub async fn add<E: EnqueueOn>(&self, on: E, members: Members) -> Result<()> {
        self.send(on, members, false).await
    }

    /// Ends the filling of a workflow that was [opened](super::Workflow::open): its jobs that wait for others can start
    /// from the commit on.
    ///
    /// # Errors
    /// The server's error.
    pub async fn seal<E: EnqueueOn>(&self, on: E) -> Result<()> {
        self.send(on, Members::new(), true).await
    }

    async fn send<E: EnqueueOn>(&self, on: E, members: Members, seal: bool) -> Result<()> {
        let jobs = members.prepare(|job| self.enqueuer.prepare(&job))?;
        let linked = LinkedJobs { target: LinkedTarget::Existing { id: self.id, seal }, jobs };
        self.enqueuer.insert_linked(on, &linked).await.map(drop)
    }
}

impl Enqueuer {
    pub(super) async fn insert_linked<E: EnqueueOn>(&self, on: E, linked: &LinkedJobs) -> Result<Enqueued> {
        let enqueued = on.insert_linked(self.schema_name(), linked).await?;
        let (Enqueued { id, existed }, jobs) = (enqueued, linked.jobs.len());
        tracing::debug!(
            name: "workflow.enqueued", target: "reveille::enqueue", id, jobs, existed, "enqueued jobs of a workflow"
        );
        Ok(enqueued)
    }
}

impl Context {
    /// Returns the workflow that the job belongs to; `None` if it belongs to none. With it the handler can add jobs.
    ///
    /// # Errors
    /// Unavailable if the database cannot be reached. Invalid on a store without workflows.
    pub async fn workflow(&self) -> Result<Option<WorkflowHandle>> {
        let found = self.driver().workflow_of(self.id()).await?;
        Ok(found.map(|(id, _)| WorkflowHandle::new(id, true, self.enqueuer())))
    }

    /// Decodes the input of the workflow that the job belongs to; `None` if it belongs to none.
    ///
    /// # Errors
    /// As in [`workflow`](Context::workflow). Invalid if the input does not decode to the type.
    pub async fn workflow_input<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some((_, input)) = self.driver().workflow_of(self.id()).await? else { return Ok(None) };
        let decoded = input.decode().map_err(|error| {
            Error::invalid(format!("the input of the workflow of job {} cannot be read: {error}", self.id()))
        });
        decoded.map(Some)
    }
}
