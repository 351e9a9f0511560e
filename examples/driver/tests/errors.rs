//! Each error that a store can make, and what a worker does about it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reveille::driver::{
    Beat, ClaimRequest, Claimed, Driver, OnSignal, Peer, Report, Rescue, Settled, Settlement, WorkerInfo,
};
use reveille::handler::BoxFuture;
use reveille::job::{Enqueued, JobState, NewJob, Payload, Reservation};
use reveille::{Context, Error, Job, Result, State, Worker, enqueue};
use reveille_driver_example::{MapStore, Row};
use serde::{Deserialize, Serialize};

/// Which method fails.
#[derive(Clone, Copy, PartialEq)]
enum Fails {
    Check,
    Claim,
    Settle,
    Listen,
    Progress,
}

/// A store whose method fails for some calls.
struct Failing {
    store: MapStore,
    method: Fails,
    calls: AtomicUsize,
    error: fn() -> Error,
}

impl Failing {
    /// The method fails this many times.
    fn new(method: Fails, calls: usize, error: fn() -> Error) -> Arc<Failing> {
        Arc::new(Failing { store: MapStore::default(), method, calls: AtomicUsize::new(calls), error })
    }

    fn fail(&self, method: Fails) -> Result<()> {
        let take = |calls: usize| calls.checked_sub(1);
        let fails =
            method == self.method && self.calls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if fails { Err((self.error)()) } else { Ok(()) }
    }
}

impl Driver for Failing {
    fn check(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.fail(Fails::Check) })
    }

    fn enqueue<'a>(&'a self, jobs: &'a [NewJob]) -> BoxFuture<'a, Result<Vec<Enqueued>>> {
        self.store.enqueue(jobs)
    }

    fn register<'a>(&'a self, info: &'a WorkerInfo) -> BoxFuture<'a, Result<()>> {
        self.store.register(info)
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest<'a>) -> BoxFuture<'a, Result<Claimed>> {
        Box::pin(async move {
            self.fail(Fails::Claim)?;
            self.store.claim(request).await
        })
    }

    fn settle<'a>(&'a self, settlements: &'a [Settlement]) -> BoxFuture<'a, Result<Vec<Settled>>> {
        Box::pin(async move {
            self.fail(Fails::Settle)?;
            self.store.settle(settlements).await
        })
    }

    fn beat<'a>(&'a self, worker: i64, report: &'a Report) -> BoxFuture<'a, Result<Beat>> {
        self.store.beat(worker, report)
    }

    fn rescue<'a>(&'a self, worker: i64, dead: &'a [Peer]) -> BoxFuture<'a, Result<Rescue>> {
        self.store.rescue(worker, dead)
    }

    fn release_strays<'a>(&'a self, worker: i64, held: &'a [i64]) -> BoxFuture<'a, Result<Vec<i64>>> {
        self.store.release_strays(worker, held)
    }

    fn leave(&self, worker: i64) -> BoxFuture<'_, Result<()>> {
        self.store.leave(worker)
    }

    fn progress<'a>(&'a self, _: &'a Reservation, _: &'a Payload) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async { self.fail(Fails::Progress).map(|()| true) })
    }

    fn listen(&self, worker: i64, on_signal: OnSignal) -> BoxFuture<'_, Result<BoxFuture<'static, Error>>> {
        Box::pin(async move {
            self.fail(Fails::Listen)?;
            self.store.listen(worker, on_signal).await
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Note;

impl Job for Note {
    const KIND: &'static str = "note";
}

/// What the handler got when it set its progress.
type Progress = Arc<Mutex<Option<Result<()>>>>;

async fn handle(_: Note, context: Context, State(progress): State<Progress>) {
    let set = context.progress(&1).await;
    *progress.lock().unwrap() = Some(set);
}

/// What became of a job on a store whose method fails, and of its handler's progress; or why the worker did not start.
async fn run(store: &Arc<Failing>) -> Result<(Row, Result<()>)> {
    let progress = Progress::default();
    let job = enqueue(&**store, &Note).await?;
    let builder = Worker::builder(Arc::clone(store)).poll_interval(Duration::from_millis(20));
    let worker = builder.state(Arc::clone(&progress)).handle(handle).build()?;
    let settled = async {
        let is_settled =
            || store.store.row(job.id).is_some_and(|row| row.attempts > 0 && row.state != JobState::Running);
        while !is_settled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    worker.run_until(tokio::time::timeout(Duration::from_secs(10), settled)).await?;
    let set = progress.lock().unwrap().take().expect("the handler ran");
    Ok((store.store.row(job.id).expect("the job is stored"), set))
}

#[tokio::test]
async fn a_worker_does_not_start_if_the_check_fails() {
    let errors: [(fn() -> Error, fn(&Error) -> bool); 4] = [
        (|| Error::unavailable("the store is away"), Error::is_unavailable),
        (|| Error::denied("wrong password"), Error::is_denied),
        (|| Error::schema_missing("no tables"), Error::is_schema_missing),
        (|| Error::schema_mismatch("newer tables"), Error::is_schema_mismatch),
    ];
    for (error, is_of_its_kind) in errors {
        let ended = run(&Failing::new(Fails::Check, 1, error)).await.err().expect("the worker does not start");
        assert!(is_of_its_kind(&ended), "{ended:?}");
    }
}

#[tokio::test]
async fn a_running_worker_waits_until_an_unavailable_store_is_back() {
    for method in [Fails::Claim, Fails::Settle] {
        let store = Failing::new(method, 3, || Error::unavailable("the store is away"));
        let (row, _) = run(&store).await.unwrap();
        assert_eq!((row.state, row.attempts, row.failures), (JobState::Completed, 1, 0));
    }
}

#[tokio::test]
async fn an_ending_that_the_store_refuses_is_recorded_as_a_failure() {
    let store = Failing::new(Fails::Settle, 1, || Error::invalid("the result is too large"));
    let (row, _) = run(&store).await.unwrap();
    assert_eq!((row.state, row.failures), (JobState::Ready, 1));
    assert!(row.failure.unwrap().error.contains("the result is too large"));
}

#[tokio::test]
async fn a_worker_polls_if_the_store_cannot_notify() {
    let store = Failing::new(Fails::Listen, 1, || Error::listen_unsupported("no notifications"));
    assert_eq!(run(&store).await.unwrap().0.state, JobState::Completed);
}

#[tokio::test]
async fn a_handler_learns_that_its_job_is_lost() {
    let cause = std::io::Error::other("row is gone");
    let error = Error::lost("job 1 is no longer this worker's").with_source(cause);
    assert!(error.is_lost() && std::error::Error::source(&error).is_some());
    let store = Failing::new(Fails::Progress, 1, || Error::lost("job 1 is no longer this worker's"));
    let (row, progress) = run(&store).await.unwrap();
    assert!(progress.unwrap_err().is_lost());
    assert_eq!(row.state, JobState::Completed, "the handler chose to return all the same");
}
