//! The upkeep of a worker: it releases strays, removes rows past their retention, vacuums tables with many dead rows,
//! and stores the counts by kind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::worker::shared::Shared;

/// The time between two rounds of the upkeep. Each round releases strays and removes old rows.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// The time between two checks whether a table needs a vacuum.
const VACUUM_EVERY: Duration = Duration::from_secs(5);
/// The time between two writes of the counts by kind.
const COUNT_KINDS_EVERY: Duration = Duration::from_secs(10);
/// After the answer to a claim was lost, the upkeep checks for strays every 3 s, for 40 s. During that time, the server
/// may still go on with the lost claim and reserve jobs.
const STRAYS_EVERY: Duration = Duration::from_secs(3);
const STRAYS_FOR: Duration = Duration::from_secs(40);

/// Does the upkeep until the task is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    tokio::join!(prune(&shared), vacuum(&shared), count_kinds(&shared));
}

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

/// Stores the counts by kind. After a failure, the next try stores them too. Each try is a task of its own: a worker
/// that stops drops this future, and counts that are being stored would be lost.
async fn count_kinds(shared: &Shared) {
    let mut backoff = shared.backoff("count attempts by kind");
    loop {
        tokio::time::sleep(COUNT_KINDS_EVERY).await;
        let (counts, driver) = (Arc::clone(&shared.attempts.kind_counts), Arc::clone(&shared.driver));
        match tokio::spawn(async move { counts.store(&*driver).await }).await {
            Ok(Ok(())) => _ = backoff.worked(),
            Ok(Err(error)) => _ = backoff.failed(&error),
            // The runtime ends.
            Err(_) => {}
        }
    }
}

async fn prune(shared: &Shared) {
    let mut backoff = shared.backoff("do the upkeep");
    let mut strays_until = Instant::now();
    loop {
        let strays_expected = Instant::now() < strays_until;
        // The pause is random, so that workers that were started together do not remove old rows together.
        let pause = if strays_expected { STRAYS_EVERY } else { PRUNE_EVERY.mul_f64(0.75 + 0.5 * fastrand::f64()) };
        let claim_lost = tokio::select! {
            () = shared.check_for_strays.notified() => true,
            () = tokio::time::sleep(pause) => false,
        };
        if claim_lost {
            strays_until = Instant::now() + STRAYS_FOR;
        }
        let only_strays = strays_expected || claim_lost;
        while let Err(error) = once(shared, only_strays).await {
            backoff.failed(&error).over().await;
        }
        backoff.worked();
        if only_strays {
            // The jobs of a lost claim are due again: this round has released them, or the server has rolled the claim
            // back by now.
            shared.stray_releases.fetch_add(1, Ordering::Relaxed);
            shared.bells.ring_all();
        }
    }
}

async fn once(shared: &Shared, only_strays: bool) -> Result<()> {
    // Old rows are removed even if the release of strays has failed.
    let released = release_strays(shared).await;
    if !only_strays {
        shared.driver.prune().await?;
    }
    released
}

/// Releases strays: jobs that are reserved for this worker and that it does not hold. Strays come from a claim whose
/// answer was lost, and from a crash of the server that undid a settlement.
async fn release_strays(shared: &Shared) -> Result<()> {
    // Claims under way must end first, since their jobs are not held yet.
    let _no_claim_under_way = shared.claiming.write().await;
    let released = shared.driver.release_strays(shared.id(), &shared.held_jobs.ids()).await?;
    if !released.is_empty() {
        tracing::warn!(
            name: "worker.strays_released", target: "reveille::worker", jobs = ?released,
            "released jobs that this worker had reserved without knowing it"
        );
    }
    Ok(())
}
