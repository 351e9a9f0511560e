//! Applies the ends of linked jobs: starts the jobs that wait for them, and counts them in their workflows.

use std::sync::Arc;

use crate::worker::shared::Shared;

/// Applies ends until the task is dropped. It looks for ends when this worker has settled a linked job, when another
/// session notifies an end, and when a heartbeat finds one.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut backoff = shared.backoff("apply the ends of linked jobs");
    loop {
        shared.driver.linked_ended().await;
        loop {
            match shared.driver.apply_linked_ends().await {
                Ok(more) => {
                    backoff.worked();
                    if !more {
                        break;
                    }
                }
                Err(error) => backoff.failed(&error).over().await,
            }
        }
    }
}
