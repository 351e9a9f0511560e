//! Encryption: the database holds no plain text, and a value opens only with its key, for its kind and its field.

use std::sync::Arc;
use std::time::Duration;

use reveille::admin::Filter;
use reveille::driver::Memory;
use reveille::enqueue::Enqueuer;
use reveille::handler::{EncryptedField, Encryption, Middleware, Output};
use reveille::job::{Completed, NewJob, Payload, ReservedJob, RetryPolicy};
use reveille::schedule::Schedule;
use reveille::worker::WorkerBuilder;
use reveille::{Context, Database, Job, State, enqueue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::harness::{
    Note, Reporter, Reports, TestDatabase, database, eventually, note, report, reporting, soon, start, worker,
};

pub const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub const NEW: &str = "new:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
/// Another key with the id of `OLD`.
const FALSE: &str = "old:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

pub fn keys(keys: &[&str]) -> Arc<Encryption> {
    Arc::new(Encryption::parse(&keys.join(" ")).unwrap())
}

pub fn enqueuer(encryption: &Arc<Encryption>) -> Enqueuer {
    Enqueuer::new().middleware(Arc::clone(encryption))
}

pub fn encrypting(database: &Database, encryption: &Arc<Encryption>) -> (WorkerBuilder, Reports) {
    let (reporter, reports) = reporting();
    (worker(database).state(reporter).middleware(Arc::clone(encryption)), reports)
}

/// Counts the rows of all tables of jobs that hold the word `secret` anywhere.
pub const PLAIN: &str = "select count(*) from (
        select jobs::text from reveille.jobs
        union all select dead_jobs::text from reveille.dead_jobs
        union all select finished_jobs::text from reveille.finished_jobs
        union all select schedules::text from reveille.schedules
        union all select ends::text from reveille.ends
        union all select steps::text from reveille.steps
        union all select workflow_jobs::text from reveille.workflow_jobs
        union all select workflows::text from reveille.workflows
        union all select blocked_jobs::text from reveille.blocked_jobs
        union all select linked_ends::text from reveille.linked_ends
    ) as stored (line) where line like '%secret%'";

#[derive(Serialize, Deserialize)]
pub struct Confide {
    pub secret: String,
    pub end: String,
}

impl Job for Confide {
    const KIND: &'static str = "confide";

    fn retry_policy() -> RetryPolicy {
        RetryPolicy::fixed(Duration::ZERO)
    }
}

pub fn confide(end: &str) -> Confide {
    Confide { secret: "a secret".into(), end: end.into() }
}

pub async fn tell(job: Confide, context: Context) -> Result<Completed<Value>, String> {
    context.progress(&json!({ "told": job.secret })).await.map_err(|error| error.to_string())?;
    match &*job.end {
        "fail" => Err(format!("no luck with {}", job.secret)),
        "panic" => panic!("no luck with {}", job.secret),
        "time_out" => {
            context.cancellation().cancelled().await;
            Err(format!("stopped at {}", job.secret))
        }
        _ => Ok(Completed(json!({ "told": job.secret }))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_holds_no_plain_text_however_a_job_ends() {
    let database = database().await;
    let encryption = keys(&[OLD]);
    let (enqueuer, client) = (enqueuer(&encryption), database.client().await);
    let options = |job: &Confide| NewJob::of(job).unwrap().key("tenant").tag("readable").max_attempts(1);
    let timeout = Duration::from_millis(500);
    let done = enqueuer.enqueue(&client, &options(&confide("done"))).await.unwrap();
    enqueuer.enqueue_all(&client, &[options(&confide("fail")), options(&confide("panic"))]).await.unwrap();
    let jobs = [options(&confide("time_out")).timeout(timeout)];
    assert_eq!(enqueuer.copy_all(&client, &jobs).await.unwrap(), 1);
    let json = enqueuer.to_json(&options(&confide("done"))).unwrap();
    client.execute("select reveille.enqueue_json($1::text::jsonb)", &[&json]).await.unwrap();
    assert_eq!(database.value(PLAIN).await, 0);
    let readable = "select bool_and(kind = 'confide' and key = 'tenant' and tags = '{readable}') from reveille.jobs";
    assert_eq!(database.value(readable).await, true);

    let running = start(encrypting(&database, &encryption).0.handle(tell));
    database.until("select count(*) = 2 from reveille.finished_jobs").await;
    database.until("select count(*) = 3 from reveille.dead_jobs").await;
    let end = soon("the end is known", done.finished(&database.database)).await.unwrap().unwrap();
    running.stop().await;
    assert_eq!(database.value(PLAIN).await, 0);
    let told = json!({ "told": "a secret" });
    assert_eq!(end.decrypt(&encryption, Confide::KIND).unwrap().decode::<Value>().unwrap(), told);
    let mut errors = Vec::new();
    for id in 1..=5 {
        let job = database.admin().job(id).await.unwrap().unwrap();
        let progress = encryption.open(Confide::KIND, EncryptedField::Progress, &job.progress().unwrap()).unwrap();
        assert_eq!(progress.decode::<Value>().unwrap(), told);
        errors.extend(job.errors().iter().map(|error| encryption.open_error(Confide::KIND, &error.error).unwrap()));
    }
    let timed_out = "took longer than its timeout of 500ms: stopped at a secret";
    assert_eq!(errors, ["no luck with a secret", "panicked: no luck with a secret", timed_out]);
    let reasons = "select jsonb_agg(reason order by id) from reveille.dead_jobs";
    assert_eq!(database.value(reasons).await, json!(["failed", "failed", "timed_out"]), "the reason stays readable");
}

#[tokio::test]
async fn equal_payloads_are_stored_as_different_ciphertexts() {
    let database = database().await;
    enqueuer(&keys(&[OLD])).enqueue_all(&database.database, &[note("a"), note("a")]).await.unwrap();
    let different = "select count(distinct payload -> 'nonce') + count(distinct payload -> 'ciphertext') \
        from reveille.jobs";
    assert_eq!(database.value(different).await, 4);
    let bytes = "select min(octet_length(decode(payload ->> 'nonce', 'base64'))) from reveille.jobs";
    assert_eq!(database.value(bytes).await, 24, "a nonce has 192 bits");
}

#[tokio::test]
async fn jobs_of_an_old_key_are_worked_while_the_new_key_encrypts() {
    let database = database().await;
    enqueuer(&keys(&[OLD])).enqueue(&database.database, &note("before")).await.unwrap();
    let rotated = keys(&[NEW, OLD]);
    enqueuer(&rotated).enqueue(&database.database, &note("after")).await.unwrap();
    let used = "select jsonb_agg(payload ->> 'key' order by id) from reveille.jobs";
    assert_eq!(database.value(used).await, json!(["old", "new"]));
    let (builder, mut reports) = encrypting(&database, &rotated);
    let running = start(builder.handle(report));
    let mut texts = [reports.next().await, reports.next().await];
    texts.sort();
    assert_eq!(texts, ["after", "before"]);
    running.stop().await;
}

#[tokio::test]
async fn a_job_without_its_key_is_dead_and_runs_once_it_is_revived_with_the_key() {
    for (wrong, why) in [
        (NEW, "the payload is encrypted with the key \"old\", which this program lacks"),
        (FALSE, "the payload cannot be decrypted with the key \"old\""),
    ] {
        let database = database().await;
        enqueuer(&keys(&[OLD])).enqueue(&database.database, &note("kept")).await.unwrap();
        let (builder, mut reports) = encrypting(&database, &keys(&[wrong]));
        let running = start(builder.handle(report));
        database.until("select count(*) = 1 from reveille.dead_jobs where reason = 'undecodable'").await;
        running.stop().await;
        assert!(reports.rest().is_empty());
        let error = database.value("select errors -> 0 ->> 'error' from reveille.dead_jobs").await;
        assert!(error.as_str().unwrap().starts_with(why), "the error is readable: {error}");

        let (builder, mut reports) = encrypting(&database, &keys(&[NEW, OLD]));
        let running = start(builder.handle(report));
        database.admin().revive_dead(&Filter::new().kind("note")).await.unwrap();
        assert_eq!(reports.next().await, "kept");
        running.stop().await;
    }
}

/// Enqueues a note, changes it by SQL, and returns the error of the dead job.
async fn tampered(database: &TestDatabase, change: &str) -> String {
    let encryption = keys(&[OLD]);
    let enqueuer = enqueuer(&encryption);
    let id = enqueuer.enqueue(&database.database, &note("mine")).delay(Duration::from_secs(3600)).await.unwrap().id;
    database.run(&format!("update reveille.jobs set {change}, available_at = now() where id = {id}")).await;
    let (builder, mut reports) = encrypting(database, &encryption);
    let running = start(builder.handle(report).handle(tell));
    database.until(&format!("select reason = 'undecodable' from reveille.dead_jobs where id = {id}")).await;
    running.stop().await;
    assert!(reports.rest().is_empty(), "{change}");
    let error = format!("select errors -> 0 ->> 'error' from reveille.dead_jobs where id = {id}");
    database.value(&error).await.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_that_was_tampered_with_does_not_reach_its_handler() {
    let database = database().await;
    let result = keys(&[OLD]).seal("note", EncryptedField::Result, &Payload::encode(&note("a")).unwrap()).unwrap();
    let result = format!("payload = '{}'", std::str::from_utf8(result.as_bytes()).unwrap());
    let moved = "was changed, or comes from another kind or field";
    let flip = |member: &str| {
        let first = format!("left(payload ->> '{member}', 1)");
        format!(
            "payload = jsonb_set(payload, '{{{member}}}', to_jsonb(\
             case {first} when 'A' then 'B' else 'A' end || substr(payload ->> '{member}', 2)))"
        )
    };
    for (change, why) in [
        ("kind = 'confide'", moved),
        (&*result, moved),
        (&flip("nonce"), moved),
        (&flip("ciphertext"), moved),
        ("payload = jsonb_set(payload, '{key}', '\"other\"')", "lacks"),
        ("payload = jsonb_set(payload, '{algorithm}', '\"none\"')", "algorithm \"none\""),
        ("payload = jsonb_set(payload, '{reveille_encrypted}', '9')", "version 9"),
        ("payload = payload - 'nonce'", "missing field `nonce`"),
        ("payload = '{\"text\": \"plain\"}'", "the payload is not encrypted, and plain text is refused"),
    ] {
        let error = tampered(&database, change).await;
        assert!(error.contains(why), "{change}: {error}");
    }
}

#[tokio::test]
async fn plain_text_is_accepted_if_the_worker_says_so() {
    let database = database().await;
    enqueue(&database.database, &note("from before")).await.unwrap();
    let (reporter, mut reports) = reporting();
    let accepting = Encryption::parse(OLD).unwrap().accept_plain_text();
    let running = start(worker(&database).state(reporter).middleware(accepting).handle(report));
    assert_eq!(reports.next().await, "from before");
    running.stop().await;
}

#[tokio::test]
async fn only_the_kinds_it_is_told_of_are_encrypted() {
    let database = database().await;
    let encryption = Arc::new(Encryption::parse(OLD).unwrap().only([Note::KIND]));
    let enqueuer = enqueuer(&encryption);
    enqueuer.enqueue(&database.database, &note("mine")).await.unwrap();
    enqueuer.enqueue(&database.database, &confide("done")).await.unwrap();
    let encrypted = "select jsonb_agg(payload ? 'reveille_encrypted' order by id) from reveille.jobs";
    assert_eq!(database.value(encrypted).await, json!([true, false]));
    let (builder, mut reports) = encrypting(&database, &encryption);
    let running = start(builder.handle(report).handle(tell));
    assert_eq!(reports.next().await, "mine");
    let plain = "select count(*) = 1 from reveille.finished_jobs \
        where result = '{\"told\": \"a secret\"}' and progress = result";
    database.until(plain).await;
    running.stop().await;
}

/// Reports the note, and enqueues another one.
async fn pass_on(note: Note, State(reporter): State<Reporter>, State(on): State<Database>, enqueuer: Enqueuer) {
    if note.text == "first secret" {
        enqueuer.enqueue(&on, &Note { text: "second secret".into() }).await.unwrap();
    }
    reporter.report(note.text);
}

#[tokio::test]
async fn a_job_that_a_handler_enqueues_is_encrypted() {
    let database = database().await;
    let encryption = keys(&[OLD]);
    enqueuer(&encryption).enqueue(&database.database, &note("first secret")).await.unwrap();
    let (builder, mut reports) = encrypting(&database, &encryption);
    let running = start(builder.state(database.database.clone()).handle(pass_on));
    assert_eq!([reports.next().await, reports.next().await], ["first secret", "second secret"]);
    running.stop().await;
    assert_eq!(database.value(PLAIN).await, 0);
    assert_eq!(database.value("select count(parent_id) from reveille.finished_jobs").await, 1);
}

#[tokio::test]
async fn the_jobs_of_a_schedule_are_encrypted_and_so_is_the_schedule() {
    let database = database().await;
    let encryption = keys(&[OLD]);
    let (builder, mut reports) = encrypting(&database, &encryption);
    let often = Schedule::every("often", Duration::from_millis(50), &note("a secret")).unwrap();
    let running = start(builder.handle(report).schedule(often));
    assert_eq!([reports.next().await, reports.next().await], ["a secret", "a secret"]);
    database.run("select reveille.pause_schedule('often')").await;
    assert_eq!(database.value(PLAIN).await, 0);
    eventually("all jobs are worked", async || database.value("select count(*) from reveille.jobs").await == 0).await;
    reports.rest();
    let triggered = database.admin().trigger_schedule("often").await.unwrap();
    assert_eq!(reports.next().await, "a secret", "an administrator can trigger the schedule: {triggered:?}");
    running.stop().await;
    let ciphertexts = "select count(distinct payload -> 'nonce') = count(*) from reveille.finished_jobs";
    assert_eq!(database.value(ciphertexts).await, true);
}

#[tokio::test]
async fn a_schedule_that_an_administrator_adds_can_be_encrypted_beforehand() {
    let database = database().await;
    let encryption = keys(&[OLD]);
    let plain = Payload::encode(&note("a secret")).unwrap();
    let job = NewJob::new(Note::KIND, encryption.seal(Note::KIND, EncryptedField::Payload, &plain).unwrap());
    let schedule = Schedule::every("often", Duration::from_millis(50), &job).unwrap();
    database.admin().add_schedule(&schedule).await.unwrap();
    let (builder, mut reports) = encrypting(&database, &encryption);
    let running = start(builder.handle(report));
    assert_eq!(reports.next().await, "a secret");
    running.stop().await;
    assert_eq!(database.value(PLAIN).await, 0);
}

#[tokio::test]
async fn jobs_are_unique_by_their_plain_payload() {
    let database = database().await;
    // The keys differ: the unique key comes from the plain payload, whatever encrypts it.
    let (one, two) = (enqueuer(&keys(&[OLD])), enqueuer(&keys(&[NEW])));
    let first = one.enqueue(&database.database, &note("a")).unique_by_payload().await.unwrap();
    let second = two.enqueue(&database.database, &note("a")).unique_by_payload().await.unwrap();
    let other = two.enqueue(&database.database, &note("b")).unique_by_payload().await.unwrap();
    let plain = enqueue(&database.database, &note("a")).unique_by_payload().await.unwrap();
    assert_eq!((second.id, second.existed, other.existed, plain.existed), (first.id, true, false, true));
}

/// Breaks at each output: refuses, or panics.
struct Broken {
    panics: bool,
}

impl Middleware for Broken {
    fn store(&self, _: &ReservedJob, output: &mut Output) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        assert!(!self.panics, "no more");
        Err(format!("no {}", output.name()).into())
    }
}

#[tokio::test]
async fn an_output_that_cannot_be_encrypted_is_dropped_and_the_job_ends_as_it_would() {
    for panics in [false, true] {
        let memory = Memory::new();
        let result = async |job: Confide| match &*job.end {
            "fail" => Err(job.secret),
            _ => Ok(Completed(job.secret)),
        };
        let builder = reveille::Worker::builder(memory.clone()).middleware(Broken { panics }).handle(result);
        let done = enqueue(&memory, &confide("done")).await.unwrap().id;
        let failed = enqueue(&memory, &confide("fail")).max_attempts(1).await.unwrap().id;
        builder.build().unwrap().run_until_drained().await.unwrap();
        let (done, failed) = (memory.finished(done).await.unwrap(), memory.finished(failed).await.unwrap());
        assert!(done.is_completed() && done.result.is_none());
        assert!(failed.is_dead());
        assert_eq!(failed.last_error(), Some("the text of the error was dropped: a middleware refused to store it"));
    }
}
