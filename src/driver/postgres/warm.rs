//! What a worker's sessions get ready while it has nothing to do.

use std::sync::atomic::Ordering;

use super::Postgres;
use super::claim::parameters::{Claim, Heads};
use super::session::Statement;
use super::settle::by_id::Finishing;
use super::settle::by_place::Alike;
use super::settle::fence::Fence;
use crate::driver::Marks;
use crate::error::Result;

/// A queue of which there are no jobs: a queue's name is not empty.
const NO_QUEUE: &str = "";
/// A worker that there is not.
const NOBODY: i64 = 0;
/// A worker may claim with two sessions while it settles with a third, and looks back with a fourth.
const SESSIONS: usize = 4;

/// Runs what claims, looks back and settles once in each of some sessions, with nothing to do, and once only: opening a
/// session and planning these takes about as long as working some hundred jobs, and many workers that are woken for the
/// same burst would all do it at once.
pub(super) async fn warm_up(driver: &Postgres) -> Result<()> {
    if driver.warm.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let (claim, heads) = (Claim::new(NO_QUEUE, 1, NOBODY, Marks::default()), Heads::new(NO_QUEUE, Marks::default()));
    let (fence, finishing) = (Fence::of(&[]), Finishing::of(&[]));
    let (claim, heads) = (claim.params(), heads.params());
    let (settle, alike) = (fence.before(&finishing.params()), Alike::of(&[]));
    let settle_alike = alike.params();
    let statements = &driver.statements;
    let all: [Statement<'_>; 5] = [
        (&statements.settle_alike, &settle_alike),
        (&statements.settle_finished, &settle),
        (&statements.claim, &claim),
        (&statements.claim_shared, &claim),
        (&statements.heads, &heads),
    ];
    driver.sessions.warm_up(SESSIONS, &all).await
}
