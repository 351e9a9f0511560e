//! What operators do is recorded, together with what they change or not at all.

use std::time::{Duration, SystemTime};

use reveille::admin::{
    ActionFilter, ActionState, Admin, BulkAction, Cancelled, Edited, Filter, JobEdit, QueueSettings, RemovedQueue,
    Retried, RunAgain, Start,
};
use reveille::job::{JobState, NewJob, Payload, Priority};
use reveille::schedule::Schedule;
use reveille::{Worker, enqueue};
use serde_json::{Value, json};

use crate::harness::{
    TestDatabase, WAITS_FOR_ADVISORY_LOCK, database, eventually, note, report, reporting, soon, start,
};

const HOUR: Duration = Duration::from_secs(3600);
/// Two and a half slices of delayed jobs.
const MANY: &str = "insert into reveille.jobs (queue, kind, available_at)
    select 'q', 'k', now() + '1 hour' from generate_series(1, 2500)";

fn alice(database: &TestDatabase) -> Admin {
    database.admin().acting_as("alice", "test").unwrap()
}

/// Returns what the table says of the last action.
async fn last(database: &TestDatabase) -> Value {
    let last = "select jsonb_build_array(actor, source, action, target, detail, outcome, ended_at is not null, done)
        from reveille.actions order by id desc limit 1";
    database.value(last).await
}

async fn count(database: &TestDatabase) -> Value {
    database.value("select count(*) from reveille.actions").await
}

/// The record of a single change by Alice.
fn by_alice(action: &str, target: Value, detail: Value) -> Value {
    json!(["alice", "test", action, target, detail, "done", true, null])
}

async fn dead(database: &TestDatabase, ids: &str) {
    let dead = format!(
        "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
            available_at, created_at, reason)
        select id, 'q', 'k', '{{}}', 2, 1, 1, 1, now(), now(), 'failed' from unnest('{{{ids}}}'::bigint[]) as id"
    );
    database.run(&dead).await;
}

#[tokio::test]
async fn each_change_of_a_job_is_recorded_with_its_answer() {
    let database = database().await;
    let alice = alice(&database);
    database
        .run("insert into reveille.jobs (kind, available_at) select 'k', now() + '1 hour' from generate_series(1, 3)")
        .await;
    dead(&database, "101, 102").await;
    assert_eq!(alice.retry(1).await.unwrap(), Retried::Due);
    assert_eq!(last(&database).await, by_alice("retry", json!({"job": 1}), json!({"answer": "due"})));
    assert_eq!(alice.retry(101).await.unwrap(), Retried::Revived);
    assert_eq!(last(&database).await, by_alice("revive", json!({"job": 101}), json!({"answer": "revived"})));
    assert_eq!(alice.cancel(1).await.unwrap(), Cancelled::Cancelled);
    assert_eq!(last(&database).await, by_alice("cancel", json!({"job": 1}), json!({"answer": "cancelled"})));
    let RunAgain::Enqueued(again) = alice.run_again(1).await.unwrap() else { panic!("job 1 runs again") };
    let detail = json!({"answer": "enqueued", "job": again});
    assert_eq!(last(&database).await, by_alice("run_again", json!({"job": 1}), detail));
    assert!(alice.purge_dead_job(102).await.unwrap());
    assert_eq!(last(&database).await, by_alice("purge", json!({"job": 102}), json!({"answer": "purged"})));
    let edit = JobEdit::new().queue("slow").priority(Priority::Low).key("tenant");
    assert_eq!(alice.edit(2, edit).await.unwrap(), Edited::Waiting);
    let detail = json!({
        "answer": "edited", "old": {"queue": "default", "priority": 2, "key": null},
        "new": {"queue": "slow", "priority": 3, "key": "tenant"},
    });
    assert_eq!(last(&database).await, by_alice("edit", json!({"job": 2}), detail));
    assert_eq!(count(&database).await, 6);
    // A change that finds nothing is recorded as well.
    assert_eq!(alice.cancel(99).await.unwrap(), Cancelled::Unknown);
    assert_eq!(last(&database).await, by_alice("cancel", json!({"job": 99}), json!({"answer": "unknown"})));
    assert_eq!(alice.edit(99, JobEdit::new().queue("slow")).await.unwrap(), Edited::Unknown);
    assert_eq!(last(&database).await, by_alice("edit", json!({"job": 99}), json!({"answer": "unknown"})));
}

#[tokio::test]
async fn each_change_of_a_queue_a_worker_or_a_schedule_is_recorded() {
    let database = database().await;
    let alice = alice(&database);
    alice.pause("mail").await.unwrap();
    assert_eq!(last(&database).await, by_alice("pause", json!({"queue": "mail"}), json!({"answer": "paused"})));
    alice.resume("mail").await.unwrap();
    assert_eq!(last(&database).await, by_alice("resume", json!({"queue": "mail"}), json!({"answer": "resumed"})));
    alice.set_queue("mail", QueueSettings::new().max_running(8)).await.unwrap();
    alice.set_queue("mail", QueueSettings::new().max_running(5).ordered(false)).await.unwrap();
    let detail = json!({"answer": "set", "old": {"max_running": 8}, "new": {"max_running": 5}});
    assert_eq!(last(&database).await, by_alice("set_queue", json!({"queue": "mail"}), detail));
    assert_eq!(alice.remove_queue("mail").await.unwrap(), RemovedQueue::Removed);
    let removed = last(&database).await;
    assert_eq!((&removed[2], &removed[4]["old"]["max_running"]), (&json!("remove_queue"), &json!(5)));
    assert!(!alice.stop_worker(7).await.unwrap());
    assert_eq!(last(&database).await, by_alice("stop_worker", json!({"worker": 7}), json!({"answer": "unknown"})));
    alice.set_slots("mail", 4, Some(7)).await.unwrap();
    let detail = json!({"answer": "set", "slots": 4, "workers": 0});
    assert_eq!(last(&database).await, by_alice("set_slots", json!({"queue": "mail", "worker": 7}), detail));

    let schedule = |every| Schedule::every("often", every, &note("secret")).unwrap();
    alice.add_schedule(&schedule(HOUR)).await.unwrap();
    alice.add_schedule(&schedule(HOUR * 2)).await.unwrap();
    let detail = json!({"answer": "scheduled", "old": {"every": "01:00:00"}, "new": {"every": "02:00:00"}});
    assert_eq!(last(&database).await, by_alice("schedule", json!({"schedule": "often"}), detail));
    for (action, answer) in [("pause_schedule", "paused"), ("resume_schedule", "resumed")] {
        let found = match action {
            "pause_schedule" => alice.pause_schedule("often").await.unwrap(),
            _ => alice.resume_schedule("often").await.unwrap(),
        };
        assert!(found);
        let expected = by_alice(action, json!({"schedule": "often"}), json!({"answer": answer}));
        assert_eq!(last(&database).await, expected);
    }
    let job = alice.trigger_schedule("often").await.unwrap().unwrap();
    let detail = json!({"answer": "triggered", "job": job});
    assert_eq!(last(&database).await, by_alice("trigger_schedule", json!({"schedule": "often"}), detail));
    assert!(alice.remove_schedule("often").await.unwrap());
    let removed = last(&database).await;
    assert_eq!((&removed[2], &removed[4]["old"]["every"]), (&json!("unschedule"), &json!("02:00:00")));
    assert!(!alice.remove_schedule("often").await.unwrap());
    assert_eq!(last(&database).await[4], json!({"answer": "unknown"}));
    alice.prune().await.unwrap();
    assert_eq!(last(&database).await, by_alice("prune", json!({}), json!({"answer": "pruned", "emptied_days": 0})));
    assert_eq!(database.value("select count(*) from reveille.actions where detail::text like '%secret%'").await, 0);
}

#[tokio::test]
async fn an_administrator_without_an_actor_records_nothing() {
    let database = database().await;
    database.run(MANY).await;
    let admin = database.admin();
    admin.retry(1).await.unwrap();
    admin.set_queue("q", QueueSettings::new().max_running(1)).await.unwrap();
    let result = admin.bulk(BulkAction::Cancel, &Filter::new().queue("q")).unwrap().run().await.unwrap();
    assert_eq!((result.done, result.action), (2500, None));
    admin.prune().await.unwrap();
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn a_change_that_cannot_be_recorded_is_not_made() {
    let database = database().await;
    let alice = alice(&database);
    database.run(MANY).await;
    dead(&database, "9001").await;
    database.run("insert into reveille.queues (name) values ('mail')").await;
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise 'no record'; end $$;
        create trigger refuse before insert or update on reveille.actions for each row execute function refuse()";
    database.run(refuse).await;
    let state = "select jsonb_build_array(
        (select jsonb_agg(to_jsonb(j) order by id) from reveille.jobs as j where id < 10),
        (select count(*) from reveille.jobs), (select count(*) from reveille.dead_jobs),
        (select jsonb_agg(to_jsonb(q)) from reveille.queues as q), (select count(*) from reveille.schedules))";
    let before = database.value(state).await;
    let schedule = Schedule::every("often", HOUR, &note("x")).unwrap();
    let errors = [
        alice.retry(1).await.unwrap_err(),
        alice.retry(9001).await.unwrap_err(),
        alice.cancel(1).await.unwrap_err(),
        alice.edit(1, JobEdit::new().queue("other")).await.unwrap_err(),
        alice.purge_dead_job(9001).await.unwrap_err(),
        alice.pause("mail").await.unwrap_err(),
        alice.set_queue("mail", QueueSettings::new().max_running(1).paused(true)).await.unwrap_err(),
        alice.remove_queue("mail").await.unwrap_err(),
        alice.add_schedule(&schedule).await.unwrap_err(),
        alice.enqueue(&NewJob::new("k", Payload::parse("{}").unwrap())).await.unwrap_err(),
        alice.bulk(BulkAction::Cancel, &Filter::new().queue("q")).unwrap().run().await.unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("no record"), "{error}");
    }
    assert_eq!(database.value(state).await, before);
    assert_eq!(count(&database).await, 0);
    // The sessions that were rolled back go on to serve.
    database.run("drop trigger refuse on reveille.actions").await;
    assert_eq!(alice.retry(1).await.unwrap(), Retried::Due);
}

#[tokio::test]
async fn a_change_that_the_server_refuses_is_not_recorded() {
    let database = database().await;
    let alice = alice(&database);
    database.run(MANY).await;
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$;
        create trigger refuse before update or delete on reveille.jobs for each row execute function refuse()";
    database.run(refuse).await;
    for error in [
        alice.retry(1).await.unwrap_err(),
        alice.cancel(1).await.unwrap_err(),
        alice.edit(1, JobEdit::new().queue("other")).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("not this one"), "{error}");
    }
    dead(&database, "9001").await;
    let due = alice.edit(9001, JobEdit::new().delay(HOUR)).await.unwrap_err();
    assert!(due.is_invalid() && due.to_string().contains("dead"), "{due}");
    assert_eq!(count(&database).await, 0);
}

#[tokio::test]
async fn no_payload_is_recorded_but_its_hash_and_length() {
    let database = database().await;
    let alice = alice(&database);
    let secret = || Payload::parse(r#"{"card":  "4111-1111"}"#).unwrap();
    let job = NewJob::new("k", secret()).queue("q").delay(HOUR).unique_key("u");
    let id = alice.enqueue(&job).await.unwrap().id;
    assert!(alice.enqueue(&job).await.unwrap().existed);
    let recorded = last(&database).await;
    assert_eq!((&recorded[3], &recorded[4]["answer"]), (&json!({"job": id}), &json!("existed")));
    let hash = "select jsonb_build_object('sha256', encode(sha256('{\"card\": \"4111-1111\"}'), 'hex'), 'bytes', 21)";
    let hash = database.value(hash).await;
    assert_eq!(recorded[4]["payload"], hash, "the hash of the text that Postgres writes");

    alice.edit(id, JobEdit::new().payload(Payload::parse(r#"{"card": "4111-2222"}"#).unwrap())).await.unwrap();
    let edited = last(&database).await;
    assert_eq!(edited[4]["old"], json!({"payload": hash}));
    assert_eq!(edited[4]["new"]["payload"]["bytes"], 21);

    let filter = Filter::new().queue("q").payload(secret()).error("timed out").since(SystemTime::UNIX_EPOCH);
    alice.bulk(BulkAction::Cancel, &filter).unwrap().run().await.unwrap();
    let run = last(&database).await;
    assert_eq!(run[3]["filter"]["payload"], hash);
    assert_eq!((&run[3]["filter"]["error"], run[3]["filter"]["since"].is_string()), (&json!("timed out"), true));
    let edit = BulkAction::Edit(JobEdit::new().payload(secret()).at(SystemTime::UNIX_EPOCH));
    // The server's refusal quotes the payload.
    let refuse = "create function refuse() returns trigger language plpgsql as $$
        begin raise 'refused: %', new.payload; end $$;
        create trigger refuse before update on reveille.jobs for each row execute function refuse()";
    database.run(refuse).await;
    let result = alice.bulk(edit, &Filter::new().queue("q")).unwrap().run().await.unwrap();
    assert_eq!((result.done, result.refused.len()), (0, 1));
    let run = last(&database).await;
    assert_eq!((&run[4]["new"]["payload"], &run[4]["refused"]), (&hash, &json!([{"job": id, "code": "P0001"}])));
    let more = "insert into reveille.jobs (queue, kind, payload)
        select 'r', 'k', '\"4111-3333\"' from generate_series(1, 101)";
    database.run(more).await;
    let edit = BulkAction::Edit(JobEdit::new().priority(Priority::Low));
    alice.bulk(edit, &Filter::new().queue("r")).unwrap().run().await.unwrap_err();
    let failed = "select jsonb_build_array(state, refused, error) from reveille.action_status order by id desc limit 1";
    let error = "the server refused the jobs (SQLSTATE P0001)";
    assert_eq!(database.value(failed).await, json!(["failed", 100, error]));
    let leaks = "select count(*) from reveille.actions where actions::text like '%4111%'";
    assert_eq!(database.value(leaks).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawned_task_makes_changes_on_behalf_of_someone() {
    let database = database().await;
    let alice = alice(&database);
    let job = NewJob::new("k", Payload::parse("{}").unwrap()).queue("q").delay(HOUR);
    let changes = async move {
        let id = alice.enqueue(&job).await?.id;
        alice.retry(id).await?;
        alice.edit(id, JobEdit::new().priority(Priority::Low)).await?;
        alice.set_queue("q", QueueSettings::new().max_running(1)).await?;
        alice.add_schedule(&Schedule::every("often", HOUR, &note("x"))?).await?;
        alice.bulk(BulkAction::Cancel, &Filter::new())?.run().await?;
        alice.prune().await
    };
    tokio::spawn(changes).await.unwrap().unwrap();
    assert_eq!(count(&database).await, 7);
}

#[tokio::test]
async fn names_of_actors_are_bounded() {
    let database = database().await;
    let admin = database.admin();
    for (actor, source) in [("", "test"), ("alice", ""), (&*"a".repeat(129), "test"), ("a\0", "test")] {
        assert!(admin.acting_as(actor, source).unwrap_err().is_invalid(), "{actor:?} {source:?}");
    }
    assert!(admin.acting_as("ä".repeat(128), "test").is_ok());
}

#[tokio::test]
async fn a_run_is_one_action_with_its_numbers() {
    let database = database().await;
    let alice = alice(&database);
    database.run(MANY).await;
    let mut cancel = alice.bulk(BulkAction::Cancel, &Filter::new().queue("q").kind("k")).unwrap();
    assert_eq!(cancel.count().await.unwrap(), 2500);
    assert_eq!(count(&database).await, 0, "a count is no action");
    let id = cancel.begin().await.unwrap().unwrap();
    assert_eq!(cancel.begin().await.unwrap(), Some(id));
    let begun = alice.action(id).await.unwrap().unwrap();
    assert_eq!((begun.state, begun.matching, begun.done), (ActionState::Running, Some(2500), Some(0)));
    assert!(cancel.step().await.unwrap());
    let running = alice.action(id).await.unwrap().unwrap();
    assert_eq!((running.state, running.done), (ActionState::Running, Some(1000)));
    let result = cancel.run().await.unwrap();
    assert_eq!((result.done, result.action, result.is_stopped), (2500, Some(id), false));
    let ended = alice.action(id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.done, ended.highest_id), (ActionState::Done, Some(2500), Some(2500)));
    assert_eq!((&*ended.actor, &*ended.source, &*ended.action), ("alice", "test", "cancel"));
    assert_eq!(ended.target, json!({"filter": {"queue": "q", "kind": "k"}}));
    assert!(ended.is_run() && ended.ended_at >= ended.started_at && ended.error.is_none(), "{ended:?}");
    assert!(!alice.stop_action(id).await.unwrap(), "it has ended");
    assert!(alice.action(id + 1).await.unwrap().is_none());
}

#[tokio::test]
async fn a_run_that_is_given_up_is_interrupted_and_its_number_is_exact() {
    let database = database().await;
    let alice = alice(&database);
    database.run(MANY).await;
    let mut cancel = alice.bulk(BulkAction::Cancel, &Filter::new().queue("q")).unwrap();
    assert!(cancel.step().await.unwrap());
    let id = cancel.result().action.unwrap();
    // The second slice waits in its transaction, and is given up there.
    let waits = "create function waits() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock_shared(42); return null; end $$;
        create trigger waits after delete on reveille.jobs for each statement execute function waits()";
    database.run(waits).await;
    let holder = database.client().await;
    holder.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    let stepping = tokio::spawn(async move { cancel.step().await });
    database.until(WAITS_FOR_ADVISORY_LOCK).await;
    stepping.abort();
    soon("the slice is given up", stepping).await.unwrap_err();
    database.until(&format!("select not ({WAITS_FOR_ADVISORY_LOCK})")).await;
    holder.batch_execute("select pg_advisory_unlock(42)").await.unwrap();
    database.run("update reveille.actions set seen_at = seen_at - interval '31 seconds'").await;
    let action = alice.action(id).await.unwrap().unwrap();
    assert_eq!((action.state, action.done), (ActionState::Interrupted, Some(1000)));
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 1000);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1500);
}

#[tokio::test]
async fn a_run_stops_when_another_session_asks() {
    let database = database().await;
    let alice = alice(&database);
    database.run(MANY).await;
    let mut cancel = alice.bulk(BulkAction::Cancel, &Filter::new().queue("q")).unwrap();
    assert!(cancel.step().await.unwrap());
    let id = cancel.result().action.unwrap();
    let bob = database.admin().acting_as("bob", "test").unwrap();
    assert!(bob.stop_action(id).await.unwrap());
    assert!(!cancel.step().await.unwrap());
    assert!(!cancel.step().await.unwrap());
    assert!(cancel.result().is_stopped && cancel.result().done == 1000, "{:?}", cancel.result());
    let action = bob.action(id).await.unwrap().unwrap();
    assert_eq!((action.state, action.done), (ActionState::Stopped, Some(1000)));
    assert!(action.stop_requested_at.is_some());
    assert_eq!(action.detail["stopped_by"], json!({"actor": "bob", "source": "test"}));
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1500);
    assert!(!bob.stop_action(id).await.unwrap() && !bob.stop_action(id + 1).await.unwrap());
    // A single change cannot be stopped.
    alice.retry(2500).await.unwrap();
    assert!(!bob.stop_action(id + 1).await.unwrap());
}

#[tokio::test]
async fn a_run_that_its_program_stops_is_stopped() {
    let database = database().await;
    let alice = alice(&database);
    database.run(MANY).await;
    let mut cancel = alice.bulk(BulkAction::Cancel, &Filter::new().queue("q")).unwrap();
    assert!(cancel.step().await.unwrap());
    cancel.stop().await.unwrap();
    assert!(!cancel.step().await.unwrap());
    let action = alice.action(cancel.result().action.unwrap()).await.unwrap().unwrap();
    assert_eq!((action.state, action.done), (ActionState::Stopped, Some(1000)));
}

#[tokio::test]
async fn jobs_that_came_after_an_earlier_start_are_not_touched() {
    let database = database().await;
    database.run("insert into reveille.jobs (queue, kind) select 'q', 'k' from generate_series(1, 10)").await;
    let admin = database.admin();
    let filter = Filter::new().queue("q");
    let mut counting = admin.bulk(BulkAction::Cancel, &filter).unwrap();
    assert_eq!(counting.count().await.unwrap(), 10);
    let fixed = counting.start().await.unwrap();
    assert_eq!((fixed.highest_id, fixed.matching), (10, Some(10)));
    database.run("insert into reveille.jobs (queue, kind) select 'q', 'k' from generate_series(1, 5)").await;
    // The start goes to another process as text.
    let sent = serde_json::to_string(&fixed).unwrap();
    let start: Start = serde_json::from_str(&sent).unwrap();
    assert_eq!(start, fixed);
    let result = alice(&database).bulk(BulkAction::Cancel, &filter).unwrap().starting_at(start).run().await.unwrap();
    assert_eq!(result.done, 10);
    let recorded = "select jsonb_build_array(matching, highest_id) from reveille.actions";
    assert_eq!(database.value(recorded).await, json!([10, 10]));
    assert_eq!(database.value("select min(id) from reveille.jobs").await, 11);
}

#[tokio::test]
async fn a_revived_job_that_dies_again_is_not_met_again() {
    let database = database().await;
    dead(&database, "1, 2, 3").await;
    let admin = database.admin();
    let revive = || admin.bulk(BulkAction::Revive, &Filter::new()).unwrap();
    let mut first = revive();
    let start = first.start().await.unwrap();
    assert_eq!(first.run().await.unwrap().done, 3);
    // Two of the jobs die again, and keep their ids.
    database.run("delete from reveille.jobs where id < 3").await;
    dead(&database, "1, 2").await;
    let mut second = revive().starting_at(start);
    assert_eq!(second.count().await.unwrap(), 0);
    assert_eq!(second.run().await.unwrap().done, 0);
    assert_eq!(revive().run().await.unwrap().done, 2, "a new start meets them");
}

#[tokio::test]
async fn a_count_ends_at_its_bound_and_says_whether_it_is_exact() {
    let database = database().await;
    database.run(MANY).await;
    let admin = database.admin();
    let bulk = || admin.bulk(BulkAction::Retry, &Filter::new().queue("q")).unwrap();
    let bounded = bulk().count_up_to(2000, HOUR).await.unwrap();
    assert_eq!((bounded.jobs, bounded.is_exact), (2000, false));
    let all = bulk().count_up_to(10_000, HOUR).await.unwrap();
    assert_eq!((all.jobs, all.is_exact), (2500, true));
    let mut hurried = bulk();
    let first_slice = hurried.count_up_to(10_000, Duration::ZERO).await.unwrap();
    assert!(first_slice.jobs < 2500 && !first_slice.is_exact, "{first_slice:?}");
    assert_eq!(hurried.start().await.unwrap().matching, None);
    assert_eq!(hurried.count().await.unwrap(), 2500);
    assert_eq!(hurried.start().await.unwrap().matching, Some(2500));
}

#[tokio::test]
async fn waiting_jobs_of_a_filter_are_edited_and_others_are_not() {
    let database = database().await;
    let jobs =
        "insert into reveille.jobs (queue, kind, key, timeout) select 'q', 'k', 'a', '5 s' from generate_series(1, 6);
        update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = 1 where id = 2;
        update reveille.jobs set failures = 1, attempts = 1 where id in (2, 3);
        update reveille.jobs set key = 'b' where id = 4";
    database.run(jobs).await;
    let alice = alice(&database);
    let edit = |edit: JobEdit, filter: Filter| alice.bulk(BulkAction::Edit(edit), &filter);
    let slow = JobEdit::new().queue("slow").priority(Priority::Low).delay(HOUR).max_attempts(3).timeout(None);
    let result = edit(slow, Filter::new().queue("q").key("a")).unwrap().run().await.unwrap();
    assert_eq!((result.done, result.passed_over), (4, 0));
    let rows = "select jsonb_agg(jsonb_build_array(id, queue, priority, max_attempts, timeout is null,
        available_at > now() + '59 minutes') order by id) from reveille.jobs";
    let (old, new) = (json!(["q", 2, 20, false, false]), json!(["slow", 3, 3, true, true]));
    let row = |id: i64| {
        let mut row = vec![json!(id)];
        row.extend(if id == 2 || id == 4 { &old } else { &new }.as_array().unwrap().clone());
        Value::from(row)
    };
    assert_eq!(database.value(rows).await, (1..=6).map(row).collect::<Value>());
    let recorded = last(&database).await;
    let new = json!({"queue": "slow", "priority": 3, "delay": 3600.0, "max_attempts": 3, "timeout": null});
    assert_eq!((&recorded[2], &recorded[4], &recorded[7]), (&json!("edit"), &json!({"new": new}), &json!(4)));
    // A failing job that runs stays as it is.
    let failing = Filter::new().state(reveille::admin::StateFilter::Failing);
    assert_eq!(edit(JobEdit::new().key("c"), failing).unwrap().run().await.unwrap().done, 1);
    assert_eq!(database.value("select jsonb_agg(id) from reveille.jobs where key = 'c'").await, json!([3]));
    for state in [JobState::Running, JobState::Dead, JobState::Completed] {
        let error = edit(JobEdit::new().key("c"), Filter::new().state(state)).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("cannot be edited by a filter"), "{error}");
    }
    assert!(edit(JobEdit::new(), Filter::new()).unwrap_err().is_invalid(), "no change is given");
    assert!(edit(JobEdit::new().queue(""), Filter::new()).unwrap_err().is_invalid());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_many_jobs_wakes_the_workers_of_their_new_queue() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(database.database.clone()).queue("awake", 1).poll_interval(HOUR);
    let worker = start(builder.state(reporter).handle(report));
    database.until("select count(*) = 1 from reveille.sleepers").await;
    enqueue(&database.database, &note("moved")).queue("asleep").await.unwrap();
    let edit = BulkAction::Edit(JobEdit::new().queue("awake"));
    assert_eq!(database.admin().bulk(edit, &Filter::new().queue("asleep")).unwrap().run().await.unwrap().done, 1);
    assert_eq!(reports.next().await, "moved");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_are_edited_while_they_are_worked_run_once_or_wait_in_the_new_queue() {
    let database = database().await;
    let jobs = "insert into reveille.jobs (queue, kind, payload)
        select 'busy', 'note', jsonb_build_object('text', n::text) from generate_series(1, 5000) as n";
    database.run(jobs).await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(database.database.clone()).queue("busy", 8);
    let worker = start(builder.state(reporter).handle(report));
    let first = reports.next().await;
    let edit = BulkAction::Edit(JobEdit::new().queue("later"));
    let result = alice(&database).bulk(edit, &Filter::new().queue("busy")).unwrap().run().await.unwrap();
    eventually("the queue is worked off", async || {
        database.value("select count(*) from reveille.jobs where queue = 'busy'").await == 0
    })
    .await;
    worker.stop().await;
    let mut ran = reports.rest();
    ran.push(first);
    let moved = database.value("select count(*) from reveille.jobs where queue = 'later'").await;
    assert_eq!(moved, result.done, "each job that was moved waits in its new queue");
    let count = ran.len() as u64;
    ran.sort();
    ran.dedup();
    assert_eq!((ran.len() as u64, count + result.done), (count, 5000), "each other job ran once");
    assert_eq!(last(&database).await[7], result.done);
}

#[tokio::test]
async fn actions_are_listed_by_pages_newest_first() {
    let database = database().await;
    let alice = alice(&database);
    for id in 1..=5 {
        alice.cancel(id).await.unwrap();
    }
    let ids = |rows: Vec<reveille::admin::ActionRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let first = ids(alice.actions(None, 2).await.unwrap());
    assert_eq!(first, [5, 4]);
    assert_eq!(ids(alice.actions(Some(4), 10).await.unwrap()), [3, 2, 1]);
}

#[tokio::test]
async fn actions_are_found_by_who_what_and_on_what() {
    let database = database().await;
    let alice = alice(&database);
    alice.cancel(1).await.unwrap();
    alice.pause("mail").await.unwrap();
    alice.cancel_workflow(1).await.unwrap();
    let bob = database.admin().acting_as("bob", "test").unwrap();
    bob.cancel(1).await.unwrap();
    bob.retry(12).await.unwrap();
    let ids = |rows: Vec<reveille::admin::ActionRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let by = async |filter: ActionFilter| ids(alice.actions_by(&filter, None, 10).await.unwrap());
    assert_eq!(by(ActionFilter::new().actor("bob")).await, [5, 4]);
    assert_eq!(by(ActionFilter::new().action("cancel")).await, [4, 1]);
    assert_eq!(by(ActionFilter::new().actor("bob").action("cancel").source("test")).await, [4]);
    assert_eq!(by(ActionFilter::new().source("elsewhere")).await, [0; 0]);
    assert_eq!(ids(alice.actions_on_job(1, 10).await.unwrap()), [4, 1]);
    assert_eq!(ids(alice.actions_on_job(1, 1).await.unwrap()), [4]);
    assert_eq!(ids(alice.actions_on_workflow(1, 10).await.unwrap()), [3]);
}

#[tokio::test]
async fn actions_are_kept_for_90_days() {
    let database = database().await;
    let alice = alice(&database);
    for id in 1..=3 {
        alice.cancel(id).await.unwrap();
    }
    let ages = "update reveille.actions set started_at = now() - interval '91 days' where id = 1;
        update reveille.actions set started_at = now() - interval '89 days' where id = 2";
    database.run(ages).await;
    database.admin().prune().await.unwrap();
    assert_eq!(database.value("select jsonb_agg(id order by id) from reveille.actions").await, json!([2, 3]));
}
