//! `reveille migrate`, and an upgrade of the schema beside an older worker.

use std::sync::Arc;

use reveille::{State, enqueue};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::cli::{command, reveille, run};
use crate::harness::{Note, Reporter, database, empty_database, migrations, note, reporting, soon, start, worker};

#[tokio::test]
async fn migrate_checks_applies_and_reports() {
    let database = empty_database().await;
    let check = reveille(&database, &["migrate", "--check"]);
    assert_eq!((check.code, check.out.contains("reveille migrate")), (1, true), "{}", check.out);
    let done = reveille(&database, &["migrate"]);
    assert_eq!((done.code, &*done.out), (0, &*format!("applied {}\n", migrations().join(", "))), "{}", done.err);
    assert_eq!(reveille(&database, &["migrate"]).out, "the schema is current\n");
    assert_eq!(reveille(&database, &["migrate", "--check"]).code, 0);
}

#[test]
fn the_printed_sql_has_the_lines_of_the_files() {
    let printed = |option| run(command(&["migrate", option]), "").out;
    let expected = reveille::database::migrations_sql("reveille").unwrap();
    assert_eq!(printed("--print").trim_end(), expected.trim_end());
    let expected = reveille::database::grants_sql("reveille").unwrap();
    assert_eq!(printed("--print-grants").trim_end(), expected.trim_end());
}

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
