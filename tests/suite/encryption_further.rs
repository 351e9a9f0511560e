//! Encryption in batches, in the handler's transaction, and where administrators look at jobs and change them.

use std::time::Duration;

use reveille::admin::{BulkAction, DeadJobs, Edited, Filter, JobEdit};
use reveille::driver::{Driver, Postgres, Step};
use reveille::handler::{Batch, EncryptedField, Encryption, Gather};
use reveille::job::{Completed, NewJob, Payload};
use reveille::{Context, Database, Job, State};
use serde_json::{Value, json};

use crate::encryption::{Confide, NEW, OLD, PLAIN, confide, encrypting, enqueuer, keys, tell};
use crate::harness::{Note, Reporter, database, note, report, soon, start};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a payload of the kind `note` that is encrypted with the old key.
fn sealed(text: &str) -> Payload {
    keys(&[OLD]).seal(Note::KIND, EncryptedField::Payload, &Payload::encode(&note(text)).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gets_plain_text_and_its_results_are_encrypted() {
    async fn repeat(batch: Batch<Confide>) -> Vec<Result<Completed<String>, String>> {
        let outcome = |job: &Confide| match &*job.end {
            "fail" => Err(job.secret.clone()),
            _ => Ok(Completed(job.secret.clone())),
        };
        batch.iter().map(|item| outcome(&item.job)).collect()
    }
    let database = database().await;
    let encryption = keys(&[OLD]);
    let jobs = [confide("done"), confide("fail")].map(|job| NewJob::of(&job).unwrap().max_attempts(1));
    enqueuer(&encryption).enqueue_all(&database.database, &jobs).await.unwrap();
    let (builder, _) = encrypting(&database, &encryption);
    let running = start(builder.handle_batch(Gather::up_to(2).within(HOUR), repeat));
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    running.stop().await;
    assert_eq!(database.value(PLAIN).await, 0);
    let done = database.admin().job(1).await.unwrap().unwrap();
    let result = encryption.open(Confide::KIND, EncryptedField::Result, &done.result().unwrap()).unwrap();
    assert_eq!(result.decode::<String>().unwrap(), "a secret");
    let failed = database.admin().job(2).await.unwrap().unwrap();
    assert_eq!(encryption.open_error(Confide::KIND, &failed.errors()[0].error).unwrap(), "a secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_its_handler_completes_leaves_no_plain_text() {
    type Failed = Box<dyn std::error::Error + Send + Sync>;
    async fn complete(job: Confide, State(database): State<Database>, context: Context) -> Result<(), Failed> {
        context.progress(&job.secret).await?;
        context.progress(&format!("more of {}", job.secret)).await?;
        let mut client = database.client().await?;
        let tx = client.transaction().await?;
        context.complete_in(&tx).await?;
        Ok(tx.commit().await?)
    }
    let database = database().await;
    let encryption = keys(&[OLD]);
    enqueuer(&encryption).enqueue(&database.database, &confide("done")).await.unwrap();
    let (builder, _) = encrypting(&database, &encryption);
    let running = start(builder.state(database.database.clone()).handle(complete));
    database.until("select count(*) = 1 from reveille.finished_jobs where outcome = 'completed'").await;
    running.stop().await;
    assert_eq!(database.value(PLAIN).await, 0);
    let progress = database.admin().job(1).await.unwrap().unwrap().progress().unwrap();
    let progress = encryption.open(Confide::KIND, EncryptedField::Progress, &progress).unwrap();
    assert_eq!(progress.decode::<String>().unwrap(), "more of a secret");
}

#[tokio::test]
async fn an_edit_does_not_replace_an_encrypted_payload_by_plain_text() {
    let database = database().await;
    let (encryption, admin) = (keys(&[OLD]), database.admin());
    let enqueuer = enqueuer(&encryption);
    let waiting = enqueuer.enqueue(&database.database, &note("kept")).delay(HOUR).await.unwrap().id;
    let open = NewJob::of(&note("open")).unwrap().delay(HOUR);
    reveille::enqueue(&database.database, &open).await.unwrap();
    let dead = format!(
        "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, reason)
        select 99, queue, kind, payload, 2, 1, 1, 1, now(), now(), 'failed' from reveille.jobs where id = {waiting}"
    );
    database.run(&dead).await;
    let stored = "select jsonb_build_array((select jsonb_agg(payload order by id) from reveille.jobs),
        (select jsonb_agg(payload) from reveille.dead_jobs))";
    let before = database.value(stored).await;
    let plain = JobEdit::new().payload(Payload::parse(r#"{"text": "leaked"}"#).unwrap());
    for id in [waiting, 99] {
        let error = admin.edit(id, plain.clone()).await.unwrap_err();
        let why = format!("cannot edit a job: the payload of job {id} is encrypted");
        assert!(error.is_invalid() && error.to_string().starts_with(&why), "{error}");
    }
    assert_eq!(database.value(stored).await, before);
    assert_eq!(admin.edit(waiting, JobEdit::new().max_attempts(3)).await.unwrap(), Edited::Waiting);

    let bulk = admin.bulk(BulkAction::Edit(plain), &Filter::new().kind("note")).unwrap().run().await.unwrap();
    assert_eq!((bulk.done, bulk.left_over, bulk.passed_over), (1, 1, 0), "only the job in plain text is edited");
    assert_eq!(database.value("select payload from reveille.jobs where id = 2").await, json!({ "text": "leaked" }));

    assert_eq!(admin.edit(99, JobEdit::new().payload(sealed("new"))).await.unwrap(), Edited::Dead);
    let encrypted = JobEdit::new().payload(sealed("new")).delay(Duration::ZERO);
    assert_eq!(admin.edit(waiting, encrypted).await.unwrap(), Edited::Waiting);
    let (builder, mut reports) = encrypting(&database, &encryption);
    let running = start(builder.handle(report));
    assert_eq!(reports.next().await, "new");
    running.stop().await;
}

#[tokio::test]
async fn dead_jobs_with_encrypted_errors_form_a_group_for_each_key() {
    let database = database().await;
    for encryption in [keys(&[OLD]), keys(&[NEW])] {
        let fail = |place: usize| NewJob::of(&confide("fail")).unwrap().max_attempts(1).tag(place.to_string());
        let jobs: Vec<NewJob> = (0..2).map(fail).collect();
        enqueuer(&encryption).enqueue_all(&database.database, &jobs).await.unwrap();
        let running = start(encrypting(&database, &encryption).0.handle(tell));
        database.until("select count(*) = 0 from reveille.jobs").await;
        running.stop().await;
    }
    let admin = database.admin();
    let errors = admin.dead_errors(&DeadJobs::new(), 1000, 10).await.unwrap();
    let mut lines: Vec<(u64, &str)> =
        errors.iter().map(|error| (error.jobs, error.line.as_deref().unwrap_or_default())).collect();
    lines.sort_unstable();
    let line = |key| format!(r#"{{"reveille_encrypted":1,"algorithm":"XChaCha20-Poly1305","key":"{key}","#);
    assert_eq!(lines, [(2, &*line("new")), (2, &*line("old"))]);
    let revived = admin.revive_dead(&Filter::new().error_line(line("old"))).await.unwrap();
    assert_eq!(revived.done, 2);
}

#[tokio::test]
async fn a_filter_finds_jobs_by_their_key_and_not_by_their_plain_text() {
    let database = database().await;
    let encryption = keys(&[OLD]);
    let job = NewJob::of(&confide("fail")).unwrap().max_attempts(1);
    enqueuer(&encryption).enqueue(&database.database, &job).await.unwrap();
    let running = start(encrypting(&database, &encryption).0.handle(tell));
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    running.stop().await;
    let dead = Filter::new().state(reveille::job::JobState::Dead);
    let payload = |json: Value| dead.clone().payload(Payload::encode(&json).unwrap());
    for (filter, found) in [
        (payload(json!({ "end": "fail" })), 0),
        (payload(json!({ "reveille_encrypted": 1, "key": "new" })), 0),
        (payload(json!({ "reveille_encrypted": 1, "key": "old" })), 1),
        (dead.clone().error("no luck"), 0),
        (dead.clone().error("reveille_encrypted"), 1),
    ] {
        assert_eq!(database.admin().jobs(&filter, 10).await.unwrap().len(), found, "{filter:?}");
    }
}

#[tokio::test]
async fn the_longest_error_report_and_result_can_be_decrypted() {
    async fn long(job: Confide, context: Context) -> Result<Completed<String>, String> {
        context.progress(&"p".repeat(8 * 1024 - 2)).await.map_err(|error| error.to_string())?;
        match &*job.end {
            "fail" => Err("é".repeat(5000)),
            _ => Ok(Completed("r".repeat(8 * 1024 * 1024 - 2))),
        }
    }
    let database = database().await;
    let encryption = keys(&[OLD]);
    let jobs = [confide("done"), confide("fail")].map(|job| NewJob::of(&job).unwrap().max_attempts(1));
    enqueuer(&encryption).enqueue_all(&database.database, &jobs).await.unwrap();
    let running = start(encrypting(&database, &encryption).0.handle(long));
    database.until("select count(*) = 0 from reveille.jobs").await;
    running.stop().await;
    let job = async |id| database.admin().job(id).await.unwrap().unwrap();
    let (done, failed) = (job(1).await, job(2).await);
    let result = encryption.open(Confide::KIND, EncryptedField::Result, &done.result().unwrap()).unwrap();
    let progress = encryption.open(Confide::KIND, EncryptedField::Progress, &failed.progress().unwrap()).unwrap();
    let error = encryption.open_error(Confide::KIND, &failed.errors()[0].error).unwrap();
    assert_eq!((result.as_bytes().len(), progress.as_bytes().len()), (8 * 1024 * 1024, 8 * 1024));
    assert_eq!(error, format!("{}...", "é".repeat(4096)));
}

#[tokio::test]
async fn a_payload_that_was_moved_into_the_result_is_refused() {
    let database = database().await;
    let encryption = keys(&[OLD]);
    let job = enqueuer(&encryption).enqueue(&database.database, &confide("done")).await.unwrap();
    let running = start(encrypting(&database, &encryption).0.handle(tell));
    let finished = async || soon("the end is known", job.finished(&database.database)).await.unwrap().unwrap();
    finished().await.decrypt(&encryption, Confide::KIND).unwrap();
    running.stop().await;
    database.run("update reveille.finished_jobs set result = payload").await;
    for kind in [Confide::KIND, Note::KIND] {
        let error = finished().await.decrypt(&encryption, kind).unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("comes from another kind or field"), "{error}");
    }
}

#[test]
fn debug_output_names_keys_and_does_not_show_them() {
    let shown = format!("{:?}", Encryption::parse(&format!("{OLD} {NEW}")).unwrap().only(["note"]));
    assert!(shown.contains(r#"EncryptionKey("old")"#) && shown.contains(r#"EncryptionKey("new")"#), "{shown}");
    for secret in [&OLD[4..], &NEW[4..]] {
        assert!(!shown.contains(&secret[..8]), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_hold_no_plain_text_and_are_read_with_the_key() {
    async fn handle(job: Confide, context: Context, State(reporter): State<Reporter>) -> Result<(), String> {
        let code = async |_| {
            reporter.report("runs");
            Ok::<_, String>(job.secret.clone())
        };
        let told = context.step("told", code).await.map_err(|error| error.to_string())?;
        if context.attempt().number == 1 {
            return Err("once more".into());
        }
        reporter.report(told);
        context.sleep("nap", HOUR).await.map_err(|error| error.to_string())
    }
    let database = database().await;
    let encryption = keys(&[OLD]);
    enqueuer(&encryption).enqueue(&database.database, &confide("done")).await.unwrap();
    let (builder, mut reports) = encrypting(&database, &encryption);
    let running = start(builder.handle(handle));
    assert_eq!([reports.next().await, reports.next().await], ["runs", "a secret"]);
    database.until("select count(*) = 2 from reveille.steps").await;
    running.stop().await;
    assert_eq!(database.value(PLAIN).await, 0);
    let driver = Postgres::new(database.database.clone()).unwrap();
    let stored = driver.steps(1).await.unwrap().into_iter().find_map(|(_, step)| match step {
        Step::Value(value) => Some(value),
        _ => None,
    });
    let told = encryption.open(Confide::KIND, EncryptedField::Step, &stored.unwrap()).unwrap();
    assert_eq!(told.decode::<String>().unwrap(), "a secret");

    // A value in plain text is refused, since anyone could have written it.
    let forged = "update reveille.steps set value = '\"forged\"' where name = 'told';
        update reveille.jobs set available_at = now()";
    database.run(forged).await;
    let (builder, _) = encrypting(&database, &encryption);
    let running = start(builder.handle(handle));
    database.until("select errors -> 1 is not null from reveille.jobs").await;
    running.stop().await;
    let job = database.admin().job(1).await.unwrap().unwrap();
    let error = encryption.open_error(Confide::KIND, &job.errors()[1].error).unwrap();
    assert!(error.contains("the step is not encrypted, and plain text is refused"), "{error}");
}
