//! Databases in other encodings than UTF-8. Their servers refuse a statement with a character that the encoding lacks,
//! even if the character is in a comment.

use std::fs;
use std::path::Path;

use reveille::{State, enqueue};

use crate::harness::{Note, Reporter, encoded_database, note, reporting, start, worker};

/// The files of Rust code with characters beyond ASCII, which are only shown. No such character reaches a server.
const SHOWN: [&str; 14] = [
    "crates/cli/src/csv.rs",
    "crates/cli/src/dashboard/login.rs",
    "crates/cli/src/output.rs",
    "crates/cli/src/top/detail.rs",
    "crates/cli/src/top/draw.rs",
    "crates/cli/src/top/draw/tests.rs",
    "crates/cli/src/top/layout.rs",
    "crates/cli/src/top/mod.rs",
    "crates/cli/src/workflow/graph.rs",
    "src/handler/extract.rs",
    "src/handler/mod.rs",
    "src/job/mod.rs",
    "src/job/retry_policy.rs",
    "src/testing.rs",
];

/// Calls `visit` with the name and the text of each file in a folder.
fn files(folder: &str, visit: &mut impl FnMut(&str, String)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap()) {
        let name = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => files(&name, visit),
            false => visit(&name, fs::read_to_string(entry.path()).unwrap()),
        }
    }
}

#[test]
fn no_sql_has_a_character_that_an_encoding_may_lack() {
    let mut statements = 0;
    for folder in ["sql", "migrations"] {
        files(folder, &mut |name, sql| {
            statements += 1;
            let odd: Vec<&str> = sql.lines().filter(|line| !line.is_ascii()).collect();
            assert!(odd.is_empty(), "{name}: {odd:#?}");
        });
    }
    assert!(statements > 80, "{statements}");
    let mut shown = Vec::new();
    for folder in ["src", "crates/cli/src"] {
        files(folder, &mut |name, text| {
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            if code.lines().any(|line| !line.split("//").next().unwrap().is_ascii()) {
                shown.push(name.to_owned());
            }
        });
    }
    shown.sort();
    assert_eq!(shown, SHOWN, "does a character beyond ASCII reach the server?");
}

#[tokio::test]
async fn the_doctor_examines_databases_in_other_encodings() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = encoded_database(encoding).await;
        let findings = database.database.doctor().examine().await.unwrap();
        assert!(findings.iter().all(|found| !found.finding.contains("not checked")), "{encoding}: {findings:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_was_shortened_is_kept_in_any_encoding() {
    async fn fails(_: Note, State(reporter): State<Reporter>) -> Result<(), String> {
        reporter.report("failed");
        Err(format!("\0{}", "x".repeat(10_000)))
    }
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = encoded_database(encoding).await;
        let (reporter, mut reports) = reporting();
        let worker = start(worker(&database).state(reporter).handle(fails));
        enqueue(&database.database, &note("x")).await.unwrap();
        assert_eq!(reports.next().await, "failed");
        database.until("select count(*) = 1 from reveille.jobs where errors -> 0 ->> 'error' like '?xxx%x...'").await;
        worker.stop().await;
    }
}
