//! Waiting for a job's end, and the job's result and progress.

use std::sync::Arc;
use std::time::Duration;

use reveille::driver::{Ending, Failure, FailureReason};
use reveille::enqueue::FinishedJob;
use reveille::job::{Completed, JobState, Payload};
use reveille::{Context, Database, Outcome, State, Worker, enqueue, enqueue::enqueue_all};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::conformance::{Store, conforms, failure, job};
use crate::harness::{Note, Reporter, TestDatabase, database, note, reporting, soon, start, worker};

impl Store {
    /// Starts to wait for a job's end, in a separate task.
    async fn awaits(&self, id: i64) -> JoinHandle<Option<FinishedJob>> {
        match self {
            Store::Postgres(database, _) => {
                let marked = format!("select awaited from reveille.jobs where id = {id}");
                let database_ = database.database.clone();
                let waiting = tokio::spawn(async move { database_.finished(id).await.unwrap() });
                database.until(&marked).await;
                waiting
            }
            Store::Memory(memory) => {
                let memory = memory.clone();
                tokio::spawn(async move { memory.finished(id).await })
            }
        }
    }

    async fn finished(&self, id: i64) -> Option<FinishedJob> {
        let finishing = async {
            match self {
                Store::Postgres(database, _) => database.database.finished(id).await.unwrap(),
                Store::Memory(memory) => memory.finished(id).await,
            }
        };
        soon("the job's end", finishing).await
    }

    /// Returns the latest progress that the handler of a live or ended job reported.
    async fn progress(&self, id: i64) -> Value {
        match self {
            Store::Postgres(database, _) => {
                let job = database.database.admin().job(id).await.unwrap().unwrap();
                job.progress().map_or(Value::Null, |progress| progress.decode().unwrap())
            }
            Store::Memory(memory) => {
                memory.job(id).unwrap().progress.map_or(Value::Null, |progress| progress.decode().unwrap())
            }
        }
    }
}

fn payload(value: Value) -> Payload {
    Payload::encode(&value).unwrap()
}

conforms! {
    async fn a_wait_returns_each_kind_of_end(store: &Store) {
        store.register(1).await;
        let no = Failure::new(FailureReason::Permanent, "no");
        let ends = [
            (Ending::Completed(Some(payload(json!({"n": 7})))), JobState::Completed, Some(json!({"n": 7})), vec![]),
            (Ending::Completed(None), JobState::Completed, None, vec![]),
            (Ending::Cancelled, JobState::Cancelled, None, vec![]),
            (Ending::Dead(no.clone()), JobState::Dead, None, vec![no]),
        ];
        for (ending, state, result, errors) in ends {
            let id = store.enqueue(job("x")).await;
            let waiting = store.awaits(id).await;
            store.settle(store.claim_one(1).await.reservation, ending).await;
            let finished = soon("the job's end", waiting).await.unwrap().unwrap();
            let kept = finished.result.as_ref().map(|result| result.decode().unwrap());
            assert_eq!((finished.id, finished.state, kept, &finished.errors), (id, state, result, &errors));
            assert_eq!(store.finished(id).await.unwrap(), finished, "a later query has the same answer");
        }
    }

    async fn a_wait_ends_when_its_job_is_cancelled_or_lost(store: &Store) {
        let id = store.enqueue(job("x")).await;
        let waiting = store.awaits(id).await;
        store.cancel(id).await;
        assert_eq!(soon("the job's end", waiting).await.unwrap().unwrap().state, JobState::Cancelled);
        store.register(1).await;
        store.register(2).await;
        let id = store.enqueue(job("x").max_attempts(1)).await;
        let waiting = store.awaits(id).await;
        store.claim_one(1).await;
        store.lose_worker(1, 2).await;
        let finished = soon("the job's end", waiting).await.unwrap().unwrap();
        assert_eq!((finished.state, finished.errors[0].reason), (JobState::Dead, FailureReason::Lost));
    }

    async fn a_wait_outlasts_attempts_that_fail(store: &Store) {
        store.register(1).await;
        let id = store.enqueue(job("x")).await;
        let waiting = store.awaits(id).await;
        let again = Ending::Waiting { failure: Some(failure(FailureReason::Failed)), delay: Duration::ZERO };
        store.settle(store.claim_one(1).await.reservation, again).await;
        let reservation = store.claim_one(1).await.reservation;
        assert!(!waiting.is_finished());
        store.settle(reservation, Ending::Completed(None)).await;
        let finished = soon("the job's end", waiting).await.unwrap().unwrap();
        assert!(finished.is_completed());
        assert_eq!(finished.last_error(), Some("no"));
    }

    async fn a_wait_for_an_unknown_job_returns_nothing(store: &Store) {
        assert_eq!(store.finished(99).await, None);
    }

    async fn progress_counts_only_while_the_reservation_stands(store: &Store) {
        store.register(1).await;
        let id = store.enqueue(job("x")).await;
        let reservation = store.claim_one(1).await.reservation;
        assert!(store.driver().progress(&reservation, &payload(json!(1))).await.unwrap());
        store.settle(reservation, Ending::Waiting { failure: None, delay: Duration::ZERO }).await;
        assert!(!store.driver().progress(&reservation, &payload(json!(2))).await.unwrap(), "the job waits again");
        let next = store.claim_one(1).await.reservation;
        assert!(!store.driver().progress(&reservation, &payload(json!(3))).await.unwrap(), "another attempt holds the \
            job");
        assert_eq!(store.progress(id).await, json!(1));
        assert!(store.driver().progress(&next, &payload(json!("half"))).await.unwrap());
        store.settle(next, Ending::Completed(None)).await;
        assert_eq!(store.progress(id).await, json!("half"), "the progress stays with the job");
    }

    async fn a_wait_returns_what_the_handler_returned(store: &Store) {
        async fn count(note: Note) -> Result<Completed<usize>, String> {
            let words = note.text.split(' ').count();
            if note.text.is_empty() { Err("nothing to count".into()) } else { Ok(Completed(words)) }
        }
        let running = start(Worker::builder(store.driver()).handle(count));
        let id = store.enqueue(job("to be or not")).await;
        assert_eq!(store.finished(id).await.unwrap().decode::<usize>().unwrap(), 4);
        assert!(store.finished(id).await.unwrap().decode::<String>().unwrap_err().is_invalid());
        let id = store.enqueue(job("").max_attempts(1)).await;
        let error = store.finished(id).await.unwrap().decode::<usize>().unwrap_err();
        assert_eq!(error.to_string(), format!("job {id} is dead: nothing to count"));
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_by_the_notification_and_not_by_polling() {
    async fn echo(note: Note) -> Completed<String> {
        Completed(note.text)
    }
    let database = database().await;
    let running = start(worker(&database).handle(echo));
    // If the waits only polled, each wait would take five seconds.
    let waits = async {
        for n in 0..100 {
            let job = enqueue(&database.database, &note(&n.to_string())).await.unwrap();
            let finished = job.finished(&database.database).await.unwrap().unwrap();
            assert_eq!(finished.decode::<String>().unwrap(), n.to_string());
        }
    };
    soon("a hundred waits, one after another", waits).await;
    running.stop().await;
}

/// Returns the notifications of ends that `happens` causes.
async fn notified_ends(database: &TestDatabase, happens: impl AsyncFnOnce()) -> Vec<String> {
    use futures::StreamExt;
    let (client, mut connection) = tokio_postgres::connect(&database.address, tokio_postgres::NoTls).await.unwrap();
    let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
    let listening = tokio::spawn(async move {
        let mut ends = Vec::new();
        while let Some(Ok(message)) = messages.next().await {
            match message {
                tokio_postgres::AsyncMessage::Notification(end) if end.payload() == "over" => break,
                tokio_postgres::AsyncMessage::Notification(end) => ends.push(end.payload().to_owned()),
                _ => {}
            }
        }
        ends
    });
    client.batch_execute("listen \"reveille.finished\"").await.unwrap();
    happens().await;
    database.run("notify \"reveille.finished\", 'over'").await;
    soon("all notifications arrive", listening).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_ends_of_awaited_jobs_are_notified() {
    async fn ends(note: Note) -> Outcome {
        if note.text == "3" { Outcome::Dead("no".into()) } else { Outcome::Complete }
    }
    let database = database().await;
    let notified = notified_ends(&database, async || {
        let notes: Vec<Note> = (1..=6).map(|n| note(&n.to_string())).collect();
        enqueue_all(&database.database, &notes).await.unwrap();
        for id in [2, 3, 6] {
            let state = format!("select state from reveille.await({id})");
            assert_eq!(database.value(&state).await, "live");
        }
        database.run("select reveille.cancel(5), reveille.cancel(6)").await;
        let running = start(worker(&database).handle(ends));
        database.until("select count(*) = 0 from reveille.jobs").await;
        running.stop().await;
    })
    .await;
    let mut notified = notified;
    notified.sort();
    assert_eq!(notified, ["2 completed", "3 dead", "6 cancelled"]);
    let row = "select jsonb_build_array(state, reason, result, errors -> 0 -> 'error') from reveille.await(3)";
    assert_eq!(database.value(row).await, json!(["dead", "permanent", null, "no"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_returns_the_outcome_even_without_a_history() {
    async fn done(_: Note, State(gate): State<Arc<Semaphore>>) -> Completed<i32> {
        gate.acquire().await.unwrap().forget();
        Completed(7)
    }
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('default', '0')").await;
    let gate = Arc::new(Semaphore::new(0));
    let running = start(worker(&database).state(Arc::clone(&gate)).handle(done));
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    let waiting = tokio::spawn({
        let database = database.database.clone();
        async move { database.finished(id).await.unwrap() }
    });
    database.until("select awaited from reveille.jobs").await;
    gate.add_permits(1);
    let finished = soon("the job's end", waiting).await.unwrap().unwrap();
    assert_eq!((finished.state, finished.decode::<i32>().unwrap()), (JobState::Completed, 7));
    assert_eq!(
        database.database.finished(id).await.unwrap(),
        Some(finished),
        "a query within a minute has the same answer"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_when_its_job_is_completed_in_a_transaction() {
    async fn done(_: Note, State(database): State<Database>, context: Context) -> Result<(), String> {
        let mut client = database.client().await.map_err(|error| error.to_string())?;
        let tx = client.transaction().await.map_err(|error| error.to_string())?;
        context.progress("almost").await.map_err(|error| error.to_string())?;
        context.complete_in(&tx).await.map_err(|error| error.to_string())?;
        context.progress("too late").await.map_err(|error| error.to_string())?;
        tx.commit().await.map_err(|error| error.to_string())
    }
    let database = database().await;
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    let notified = notified_ends(&database, async || {
        let waiting = tokio::spawn({
            let database = database.database.clone();
            async move { database.finished(id).await.unwrap() }
        });
        database.until("select awaited from reveille.jobs").await;
        let running = start(worker(&database).state(database.database.clone()).handle(done));
        assert!(soon("the job's end", waiting).await.unwrap().unwrap().is_completed());
        running.stop().await;
    });
    assert_eq!(notified.await, ["1 completed"]);
    assert_eq!(database.value("select progress from reveille.finished_jobs").await, "almost");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_waits_share_one_connection_and_outlast_it() {
    let database = database().await;
    let notes: Vec<Note> = (0..50).map(|n| note(&n.to_string())).collect();
    let jobs = enqueue_all(&database.database, &notes).await.unwrap();
    let mut waiting = JoinSet::new();
    for id in jobs.iter().chain(&jobs).map(|job| job.id) {
        let database = database.database.clone();
        waiting.spawn(async move { database.finished(id).await.unwrap().unwrap() });
    }
    database.until("select bool_and(awaited) from reveille.jobs").await;
    let sessions = "select count(*) from pg_stat_activity where application_name = 'reveille awaiting' \
        and datname = current_database()";
    assert_eq!(database.value(sessions).await, 1);
    database
        .run(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'reveille awaiting' \
        and datname = current_database()",
        )
        .await;
    let running = start(worker(&database).handle(async |_: Note| {}));
    let ends = soon("all jobs have ended", waiting.join_all()).await;
    assert!(ends.len() == 100 && ends.iter().all(FinishedJob::is_completed));
    running.stop().await;
    let gone = enqueue(&database.database, &note("never runs")).await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(50), gone.finished(&database.database)).await;
    assert!(given_up.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_may_report_progress_as_often_as_it_likes() {
    async fn imports(_: Note, context: Context, State(reporter): State<Reporter>) -> reveille::Result<()> {
        for done in 1..=5000 {
            context.progress(&json!({"done": done, "of": 5000})).await?;
        }
        let large = context.progress(&"x".repeat(8192)).await.unwrap_err();
        reporter.report(large.to_string());
        Ok(())
    }
    let database = database().await;
    let writes = "create table writes (progress jsonb); create function count_writes() returns trigger language \
        plpgsql as $$
        begin insert into public.writes values (new.progress); return null; end $$;
        create trigger count_writes after update of progress on reveille.jobs for each row execute function
        count_writes()";
    database.run(writes).await;
    let (reporter, mut reports) = reporting();
    let running = start(worker(&database).state(reporter).handle(imports));
    let job = enqueue(&database.database, &note("x")).await.unwrap();
    assert!(reports.next().await.contains("8194 bytes"));
    let finished = soon("the job's end", job.finished(&database.database)).await.unwrap().unwrap();
    assert!(finished.is_completed());
    let last = "select progress from reveille.finished_jobs";
    assert_eq!(database.value(last).await, json!({"done": 5000, "of": 5000}), "the latest progress is kept");
    let count = database.value("select count(*) from writes").await.as_i64().unwrap();
    assert!((2..100).contains(&count), "{count}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_seen_while_the_job_runs() {
    async fn imports(
        _: Note,
        context: Context,
        State(gate): State<Arc<Semaphore>>,
        State(reporter): State<Reporter>,
    ) -> reveille::Result<()> {
        context.progress(&1).await?;
        context.progress(&2).await?;
        gate.acquire().await.unwrap().forget();
        // When the gate opens, another attempt holds the job.
        loop {
            if let Err(error) = context.progress(&3).await {
                reporter.report(format!("lost: {}", error.is_lost()));
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }
    let database = database().await;
    let gate = Arc::new(Semaphore::new(0));
    let (reporter, mut reports) = reporting();
    let running = start(worker(&database).state(Arc::clone(&gate)).state(reporter).handle(imports));
    let id = enqueue(&database.database, &note("x")).await.unwrap().id;
    database.until("select progress is not null from reveille.jobs").await;
    // The worker writes the second progress later, without another call by the handler.
    database.until("select progress = '2' from reveille.jobs").await;
    assert_eq!(database.admin().job(id).await.unwrap().unwrap().progress().unwrap().as_bytes(), b"2");
    database.run("update reveille.jobs set attempts = attempts + 1").await;
    gate.add_permits(1);
    assert_eq!(reports.next().await, "lost: true");
    running.stop().await;
    assert_eq!(database.value("select progress from reveille.jobs").await, 2);
}
