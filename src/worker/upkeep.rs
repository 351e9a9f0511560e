//! What a worker does beside its jobs: put back what it holds without knowing, prune what is past its time, and reclaim
//! what is dead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::worker::shared::Shared;

/// How often to put back and to prune.
const EVERY: Duration = Duration::from_secs(60);
/// How often to see whether there is much to reclaim.
const VACUUM_EVERY: Duration = Duration::from_secs(5);
/// How often to look for jobs to put back after an answer was lost, and for how long: the server may still be at it.
const UNSURE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(40));

/// Does the upkeep until the task is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    tokio::join!(prune(&shared), vacuum(&shared));
}

/// By itself, so that neither waits for the other.
async fn vacuum(shared: &Shared) {
    let mut backoff = shared.backoff("vacuum");
    loop {
        tokio::time::sleep(VACUUM_EVERY).await;
        match shared.driver.vacuum().await {
            Ok(()) => _ = backoff.worked(),
            Err(error) => backoff.failed(&error).over().await,
        }
    }
}

async fn prune(shared: &Shared) {
    let mut backoff = shared.backoff("do the upkeep");
    let mut unsure_until = Instant::now();
    loop {
        let (soon, for_long) = UNSURE;
        // Workers that were started together do not prune together.
        let pause = if Instant::now() < unsure_until { soon } else { EVERY.mul_f64(0.75 + 0.5 * fastrand::f64()) };
        let unsure = tokio::select! {
            () = shared.unsure.notified() => true,
            () = tokio::time::sleep(pause) => false,
        };
        if unsure {
            unsure_until = Instant::now() + for_long;
        }
        let only_strays = pause == soon || unsure;
        while let Err(error) = once(shared, only_strays).await {
            backoff.failed(&error).over().await;
        }
        backoff.worked();
        if only_strays {
            // What a lost claim had reserved is due again, by the release or since the server has undone the claim by
            // now.
            shared.came_back.fetch_add(1, Ordering::Relaxed);
            shared.bells.ring_all();
        }
    }
}

async fn once(shared: &Shared, only_strays: bool) -> Result<()> {
    // One that fails does not keep the other from being done.
    let released = release_strays(shared).await;
    if !only_strays {
        shared.driver.prune().await?;
    }
    released
}

/// Jobs reserved by this worker which it knows nothing of: the answer to a claim was lost, or a crash undid a
/// settlement. Not while a claim is under way, whose jobs it does not know of yet.
async fn release_strays(shared: &Shared) -> Result<()> {
    let _none_under_way = shared.claiming.write().await;
    let released = shared.driver.release_strays(shared.id(), &shared.held.ids()).await?;
    if !released.is_empty() {
        tracing::warn!(
            name: "worker.strays_released", target: "reveille::worker", jobs = ?released,
            "put back jobs that this worker had reserved and did not know of"
        );
    }
    Ok(())
}
