//! Looks at a queue, which can get on while their claimer does something else.

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
    pub(crate) wanted: usize,
    pub(crate) start: Start,
    /// How often the queue had been paused when it began.
    pub(crate) pauses: u64,
    pub(crate) began: Instant,
    answer: BoxFuture<'static, Result<Found>>,
}

/// What a claim brought.
pub(crate) struct Found {
    pub(crate) claimed: Claimed,
    pub(crate) took: Duration,
    /// To be dropped when the jobs are held.
    pub(crate) under_way: OwnedRwLockReadGuard<()>,
}

impl Look {
    pub(crate) fn new(shared: &Arc<Shared>, queue: &Arc<str>, wanted: usize, start: Start, pauses: u64) -> Look {
        let (shared, queue) = (Arc::clone(shared), Arc::clone(queue));
        let answer = async move {
            let under_way = Arc::clone(&shared.claiming).read_owned().await;
            let began = Instant::now();
            let claim = ClaimRequest::new(shared.id(), &queue, wanted).starting_at(start);
            match shared.driver.claim(&claim).await {
                Ok(claimed) => Ok(Found { claimed, took: began.elapsed(), under_way }),
                Err(error) => {
                    shared.unsure.notify_one();
                    Err(error)
                }
            }
        };
        Look { wanted, start, pauses, began: Instant::now(), answer: answer.boxed() }
    }

    /// Gets on by itself. Its end has to be awaited, or its jobs are reserved for nobody.
    pub(crate) fn in_background(self) -> Look {
        let task = tokio::spawn(self.answer);
        Look { answer: async { task.await.unwrap_or_else(|error| Err(broke_off(&error))) }.boxed(), ..self }
    }

    pub(crate) async fn end(self) -> Result<Found> {
        self.answer.await
    }
}

/// A look below the marks, under way beside the claims.
pub(crate) struct LookBack {
    pub(crate) from: Marks,
    answer: JoinHandle<Result<(Marks, Duration)>>,
}

impl LookBack {
    /// `over` is notified at its end.
    pub(crate) fn begin(shared: &Arc<Shared>, queue: &Arc<str>, from: Marks, over: Arc<Notify>) -> LookBack {
        let (driver, queue) = (Arc::clone(&shared.driver), Arc::clone(queue));
        let answer = tokio::spawn(async move {
            let began = Instant::now();
            let heads = driver.heads(&queue, from).await;
            over.notify_one();
            Ok((heads?, began.elapsed()))
        });
        LookBack { from, answer }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.answer.is_finished()
    }

    /// Where the levels begin, and how long it took to find out.
    pub(crate) async fn end(self) -> Result<(Marks, Duration)> {
        self.answer.await.unwrap_or_else(|error| Err(broke_off(&error)))
    }
}

fn broke_off(error: &tokio::task::JoinError) -> Error {
    Error::unavailable(format!("look for jobs: {error}"))
}
