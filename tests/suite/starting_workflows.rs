//! A job starts a workflow: at a tick of a schedule, after a delay, or whenever else a job runs.

use std::time::Duration;

use reveille::driver::{Ending, FailureReason, Memory};
use reveille::enqueue::Workflow;
use reveille::job::{Job, NewJob, Payload, WorkflowState};
use reveille::schedule::Schedule;
use reveille::{Context, Outcome, Worker, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::encryption::{Confide, OLD, PLAIN, confide, encrypting, enqueuer, keys, tell};
use crate::harness::{
    Note, TestDatabase, database, eventually, note, report, reporting, reporting_worker, start, worker,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Two jobs, one after the other.
fn nightly() -> Workflow {
    let mut workflow = Workflow::new("nightly").input(&json!({"day": 7}));
    let first = workflow.add("extract", &note("first"));
    workflow.add("load", &note("second")).after(&first);
    workflow
}

/// A workflow with each option that a workflow and its jobs can have.
fn with_everything() -> Workflow {
    let mut workflow = Workflow::batch("all", [note("1"), note("2")])
        .unique_key("u")
        .input(&json!([1.5, "é"]))
        .on_complete(&note("complete"))
        .on_success(&note("success"))
        .on_dead(&note("dead"));
    let options = |job: NewJob| {
        let job = job.queue("q").delay(Duration::from_millis(1500)).priority("high".parse().unwrap()).max_attempts(3);
        let job = job.timeout(Duration::from_secs(30)).key("k").tag("a").tag("b");
        job.metadata(&json!({"trace": "é"})).unwrap()
    };
    let first = workflow.add("first \"quoted\"", &note("first")).with(options);
    let second = workflow.add("second", &note("second")).after_dead(&first).on_first().with(options);
    workflow.add("third", &note("third")).after_any_end([&first, &second]).after("1").cancel_if_dead();
    workflow.add("fourth", &note("fourth")).after_cancelled(&first);
    workflow
}

/// Returns the jobs of a workflow with their dependencies, without ids and times.
async fn stored(database: &TestDatabase, workflow: i64) -> Value {
    let sql = format!(
        "select jsonb_agg(
            job.line - array['id', 'available_at', 'created_at', 'parent_id', 'workflow'] || jsonb_build_object(
                'name', members.name, 'cleanup', members.cleanup, 'due_in', job.available_at - job.created_at,
                'waits', (
                    select jsonb_agg(to_jsonb(waits) - array['waiter', 'on_job'] order by waits.label)
                    from reveille.dependencies as waits where waits.waiter = members.job
                ),
                'workflow', (
                    select to_jsonb(workflows) - array['id', 'created_at', 'unique_key', 'parent_id']
                    from reveille.workflows where workflows.id = members.workflow
                )
            )
            order by members.name
        )
        from reveille.workflow_jobs as members
        join (
            select id, to_jsonb(jobs), available_at, created_at from reveille.jobs
            union all select id, to_jsonb(blocked_jobs), available_at, created_at from reveille.blocked_jobs
        ) as job (id, line, available_at, created_at) on job.id = members.job
        where members.workflow = {workflow}"
    );
    database.value(&sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_starts_a_workflow() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let running = start(builder);
    let admin = database.admin();
    admin.add_schedule(&Schedule::cron("nightly", "0 0 1 1 *", &nightly()).unwrap()).await.unwrap();
    let job = admin.trigger_schedule("nightly").await.unwrap().unwrap();
    assert_eq!([reports.next().await, reports.next().await], ["first", "second"]);
    database.until("select bool_and(state = 'completed') from reveille.workflow_status").await;
    running.stop().await;
    let workflow = "select to_jsonb(array[name, input ->> 'day', parent_id::text, schedule_id::text])
        from reveille.workflows";
    assert_eq!(database.value(workflow).await, json!(["nightly", "7", job.to_string(), "1"]));
    let history = "select jsonb_agg(jsonb_build_array(kind, outcome, parent_id, schedule_id) order by id)
        from reveille.finished_jobs";
    let of_jobs = [
        json!(["reveille.workflow", "completed", null, 1]),
        json!(["note", "completed", job, 1]),
        json!(["note", "completed", job, 1]),
    ];
    assert_eq!(database.value(history).await, Value::from(of_jobs.to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_in_sql_starts_a_workflow() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let running = start(builder);
    database
        .run(
            r#"select reveille.schedule('often', 'reveille.workflow', every => '50 milliseconds', payload => '{
                "name": "w", "unique_key": "w", "jobs": [
                    {"name": "b", "kind": "note", "payload": {"text": "b"}, "after": ["a"]},
                    {"name": "a", "kind": "note", "payload": {"text": "a"}, "delay": 0.01, "priority": "high"}
                ]}')"#,
        )
        .await;
    for _ in 0..2 {
        assert_eq!([reports.next().await, reports.next().await], ["a", "b"], "by its unique key, one after another");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_schedule_of_a_worker_on_memory_starts_a_workflow() {
    let (memory, (reporter, mut reports)) = (Memory::new(), reporting());
    let hourly = Schedule::every("hourly", HOUR, &nightly()).unwrap();
    let running = start(Worker::builder(memory.clone()).state(reporter).handle(report).schedule(hourly));
    eventually("a tick is due", async || {
        memory.advance(HOUR / 2);
        memory.workflow(1).is_some()
    })
    .await;
    assert_eq!(reports.next().await, "first");
    eventually("the workflow ends", async || memory.workflow(1).unwrap().state == WorkflowState::Completed).await;
    running.stop().await;
}

#[tokio::test]
async fn a_workflow_is_enqueued_with_the_options_of_a_job() {
    let (memory, (reporter, mut reports)) = (Memory::new(), reporting());
    let worker = Worker::builder(memory.clone()).state(reporter).handle(report).build().unwrap();
    let workflow = nightly();
    let later = enqueue(&memory, &workflow).delay(HOUR).unique_key("u").await.unwrap();
    assert!(enqueue(&memory, &workflow).unique_key("u").await.unwrap().existed);
    assert_eq!(worker.run_until_drained().await.unwrap().attempts(), 0);
    assert_eq!(worker.run_until_empty(&memory).await.unwrap().completed, 3);
    assert_eq!(reports.rest(), ["first", "second"]);
    let started = memory.workflow(1).unwrap();
    assert_eq!((started.state, started.parent_id), (WorkflowState::Completed, Some(later.id)));
}

#[tokio::test]
async fn one_attempt_in_a_test_starts_the_workflow() {
    let (memory, database) = (Memory::new(), database().await);
    let on_memory = Worker::builder(memory.clone()).handle(async |_: Note| {}).build().unwrap();
    assert_eq!(on_memory.attempt(&nightly()).await.unwrap(), Ending::Completed(None));
    assert_eq!(memory.workflow(1).unwrap().name, "nightly");
    let on_postgres = worker(&database).handle(async |_: Note| {}).build().unwrap();
    assert_eq!(on_postgres.attempt(&nightly()).await.unwrap(), Ending::Completed(None));
    assert_eq!(database.value("select count(*) from reveille.workflow_jobs").await, 2);
}

#[tokio::test]
async fn a_started_workflow_is_as_if_it_were_enqueued() {
    let database = database().await;
    let enqueued = with_everything().enqueue(&database.database).await.unwrap().id;
    enqueue(&database.database, &with_everything().unique_key("other")).queue("starts").await.unwrap();
    let starts = Worker::builder(database.database.clone()).queue("starts", 1).handle(async |_: Note| {});
    assert_eq!(starts.build().unwrap().run_until_drained().await.unwrap().completed, 1);
    let expected = stored(&database, enqueued).await;
    assert_eq!(expected.as_array().unwrap().len(), 9);
    assert_eq!(stored(&database, enqueued + 1).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_again_after_a_crash_starts_one_workflow() {
    let database = database().await;
    // The first session that completes the starting job dies then: the workflow is stored, and not committed.
    database
        .run(
            "create sequence public.deaths;
            create function public.die_once() returns trigger language plpgsql as $$
            begin
                if nextval('public.deaths') = 1 then
                    perform pg_terminate_backend(pg_backend_pid());
                end if;
                return old;
            end $$;
            create trigger die_once before delete on reveille.jobs for each row
            when (old.kind = 'reveille.workflow') execute function public.die_once()",
        )
        .await;
    let (builder, mut reports) = reporting_worker(&database);
    let running = start(builder);
    enqueue(&database.database, &nightly()).await.unwrap();
    database.until("select failures = 1 from reveille.jobs where kind = 'reveille.workflow'").await;
    assert_eq!(database.value("select count(*) from reveille.workflows").await, 0);
    database.run("select reveille.retry(id) from reveille.jobs").await;
    assert_eq!([reports.next().await, reports.next().await], ["first", "second"]);
    database.until("select bool_and(state = 'completed') from reveille.workflow_status").await;
    running.stop().await;
    assert_eq!(database.value("select array_agg(id) = array[2::bigint] from reveille.workflows").await, true);
    assert_eq!(database.value("select count(*) from reveille.finished_jobs").await, 3);
}

#[tokio::test]
async fn a_payload_that_is_no_workflow_makes_the_job_dead_at_once() {
    let memory = Memory::new();
    let worker = Worker::builder(memory.clone()).handle(async |_: Note| {}).build().unwrap();
    let with = |job: Value| json!({"name": "w", "jobs": [{"name": "a", "kind": "note"}, job]});
    let wrong = [
        (json!({"jobs": []}), "missing field `name`"),
        (json!({"name": "w", "jobs": [], "parent": 7}), "unknown field `parent`"),
        (json!({"name": "w", "jobs": []}), "cannot enqueue: a workflow needs at least one job"),
        (json!({"name": "", "jobs": [{"name": "a", "kind": "k"}]}), "a workflow's name must have 1 to 128 characters"),
        (with(json!({"name": "b"})), "cannot enqueue: job 2: missing field `kind`"),
        (with(json!({"name": "b", "kind": "k", "after": ["x"]})), r#"job "b": "x" is not a job of the workflow"#),
        (with(json!({"name": "a", "kind": "k"})), r#"the name "a" occurs twice"#),
        (with(json!({"name": "b", "kind": ""})), r#"job "b": kind must have 1 to 128 characters"#),
        (with(json!({"name": "b", "kind": "k", "delay": "1 day"})), r#"job "b": key "delay": must be a number of"#),
        (with(json!({"name": "b", "kind": "k", "timeout": -1})), r#"key "timeout": must be a number of seconds"#),
        (with(json!({"name": "b", "kind": "k", "priority": 4})), "unknown priority \"4\""),
        (with(json!({"name": "b", "kind": "k", "available_at": "now"})), r#"key "available_at": the workflow starts"#),
        (with(json!({"name": "b", "kind": "k", "unique_key": "u"})), r#"job "b": key "unique_key": a job of a"#),
        (with(json!({"name": "b", "kind": "k", "wait_for": "two"})), r#"key "wait_for": must be "all" or "first""#),
        (
            with(json!({"name": "b", "kind": "k", "after": ["a"], "fires_on": "x"})),
            r#"key "fires_on": unknown outcome"#,
        ),
        (with(json!({"name": "b", "kind": "k", "after": ["a"], "on_dead": "x"})), r#"key "on_dead": must be "hold""#),
        (
            with(json!({"name": "b", "kind": "k", "after": [{"name": "a", "label": "l"}]})),
            "no other keys but \"fires_on\" and \"on_dead\"",
        ),
    ];
    for (payload, expected) in wrong {
        let job = NewJob::new("reveille.workflow", Payload::encode(&payload).unwrap());
        let Ending::Dead(failure) = worker.attempt(&job).await.unwrap() else { panic!("{payload}: the job goes on") };
        assert_eq!(failure.reason, FailureReason::Undecodable);
        assert!(failure.error.contains(expected), "{}", failure.error);
    }
    assert!(memory.workflow(1).is_none());
}

#[tokio::test]
async fn a_wrong_graph_is_refused_when_it_is_scheduled() {
    let memory = Memory::new();
    let circle = || {
        let mut workflow = Workflow::new("w");
        workflow.add("a", &note("a")).after("b");
        workflow.add("b", &note("b")).after("a");
        workflow
    };
    let expected = circle().enqueue(&memory).await.unwrap_err().to_string();
    let declared = Schedule::cron("nightly", "0 2 * * *", &circle()).unwrap_err();
    assert!(declared.is_invalid() && declared.to_string() == expected, "{declared}");
    let enqueued = enqueue(&memory, &circle()).await.unwrap_err();
    assert_eq!(enqueued.to_string(), expected);
    let mut workflow = Workflow::new("w");
    workflow.add("a", &NewJob::of(&note("a")).unwrap().at(std::time::SystemTime::now()));
    let fixed = enqueue(&memory, &workflow).await.unwrap_err().to_string();
    assert!(fixed.contains(r#"job "a": it is due at a fixed time"#), "{fixed}");
    let mut workflow = Workflow::new("w");
    workflow.add("a", &NewJob::of(&note("a")).unwrap().unique_key("u"));
    assert!(enqueue(&memory, &workflow).await.unwrap_err().to_string().contains("give the workflow a unique key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payloads_of_a_workflow_are_encrypted_before_and_after_its_start() {
    let database = database().await;
    let encryption = std::sync::Arc::new(reveille::handler::Encryption::parse(OLD).unwrap().only([Confide::KIND]));
    let mut workflow = Workflow::new("w");
    let first = workflow.add("first", &confide("done"));
    workflow.add("second", &confide("done")).after(&first);
    enqueuer(&encryption).enqueue(&database.database, &workflow).await.unwrap();
    assert_eq!(database.value(PLAIN).await, 0, "in the payload of the starting job");
    let (builder, _) = encrypting(&database, &encryption);
    let running = start(builder.handle(tell));
    database.until("select count(*) = 3 from reveille.finished_jobs").await;
    assert_eq!(database.value(PLAIN).await, 0, "in the payloads of the workflow's jobs");
    // A payload in plain text could come from anyone, and the worker would encrypt its jobs as if they were its own.
    enqueue(&database.database, &workflow).await.unwrap();
    database.until("select count(*) = 1 from reveille.dead_jobs where reason = 'undecodable'").await;
    running.stop().await;
    assert_eq!(database.value("select count(*) from reveille.workflows").await, 1);
    let told = keys(&[OLD]);
    let result = database.admin().job(2).await.unwrap().unwrap().result().unwrap();
    let result = told.open(Confide::KIND, reveille::handler::EncryptedField::Result, &result).unwrap();
    assert_eq!(result.decode::<Value>().unwrap(), json!({"told": "a secret"}));
}

#[tokio::test]
async fn a_kind_of_reveille_itself_takes_no_handler() {
    #[derive(Serialize, Deserialize)]
    struct Mine;
    impl Job for Mine {
        const KIND: &'static str = "reveille.mine";
    }
    let refused = Worker::builder(Memory::new()).handle(async |_: Mine| {}).build().err().unwrap();
    assert!(refused.is_invalid(), "{refused}");
    let expected = r#"the kind "reveille.mine" begins with "reveille.", as only kinds of Reveille itself do"#;
    assert!(refused.to_string().contains(expected), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_any_kind_starts_workflows_and_the_doctor_knows() {
    let database = database().await;
    let any = async |context: Context| match context.job().kind.as_str() {
        "note" => Outcome::Complete,
        kind => Outcome::Dead(format!("no program for {kind}")),
    };
    let running = start(worker(&database).handle_any(any, Default::default()));
    enqueue(&database.database, &nightly()).await.unwrap();
    database.until("select count(*) = 3 from reveille.finished_jobs").await;
    running.stop().await;

    let running = start(reporting_worker(&database).0);
    enqueue(&database.database, &nightly()).delay(Duration::from_secs(9)).await.unwrap();
    database.until("select count(*) = 1 from reveille.workers where kinds = '{note}'").await;
    let findings = database.doctor().examine().await.unwrap();
    let handlers: Vec<_> = findings.iter().filter(|found| found.check == "handlers").collect();
    assert!(handlers.iter().all(|found| found.state == reveille::admin::doctor::Verdict::Ok), "{handlers:?}");
    running.stop().await;
}
