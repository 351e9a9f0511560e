//! The schema is upgraded beside an older worker.

use std::sync::Arc;

use reveille::{State, enqueue};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::harness::{Note, Reporter, database, note, reporting, soon, start, worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_worker_outlives_an_upgrade_and_no_old_one_starts() {
    async fn held(
        note: Note,
        State(reporter): State<Reporter>,
        State(gate): State<Arc<Semaphore>>,
    ) -> Result<(), String> {
        reporter.report(&note.text);
        gate.acquire().await.unwrap().forget();
        if note.text == "fails" { Err("no".into()) } else { Ok(()) }
    }
    let database = database().await;
    let ((reporter, mut reports), gate) = (reporting(), Arc::new(Semaphore::new(0)));
    let build = || worker(&database).state(reporter.clone()).state(Arc::clone(&gate));
    let running = start(build().handle(held));
    // In the first round, before the upgrade, the worker prepares its statements.
    for round in ["before", "after"] {
        for text in [round, "fails"] {
            enqueue(&database.database, &note(text)).max_attempts(1).await.unwrap();
        }
        let mut started = [reports.next().await, reports.next().await];
        started.sort();
        assert_eq!(started, [round, "fails"]);
        if round == "before" {
            // Upgrades while both jobs run. Each table has its own transaction, so that the upgrade cannot deadlock
            // with the worker.
            for table in ["jobs", "dead_jobs", "finished_jobs", "workers"] {
                database.run(&format!("alter table reveille.{table} add column future text")).await;
            }
            let newer = "insert into reveille.schema_history (version, name, applied_on, checksum)
                select max(version) + 1, 'future', '2026-01-01T00:00:00Z', '1' from reveille.schema_history";
            database.run(newer).await;
        }
        gate.add_permits(2);
        database.until("select count(*) = 0 from reveille.jobs").await;
    }
    let ends = "select jsonb_build_array((select count(*) from reveille.finished_jobs where attempts = 1),
        (select count(*) from reveille.dead_jobs where attempts = 1 and reason = 'failed'),
        (select count(*) from reveille.workers))";
    assert_eq!(database.value(ends).await, json!([2, 2, 1]));

    let versions = database.value("select max(version) from reveille.schema_history").await.as_i64().unwrap();
    let says = |error: &str| {
        let named = [versions, versions - 1].iter().all(|version| error.contains(&format!(" {version} ")));
        assert!(named && error.contains("newer version of the program"), "{error}");
    };
    let another = build().handle(held).build().unwrap().run_until(std::future::pending::<()>());
    let another = soon("the old worker gives up", another).await.unwrap_err();
    assert!(another.is_schema_mismatch());
    says(&another.to_string());
    for arguments in [&["status"][..], &["work", "--exec", "true"], &["enqueue", "k"], &["migrate"]] {
        let ended = crate::cli::reveille(&database, arguments);
        assert_eq!(ended.code, 2, "{arguments:?}");
        says(&ended.err);
    }
    running.stop().await;
}
