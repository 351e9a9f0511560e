//! A broken part of a worker ends the whole worker. An ending counts even if the worker cannot log it.

use std::sync::{Arc, LazyLock};

use reveille::{Worker, enqueue, enqueue::enqueue_all};
use serde_json::json;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::harness::{Note, database, note, soon, worker};

/// Panics at each event and each new span with this name.
struct PanicsAt(&'static str);

impl<S: Subscriber> Layer<S> for PanicsAt {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        assert!(attributes.metadata().name() != self.0, "{} cannot be written", self.0);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        assert!(event.metadata().name() != self.0, "{} cannot be written", self.0);
    }
}

/// A second subscriber, for the reason that is given at `SECOND` in `tests/suite/tracing.rs`.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

#[tokio::test]
async fn a_part_that_breaks_down_ends_the_worker_and_releases_its_jobs() {
    async fn endless(_: Note) {
        std::future::pending().await
    }
    LazyLock::force(&SECOND);
    for (event, part) in [
        ("worker.claimed", "the claimer of the queue \"default\""),
        ("worker.settled", "the settler"),
        ("worker.woken", "the claimer of the queue \"default\""),
        ("job", "an attempt"),
    ] {
        let database = database().await;
        enqueue_all(&database.database, &[note("a"), note("b")]).await.unwrap();
        // The worker settles this job at once, because it has no handler for the job's kind.
        database.run("insert into reveille.jobs (kind) values ('kind without a handler')").await;
        let log = tracing_subscriber::registry().with(PanicsAt(event));
        let _log = tracing::subscriber::set_default(log);
        let worker = worker(&database).handle(endless).build().unwrap();
        let error = soon("the worker ends", worker.run_until(std::future::pending::<()>())).await.unwrap_err();
        assert!(error.is_broken() && error.to_string().contains(part), "{event}: {error}");
        let left = "select jsonb_build_array(count(reserved_at), sum(failures), count(*), \
            (select count(*) from reveille.workers))
            from reveille.jobs";
        assert_eq!(database.value(left).await, json!([0, 0, 3, 0]), "{event}: all jobs are released without a failure");
    }
}

#[tokio::test]
async fn a_drain_ends_with_an_error_if_no_attempt_can_be_made() {
    LazyLock::force(&SECOND);
    let memory = reveille::driver::Memory::new();
    let id = enqueue(&memory, &note("x")).await.unwrap().id;
    let worker = Worker::builder(memory.clone()).handle(async |_: Note| {}).build().unwrap();
    let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(PanicsAt("job")));
    let error = soon("the drain ends", worker.run_until_drained()).await.unwrap_err();
    assert!(error.is_broken(), "{error}");
    assert_eq!(memory.job(id).unwrap().state, reveille::job::JobState::Ready);
}

#[tokio::test]
async fn an_ending_that_cannot_be_logged_counts() {
    async fn fails(note: Note) -> Result<(), String> {
        if note.text == "fails" { Err("no".into()) } else { Ok(()) }
    }
    LazyLock::force(&SECOND);
    for event in ["job.dead", "job.completed", "job.started", "worker.started", "worker.stopped"] {
        let database = database().await;
        enqueue(&database.database, &note("fails")).max_attempts(1).await.unwrap();
        enqueue(&database.database, &note("is done")).await.unwrap();
        let _log = tracing::subscriber::set_default(tracing_subscriber::registry().with(PanicsAt(event)));
        let working = crate::harness::start(worker(&database).handle(fails));
        database.until("select count(*) = 1 from reveille.dead_jobs where errors -> 0 ->> 'error' = 'no'").await;
        database.until("select count(*) = 1 from reveille.finished_jobs").await;
        working.stop().await;
    }
}

#[tokio::test]
async fn a_hook_that_panics_changes_nothing() {
    struct Panics;
    impl reveille::handler::Middleware for Panics {
        fn ended(&self, _: &reveille::handler::AttemptEnd<'_>) {
            panic!("in a hook");
        }
    }
    let memory = reveille::driver::Memory::new();
    let id = enqueue(&memory, &note("x")).await.unwrap().id;
    let builder = Worker::builder(memory.clone()).middleware(Arc::new(Panics)).handle(async |_: Note| {});
    builder.build().unwrap().run_until_drained().await.unwrap();
    assert_eq!(memory.job(id).unwrap().state, reveille::job::JobState::Completed);
}
