//! JSON that few programs can parse reaches handlers unchanged. If a handler cannot take the JSON, its job becomes a
//! dead job.

use reveille::{Attempt, Context, Job, State};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::harness::{Reporter, database, reporting, start, worker};

const LONG: &str = "12345678901234567890123";

/// Returns an array that is nested 300 deep, as Postgres prints it.
fn deep() -> String {
    format!("{}1{}", "[".repeat(300), "]".repeat(300))
}

/// Returns JSON that fits neither a tree of values nor an `f64`.
fn odd() -> String {
    format!(r#"{{"deep": {}, "long": {LONG}, "large": 1e400}}"#, deep())
}

#[tokio::test]
async fn a_handler_reads_the_readable_members_of_odd_metadata() {
    let (database, (reporter, mut reports)) = (database().await, reporting());
    async fn look(_: crate::harness::Note, State(reporter): State<Reporter>, context: Context) {
        let raw: Box<RawValue> = context.member("long").unwrap().unwrap();
        let tick: Option<String> = context.member("tick").unwrap();
        let error = context.metadata().unwrap_err();
        assert!(error.is_invalid() && context.member::<f64>("large").unwrap_err().is_invalid());
        reporter.report(format!("{raw} {tick:?} {:?} {error}", context.member::<u8>("none").unwrap()));
        reporter.report(context.trace().unwrap().traceparent());
    }
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let metadata = odd().replacen('{', &format!(r#"{{"tick": "now", "traceparent": "{parent}", "#), 1);
    let insert = format!(
        "insert into reveille.jobs (kind, payload, metadata) values ('note', '{{\"text\": \"\"}}', '{metadata}')"
    );
    database.run(&insert).await;
    let running = start(worker(&database).state(reporter).handle(look));
    let first = reports.next().await;
    assert!(first.starts_with(&format!("{LONG} Some(\"now\") None the metadata of job 1 cannot be read: ")), "{first}");
    assert_eq!(reports.next().await, parent);
    running.stop().await;
}

#[derive(Serialize, Deserialize)]
struct Raw(Box<RawValue>);

impl Job for Raw {
    const KIND: &'static str = "raw";
}

#[tokio::test]
async fn only_a_handler_of_raw_json_can_take_odd_json() {
    let (database, (reporter, mut reports)) = (database().await, reporting());
    async fn raw(Raw(raw): Raw, State(reporter): State<Reporter>, context: Context) -> reveille::Result<()> {
        context.progress(&raw).await?;
        reporter.report(raw.get());
        Ok(())
    }
    async fn tree(_: Tree, _: Attempt) {}
    #[derive(Serialize, Deserialize)]
    struct Tree(serde_json::Value);
    impl Job for Tree {
        const KIND: &'static str = "tree";
    }
    let odd = odd();
    database
        .run(&format!("insert into reveille.jobs (kind, payload) values ('tree', '{odd}'), ('raw', '{odd}')"))
        .await;
    let stored = database.value("select payload::text from reveille.jobs where kind = 'raw'").await;
    let running = start(worker(&database).state(reporter).handle(raw).handle(tree));
    assert_eq!(json!(reports.next().await), stored);
    database.until("select count(*) = 0 from reveille.jobs").await;
    let dead = "select jsonb_build_array(reason, errors -> 0 ->> 'error') from reveille.dead_jobs";
    let error =
        "the payload is JSON that only a handler of raw JSON can take: recursion limit exceeded at line 1 column 136";
    assert_eq!(database.value(dead).await, json!(["undecodable", error]));
    assert_eq!(database.value("select progress::text from reveille.finished_jobs").await, stored);
    running.stop().await;
}
