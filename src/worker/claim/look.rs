//! The looks and the looks back of a claimer. Both can run in the background while the claimer does something else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{Notify, OwnedRwLockReadGuard};
use tokio::task::JoinHandle;

use crate::driver::{ClaimRequest, Claimed, Marks, Start};
use crate::error::{Error, Result};
use crate::worker::shared::Shared;

/// A claim under way.
pub(crate) struct Look {
    /// The number of jobs that the claim asks for.
    pub(crate) wanted: usize,
    pub(crate) start: Start,
    /// The number of pauses of the queue when the claim began.
    pub(crate) pauses: u64,
    pub(crate) began: Instant,
    answer: BoxFuture<'static, Result<LookAnswer>>,
}

pub(crate) struct LookAnswer {
    pub(crate) claimed: Claimed,
    pub(crate) took: Duration,
    /// Drop this once the jobs are held; see `Shared::claiming`.
    pub(crate) claiming: OwnedRwLockReadGuard<()>,
}

impl Look {
    pub(crate) fn new(shared: &Arc<Shared>, queue: &Arc<str>, wanted: usize, start: Start, pauses: u64) -> Look {
        let (shared, queue) = (Arc::clone(shared), Arc::clone(queue));
        let answer = async move {
            let claiming = Arc::clone(&shared.claiming).read_owned().await;
            let began = Instant::now();
            let claim = ClaimRequest::new(shared.id(), &queue, wanted).starting_at(start);
            match shared.driver.claim(&claim).await {
                Ok(claimed) => Ok(LookAnswer { claimed, took: began.elapsed(), claiming }),
                Err(error) => {
                    shared.check_for_strays.notify_one();
                    Err(error)
                }
            }
        };
        Look { wanted, start, pauses, began: Instant::now(), answer: answer.boxed() }
    }

    /// Runs this look in the background. The answer has to be awaited: otherwise the jobs of this look stay reserved
    /// without being held.
    pub(crate) fn in_background(self) -> Look {
        let task = tokio::spawn(self.answer);
        Look { answer: async { task.await.unwrap_or_else(|error| Err(task_failed(&error))) }.boxed(), ..self }
    }

    pub(crate) async fn answer(self) -> Result<LookAnswer> {
        self.answer.await
    }
}

/// A look back: a search below the low-water marks, in the background beside the claims. It reserves no job.
pub(crate) struct LookBack {
    pub(crate) from: Marks,
    answer: JoinHandle<Result<LookBackAnswer>>,
}

pub(crate) struct LookBackAnswer {
    /// The place of the first due job of each level, at or above the start of the look back.
    pub(crate) heads: Marks,
    pub(crate) took: Duration,
}

impl LookBack {
    /// Begins a look back from the places `from`. `over` is notified when the answer is there.
    pub(crate) fn begin(shared: &Arc<Shared>, queue: &Arc<str>, from: Marks, over: Arc<Notify>) -> LookBack {
        let (driver, queue) = (Arc::clone(&shared.driver), Arc::clone(queue));
        let answer = tokio::spawn(async move {
            let began = Instant::now();
            let heads = driver.heads(&queue, from).await;
            over.notify_one();
            Ok(LookBackAnswer { heads: heads?, took: began.elapsed() })
        });
        LookBack { from, answer }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.answer.is_finished()
    }

    pub(crate) async fn answer(self) -> Result<LookBackAnswer> {
        self.answer.await.unwrap_or_else(|error| Err(task_failed(&error)))
    }
}

fn task_failed(error: &tokio::task::JoinError) -> Error {
    Error::unavailable(format!("cannot claim jobs: {error}"))
}
