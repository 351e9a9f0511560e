//! Changes of many jobs: each is a run in the background, and a row of `reveille.actions` that survives the page.

use std::sync::Arc;

use reveille::admin::{Bulk, BulkAction, Filter, Start};
use tokio::sync::OwnedSemaphorePermit;

use crate::guard::Refusal;
use crate::shared::Shared;
use crate::visit::Visit;

/// Begins to change the jobs that pass a filter, and returns the id of the action. The run goes on without the page.
///
/// # Errors
/// A refusal if as many runs as may are under way, if the filter does not fit the action, or by the server.
pub async fn begin(visit: &Visit, action: BulkAction, filter: &Filter, start: Start) -> Result<i64, Refusal> {
    let room = Arc::clone(&visit.shared.runs).try_acquire_owned();
    let room = room.map_err(|_| {
        Refusal::unavailable("Other changes of many jobs are under way. Wait until one has ended. Nothing was changed.")
    })?;
    let mut run = visit.operator()?.bulk(action, filter)?.starting_at(start);
    let id =
        run.begin().await?.ok_or_else(|| Refusal::unavailable("The change was not recorded. Nothing was changed."))?;
    tokio::spawn(go_on(run, id, Arc::clone(&visit.shared), room));
    Ok(id)
}

/// Changes the jobs slice by slice. An error ends the run, and stands in its row if the server can still store it.
async fn go_on(mut run: Bulk, id: i64, shared: Arc<Shared>, _room: OwnedSemaphorePermit) {
    loop {
        match run.step().await {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                tracing::warn!(action = id, %error, "a change of many jobs has ended early");
                break;
            }
        }
    }
    shared.readings.forget();
}
