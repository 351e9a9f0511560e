//! Warming up: sessions are opened, and their statements planned, while a worker has nothing to do.

use std::sync::atomic::Ordering;

use super::Postgres;
use super::claim::parameters::{Claim, Heads};
use super::session::Statement;
use super::settle::by_id::Finishing;
use super::settle::by_place::SameQueue;
use super::settle::fence::Fence;
use crate::driver::Marks;
use crate::error::Result;

/// A queue without jobs: the name of a queue is never empty.
const NO_QUEUE: &str = "";
/// The id of no worker.
const NO_WORKER: i64 = 0;
/// A worker may claim with two sessions, settle with a third and look back with a fourth at the same time.
const SESSIONS: usize = 4;

impl Postgres {
    /// Runs each statement that claims, looks back or settles once in each of four sessions, on no jobs; only the first
    /// call does it.
    ///
    /// To open a session and plan these takes about as long as to work some hundred jobs. Many workers that one burst
    /// of jobs wakes would all do it at the same time.
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
