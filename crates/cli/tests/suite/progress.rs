//! The progress line: on a terminal, only while a command takes long, and never among the command's own output.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::cli::command;
use crate::exec::{Folder, Worker};
use crate::harness::{TestDatabase, database, empty_database};
use crate::terminal::Terminal;

/// Starts a command with the terminal at stderr.
fn start(mut command: Command, database: &TestDatabase, terminal: &Terminal) -> Worker {
    command.env("DATABASE_URL", &database.address).env("TERM", "xterm").stderr(terminal.end());
    Worker(command.spawn().unwrap())
}

async fn dead_jobs(database: &TestDatabase) {
    let dead = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
            available_at, created_at, reason)
        select n, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed' from generate_series(1, 3) as n";
    database.run(dead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_shows_a_line_and_removes_it_at_its_end() {
    let database = database().await;
    dead_jobs(&database).await;
    database.run("insert into reveille.jobs (kind, queue) values ('k', 'mail')").await;
    for (arguments, shown, lock) in [
        (&["drain", "mail"][..], "draining mail: 1 ready, 0 running", "select"),
        (&["dead", "revive", "--all"], "reviving jobs: 0 of 3 (0%), ", "lock table reveille.dead_jobs in share mode"),
        (
            &["dead", "purge", "--all", "--yes"],
            "purging jobs: 0 so far, ",
            "lock table reveille.dead_jobs in share mode",
        ),
        (&["jobs"], "reading jobs, ", "lock table reveille.jobs"),
        (&["cancel", "1"], "asking the server: 0 of 1 (0%), ", "lock table reveille.jobs"),
    ] {
        let (mut client, terminal) = (database.client().await, Terminal::open(80));
        let held = client.transaction().await.unwrap();
        held.batch_execute(lock).await.unwrap();
        let mut process = start(command(arguments), &database, &terminal);
        terminal.until(shown).await;
        held.rollback().await.unwrap();
        if arguments[0] == "drain" {
            database.run("select reveille.pause('mail')").await;
            // The queue is paused, so that its ready job is named at the end.
            assert!(process.ended().await.success());
            terminal.until_only("not waited for: 1 ready, since the queue is paused").await;
        } else {
            assert!(process.ended().await.success(), "{arguments:?}");
            terminal.until_only("").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_waits_for_another_shows_a_line() {
    let (database, terminal) = (empty_database().await, Terminal::open(200));
    let mut client = database.client().await;
    let held = client.transaction().await.unwrap();
    let lock = "select pg_advisory_xact_lock(hashtextextended('reveille.migrate', 0))";
    held.batch_execute(lock).await.unwrap();
    let mut process = start(command(&["migrate"]), &database, &terminal);
    terminal.until("migrating the schema reveille, ").await;
    terminal.until("WARN").await;
    held.rollback().await.unwrap();
    assert!(process.ended().await.success());
    terminal.until_no("migrating the schema").await;
    let shown = terminal.contents();
    assert!(shown.contains(" WARN waiting for a session that holds the migration lock"), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_removes_the_line_and_ends_the_command() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind, queue) values ('k', 'mail')").await;
    let bench = ["bench", "enqueue", "--round", "1h", "--unoptimized", "--database-url", &database.address];
    for (arguments, shown) in [(&["drain", "mail"][..], "draining mail: "), (&bench[..], "measuring, ")] {
        for (name, number) in [("-INT", 2), ("-TERM", 15)] {
            let terminal = Terminal::open(80);
            let mut process = start(command(arguments), &database, &terminal);
            terminal.until(shown).await;
            process.signal(name);
            assert_eq!(process.ended().await.signal(), Some(number), "{arguments:?}");
            terminal.until_only("").await;
        }
    }
}

/// Makes each statement that cancels jobs wait until the returned client is dropped.
async fn hold_cancels(database: &TestDatabase) -> tokio_postgres::Client {
    let waits = "create function waits() returns trigger language plpgsql as $$
        begin perform pg_advisory_xact_lock_shared(42); return null; end $$;
        create trigger waits after delete on reveille.jobs for each statement execute function waits()";
    database.run(waits).await;
    let holder = database.client().await;
    holder.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    holder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_a_change_of_many_jobs_behind_its_slice_and_a_second_signal_at_once() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 2500)").await;
    for is_patient in [true, false] {
        let (holder, terminal) = (hold_cancels(&database).await, Terminal::open(200));
        let mut process = start(command(&["cancel", "--all", "--yes"]), &database, &terminal);
        terminal.until("cancelling jobs: 0 so far, ").await;
        process.signal("-INT");
        terminal.until("cancelling jobs: interrupted, waiting for the end of this slice, ").await;
        if is_patient {
            drop(holder);
            assert_eq!(process.ended().await.code(), Some(2));
            terminal.until_only("error: interrupted, up to job 1000; the other jobs are not touched").await;
            assert_eq!(database.value("select count(*) from reveille.jobs").await, 1500);
            database.run("drop function waits() cascade").await;
        } else {
            process.signal("-INT");
            assert_eq!(process.ended().await.code(), Some(2));
            terminal.until_only("error: interrupted twice: the jobs of the last slice may still be changed").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_jobs_shows_how_far_it_was_read() {
    let (database, terminal, folder) = (database().await, Terminal::open(80), Folder::new());
    let file = folder.path("jobs.ndjson");
    std::fs::write(&file, "{\"kind\": \"a\"}\n".repeat(2000)).unwrap();
    let waits = "create function waits() returns trigger language plpgsql as $$
        begin
            if (select max(id) from reveille.jobs) > 1000 then perform pg_advisory_xact_lock_shared(42); end if;
            return null;
        end $$;
        create trigger waits after insert on reveille.jobs for each statement execute function waits()";
    database.run(waits).await;
    let holder = database.client().await;
    holder.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    let mut process = start(command(&["enqueue", "--from-file", &file]), &database, &terminal);
    terminal.until("enqueuing jobs: 1000 lines (50%), ").await;
    drop(holder);
    assert!(process.ended().await.success());
    terminal.until_only("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_narrow_terminal_the_line_stays_one_line() {
    let (database, terminal) = (database().await, Terminal::open(20));
    database.run("insert into reveille.jobs (kind, queue) values ('k', '🐘🐘🐘🐘🐘🐘🐘🐘')").await;
    let mut process = start(command(&["drain", "🐘🐘🐘🐘🐘🐘🐘🐘"]), &database, &terminal);
    terminal.until_only("draining 🐘🐘🐘🐘🐘").await;
    database.run("select reveille.cancel(1)").await;
    assert!(process.ended().await.success());
    terminal.until_only("").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_on_the_same_terminal_stay_whole() {
    let (database, terminal) = (database().await, Terminal::open(80));
    database.run("insert into reveille.jobs (kind) values ('a'), ('b'), ('c')").await;
    let mut client = database.client().await;
    let held = client.transaction().await.unwrap();
    held.batch_execute("select from reveille.jobs where id = 2 for update").await.unwrap();
    let mut cancel = command(&["cancel", "1", "2", "3"]);
    cancel.stdout(terminal.end());
    let mut process = start(cancel, &database, &terminal);
    terminal.until("1 cancelled\nasking the server: 1 of 3 (33%), ").await;
    held.rollback().await.unwrap();
    assert!(process.ended().await.success());
    terminal.until_only("1 cancelled\n2 cancelled\n3 cancelled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dumb_terminal_a_log_and_a_terminal_with_json_get_no_line() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind, queue) values ('k', 'mail')").await;
    let drain = ["drain", "mail", "--timeout", "1500ms", "--json"];
    for (kind, json_is_shown, line_is_drawn) in
        [("xterm", false, true), ("xterm", true, false), ("dumb", false, false), ("", false, false)]
    {
        let (terminal, mut drain) = (Terminal::open(80), command(&drain));
        drain.env("DATABASE_URL", &database.address).env("TERM", kind).stderr(terminal.end());
        drain.stdout(if json_is_shown { terminal.end() } else { Stdio::null() });
        assert_eq!(Worker(drain.spawn().unwrap()).ended().await.code(), Some(1));
        terminal.until("is not drained in time").await;
        assert_eq!(terminal.written().contains("draining mail"), line_is_drawn, "{kind} {}", terminal.written());
        assert_eq!(terminal.written().contains('\x1b'), line_is_drawn, "{kind} {}", terminal.written());
    }
    let mut log = command(&drain);
    log.env("DATABASE_URL", &database.address).env("TERM", "xterm");
    let log = tokio::task::spawn_blocking(|| crate::cli::run(log, "")).await.unwrap();
    assert!(!log.err.contains("draining") && !log.err.contains('\x1b'), "{}", log.err);
    assert_eq!(log.json()[0]["drained"], false);
}
