//! What a worker does beside its jobs: put back what it holds without knowing, prune what is past its time, and reclaim
//! what is dead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::worker::attempt::reservations::Held;
use crate::worker::backoff::{Backoff, Comeback};
use crate::worker::claim::look::Claims;
use crate::worker::wake::Bells;

/// How often to put back and to prune.
const EVERY: Duration = Duration::from_secs(60);
/// How often to see whether there is much to reclaim.
const VACUUM_EVERY: Duration = Duration::from_secs(5);
/// How often to look for jobs to put back after an answer was lost, and for how long: the server may still be at it.
const UNSURE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(40));

/// Does the upkeep until the task is dropped.
pub(crate) async fn run(claims: Arc<Claims>, held: Arc<Held>, bells: Arc<Bells>, comeback: Comeback) {
    tokio::join!(prune(&claims, &held, &bells, &comeback), vacuum(&claims, &comeback));
}

/// By itself, so that neither waits for the other.
async fn vacuum(claims: &Claims, comeback: &Comeback) {
    let mut backoff = Backoff::new("vacuum", comeback);
    loop {
        tokio::time::sleep(VACUUM_EVERY).await;
        match claims.driver.vacuum().await {
            Ok(()) => _ = backoff.worked(),
            Err(error) => backoff.failed(&error).over().await,
        }
    }
}

async fn prune(claims: &Claims, held: &Held, bells: &Bells, comeback: &Comeback) {
    let mut backoff = Backoff::new("do the upkeep", comeback);
    let mut unsure_until = Instant::now();
    loop {
        let (soon, for_long) = UNSURE;
        // Workers that were started together do not prune together.
        let pause = if Instant::now() < unsure_until { soon } else { EVERY.mul_f64(0.75 + 0.5 * fastrand::f64()) };
        let unsure = tokio::select! {
            () = claims.unsure.notified() => true,
            () = tokio::time::sleep(pause) => false,
        };
        if unsure {
            unsure_until = Instant::now() + for_long;
        }
        let only_strays = pause == soon || unsure;
        while let Err(error) = once(claims, held, only_strays).await {
            backoff.failed(&error).over().await;
        }
        backoff.worked();
        if only_strays {
            // What a lost claim had reserved is due again, by the release or since the server has undone the claim by now.
            claims.came_back.fetch_add(1, Ordering::Relaxed);
            bells.ring_all();
        }
    }
}

async fn once(claims: &Claims, held: &Held, only_strays: bool) -> Result<()> {
    // One that fails does not keep the other from being done.
    let released = release_strays(claims, held).await;
    if !only_strays {
        claims.driver.prune().await?;
    }
    released
}

/// Jobs reserved by this worker which it knows nothing of: the answer to a claim was lost, or a crash undid a
/// settlement. Not while a claim is under way, whose jobs it does not know of yet.
async fn release_strays(claims: &Claims, held: &Held) -> Result<()> {
    let _none_under_way = claims.under_way.write().await;
    let released = claims.driver.release_strays(claims.worker.load(Ordering::Acquire), &held.ids()).await?;
    if !released.is_empty() {
        tracing::warn!(
            name: "worker.strays_released", target: "reveille::worker", jobs = ?released,
            "put back jobs that this worker had reserved and did not know of"
        );
    }
    Ok(())
}
