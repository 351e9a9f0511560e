//! What a worker does beside its jobs: put back what it holds without knowing, and prune the history.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::error::Result;
use crate::held::Held;
use crate::look::Claims;

/// How often both are done.
const EVERY: Duration = Duration::from_secs(60);

/// Does the upkeep until the task is dropped.
pub(crate) async fn run(claims: Arc<Claims>, held: Arc<Held>) {
    let mut backoff = Backoff::new("do the upkeep");
    loop {
        // Workers that were started together do not prune together.
        let pause = EVERY.mul_f64(0.75 + 0.5 * fastrand::f64());
        let answer_lost = tokio::select! {
            () = claims.answer_lost.notified() => true,
            () = tokio::time::sleep(pause) => false,
        };
        while let Err(error) = once(&claims, &held, answer_lost).await {
            tokio::time::sleep(backoff.failed(&error)).await;
        }
        backoff.worked();
    }
}

async fn once(claims: &Claims, held: &Held, answer_lost: bool) -> Result<()> {
    release_strays(claims, held).await?;
    if !answer_lost {
        claims.driver.prune().await?;
    }
    Ok(())
}

/// Jobs reserved by this worker which it knows nothing of: the answer to a claim was lost. Not while a claim is under
/// way, whose jobs it does not know of yet.
async fn release_strays(claims: &Claims, held: &Held) -> Result<()> {
    let _none_under_way = claims.under_way.write().await;
    let released = claims.driver.release_strays(claims.worker.load(Ordering::Acquire), &held.ids()).await?;
    if !released.is_empty() {
        tracing::warn!(jobs = ?released, "put back jobs whose claim was never answered");
    }
    Ok(())
}
