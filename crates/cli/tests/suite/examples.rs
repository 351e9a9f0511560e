//! The worker in Python in `examples/`.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::exec::{Folder, enqueue, work};
use crate::harness::database;

#[tokio::test]
async fn the_worker_in_python_sends_refuses_and_waits() {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(found, "python3 is missing: install it to run examples/send_mail.py");
    let (database, folder) = (database().await, Folder::new());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/send_mail.py").canonicalize().unwrap();
    let exec = format!("MAIL_IS_DOWN='{}' python3 '{}'", folder.path("down"), script.display());
    let _worker = work(&database, &exec, &["--keep-output", "--later", "1h"]);

    enqueue(&database, "'send_mail', '{\"to\": \"ada@example.org\"}'").await;
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    let result = database.value("select result from reveille.finished_jobs").await;
    assert_eq!(result, "job 1, attempt 1: mail to ada@example.org");

    enqueue(&database, "'send_mail', '{\"to\": \"nobody\"}'").await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    let dead = "select jsonb_build_array(reason, errors -> 0 ->> 'error') from reveille.dead_jobs";
    assert_eq!(database.value(dead).await, json!(["permanent", "exit status 65: 'nobody' is no address"]));

    std::fs::write(folder.path("down"), "").unwrap();
    enqueue(&database, "'send_mail', '{\"to\": \"grace@example.org\"}'").await;
    database.until("select available_at > now() and failures = 0 from reveille.jobs").await;
}
