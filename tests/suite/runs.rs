//! A change is made once, and a run over many jobs outlasts conflicts and lost connections.

use std::time::Duration;

use reveille::admin::{Admin, BulkAction, Filter, RunAgain};
use reveille::dev::Network;
use reveille::job::{NewJob, Payload};
use reveille::{Database, Error};
use serde_json::json;

use crate::harness::{TestDatabase, WAITS_FOR_ADVISORY_LOCK, database, proxy, soon};

const FINISHED: &str = "insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, outcome
    )
    select extract(epoch from now())::bigint / 86400 % 32, n, 'q', 'k', '{}', 2, 1, 0, 20, now(), now(), 'completed'
    from generate_series(1, 3000) as n";
const DEAD: &str = "insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, reason
    )
    select n, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed' from generate_series(1, 20) as n";

fn alice(database: &Database) -> Admin {
    database.admin().acting_as("alice", "test").unwrap()
}

async fn jobs(database: &TestDatabase) -> serde_json::Value {
    database.value("select count(*) from reveille.jobs").await
}

#[tokio::test]
async fn a_request_that_comes_twice_changes_something_once() {
    let database = database().await;
    database.run(FINISHED).await;
    let alice = alice(&database);
    let first = alice.once("form 1").unwrap().run_again(1).await.unwrap();
    let RunAgain::Enqueued(new) = first else { panic!("job 1 runs again") };
    let is_repeated = |error: Error| error.is_repeated() && !error.is_invalid() && !error.is_unavailable();
    assert!(is_repeated(alice.once("form 1").unwrap().run_again(1).await.unwrap_err()));
    let job = NewJob::new("k", Payload::parse("{}").unwrap());
    assert!(is_repeated(alice.once("form 1").unwrap().enqueue(&job).await.unwrap_err()));
    let mut run = alice.once("form 1").unwrap().bulk(BulkAction::RunAgain, &Filter::new()).unwrap();
    assert!(is_repeated(run.begin().await.unwrap_err()));
    assert_eq!(jobs(&database).await, 1);
    let known = alice.action_of_request("form 1").await.unwrap().unwrap();
    assert_eq!((known.target, known.detail["job"].as_i64()), (json!({"job": 1}), Some(new)));
    assert!(alice.action_of_request("form 2").await.unwrap().is_none());
    alice.once("form 2").unwrap().run_again(1).await.unwrap();
    alice.run_again(1).await.unwrap();
    assert_eq!(jobs(&database).await, 3);
    for wrong in [database.admin().once("form 3"), alice.once(""), alice.once("x".repeat(129))] {
        assert!(wrong.unwrap_err().is_invalid());
    }
}

#[tokio::test]
async fn a_request_that_comes_twice_at_once_changes_something_once() {
    let database = database().await;
    database.run(FINISHED).await;
    let alice = alice(&database);
    let all = (0..8).map(|_| async { alice.once("form").unwrap().run_again(1).await });
    let all = soon("all are answered", futures::future::join_all(all)).await;
    let repeated = all.iter().filter(|again| again.as_ref().is_err_and(Error::is_repeated)).count();
    assert_eq!((repeated, all.iter().filter(|again| again.is_ok()).count()), (7, 1), "{all:?}");
    assert_eq!(jobs(&database).await, 1);
}

/// A run through a connection that breaks while the server commits a slice: the jobs are changed, and the run does not
/// hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_answer_is_lost_changes_no_job_twice() {
    let database = database().await;
    database.run(FINISHED).await;
    // The first commit of a slice waits for the lock.
    let waits = "create function waits() returns trigger language plpgsql as $$
        begin
            perform pg_advisory_xact_lock(7);
            return null;
        end $$;
        create constraint trigger waits after update on reveille.actions deferrable initially deferred for each row
        when (old.done = 0 and new.done > 0) execute function waits()";
    database.run(waits).await;
    let lock = database.client().await;
    lock.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    let (proxy, address) = proxy(&database.address).await;
    let through = Database::connect(address).await.unwrap();
    let mut run = alice(&through).bulk(BulkAction::RunAgain, &Filter::new().queue("q")).unwrap();
    let (lost, ()) = soon("the connection breaks", async {
        futures::join!(run.step(), async {
            database.until(WAITS_FOR_ADVISORY_LOCK).await;
            proxy.set(Network::Refuse);
        })
    })
    .await;
    assert!(lost.unwrap_err().is_unavailable());
    assert!(run.step().await.unwrap_err().is_unavailable(), "the database is away");
    lock.batch_execute("select pg_advisory_unlock(7)").await.unwrap();
    database.until("select done > 0 from reveille.actions").await;
    proxy.set(Network::Pass);
    soon("the run ends", async { while run.step().await.unwrap() {} }).await;
    let done = database.value("select jsonb_build_array(outcome, done) from reveille.actions").await;
    assert_eq!((jobs(&database).await, done, run.result().done), (json!(3000), json!(["done", 3000]), 3000));
}

#[tokio::test]
async fn a_run_without_a_record_does_not_run_jobs_twice() {
    let database = database().await;
    database.run(FINISHED).await;
    let (proxy, address) = proxy(&database.address).await;
    let through = Database::connect(address).await.unwrap();
    let mut run = through.admin().bulk(BulkAction::RunAgain, &Filter::new().queue("q")).unwrap();
    assert!(run.step().await.unwrap());
    proxy.set(Network::Refuse);
    assert!(run.step().await.unwrap_err().is_unavailable());
    proxy.set(Network::Pass);
    assert!(run.step().await.unwrap_err().is_invalid(), "nobody can tell what the last slice has done");
}

#[tokio::test]
async fn a_run_tries_a_slice_again_that_meets_a_conflict() {
    for (code, conflicts, outcome) in [("40P01", 3, "done"), ("57014", 3, "done"), ("40001", 1000, "failed")] {
        let database = database().await;
        database.run(DEAD).await;
        let conflict = format!(
            "create sequence public.conflicts;
            create function conflict() returns trigger language plpgsql as $$
            begin
                if nextval('public.conflicts') <= {conflicts} then
                    raise exception 'a conflict' using errcode = '{code}';
                end if;
                return null;
            end $$;
            create trigger conflict before delete on reveille.dead_jobs for each statement execute function conflict()"
        );
        database.run(&conflict).await;
        let purged = alice(&database).bulk(BulkAction::Purge, &Filter::new()).unwrap().run();
        let purged = tokio::time::timeout(Duration::from_secs(60), purged).await.unwrap();
        assert_eq!(purged.is_ok(), outcome == "done", "{code}: {purged:?}");
        let row = "select jsonb_build_array(outcome, done) from reveille.actions";
        assert_eq!(database.value(row).await, json!([outcome, if outcome == "done" { 20 } else { 0 }]), "{code}");
    }
}
