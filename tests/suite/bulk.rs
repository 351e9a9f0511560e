//! A change of many jobs goes slice by slice, and touches only jobs that still pass its filter.

use std::time::Duration;

use reveille::admin::{BulkAction, Filter, StateFilter};
use reveille::job::JobState;
use serde_json::json;

use crate::filters::{MIXED, payload};
use crate::harness::{WAITS_FOR_ADVISORY_LOCK, database, note, reporting_worker, soon, start};

const TEN: &str = "insert into reveille.jobs (queue, kind, key) select 'q', 'k', 'a' from generate_series(1, 10)";

#[tokio::test]
async fn a_job_that_stops_matching_after_the_count_is_not_touched() {
    let database = database().await;
    database.run(TEN).await;
    let mut cancel = database.admin().bulk(BulkAction::Cancel, &Filter::new().key("a")).unwrap();
    assert_eq!(cancel.count().await.unwrap(), 10);
    // A job gets another key, a job comes, and a job is claimed.
    database
        .run(
            "update reveille.jobs set key = 'b' where id = 3; insert into reveille.jobs (kind, key) values ('k', 'a');
            update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = 1 where id = 5",
        )
        .await;
    let result = cancel.run().await.unwrap();
    assert_eq!((result.done, result.requested, result.passed_over), (9, 1, 0));
    let left = "select jsonb_agg(jsonb_build_array(id, key, cancel_requested_at is not null) order by id) \
        from reveille.jobs";
    assert_eq!(database.value(left).await, json!([[3, "b", false], [5, "a", true], [11, "a", false]]));
}

#[tokio::test]
async fn a_job_that_changes_while_the_statement_runs_is_not_touched() {
    for (change, still_passes) in [("tags = '{u}'", false), ("priority = 0", true)] {
        let database = database().await;
        database.run(&format!("{TEN}; update reveille.jobs set tags = '{{t}}'")).await;
        // The statement calls held_jobs after it has taken its snapshot. In this test, held_jobs waits for a lock.
        let waits = "alter function reveille.held_jobs() rename to really_held_jobs;
            create function reveille.held_jobs(
                out id bigint, out queue text, out kind text, out attempt int, out worker bigint,
                out reserved_at timestamptz, out cancel_requested_at timestamptz
            ) returns setof record language plpgsql as $$
            begin
                perform pg_advisory_xact_lock_shared(42);
                return query select * from reveille.really_held_jobs();
            end $$";
        database.run(waits).await;
        let holder = database.client().await;
        holder.batch_execute("select pg_advisory_lock(42)").await.unwrap();
        let mut cancel = database.admin().bulk(BulkAction::Cancel, &Filter::new().queue("q").tag("t")).unwrap();
        let stepping = tokio::spawn(async move {
            cancel.step().await.unwrap();
            cancel
        });
        database.until(WAITS_FOR_ADVISORY_LOCK).await;
        database.run(&format!("update reveille.jobs set {change} where id = 3")).await;
        holder.batch_execute("select pg_advisory_unlock(42)").await.unwrap();
        let cancel = soon("the slice ends", stepping).await.unwrap();
        assert_eq!((cancel.result().done, cancel.result().passed_over), (9, 1), "{change}");
        let result = cancel.run().await.unwrap();
        // The second look finds a job that still passes the filter.
        let expected = if still_passes { (10, 0) } else { (9, 1) };
        assert_eq!((result.done, result.passed_over), expected, "{change}");
        assert_eq!(database.value("select count(*) from reveille.jobs").await, json!(10 - result.done), "{change}");
    }
}

#[tokio::test]
async fn a_locked_job_is_passed_over_and_looked_at_again() {
    let database = database().await;
    database.run(TEN).await;
    let mut holder = database.client().await;
    let holding = holder.transaction().await.unwrap();
    holding
        .batch_execute(
            "update reveille.jobs set key = 'b' where id = 3; select from reveille.jobs where id = 4 for update",
        )
        .await
        .unwrap();
    let mut cancel = database.admin().bulk(BulkAction::Cancel, &Filter::new().key("a")).unwrap();
    assert!(cancel.step().await.unwrap());
    assert_eq!((cancel.result().done, cancel.result().passed_over), (8, 2));
    holding.commit().await.unwrap();
    let result = cancel.run().await.unwrap();
    assert_eq!((result.done, result.passed_over), (9, 1), "job 4 still passes, job 3 does not");
    assert_eq!(database.value("select jsonb_agg(id) from reveille.jobs").await, json!([3]));
}

#[tokio::test]
async fn a_job_that_stays_locked_is_reported_and_the_others_are_done() {
    let database = database().await;
    database.run(TEN).await;
    let mut holder = database.client().await;
    let holding = holder.transaction().await.unwrap();
    holding.batch_execute("select from reveille.jobs where id = 4 for update").await.unwrap();
    let cancel = database.admin().bulk(BulkAction::Cancel, &Filter::new().queue("q")).unwrap();
    let result = soon("the change does not wait for the lock", cancel.run()).await.unwrap();
    assert_eq!((result.done, result.passed_over), (9, 1));
    holding.rollback().await.unwrap();
}

#[tokio::test]
async fn jobs_that_run_again_are_not_run_again_in_the_same_change() {
    let database = database().await;
    database.run(MIXED).await;
    // Each new job ends at once, so that it passes the filter of finished jobs.
    let ends = "create function ends() returns trigger language plpgsql as $$
        begin
            insert into reveille.finished_jobs (
                day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
                outcome
            )
            select extract(epoch from now())::bigint / 86400 % 32, id, queue, kind, payload, 2, 1, 0, 20, now(), now(),
                'completed'
            from inserted;
            delete from reveille.jobs where id in (select id from inserted);
            return null;
        end $$;
        create trigger ends after insert on reveille.jobs referencing new table as inserted for each statement
        execute function ends()";
    database.run(ends).await;
    let old =
        "select count(*) from reveille.finished_jobs where queue = 'a' and finished_at > now() - interval '1 day'";
    let old = database.value(old).await;
    let again = database.admin().bulk(BulkAction::RunAgain, &Filter::new().queue("a")).unwrap();
    let result = soon("the change ends", again.run()).await.unwrap();
    assert_eq!(json!(result.done), old);
    let in_order = "select bool_and(new.payload = old.payload) and count(*) > 100
        from (
            select payload, row_number() over (order by id) as place from reveille.finished_jobs where id > 30000
        ) as new
        join (
            select payload, row_number() over (order by id) as place from reveille.finished_jobs
            where id < 30000 and queue = 'a' and finished_at > now() - interval '1 day'
        ) as old using (place)";
    assert_eq!(database.value(in_order).await, true, "the new jobs have the order of the old ones");
}

#[tokio::test]
async fn a_hundred_thousand_jobs_are_changed_in_slices_of_a_thousand() {
    let database = database().await;
    let many = "insert into reveille.jobs (queue, kind, tags, payload)
        select case n % 10 when 0 then 'other' else 'q' end, 'k', case when n % 2 = 0 then array['even'] end,
            jsonb_build_object('n', n, 'text', repeat('x', 300))
        from generate_series(1, 100000) as n";
    database.run(many).await;
    let admin = database.admin();
    for (filter, matching) in [
        (Filter::new().payload(payload(r#"{"n": 77777}"#)), 1),
        (Filter::new().queue("other"), 10_000),
        (Filter::new().tag("even"), 40_000),
        (Filter::new().queue("q"), 49_999),
    ] {
        let mut cancel = admin.bulk(BulkAction::Cancel, &filter).unwrap();
        assert_eq!(cancel.count().await.unwrap(), matching, "{filter:?}");
        let (mut steps, mut done) = (0, 0);
        while cancel.step().await.unwrap() {
            steps += 1;
            let last = cancel.result().done;
            assert!(last - done <= 1000, "{last} after {done}");
            done = last;
        }
        assert_eq!(done, matching, "{filter:?}");
        assert!(steps <= 10 + 2 * matching.div_ceil(1000) + 100, "{filter:?}: {steps} slices");
    }
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 0);
    assert_eq!(
        database.value("select count(*) from reveille.finished_jobs where outcome = 'cancelled'").await,
        100_000
    );
}

#[tokio::test]
async fn a_change_can_be_given_up_between_two_slices() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 2500)").await;
    let mut cancel = database.admin().bulk(BulkAction::Cancel, &Filter::new().kind("k")).unwrap();
    assert!(cancel.step().await.unwrap());
    let done = cancel.result().done;
    let last = cancel.result().last_id.unwrap();
    drop(cancel);
    let left = database.value("select jsonb_build_array(count(*), min(id)) from reveille.jobs").await;
    assert_eq!(left, json!([2500 - done, last + 1]));
    let rest = database.admin().bulk(BulkAction::Cancel, &Filter::new().kind("k")).unwrap().run().await.unwrap();
    assert_eq!(rest.done, 2500 - done);
}

#[tokio::test]
async fn jobs_that_the_server_refuses_to_change_are_named_and_the_others_are_done() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 30)").await;
    let refuse =
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; \
        end $$;
        create trigger refuse before delete on reveille.jobs for each row when (old.id in (7, 20)) \
        execute function refuse()";
    database.run(refuse).await;
    let cancel = database.admin().bulk(BulkAction::Cancel, &Filter::new().kind("k")).unwrap();
    let result = cancel.run().await.unwrap();
    assert_eq!((result.done, result.passed_over), (28, 0));
    assert_eq!(result.refused.iter().map(|refused| refused.id).collect::<Vec<_>>(), [7, 20]);
    assert!(result.refused[0].error.to_string().contains("not this one"), "{}", result.refused[0].error);
}

#[tokio::test]
async fn many_cancelled_jobs_end_as_one_cancelled_job_does() {
    let database = database().await;
    let jobs = "insert into reveille.queues (name, retention) values ('unkept', '0');
        insert into reveille.jobs (queue, kind, key, tags, metadata, errors, progress, parent_id)
        select queue, 'k', 'key', '{t}', '{\"m\": 1}', '[{\"error\": \"e\"}]', '5', 9
        from unnest(array['kept', 'kept', 'unkept', 'unkept']) as queue;
        update reveille.jobs set awaited = true where id in (2, 3)";
    database.run(jobs).await;
    database.run("select reveille.cancel(1), reveille.cancel(4)").await;
    let cancel = database.admin().bulk(BulkAction::Cancel, &Filter::new().kind("k")).unwrap();
    assert_eq!(cancel.run().await.unwrap().done, 2);
    let rows = "select jsonb_agg(to_jsonb(f) - 'id' - 'finished_at' - 'available_at' - 'created_at' order by id)
        from reveille.finished_jobs as f";
    let rows = database.value(rows).await;
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]), (2, &rows[1]));
    let ends = "select jsonb_agg(jsonb_build_array(id, outcome, errors)) from reveille.ends";
    assert_eq!(database.value(ends).await, json!([[3, "cancelled", [{"error": "e"}]]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_retried_by_a_filter_wake_a_sleeping_worker() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let later = reveille::enqueue(&database.database, &note("later")).delay(Duration::from_secs(3600)).await.unwrap();
    let worker = start(builder);
    database.until("select exists (select from reveille.sleepers)").await;
    let result =
        database.admin().bulk(BulkAction::Retry, &Filter::new().queue("default")).unwrap().run().await.unwrap();
    assert_eq!((result.done, later.id), (1, 1));
    assert_eq!(reports.next().await, "later");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_awaited_job_that_is_cancelled_by_a_filter_wakes_its_waiter() {
    let database = database().await;
    let job = reveille::enqueue(&database.database, &note("x")).delay(Duration::from_secs(3600)).await.unwrap();
    let waiting = tokio::spawn({
        let database = database.database.clone();
        async move { job.finished(&database).await }
    });
    database.until("select awaited from reveille.jobs").await;
    database.admin().bulk(BulkAction::Cancel, &Filter::new().kind("note")).unwrap().run().await.unwrap();
    let ended = soon("the waiter is woken", waiting).await.unwrap().unwrap();
    assert_eq!(ended.map(|ended| ended.state), Some(JobState::Cancelled));
}

#[tokio::test]
async fn an_action_refuses_a_filter_whose_jobs_it_cannot_change() {
    let database = database().await;
    let admin = database.admin();
    let state = |state: StateFilter| Filter::new().state(state);
    for (action, filter, part) in [
        (BulkAction::Cancel, state(JobState::Dead.into()), "only live and blocked jobs"),
        (BulkAction::Cancel, state(StateFilter::Finished), "only live and blocked jobs"),
        (BulkAction::Retry, state(JobState::Running.into()), "only delayed"),
        (BulkAction::Retry, state(JobState::Completed.into()), "--again"),
        (BulkAction::Purge, state(JobState::Ready.into()), "only dead jobs"),
        (BulkAction::Revive, state(StateFilter::Finished), "only dead jobs"),
        (BulkAction::RunAgain, state(JobState::Dead.into()), "revive"),
        (BulkAction::RunAgain, state(StateFilter::Failing), "only completed and cancelled"),
    ] {
        let error = admin.bulk(action, &filter).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains(part), "{error}");
    }
    // Without a state, each action takes the jobs that it is for.
    database.run(MIXED).await;
    for (action, count) in [
        (BulkAction::Cancel, "select count(*) from reveille.jobs"),
        (BulkAction::Retry, "select count(*) from reveille.jobs where reserved_at is null and available_at > now()"),
        (BulkAction::Revive, "select count(*) from reveille.dead_jobs"),
        (BulkAction::Purge, "select count(*) from reveille.dead_jobs"),
    ] {
        let counted = admin.bulk(action.clone(), &Filter::new()).unwrap().count().await.unwrap();
        assert_eq!(json!(counted), database.value(count).await, "{action:?}");
    }
}
