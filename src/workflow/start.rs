//! The handler of the jobs that start workflows. Every worker has it.

use std::sync::Arc;

use futures::FutureExt;

use super::Workflow;
use crate::database::json::LARGEST_PAYLOAD;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::handler::{BoxFuture, Context};
use crate::job::linked::LinkedTarget;
use crate::job::{IntoOutcome, Outcome};

/// Returns the handler of the kind `reveille.workflow` for a worker on this store. In a test, the job itself may be
/// stored nowhere. The workflow is then enqueued all the same.
pub(crate) fn starter(driver: Arc<dyn Driver>) -> impl Fn(Context) -> BoxFuture<'static, Outcome> {
    move |context| {
        let driver = Arc::clone(&driver);
        async move {
            match Workflow::read(&context.job().payload) {
                Ok(workflow) => start(workflow, &context, &*driver).await.into_outcome(),
                Err(error) => Outcome::Undecodable(error.to_string()),
            }
        }
        .boxed()
    }
}

/// Enqueues the workflow. On Postgres, the workflow is committed together with the end of the job, so that a job that
/// runs again starts no second workflow.
async fn start(workflow: Workflow, context: &Context, driver: &dyn Driver) -> Result<()> {
    // The largest payload was checked when the workflow was enqueued as a payload itself.
    let enqueuer = context.enqueuer().max_payload(LARGEST_PAYLOAD);
    let mut linked = workflow.link(enqueuer.parent(), true, |job| enqueuer.prepare(&job))?;
    if let LinkedTarget::New { takes_schedule, .. } = &mut linked.target {
        *takes_schedule = true;
    }
    let Some(postgres) = driver.postgres().filter(|_| context.stored_id().is_some()) else {
        return enqueuer.insert_linked(driver, &linked).await.map(drop);
    };
    let failed = |error| Error::database("start the workflow", error);
    let mut client = postgres.database().client().await?;
    let transaction = client.transaction().await.map_err(failed)?;
    enqueuer.insert_linked(&transaction, &linked).await?;
    context.complete_in(&transaction).await?;
    transaction.commit().await.map_err(failed)
}
