//! The command shows JSON that few programs can parse, and text that is not UTF-8. Neither hides other rows.

use reveille::admin::View;
use serde_json::value::RawValue;

use crate::cli::reveille;
use crate::harness::{database, encoded_database, note, reporting, soon, start, worker};

const LONG: &str = "12345678901234567890123";

/// Copies each job to the dead jobs.
const BURY: &str = "insert into reveille.dead_jobs (id, queue, kind, payload, metadata, progress, errors, priority, \
    attempts, failures, max_attempts, available_at, created_at, reason) \
    select id, queue, kind, payload, metadata, progress, errors, priority, \
    attempts, failures, max_attempts, available_at, created_at, 'failed' from reveille.jobs";

/// Returns an array that is nested 300 deep, as Postgres prints it.
fn deep() -> String {
    format!("{}1{}", "[".repeat(300), "]".repeat(300))
}

/// Returns JSON that fits neither a tree of values nor an `f64`.
fn odd() -> String {
    format!(r#"{{"deep": {}, "long": {LONG}, "large": 1e400}}"#, deep())
}

#[tokio::test]
async fn jobs_with_odd_json_are_listed_and_shown_as_stored() {
    let (database, odd) = (database().await, odd());
    for column in ["payload", "metadata", "progress"] {
        database.run(&format!("insert into reveille.jobs (kind, {column}) values ('odd', '{odd}')")).await;
    }
    database.run("insert into reveille.jobs (kind) values ('plain')").await;
    database.run(&format!("{BURY} where kind = 'odd'")).await;
    let finished = format!(
        "insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures, \
             max_attempts, available_at, created_at, outcome, result) \
         select 0, 1000 + id, queue, kind, payload, priority, 1, 0, 20, available_at, created_at, \
             'completed', '{odd}' from reveille.jobs"
    );
    database.run(&finished).await;
    for (arguments, rows) in
        [(&["jobs"][..], 4), (&["dead", "list"], 3), (&["jobs", "--state", "finished"], 4), (&["job", "1"], 1)]
    {
        let shown = reveille(&database, arguments);
        assert_eq!(shown.code, 0, "{arguments:?}: {}", shown.err);
        let json = reveille(&database, &[arguments, &["--json"]].concat());
        assert_eq!((json.code, json.out.lines().count()), (0, rows), "{arguments:?}: {}", json.err);
        let large = format!("\"large\":1{}", "0".repeat(400));
        assert!(json.out.contains(LONG) && json.out.contains(&deep()) && json.out.contains(&large), "{}", json.out);
    }
    assert!(reveille(&database, &["job", "1"]).out.contains("odd"));
    let payload = database.admin().job(1).await.unwrap().unwrap().payload();
    assert_eq!(payload.member::<Box<RawValue>>("long").unwrap().unwrap().get(), LONG);
    assert!(payload.decode::<serde_json::Value>().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_kept_and_printed_with_all_its_digits() {
    let (database, (reporter, _reports)) = (database().await, reporting());
    async fn result(_: crate::harness::Note) -> reveille::job::Completed<Box<RawValue>> {
        reveille::job::Completed(RawValue::from_string(odd()).unwrap())
    }
    let running = start(worker(&database).state(reporter).handle(result));
    let id = reveille::enqueue(&database.database, &note("")).await.unwrap().id;
    let finished = soon("the job's end", database.finished(id)).await.unwrap().unwrap();
    assert_eq!(finished.result.as_ref().unwrap().member::<Box<RawValue>>("long").unwrap().unwrap().get(), LONG);
    assert!(finished.decode::<serde_json::Value>().unwrap_err().is_invalid());
    let mut waiting = reveille(&database, &["enqueue", "note", "{\"text\": \"\"}", "--wait"]);
    assert_eq!(waiting.code, 0, "{}", waiting.err);
    assert!(waiting.out.contains(LONG) && waiting.out.contains(&deep()), "{}", waiting.out);
    waiting = reveille(&database, &["enqueue", "note", "{\"text\": \"\"}", "--wait", "--json"]);
    assert!(waiting.out.contains(LONG) && waiting.out.contains("\"outcome\":\"completed\""), "{}", waiting.out);
    running.stop().await;
}

#[tokio::test]
async fn rows_that_are_not_utf_8_are_shown_too() {
    let database = encoded_database("SQL_ASCII").await;
    let bytes = r"convert_from('\x61ff62', 'SQL_ASCII')";
    database
        .run(&format!(
            "insert into reveille.jobs (kind, queue, payload) values
                 ('plain', 'default', '{{}}'), ({bytes}, 'default', '{{}}'), ('queue', {bytes}, '{{}}'),
                 ('payload', 'default', to_jsonb({bytes}));
             insert into reveille.jobs (kind, failures, attempts, errors)
                 select {bytes}, 1, 1, jsonb_build_array(jsonb_build_object('error', {bytes}));
             {BURY};
             insert into reveille.workers (id, host, pid, version, queues, slots)
                 values (7, {bytes}, 1, '1', array[{bytes}], 1)"
        ))
        .await;
    let lossy = "a\u{fffd}b";
    for (arguments, rows) in
        [(&["jobs"][..], 5), (&["dead", "list"], 5), (&["job", "2"], 1), (&["status"], 2), (&["workers"], 1)]
    {
        let json = reveille(&database, &[arguments, &["--json"]].concat());
        assert_eq!((json.code, json.json().len()), (0, rows), "{arguments:?}: {}", json.err);
        assert!(json.out.contains(lossy), "{}", json.out);
        assert!(reveille(&database, arguments).out.contains(lossy));
    }
    for table in ["queues", "workers", "waiting", "failing", "dead"] {
        let shown = reveille(&database, &["top", "--once", "--table", table]);
        assert!(shown.code == 0 && shown.out.contains(lossy), "{table}: {}{}", shown.out, shown.err);
    }
    let doctor = reveille(&database, &["doctor"]);
    assert!(doctor.code < 2, "{}", doctor.err);
    let metrics = reveille(&database, &["metrics", "--once"]);
    let sample = format!("reveille_jobs{{queue=\"{lossy}\",state=\"ready\"}} 1\n");
    assert!(metrics.out.contains(&sample), "{}{}", metrics.out, metrics.err);
    assert_eq!(database.admin().queues().await.unwrap(), [lossy, "default"]);
    assert_eq!(database.admin().view(View::RunningJobs).await.unwrap().len(), 0);
}
