//! A reader that closes the pipe early, as `head` does.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::cli::{command, finish};
use crate::exec::{Folder, Worker};
use crate::harness::{TestDatabase, database};

/// The commands that only read.
const READING: [&[&str]; 26] = [
    &["--help"],
    &["status"],
    &["jobs"],
    &["jobs", "--json"],
    &["jobs", "--csv"],
    &["cancel", "--queue", "q", "--dry-run"],
    &["job", "1"],
    &["workers"],
    &["workers", "list"],
    &["top", "--once"],
    &["metrics", "--once"],
    &["dead"],
    &["dead", "list"],
    &["workflow", "list"],
    &["workflow", "show", "1"],
    &["actions"],
    &["actions", "list"],
    &["queue", "limits"],
    &["queue", "pauses"],
    &["schedule", "list"],
    &["schedule", "next", "* * * * *", "--count", "1000"],
    &["doctor"],
    &["migrate", "--print"],
    &["migrate", "--print-grants"],
    &["completions", "bash"],
    &["man"],
];
/// The commands that change something, that wait, or that take long.
const OTHERS: &str = "actions-stop bench bench-backlog bench-delayed bench-drain bench-enqueue bench-horizon \
    bench-idle bench-latency bench-pipe bench-schedules bench-steady bench-unruly bench-views bench-workflows \
    cancel dashboard dead-purge dead-revive demo drain edit emit enqueue listen pause pipe-check prune queue \
    queue-remove queue-set resume retry schedule schedule-add schedule-pause schedule-remove schedule-resume \
    schedule-trigger torture work workers-slots workers-stop workflow workflow-cancel workflow-retry";

async fn filled() -> TestDatabase {
    let database = database().await;
    let rows = "insert into reveille.jobs (kind, payload) select 'k', to_jsonb(repeat('x', 100))
            from generate_series(1, 2000);
        insert into reveille.queues (name, max_running) values ('q', 1);
        select reveille.enqueue_workflow('w', '[{\"name\": \"a\", \"kind\": \"k\"}]')";
    database.run(rows).await;
    database
}

#[tokio::test]
async fn the_lists_of_this_test_have_every_command() {
    let folder = Folder::new();
    let done = crate::cli::run(command(&["man", "--dir", &folder.path("")]), "");
    assert_eq!(done.code, 0, "{}", done.err);
    let pages = std::fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    for page in pages.filter(|page| page != "reveille.1") {
        let name = page.trim_start_matches("reveille-").trim_end_matches(".1");
        let reads = READING.iter().any(|arguments| arguments.join("-").starts_with(name));
        assert!(reads || OTHERS.split(' ').any(|other| other == name), "{name}");
    }
}

#[tokio::test]
async fn output_into_a_closed_pipe_is_no_error() {
    let database = filled().await;
    for arguments in READING {
        let mut reading = command(arguments);
        let mut child = reading.env("DATABASE_URL", &database.address).spawn().unwrap();
        drop(child.stdout.take());
        let output = finish(child);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*err), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_pipe_that_closes_after_the_first_line_is_no_error() {
    let database = filled().await;
    for arguments in [
        &["jobs", "--limit", "2000", "--json"][..],
        &["jobs", "--limit", "2000"],
        &["jobs", "--limit", "2000", "--csv"],
        &["jobs", "--limit", "2000", "--follow"],
        &["migrate", "--print"],
    ] {
        let mut reading = command(arguments);
        let mut child = reading.env("DATABASE_URL", &database.address).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(!lines.next().unwrap().unwrap().is_empty());
        drop(lines);
        let output = finish(child);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*err), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn changes_are_made_to_the_end_without_a_reader() {
    let database = filled().await;
    let left = "select (select count(*) from reveille.jobs) || ' ' || (select count(*) from reveille.queues)";
    for (arguments, status, expected) in [
        // One of these jobs is unknown.
        (&["cancel", "1", "99999", "2", "3"][..], 1, "1998 1"),
        (&["edit", "4", "99999", "5", "--queue", "other"], 1, "1998 1"),
        (&["cancel", "--queue", "other"], 0, "1996 1"),
        (&["queue", "remove", "q"], 0, "1996 0"),
        (&["cancel", "--all", "--yes"], 0, "0 0"),
        (&["enqueue", "--from-file", "-"], 0, "1 0"),
    ] {
        let mut change = command(arguments);
        let mut child = change.env("DATABASE_URL", &database.address).stdin(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        // Most of these commands do not read it.
        let _ = child.stdin.take().unwrap().write_all(b"{\"kind\": \"k\"}\n");
        let output = finish(child);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*err), (Some(status), ""), "{arguments:?}");
        assert_eq!(database.value(left).await, expected, "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_print_what_comes_end_when_nobody_reads_on_although_nothing_comes() {
    let database = database().await;
    for arguments in [&["listen"][..], &["jobs", "--follow"]] {
        let mut process = Worker(command(arguments).env("DATABASE_URL", &database.address).spawn().unwrap());
        if arguments[0] == "listen" {
            database.until("select count(*) = 1 from reveille.sleepers").await;
            drop(process.0.stdout.take());
        } else {
            let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
            assert!(lines.next().unwrap().unwrap().starts_with("id "), "the last line for a while");
        }
        assert_eq!(process.ended().await.code(), Some(0), "{arguments:?}");
        assert_eq!(database.value("select count(*) from reveille.workers").await, 0);
    }
}
