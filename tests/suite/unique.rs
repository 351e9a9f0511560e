//! Unique jobs: their unique keys, the time for which a job holds its unique key, and many producers that race.

use std::time::Duration;

use reveille::admin::Retried;
use reveille::driver::{Ending, FailureReason};
use reveille::job::{Enqueued, Payload, UniqueMode, UniqueUntil};
use reveille::{enqueue, enqueue::enqueue_all, job::NewJob};
use serde_json::json;
use tokio::task::JoinSet;

use crate::conformance::{Store, conforms, failure, job, text, unique, with};
use crate::harness::{Note, TestDatabase, database, note, reporting, reporting_worker, soon, start, worker};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a job that is unique for an hour.
fn hourly(text: &str, mode: UniqueMode) -> NewJob {
    unique(text, mode).unique_until(UniqueUntil::Period(HOUR))
}

async fn send(store: &Store, job: NewJob) -> Enqueued {
    store.driver().enqueue(&[job]).await.unwrap()[0]
}

/// Makes an hour pass for all periods.
async fn pass(store: &Store) {
    match store {
        Store::Postgres(database, _) => {
            database.run("update reveille.unique_periods set ends_at = ends_at - interval '1 hour'").await;
        }
        Store::Memory(memory) => memory.advance(HOUR),
    }
}

conforms! {
    async fn a_key_is_held_for_its_period_beyond_the_end_of_its_job(store: &Store) {
        store.register(1).await;
        let first = send(store, hourly("first", UniqueMode::Keep)).await;
        let reservation = store.claim_one(1).await.reservation;
        store.settle(reservation, Ending::Completed(None)).await;
        for mode in [UniqueMode::Keep, UniqueMode::Replace, UniqueMode::Debounce] {
            assert_eq!(send(store, hourly("second", mode)).await, Enqueued::new(first.id, true));
            assert!(send(store, unique("by other means", mode)).await.existed, "jobs without a period cannot take \
                the unique key either");
        }
        assert_eq!(store.fate(first.id).await, json!(["completed", 1, 0]));
        pass(store).await;
        let next = send(store, hourly("third", UniqueMode::Keep)).await;
        assert!(!next.existed);
        store.settle(store.claim_one(1).await.reservation, Ending::Cancelled).await;
        assert_eq!(send(store, hourly("fourth", UniqueMode::Keep)).await, Enqueued::new(next.id, true));
    }

    async fn a_live_job_holds_its_key_beyond_its_period(store: &Store) {
        let first = send(store, hourly("first", UniqueMode::Keep)).await;
        pass(store).await;
        assert_eq!(send(store, hourly("second", UniqueMode::Replace)).await, Enqueued::new(first.id, true));
        store.register(1).await;
        let claimed = store.claim_one(1).await;
        assert_eq!(text(&claimed), "second", "a live job can still be replaced");
        store.settle(claimed.reservation, Ending::Completed(None)).await;
        assert!(!send(store, hourly("third", UniqueMode::Keep)).await.existed, "the period of the first job is over");
    }

    async fn upkeep_leaves_the_periods_that_are_not_over(store: &Store) {
        store.register(1).await;
        let first = send(store, hourly("first", UniqueMode::Keep)).await;
        store.settle(store.claim_one(1).await.reservation, Ending::Dead(failure(FailureReason::Failed))).await;
        store.driver().prune().await.unwrap();
        assert!(send(store, hourly("second", UniqueMode::Keep)).await.existed);
        assert_eq!(store.retry(first.id).await.unwrap(), Retried::Revived, "a job can be revived within its period");
        assert!(send(store, hourly("third", UniqueMode::Keep)).await.existed);
    }

    async fn a_started_job_never_gets_its_key_back(store: &Store) {
        store.register(1).await;
        store.register(2).await;
        let started = |text| unique(text, UniqueMode::Debounce).unique_until(UniqueUntil::Started);
        let delay = Duration::ZERO;
        let failed = Ending::Waiting { failure: Some(failure(FailureReason::Failed)), delay };
        for (round, ending) in [failed, Ending::Waiting { failure: None, delay }].into_iter().enumerate() {
            send(store, started("first")).await;
            store.settle(store.claim_one(1).await.reservation, ending).await;
            assert!(!send(store, started("second")).await.existed, "round {round}");
            let both: Vec<String> = store.claim(1, 10).await.iter().map(text).collect();
            assert_eq!(both, ["first", "second"], "a job that waits again is not replaced");
        }
        store.lose_worker(1, 2).await;
        assert!(!send(store, started("third")).await.existed);
    }

    async fn a_revived_job_gets_its_key_back(store: &Store) {
        store.register(1).await;
        let first = send(store, unique("first", UniqueMode::Keep)).await;
        store.settle(store.claim_one(1).await.reservation, Ending::Dead(failure(FailureReason::Failed))).await;
        assert_eq!(store.retry(first.id).await.unwrap(), Retried::Revived);
        assert_eq!(send(store, unique("second", UniqueMode::Keep)).await, Enqueued::new(first.id, true));
    }

    async fn of_a_thousand_debounces_in_bulk_the_last_payload_remains(store: &Store) {
        store.register(1).await;
        let jobs: Vec<NewJob> = (1..=1000).map(|n| unique(&n.to_string(), UniqueMode::Debounce)).collect();
        let enqueued = store.driver().enqueue(&jobs).await.unwrap();
        assert_eq!(enqueued.iter().filter(|job| !job.existed).count(), 1);
        assert!(!enqueued[0].existed && enqueued.iter().all(|job| job.id == enqueued[0].id));
        assert_eq!(store.claim(1, 10).await.iter().map(text).collect::<Vec<_>>(), ["1000"]);
    }

    async fn a_bulk_enqueue_answers_in_the_order_of_its_jobs(store: &Store) {
        let named = |key: Option<&str>, text: &str| with(job(text), |job| job.unique_key = key.map(Into::into));
        let jobs = [named(Some("z"), "z"), named(None, "plain"), named(Some("a"), "a"), named(Some("z"), "z \
            again"), named(None, "more")];
        let enqueued = store.driver().enqueue(&jobs).await.unwrap();
        assert_eq!(enqueued.iter().map(|job| job.existed).collect::<Vec<_>>(), [false, false, false, true, false]);
        assert_eq!(enqueued[3].id, enqueued[0].id);
        store.register(1).await;
        for job in store.claim(1, 10).await {
            let place = enqueued.iter().position(|enqueued| enqueued.id == job.reservation.id).unwrap();
            assert_eq!(jobs[place].payload.decode::<Note>().unwrap().text, text(&job));
        }
    }
}

#[tokio::test]
async fn a_job_is_unique_by_its_payload_however_it_is_written() {
    let database = database().await;
    let one = NewJob::new("k", Payload::parse(r#"{"a": 1, "b": [true]}"#).unwrap());
    let other = NewJob::new("k", Payload::parse(r#"{"b":[true],"a":1}"#).unwrap());
    let different = NewJob::new("k", Payload::parse(r#"{"b":[true],"a":2}"#).unwrap());
    let first = enqueue(&database.database, &one).unique_by_payload().await.unwrap();
    assert_eq!(enqueue(&database.database, &other).unique_by_payload().await.unwrap(), Enqueued::new(first.id, true));
    let bulk = [one, other, different].map(|job| job.unique_by_payload().unwrap());
    let existed: Vec<bool> =
        enqueue_all(&database.database, &bulk).await.unwrap().iter().map(|job| job.existed).collect();
    assert_eq!(existed, [true, true, false]);
}

#[tokio::test]
async fn a_job_is_unique_by_its_kind_and_for_a_period() {
    let database = database().await;
    let first = enqueue(&database.database, &note("a")).unique_by_kind().unique_for(HOUR).await.unwrap();
    let (reporter, mut reports) = reporting();
    let running = start(worker(&database).state(reporter).handle(crate::harness::report));
    assert_eq!(reports.next().await, "a");
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    let again = enqueue(&database.database, &note("b")).unique_by_kind().unique_for(HOUR).await.unwrap();
    assert_eq!(again, Enqueued::new(first.id, true));
    let alone = enqueue(&database.database, &note("c")).unique_for(HOUR).await.unwrap_err();
    assert!(alone.is_invalid() && alone.to_string().contains("must have a unique key"), "{alone}");
    running.stop().await;
}

#[tokio::test]
async fn a_period_is_given_in_sql_as_an_interval() {
    let database = database().await;
    let call = |until: &str| {
        format!(
            "select to_jsonb(e) from reveille.enqueue(kind => 'k', unique_key => 'u', unique_until => '{until}') as e"
        )
    };
    assert_eq!(database.value(&call("1 hour")).await, json!({"id": 1, "existed": false}));
    assert_eq!(database.value(&call("90 s")).await, json!({"id": 1, "existed": true}));
    let row = "select jsonb_build_array(kind, unique_key, job_id, ends_at - created_at, unique_until)
        from reveille.unique_periods join reveille.jobs using (kind, unique_key)";
    assert_eq!(database.value(row).await, json!(["k", "u", 1, "01:00:00", "finished"]));
    for nonsense in ["never", "", "0 s", "-1 hour", "1 fortnight", "99999999999 years", "starte"] {
        let refusal = database.refusal(&call(nonsense)).await;
        assert!(refusal.contains("started, finished or a positive interval"), "{nonsense}: {refusal}");
    }
    let keyless = database.refusal("select reveille.enqueue(kind => 'k', unique_until => '1 hour')").await;
    assert!(keyless.contains("only with a unique_key"), "{keyless}");
    assert!(database.refusal("select reveille.hold_unique_key(1, null)").await.contains("in this transaction"));
}

#[tokio::test]
async fn upkeep_frees_keys_after_their_period_and_waits_for_no_lock() {
    let database = database().await;
    let call = "select reveille.enqueue(kind => 'k', unique_key => n::text, unique_until => '1 hour') \
        from generate_series(1, 3) as n";
    database.run(call).await;
    database.run("update reveille.unique_periods set ends_at = now() where unique_key <> '1'").await;
    let holder = database.client().await;
    holder.batch_execute("begin; select from reveille.unique_periods where unique_key = '2' for update").await.unwrap();
    soon("upkeep ends", database.admin().prune()).await.unwrap();
    let left = "select jsonb_agg(unique_key order by unique_key) from reveille.unique_periods";
    assert_eq!(database.value(left).await, json!(["1", "2"]));
    holder.batch_execute("commit").await.unwrap();
    database.admin().prune().await.unwrap();
    assert_eq!(database.value(left).await, json!(["1"]));
}

/// Lets many producers enqueue at the same time, each on a separate connection. Returns all answers.
async fn produce(database: &TestDatabase, producers: usize, jobs: impl Fn(usize) -> Vec<NewJob>) -> Vec<Enqueued> {
    let mut producing = JoinSet::new();
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(producers));
    for n in 0..producers {
        let (client, jobs, barrier) = (database.client().await, jobs(n), barrier.clone());
        producing.spawn(async move {
            barrier.wait().await;
            enqueue_all(&client, &jobs).await.unwrap()
        });
    }
    soon("all producers have enqueued", producing.join_all()).await.into_iter().flatten().collect()
}

fn new(enqueued: &[Enqueued]) -> usize {
    enqueued.iter().filter(|job| !job.existed).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_producers_of_one_key_make_one_job() {
    let database = database().await;
    for mode in [UniqueMode::Keep, UniqueMode::Debounce] {
        let one = produce(&database, 50, |n| vec![unique(&n.to_string(), mode)]).await;
        assert_eq!(new(&one), if mode == UniqueMode::Keep { 1 } else { 0 });
        assert!(one.iter().all(|job| job.id == one[0].id));
    }
    let keys = |n: usize| {
        let mut keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
        keys.rotate_left(n % 20);
        keys.into_iter().map(|key| job("bulk").unique_key(key)).collect()
    };
    let bulk = produce(&database, 50, keys).await;
    assert_eq!((bulk.len(), new(&bulk)), (1000, 20));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_runs_in_a_period_while_producers_and_workers_race() {
    let database = database().await;
    let (builder, _reports) = reporting_worker(&database);
    let running = start(builder);
    // The worker ends jobs as quickly as producers enqueue them. Most producers therefore find that the job with their
    // unique key is gone.
    for round in 0..20 {
        let key = |n: usize| {
            job("x").unique_key(format!("round {round}")).unique_until(if n.is_multiple_of(3) {
                UniqueUntil::Finished
            } else {
                UniqueUntil::Period(HOUR)
            })
        };
        let first = enqueue_all(&database.database, &[key(1)]).await.unwrap()[0];
        let all = produce(&database, 20, |n| vec![key(n)]).await;
        assert!(all.iter().all(|job| *job == Enqueued::new(first.id, true)), "{all:?}");
    }
    database.until("select count(*) = 0 from reveille.jobs").await;
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 20);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_producers_for_a_period_make_one_job() {
    let database = database().await;
    let (builder, _reports) = reporting_worker(&database);
    let running = start(builder);
    for round in 0..20 {
        let key = job("x").unique_key(format!("round {round}")).unique_until(UniqueUntil::Period(HOUR));
        let all = produce(&database, 20, |_| vec![key.clone()]).await;
        assert_eq!(new(&all), 1, "{all:?}");
        assert!(all.iter().all(|job| job.id == all[0].id), "{all:?}");
    }
    database.until("select count(*) = 0 from reveille.jobs").await;
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 20);
    running.stop().await;
}

#[tokio::test]
async fn a_producer_that_waited_for_an_ended_job_keeps_to_its_period() {
    let database = database().await;
    for (key, until) in [("a", "finished"), ("b", "2 hours")] {
        let mut first = database.client().await;
        let tx = first.transaction().await.unwrap();
        let call = |until: &str| {
            format!(
                "select id, existed from reveille.enqueue(kind => 'k', unique_key => '{key}', \
                    unique_until => '{until}')"
            )
        };
        let id: i64 = tx.query_one(&call("1 hour"), &[]).await.unwrap().get(0);
        let (second, text) = (database.client().await, call(until));
        let waiting = tokio::spawn(async move { second.query_one(&text, &[]).await.unwrap() });
        database.until("select exists (select from pg_locks where not granted)").await;
        // The job ends within the transaction that enqueued it. No worker could end the job sooner.
        tx.execute("delete from reveille.jobs where id = $1", &[&id]).await.unwrap();
        tx.commit().await.unwrap();
        let row = soon("the second producer is answered", waiting).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (id, true), "{until}");
        assert_eq!(database.value("select count(*) from reveille.jobs").await, 0, "{until}");
    }
}

/// Enqueues twice: in a transaction of this isolation level that began before `change`, and in a later transaction.
/// Returns two values: the first try failed to serialize, and the job existed at the second try.
async fn enqueued_after(database: &TestDatabase, isolation: &str, change: &str, call: &str) -> (bool, bool) {
    let client = database.client().await;
    client.batch_execute(&format!("begin isolation level {isolation}; select from reveille.jobs")).await.unwrap();
    database.run(change).await;
    let refused = client.query_one(call, &[]).await.err();
    let again = refused.as_ref().map(|error| error.code().unwrap().code());
    assert!(matches!(again, None | Some("40001")), "{refused:?}");
    client.batch_execute("rollback").await.unwrap();
    (again.is_some(), client.query_one(call, &[]).await.unwrap().get("existed"))
}

#[tokio::test]
async fn a_transaction_older_than_a_period_enqueues_no_second_job() {
    let database = database().await;
    // Enqueues and ends a job that holds its unique key for an hour.
    let holds = "select reveille.enqueue('k', unique_key => 'a', unique_until => '1 hour'); delete from reveille.jobs";
    let is_over = "update reveille.unique_periods set ends_at = now()";
    for isolation in ["repeatable read", "serializable"] {
        for until in ["finished", "started", "2 hours"] {
            for mode in ["keep", "debounce"] {
                let call = format!(
                    "select * from reveille.enqueue('k', unique_key => 'a', unique_until => '{until}', \
                        unique_mode => '{mode}')"
                );
                let first = enqueued_after(&database, isolation, holds, &call).await;
                assert_eq!(first, (true, true), "{isolation}, {until}, {mode}");
                database.run(is_over).await;
                let anew = enqueued_after(&database, isolation, holds, &call).await;
                assert_eq!(anew, (true, true), "{isolation}, {until}, {mode}: a period that was over has begun anew");
                database.run("delete from reveille.unique_periods").await;
            }
        }
    }
}

#[tokio::test]
async fn a_transaction_older_than_other_periods_enqueues_as_usual() {
    let database = database().await;
    let others = "select reveille.enqueue('k', unique_key => 'b', unique_until => '1 hour'),
        reveille.enqueue('l', unique_key => 'a', unique_until => '1 hour'); delete from reveille.jobs";
    let call = "select * from reveille.enqueue('k', unique_key => 'a')";
    assert_eq!(enqueued_after(&database, "repeatable read", others, call).await, (false, false));
    database.run("update reveille.unique_periods set ends_at = now(); delete from reveille.jobs").await;
    let twice = "begin isolation level repeatable read; select reveille.enqueue('k', unique_key => 'a'); \
        select reveille.enqueue('k', unique_key => 'a'); commit";
    database.run(twice).await;
    let held = "select jsonb_agg(kind || unique_key order by kind) from reveille.unique_periods";
    assert_eq!(database.value(held).await, json!(["kb", "la"]), "an enqueue without a period adds no period");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_debounces_make_one_run_with_the_last_payload() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let running = start(worker(&database).state(reporter).handle(crate::harness::report));
    let mut id = 0;
    for n in 1..=1000 {
        let debounced = enqueue(&database.database, &note(&n.to_string())).unique_key("u").delay(HOUR);
        let enqueued = debounced.unique_mode(UniqueMode::Debounce).await.unwrap();
        assert_eq!(enqueued.existed, n > 1);
        id = enqueued.id;
    }
    assert_eq!(database.admin().retry(id).await.unwrap(), Retried::Due);
    assert_eq!(reports.next().await, "1000");
    database.until("select count(*) = 1 and min(attempts) = 1 from reveille.finished_jobs").await;
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
    assert!(reports.rest().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bulks_with_the_same_keys_in_opposite_order_do_not_deadlock() {
    let database = database().await;
    let keys: Vec<NewJob> = (0..200).map(|key| job("x").unique_key(key.to_string())).collect();
    let reversed: Vec<NewJob> = keys.iter().rev().cloned().collect();
    for round in 0..10 {
        database.run("delete from reveille.jobs").await;
        let mode = [UniqueMode::Keep, UniqueMode::Replace][round % 2];
        let jobs = |n: usize| {
            let jobs = if n == 0 { &keys } else { &reversed };
            jobs.iter().map(|job| job.clone().unique_mode(mode)).collect()
        };
        assert_eq!(new(&produce(&database, 2, jobs).await), 200);
    }
}
