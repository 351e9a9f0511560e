//! The store that a behaviour is tested on, with the steps that the tests share.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Standing, StoreUnderTest};
use crate::driver::{
    ClaimRequest, Driver, Ending, Failure, FailureReason, Peer, Report, Settlement, Signal, WorkerInfo, signals,
};
use crate::error::Result;
use crate::job::{Cancelled, Job, NewJob, Reservation, ReservedJob, Retried};
use crate::queue::QueueSettings;
use crate::worker::Worker;

pub(super) const QUEUE: &str = "default";
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// The longest time that a step may take. Only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(60);

/// The job of most behaviours.
#[derive(Serialize, Deserialize)]
pub(super) struct Note(pub(super) String);

impl Job for Note {
    const KIND: &'static str = "note";
}

pub(super) fn job(text: &str) -> NewJob {
    NewJob::of(&Note(text.into())).unwrap()
}

pub(super) fn text(job: &ReservedJob) -> String {
    job.payload.decode::<Note>().unwrap().0
}

pub(super) fn failure(reason: FailureReason) -> Failure {
    Failure::new(reason, "no")
}

/// Returns the ending of an attempt that has failed.
pub(super) fn failed(reason: FailureReason, delay: Duration) -> Ending {
    Ending::Waiting { failure: Some(failure(reason)), delay }
}

/// Returns the ending of an attempt whose job was snoozed.
pub(super) fn snoozed(delay: Duration) -> Ending {
    Ending::Waiting { failure: None, delay }
}

/// Waits for a future, and panics if it takes 60 s.
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("within {DEADLINE:?}: {what}"))
}

/// Waits until a condition holds, and panics after 60 s.
pub(super) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, waiting).await;
}

pub(super) struct Subject {
    pub(super) store: Box<dyn StoreUnderTest>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) sends_notifications: bool,
}

impl Subject {
    pub(super) fn new(store: Box<dyn StoreUnderTest>, sends_notifications: bool) -> Subject {
        Subject { driver: store.driver(), store, sends_notifications }
    }

    pub(super) async fn register(&self, worker: i64) {
        self.driver.register(&WorkerInfo::new(worker).host("test").queues([QUEUE])).await.unwrap();
    }

    pub(super) async fn enqueue(&self, job: NewJob) -> i64 {
        self.driver.enqueue(&[job]).await.unwrap()[0].id
    }

    pub(super) async fn claim(&self, worker: i64, limit: usize) -> Vec<ReservedJob> {
        self.driver.claim(&ClaimRequest::new(worker, QUEUE, limit)).await.unwrap().jobs
    }

    pub(super) async fn claim_one(&self, worker: i64) -> ReservedJob {
        self.claim(worker, 1).await.pop().expect("a job is due")
    }

    /// Claims jobs, and returns their texts, sorted.
    pub(super) async fn claim_texts(&self, limit: usize) -> Vec<String> {
        let mut texts: Vec<String> = self.claim(1, limit).await.iter().map(text).collect();
        texts.sort();
        texts
    }

    /// Claims while no job is due, and returns the time until the next job is due.
    pub(super) async fn due_in(&self, worker: i64) -> Option<Duration> {
        let claimed = self.driver.claim(&ClaimRequest::new(worker, QUEUE, 1)).await.unwrap();
        assert!(claimed.jobs.is_empty(), "no job is due");
        claimed.due_in
    }

    /// Settles a reservation with an ending. Returns whether the ending counts.
    pub(super) async fn settle(&self, reservation: Reservation, ending: Ending) -> bool {
        self.driver.settle(&[Settlement::new(reservation, ending)]).await.unwrap()[0].is_counted()
    }

    /// Has the worker `asker` declare a worker dead. Returns the ids of the rescued jobs.
    pub(super) async fn lose_worker(&self, worker: i64, asker: i64) -> Vec<i64> {
        let peers = self.driver.beat(asker, &Report::default()).await.unwrap().peers;
        let dead: Vec<Peer> = peers.into_iter().filter(|peer| peer.id == worker).collect();
        self.driver.rescue(asker, &dead).await.unwrap().jobs
    }

    /// Applies the ends of linked jobs, and makes jobs due whose events have come. A store may leave this to a worker.
    pub(super) async fn apply_ends(&self) {
        let handle = async |_: Note| {};
        let worker = Worker::builder(self.driver.clone()).queue("another", 1).handle(handle).build().unwrap();
        worker.run_until_drained().await.unwrap();
    }

    pub(super) async fn standing(&self, id: i64) -> Standing {
        self.store.standing(id).await.unwrap_or_else(|| panic!("the store knows job {id}"))
    }

    pub(super) async fn cancel(&self, id: i64) -> Cancelled {
        self.store.cancel(id).await
    }

    pub(super) async fn retry(&self, id: i64) -> Result<Retried> {
        self.store.retry(id).await
    }

    pub(super) async fn set(&self, settings: QueueSettings) {
        self.store.set_queue(QUEUE, settings).await;
    }

    /// Listens, and returns a function that waits for the next signal.
    pub(super) async fn listen(&self) -> impl AsyncFnMut(&str) -> Signal {
        let mut signals = signals(&*self.driver, 0).await.unwrap();
        async move |what: &str| soon(what, futures::StreamExt::next(&mut signals)).await.unwrap().unwrap()
    }
}
