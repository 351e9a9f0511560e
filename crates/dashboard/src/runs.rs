//! Changes of many jobs: each is a run in the background, and a row of `reveille.actions` that survives the page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::Response;
use reveille::admin::{Bulk, BulkAction, Filter, Start};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::guard::Refusal;
use crate::once::Once;
use crate::posted::Posted;
use crate::shared::Shared;

/// The time for which a run waits for a database that is away, and the times between two tries.
const PATIENCE: Duration = Duration::from_secs(600);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Begins to change the jobs that pass a filter, and leads to the page of the run, which goes on without any page. A
/// form that was sent before leads to its first run.
///
/// # Errors
/// A refusal if as many runs as may are under way, if the filter does not fit the action, or by the server.
pub async fn begin(
    posted: &Posted,
    once: Once,
    (action, filter): (BulkAction, &Filter),
    start: Start,
) -> Result<Response, Refusal> {
    let shared = &posted.visit.shared;
    let Ok(room) = Arc::clone(&shared.runs).try_acquire_owned() else {
        let full = "Other changes of many jobs are under way. Wait until one has ended. Nothing was changed.";
        return once.before(posted).await?.ok_or_else(|| Refusal::unavailable(full));
    };
    let run = once.operator.bulk(action, filter)?.starting_at(start);
    let (tell, begun) = oneshot::channel();
    // A visitor who leaves now ends neither the run nor its beginning.
    tokio::spawn(make(run, tell, Arc::clone(shared), room));
    match begun.await {
        Ok(Ok(Some(id))) => Ok(posted.done(&format!("actions/{id}"), "It has begun, and goes on without this page.")),
        Ok(Err(error)) => once.refused(posted, error).await,
        _ => Err(Refusal::unavailable("The change was not recorded. Nothing was changed.")),
    }
}

/// Makes a run from its beginning to its end. Tells the id of its action, or why it has not begun.
async fn make(
    mut run: Bulk,
    tell: oneshot::Sender<reveille::Result<Option<i64>>>,
    shared: Arc<Shared>,
    _room: OwnedSemaphorePermit,
) {
    let begun = run.begin().await;
    let id = begun.as_ref().ok().copied().flatten();
    // Nobody may be there any more to hear it.
    let _ = tell.send(begun);
    if let Some(id) = id {
        go_on(run, id).await;
    }
    shared.readings.forget();
}

/// Changes the jobs slice by slice. Waits for a database that is away. Another error ends the run, and stands in its
/// row.
async fn go_on(mut run: Bulk, id: i64) {
    let (mut reached_at, mut pause) = (Instant::now(), SHORTEST_PAUSE);
    loop {
        match run.step().await {
            Ok(true) => (reached_at, pause) = (Instant::now(), SHORTEST_PAUSE),
            Ok(false) => return,
            Err(error) if error.is_unavailable() && reached_at.elapsed() < PATIENCE => {
                tracing::warn!(action = id, %error, "a change of many jobs waits for the database");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => {
                tracing::warn!(action = id, %error, "a change of many jobs has ended early");
                return;
            }
        }
    }
}
