//! A waiting job is changed, and a dead one before it is revived.

use std::time::Duration;

use reveille::admin::{Edited, JobEdit, QueueUse, RemovedQueue};
use reveille::job::{Payload, Priority, Retried};
use reveille::{Worker, enqueue};
use serde_json::json;

use crate::harness::{database, note, report, reporting, reporting_worker, start};

#[tokio::test]
async fn an_edit_changes_what_it_names_and_nothing_else() {
    let database = database().await;
    let job = "insert into reveille.jobs (queue, kind, payload, key, timeout, tags, max_attempts, metadata)
        values ('q', 'k', '{\"a\": 1}', 'key', '5 s', '{t}', 7, '{\"m\": 1}')";
    database.run(&format!("{job}; {job}")).await;
    let admin = database.admin();
    let row = "select to_jsonb(jobs) from reveille.jobs where id = 1";
    let mut expected = database.value(row).await;
    let digits = "12345678901234567890.0123456789";
    let edits = [
        (JobEdit::new().queue("other"), "queue", json!("other")),
        (JobEdit::new().priority(Priority::Urgent), "priority", json!(0)),
        (JobEdit::new().max_attempts(3), "max_attempts", json!(3)),
        (JobEdit::new().key("new"), "key", json!("new")),
        (JobEdit::new().key(None), "key", json!(null)),
        (JobEdit::new().timeout(Duration::from_millis(1500)), "timeout", json!("00:00:01.5")),
        (JobEdit::new().timeout(None), "timeout", json!(null)),
        (JobEdit::new().payload(Payload::parse("[1]").unwrap()), "payload", json!([1])),
    ];
    for (edit, column, value) in edits {
        assert_eq!(admin.edit(1, edit.clone()).await.unwrap(), Edited::Waiting, "{edit:?}");
        expected[column] = value;
        assert_eq!(database.value(row).await, expected, "{edit:?}");
    }
    admin.edit(1, JobEdit::new().payload(Payload::parse(&format!("{{\"n\": {digits}}}")).unwrap())).await.unwrap();
    assert_eq!(database.value("select payload ->> 'n' from reveille.jobs where id = 1").await, digits);
    admin.edit(1, JobEdit::new().delay(Duration::from_secs(3600))).await.unwrap();
    let due = "select available_at between now() + '59 minutes' and now() + '1 hour' from reveille.jobs where id = 1";
    assert_eq!(database.value(due).await, true);
    admin.edit(1, JobEdit::new().at(std::time::SystemTime::UNIX_EPOCH)).await.unwrap();
    assert_eq!(database.value("select available_at = 'epoch' from reveille.jobs where id = 1").await, true);
    assert_eq!(database.value("select queue from reveille.jobs where id = 2").await, "q");
}

#[tokio::test]
async fn a_job_that_runs_or_has_ended_is_not_edited() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 3)").await;
    let admin = database.admin();
    database.run("update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = 1 where id = 1").await;
    database.run("select reveille.cancel(2)").await;
    let edit = JobEdit::new().queue("other");
    assert_eq!(admin.edit(1, edit.clone()).await.unwrap(), Edited::Running);
    assert_eq!(admin.edit(2, edit.clone()).await.unwrap(), Edited::Finished);
    assert_eq!(admin.edit(99, edit).await.unwrap(), Edited::Unknown);
    assert_eq!(database.value("select count(*) from reveille.jobs where queue = 'other'").await, 0);
}

#[tokio::test]
async fn an_edit_waits_for_a_claim_and_then_leaves_the_running_job_alone() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('k')").await;
    let mut claimer = database.client().await;
    let claiming = claimer.transaction().await.unwrap();
    claiming
        .batch_execute("update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = 1")
        .await
        .unwrap();
    let admin = database.admin();
    let editing = tokio::spawn(async move { admin.edit(1, JobEdit::new().queue("other")).await });
    database.until("select exists (select from pg_locks where not granted)").await;
    claiming.commit().await.unwrap();
    assert_eq!(crate::harness::soon("the edit ends", editing).await.unwrap().unwrap(), Edited::Running);
    assert_eq!(database.value("select queue from reveille.jobs").await, "default");
}

#[tokio::test]
async fn values_that_cannot_be_stored_are_refused_and_change_nothing() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind, key) values ('k', 'key'); select reveille.cancel(99)").await;
    let before = database.value("select to_jsonb(jobs) from reveille.jobs").await;
    let large = Payload::encode(&"x".repeat(1024 * 1024)).unwrap();
    for edit in [
        JobEdit::new(),
        JobEdit::new().queue(""),
        JobEdit::new().queue("a\0b"),
        JobEdit::new().key(""),
        JobEdit::new().max_attempts(0),
        JobEdit::new().timeout(Duration::ZERO),
        JobEdit::new().payload(large),
    ] {
        assert!(edit.check().unwrap_err().is_invalid(), "{edit:?}");
        assert!(database.admin().edit(1, edit).await.unwrap_err().is_invalid());
    }
    assert_eq!(database.value("select to_jsonb(jobs) from reveille.jobs").await, before);
}

#[tokio::test]
async fn a_dead_job_is_repaired_and_then_revived() {
    let database = database().await;
    let dead = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
        available_at, created_at, reason)
        values (5, 'q', 'k', '{\"month\": \"May\"}', 2, 3, 3, 3, now(), now(), 'undecodable')";
    database.run(dead).await;
    let admin = database.admin();
    let error = admin.edit(5, JobEdit::new().queue("other").delay(Duration::from_secs(1))).await.unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("no due time"), "{error}");
    let repaired = JobEdit::new().payload(Payload::parse(r#"{"month": 5}"#).unwrap()).max_attempts(9).queue("other");
    assert_eq!(admin.edit(5, repaired).await.unwrap(), Edited::Dead);
    assert_eq!(admin.retry(5).await.unwrap(), Retried::Revived);
    let row = "select jsonb_build_array(id, queue, payload, max_attempts, attempts, failures) from reveille.jobs";
    assert_eq!(database.value(row).await, json!([5, "other", {"month": 5}, 9, 3, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_due_sooner_or_moves_wakes_a_sleeping_worker() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let hour = Duration::from_secs(3600);
    let sooner = enqueue(&database.database, &note("sooner")).delay(hour).await.unwrap().id;
    let moved = enqueue(&database.database, &note("moved")).queue("elsewhere").await.unwrap().id;
    let worker = start(builder);
    let admin = database.admin();
    let asleep = "select exists (select from reveille.sleepers where not silent)";
    database.until(asleep).await;
    admin.edit(sooner, JobEdit::new().delay(Duration::ZERO)).await.unwrap();
    assert_eq!(reports.next().await, "sooner");
    database.until(asleep).await;
    admin.edit(moved, JobEdit::new().queue("default")).await.unwrap();
    assert_eq!(reports.next().await, "moved");
    worker.stop().await;
}

#[tokio::test]
async fn a_queue_that_nothing_uses_is_removed_with_its_settings_and_counts() {
    let database = database().await;
    let rows = "insert into reveille.queues (name, max_running, rate_limit, bell)
        values ('q', 3, 5, false), ('r', 1, 1, true);
        insert into reveille.counters (queue, started_at, worker, completed)
        values ('q', now(), 7, 5), ('r', now(), 7, 5);
        insert into reveille.totals (queue, completed) values ('q', 9);
        insert into reveille.kind_counters
        select queue, 'k', '-infinity', 1, 0, 0, 0, array_fill(0, array[18]), array_fill(0, array[18])
        from (values ('q'), ('r')) as queues (queue);
        insert into reveille.rates (queue, key, next_at) values ('q', '', now()), ('r', '', now())";
    database.run(rows).await;
    let admin = database.admin();
    assert_eq!(admin.remove_queue("q").await.unwrap(), RemovedQueue::Removed);
    for view in ["known_queues", "queue_stats", "queue_totals", "queue_limits", "kind_totals"] {
        let queues = format!("select jsonb_agg(queue) from reveille.{view}");
        assert_eq!(database.value(&queues).await, json!(["r"]), "{view}");
    }
    assert!(!admin.is_known("q").await.unwrap());
    assert_eq!(database.value("select jsonb_agg(queue) from reveille.rates").await, json!(["r"]));
    assert_eq!(admin.remove_queue("q").await.unwrap(), RemovedQueue::Unknown);
    assert!(admin.remove_queue("").await.unwrap_err().is_invalid());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_in_use_is_not_removed_and_the_answer_says_by_what() {
    let database = database().await;
    let admin = database.admin();
    let rows = "insert into reveille.queues (name, max_running) values ('default', 3);
        insert into reveille.jobs (kind, available_at)
        values ('k', now() + '1 hour'), ('k', now() + '1 hour'), ('k', now());
        update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = 1 where id = 3;
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
        available_at, created_at, reason) values (9, 'default', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed');
        select reveille.schedule(name => 's', every => '1 hour', kind => 'k')";
    database.run(rows).await;
    let RemovedQueue::InUse(used) = admin.remove_queue("default").await.unwrap() else { panic!("it was removed") };
    assert_eq!(used.to_string(), "2 waiting jobs, 1 running job, 1 dead job, 1 schedule");
    let many = "select reveille.unschedule('s'); truncate reveille.jobs, reveille.dead_jobs;
        insert into reveille.jobs (kind) select 'k' from generate_series(1, 10001)";
    database.run(many).await;
    let RemovedQueue::InUse(used) = admin.remove_queue("default").await.unwrap() else { panic!("it was removed") };
    assert_eq!(used.to_string(), "10000 or more waiting jobs");
    database.run("truncate reveille.jobs").await;
    let (reporter, _reports) = reporting();
    let worker = start(Worker::builder(database.database.clone()).queue("default", 1).state(reporter).handle(report));
    database.until("select exists (select from reveille.workers)").await;
    let mut by_worker = QueueUse::default();
    by_worker.workers = 1;
    assert_eq!(admin.remove_queue("default").await.unwrap(), RemovedQueue::InUse(by_worker));
    worker.stop().await;
    assert_eq!(database.value("select max_running from reveille.queues").await, 3);
    assert_eq!(admin.remove_queue("default").await.unwrap(), RemovedQueue::Removed);
}
