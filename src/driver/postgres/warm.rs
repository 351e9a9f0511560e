//! Warming up: opens sessions and plans their statements while a worker has nothing to do.

use std::sync::atomic::Ordering;

use super::Postgres;
use super::claim::parameters::{Claim, Heads};
use super::session::Statement;
use super::settle::by_id::Finishing;
use super::settle::by_place::SameQueue;
use super::settle::fence::Fence;
use crate::driver::Marks;
use crate::error::Result;

/// The name of a queue without jobs, since a queue's name is never empty.
const NO_QUEUE: &str = "";
/// An id that no worker has.
const NO_WORKER: i64 = 0;
/// The number of sessions that a worker may use at the same time: two to claim, one to settle and one to look back.
const SESSIONS: usize = 4;

impl Postgres {
    /// Runs each statement that claims, looks back or settles, on no jobs, in each of four sessions. Only the first
    /// call does this.
    ///
    /// Opening a session and planning these statements takes about as long as working a few hundred jobs. If a burst of
    /// jobs woke many workers, all of them would do this at the same time.
    pub(crate) async fn warm_up(&self) -> Result<()> {
        if self.warm.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let claim = Claim::new(NO_QUEUE, 1, NO_WORKER, Marks::default());
        let heads = Heads::new(NO_QUEUE, Marks::default());
        let (fence, finishing, same_queue) = (Fence::of(&[]), Finishing::of(&[]), SameQueue::of(&[]));
        let (claim, heads) = (claim.params(), heads.params());
        let (settle, settle_together) = (fence.before(&finishing.params()), same_queue.params());
        let statements = &self.statements;
        let all: [Statement<'_>; 5] = [
            (&statements.settle_alike, &settle_together),
            (&statements.settle_finished, &settle),
            (&statements.claim, &claim),
            (&statements.claim_shared, &claim),
            (&statements.heads, &heads),
        ];
        self.sessions.warm_up(SESSIONS, &all).await
    }
}
