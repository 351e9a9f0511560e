//! The end of a linked job is noted in the statement that ends it, and applied once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use reveille::admin::{BulkAction, Filter};
use reveille::driver::{Driver, Ending, Failure, FailureReason, Peer, Postgres, Settlement, WorkerInfo};
use reveille::enqueue;
use reveille::job::{NewJob, Payload};
use serde_json::{Value, json};

use crate::harness::{TestDatabase, claim, database, soon};

fn job() -> NewJob {
    NewJob::new("k", Payload::encode(&()).unwrap())
}

/// Enqueues a job, and a follower that starts after any end of it. Returns the first job's id.
async fn followed(database: &TestDatabase, first: &NewJob) -> i64 {
    let id = enqueue(&database.database, first).await.unwrap().id;
    database
        .run(&format!("select reveille.enqueue_after(array[{id}], 'follower', fires_on => 'any', queue => 'later')"))
        .await;
    id
}

/// Claims the only due job of the default queue.
async fn claimed(database: &TestDatabase) -> (Postgres, reveille::job::ReservedJob) {
    let driver = Postgres::new(database.database.clone()).unwrap();
    driver.register(&WorkerInfo::new(1)).await.unwrap();
    let job = claim(&driver, 1, 1).await.remove(0);
    (driver, job)
}

async fn settled(database: &TestDatabase, ending: Ending) {
    let (driver, job) = claimed(database).await;
    let settled = driver.settle(&[Settlement::new(job.reservation, ending)]).await.unwrap();
    assert!(settled[0].is_counted());
}

/// Checks that the only end is noted, and starts the follower.
async fn assert_noted(database: &TestDatabase, way: &str, outcome: &str) {
    let noted = "select coalesce(jsonb_agg(outcome), '[]') from reveille.linked_ends";
    assert_eq!(database.value(noted).await, json!([outcome]), "{way}");
    database.run("select reveille.apply_linked_ends()").await;
    let follower = "select count(*) from reveille.jobs where kind = 'follower'";
    assert_eq!(database.value(follower).await, 1, "{way}");
    assert_eq!(database.value("select count(*) from reveille.linked_ends").await, 0, "{way}");
}

#[tokio::test]
async fn the_end_of_a_linked_job_is_noted_however_it_ends() {
    let failure = || Failure::new(FailureReason::Permanent, "no");
    let endings = [
        ("completed", Ending::Completed(None)),
        ("completed", Ending::Completed(Some(Payload::encode(&7).unwrap()))),
        ("cancelled", Ending::Cancelled),
        ("dead", Ending::Dead(failure())),
    ];
    for (outcome, ending) in endings {
        let database = database().await;
        followed(&database, &job()).await;
        settled(&database, ending.clone()).await;
        assert_noted(&database, &format!("{ending:?}"), outcome).await;
    }
    let statements = [
        ("cancel", "cancelled", "select reveille.cancel(1)"),
        ("isolate", "dead", "select reveille.bury_unclaimed(1, '22000', 'odd', true)"),
    ];
    for (way, outcome, sql) in statements {
        let database = database().await;
        followed(&database, &job()).await;
        database.run(sql).await;
        assert_noted(&database, way, outcome).await;
    }
}

#[tokio::test]
async fn a_rescue_and_a_transaction_of_a_handler_note_the_end_too() {
    let database = database().await;
    followed(&database, &job().max_attempts(1)).await;
    let (driver, _) = claimed(&database).await;
    database.run("update reveille.workers set last_seen_at = '2020-01-01'").await;
    let seen: SystemTime =
        database.client().await.query_one("select last_seen_at from reveille.workers", &[]).await.unwrap().get(0);
    let rescue = driver.rescue(2, &[Peer::new(1, seen)]).await.unwrap();
    assert_eq!(rescue.dead, [1]);
    assert_noted(&database, "rescue", "dead").await;

    let database = crate::harness::database().await;
    followed(&database, &job()).await;
    let (_, job) = claimed(&database).await;
    let complete = "select reveille.complete_in($1, $2, $3, $4, 0)";
    let reserved = job.reservation;
    let client = database.client().await;
    client.query(complete, &[&reserved.id, &reserved.worker, &reserved.attempt, &reserved.reserved_at]).await.unwrap();
    assert_noted(&database, "complete_in", "completed").await;
}

#[tokio::test]
async fn a_change_of_many_jobs_and_a_purge_note_the_ends_too() {
    let database = database().await;
    followed(&database, &job()).await;
    let cancel = database.admin().bulk(BulkAction::Cancel, &Filter::new().queue("default")).unwrap();
    assert_eq!(cancel.run().await.unwrap().done, 1);
    assert_noted(&database, "cancel many", "cancelled").await;

    for way in ["purge", "purge many", "retention"] {
        let database = crate::harness::database().await;
        let id = enqueue(&database.database, &job()).await.unwrap().id;
        // This follower waits while the job is dead.
        database
            .run("select reveille.enqueue_after(array[1], 'follower', fires_on => 'cancelled', queue => 'l')")
            .await;
        settled(&database, Ending::Dead(Failure::new(FailureReason::Permanent, "no"))).await;
        // The job is dead, so the follower is skipped; this one is held.
        database.run("select reveille.enqueue_after(array[1], 'held', queue => 'l')").await;
        database.run("select reveille.apply_linked_ends(), reveille.apply_linked_ends()").await;
        let held = "select jsonb_agg(kind) from reveille.blocked_jobs";
        assert_eq!(database.value(held).await, json!(["held"]), "{way}");
        match way {
            "purge" => _ = database.admin().purge_dead_job(id).await.unwrap(),
            "purge many" => {
                let purge = database.admin().bulk(BulkAction::Purge, &Filter::new().queue("default")).unwrap();
                assert_eq!(purge.run().await.unwrap().done, 1);
            }
            _ => {
                database
                    .run(
                        "insert into reveille.queues (name, dead_retention) values ('default', '0');
                        update reveille.dead_jobs set finished_at = now() - interval '1 hour'",
                    )
                    .await;
                database.admin().prune().await.unwrap();
            }
        }
        database.run("select reveille.apply_linked_ends(), reveille.apply_linked_ends()").await;
        assert_eq!(database.value("select count(*) from reveille.blocked_jobs").await, 0, "{way}");
    }
}

/// Each file that deletes jobs, and whether it notes their ends.
#[test]
fn every_file_that_deletes_jobs_is_known() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut deleting = BTreeSet::new();
    for folder in ["sql", "migrations", "src"] {
        visit(&root.join(folder), &mut deleting);
    }
    let known = [
        // The job was inserted by the same statement, so nothing waits for it.
        "V5__unique.sql",
        // Functions of V4 are replaced by V11, and functions of V11 by V16.
        "V4__functions.sql",
        "V11__linked_jobs.sql",
        "V16__applying_ends.sql",
        "rescue.sql",
        "settle_alike.sql",
        "settle_dead.sql",
        "settle_finished.sql",
        "slice_cancelled.sql",
    ];
    assert_eq!(deleting, known.map(str::to_owned).into());
}

fn visit(folder: &Path, deleting: &mut BTreeSet<String>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            visit(&path, deleting);
        } else if fs::read_to_string(&path).unwrap().contains("delete from reveille.jobs") {
            deleting.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_prerequisites_that_end_together_start_their_successor_once() {
    let database = database().await;
    // 2,000 pairs end in two sessions at once, while three others apply.
    database
        .run(
            "create table starts (job bigint);
            create table finished (session text);
            create function note_start() returns trigger language plpgsql as $$
            begin insert into public.starts values (new.id); return null; end $$;
            create trigger note_start after insert on reveille.jobs for each row
            when (new.kind = 'follower') execute function note_start();
            select reveille.enqueue(kind => 'k') from generate_series(1, 4000);
            select reveille.enqueue_after(array[n, n + 2000], 'follower', queue => 'l')
            from generate_series(1, 2000) as n",
        )
        .await;
    // A cancelled job counts here like a completed one.
    database.run("update reveille.dependencies set fires_on = 'any'").await;
    let run = |sql: [String; 2]| {
        let client = database.client();
        async move {
            let client = client.await;
            for sql in sql {
                client.batch_execute(&sql).await.unwrap();
            }
        }
    };
    let end = |from: i32, to: i32| {
        run([
            format!("do $$ begin for id in {from}..{to} loop perform reveille.cancel(id); commit; end loop; end $$"),
            format!("insert into finished values ('{from}')"),
        ])
    };
    let apply = || {
        run([
            "do $$ begin
            while (select count(*) from public.finished) < 2 loop
                perform reveille.apply_linked_ends(20);
                commit;
            end loop;
            end $$"
                .to_owned(),
            String::new(),
        ])
    };
    futures::join!(end(1, 2000), end(2001, 4000), apply(), apply(), apply());
    while database.value("select reveille.apply_linked_ends()").await != 0 {}
    let starts = "select jsonb_build_array(count(*), count(distinct job)) from starts";
    assert_eq!(database.value(starts).await, json!([2000, 2000]));
    assert_eq!(database.value("select count(*) from reveille.blocked_jobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_added_while_their_prerequisites_end_are_not_forgotten() {
    let database = database().await;
    database.run("select reveille.enqueue(kind => 'k') from generate_series(1, 200)").await;
    let run = |sql: Vec<String>| {
        let client = database.client();
        async move {
            let client = client.await;
            for sql in sql {
                client.batch_execute(&sql).await.unwrap();
            }
        }
    };
    let ends = (1..=200).map(|id| format!("select reveille.cancel({id})")).collect();
    let add = |id| format!("select reveille.enqueue_after(array[{id}], 'follower', fires_on => 'any', queue => 'l')");
    let applies = || (0..400).map(|_| "select reveille.apply_linked_ends(3)".to_owned()).collect();
    let adds = (1..=200).map(add).collect();
    futures::join!(run(ends), run(adds), run(applies()), run(applies()));
    while database.value("select reveille.apply_linked_ends()").await != 0 {}
    let followers = "select jsonb_build_array((select count(*) from reveille.jobs where kind = 'follower'),
        (select count(*) from reveille.blocked_jobs), (select count(*) from reveille.linked_ends))";
    assert_eq!(database.value(followers).await, json!([200, 0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_up_only_its_own_job() {
    let database = database().await;
    followed(&database, &job()).await;
    followed(&database, &job()).await;
    let (driver, first) = claimed(&database).await;
    let second = claim(&driver, 1, 1).await.remove(0);
    let mut client = database.client().await;
    let slow = client.transaction().await.unwrap();
    let reserved = first.reservation;
    let complete = "select reveille.complete_in($1, $2, $3, $4, 0)";
    slow.query(complete, &[&reserved.id, &reserved.worker, &reserved.attempt, &reserved.reserved_at]).await.unwrap();
    let other = Settlement::new(second.reservation, Ending::Completed(None));
    let settled = soon("the other job is settled", driver.settle(std::slice::from_ref(&other))).await.unwrap();
    assert!(settled[0].is_counted());
    database.run("select reveille.apply_linked_ends()").await;
    let started = "select count(*) from reveille.jobs where kind = 'follower'";
    assert_eq!(database.value(started).await, 1, "the follower of the other job has started");
    slow.commit().await.unwrap();
    database.run("select reveille.apply_linked_ends()").await;
    assert_eq!(database.value(started).await, 2);
}

#[tokio::test]
async fn upkeep_finds_a_job_that_was_deleted_by_hand() {
    let database = database().await;
    followed(&database, &job()).await;
    database.run("select reveille.enqueue_workflow('w', '[{\"name\": \"a\", \"kind\": \"k\"}]')").await;
    database.run("delete from reveille.jobs").await;
    database.admin().prune().await.unwrap();
    let noted = "select jsonb_agg(jsonb_build_array(job, outcome) order by job) from reveille.linked_ends";
    assert_eq!(database.value(noted).await, json!([[1, "cancelled"], [3, "cancelled"]]));
    database.run("select reveille.apply_linked_ends()").await;
    assert_eq!(database.value("select count(*) from reveille.blocked_jobs").await, 0);
    assert_eq!(database.value("select state from reveille.workflow_status").await, "cancelled");
}

#[tokio::test]
async fn upkeep_removes_a_workflow_30_days_after_its_end() {
    let database = database().await;
    let jobs = json!([{"name": "a", "kind": "k"}, {"name": "b", "kind": "k", "after": ["a"]}]);
    for _ in 0..2 {
        database.run(&format!("select reveille.enqueue_workflow('w', '{jobs}')")).await;
    }
    database.run("select reveille.cancel_workflow(1), reveille.cancel_workflow(2)").await;
    while database.value("select reveille.apply_linked_ends()").await != 0 {}
    database.run("update reveille.workflows set finished_at = now() - interval '31 days' where id = 1").await;
    database.admin().prune().await.unwrap();
    let left = "select jsonb_build_array((select jsonb_agg(id) from reveille.workflows),
        (select count(*) from reveille.workflow_jobs), (select count(*) from reveille.dependencies))";
    assert_eq!(database.value(left).await, json!([[2], 2, 1]));
}

#[tokio::test]
async fn an_end_that_was_inserted_by_hand_counts_in_its_workflow() {
    let database = database().await;
    database.run("select reveille.enqueue_workflow('w', '[{\"name\": \"a\", \"kind\": \"k\"}]')").await;
    database
        .run("delete from reveille.jobs; insert into reveille.linked_ends (job, outcome) values (1, 'completed')")
        .await;
    database.run("select reveille.apply_linked_ends()").await;
    assert_eq!(database.value("select state from reveille.workflow_status").await, "completed");
}

#[tokio::test]
async fn an_end_whose_workflow_upkeep_has_removed_is_applied() {
    let database = database().await;
    followed(&database, &job()).await;
    database.run("select reveille.cancel(1); update reveille.linked_ends set workflow = 7").await;
    database.run("select reveille.apply_linked_ends()").await;
    assert_eq!(database.value("select count(*) from reveille.linked_ends").await, 1);
    database.admin().prune().await.unwrap();
    database.run("select reveille.apply_linked_ends()").await;
    assert_eq!(database.value("select count(*) from reveille.linked_ends").await, 0);
}

#[tokio::test]
async fn a_job_that_the_table_refuses_is_buried_and_holds_up_no_other() {
    let database = database().await;
    enqueue(&database.database, &job()).await.unwrap();
    for kind in ["odd", "plain"] {
        database
            .run(&format!("select reveille.enqueue_after(array[1], '{kind}', fires_on => 'any', queue => 'l')"))
            .await;
    }
    let refuses = "create function refuse() returns trigger language plpgsql as $$
        begin raise exception 'not today'; end $$;
        create trigger refuse before insert on reveille.jobs for each row
        when (new.kind = 'odd') execute function refuse()";
    database.run(refuses).await;
    database.run("select reveille.cancel(1); select reveille.apply_linked_ends()").await;
    assert_eq!(database.value("select jsonb_agg(kind) from reveille.jobs").await, json!(["plain"]));
    let dead = "select jsonb_agg(jsonb_build_array(kind, reason, errors -> 0 -> 'error')) from reveille.dead_jobs";
    let error = "cannot be stored in reveille.jobs: not today (SQLSTATE P0001)";
    assert_eq!(database.value(dead).await, json!([["odd", "undecodable", error]]));
}

#[tokio::test]
async fn a_result_of_more_than_1_mib_is_refused_for_a_linked_job_only() {
    let database = database().await;
    let large = || Ending::Completed(Some(Payload::encode(&"x".repeat(1_100_000)).unwrap()));
    enqueue(&database.database, &job()).await.unwrap();
    settled(&database, large()).await;
    let database = crate::harness::database().await;
    followed(&database, &job()).await;
    let (driver, job) = claimed(&database).await;
    let refused = driver.settle(&[Settlement::new(job.reservation, large())]).await.unwrap_err();
    assert!(refused.to_string().starts_with("cannot settle: the result of job 1 is larger than 1 MiB"), "{refused}");
    let value: Value = database.value("select count(*) from reveille.jobs").await;
    assert_eq!(value, 1, "the job is still there");
}
