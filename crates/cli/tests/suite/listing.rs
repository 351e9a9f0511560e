//! Listing jobs as CSV, in an order, since a time, and as they come.

use std::io::{BufRead, BufReader};

use serde_json::{Value, json};

use crate::cli::{command, reveille};
use crate::exec::Worker;
use crate::harness::database;

/// Reads a CSV file as RFC 4180 has it.
fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let mut records = vec![vec![String::new()]];
    let mut chars = text.chars().peekable();
    let mut is_quoted = false;
    while let Some(c) = chars.next() {
        let record = records.last_mut().unwrap();
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                record.last_mut().unwrap().push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => record.push(String::new()),
            '\r' if !is_quoted => {
                assert_eq!(chars.next(), Some('\n'), "each record ends with CR LF");
                records.push(vec![String::new()]);
            }
            c => record.last_mut().unwrap().push(c),
        }
    }
    assert_eq!(records.pop().unwrap(), [""], "the last record ends with CR LF, too");
    records
}

#[tokio::test]
async fn csv_has_a_cell_for_each_column_and_no_formulas_or_terminal_escapes() {
    let database = database().await;
    let client = database.client().await;
    let hostile = ["=1+1", "+x", "-x", "@x", "\t=x", "a,\"b\"\r\nc", "\x1b]0;x\x07", "\u{202e}x", "'=1", " = 2", "＝1"];
    for text in hostile {
        let insert = "insert into reveille.jobs (queue, kind, key, tags, payload, attempts, failures, errors)
            values ($1, $1, $1, array[$1], to_jsonb($1::text), 1, 1,
                jsonb_build_array(jsonb_build_object('error', $1)))";
        client.execute(insert, &[&text]).await.unwrap();
    }
    database.run("insert into reveille.jobs (kind, payload, priority) values ('plain', '-5', 3)").await;
    for arguments in [&["jobs", "--csv"][..], &["jobs", "--csv", "--state", "failing", "--limit", "5"]] {
        let listed = reveille(&database, arguments);
        assert_eq!(listed.code, 0, "{}", listed.err);
        let records = parse_csv(&listed.out);
        let header = &records[0];
        assert!(records.len() > 5 && records.iter().all(|record| record.len() == header.len()), "{records:?}");
        for cell in records[1..].iter().flatten() {
            let is_number = cell.parse::<f64>().is_ok();
            assert!(is_number || !cell.trim_start().starts_with(['=', '+', '-', '@', '＝']), "{cell:?}");
            assert!(!cell.chars().any(|c| c.is_control() || c == '\u{202e}'), "{cell:?}");
        }
    }
    let records = parse_csv(&reveille(&database, &["jobs", "--csv"]).out);
    let column = |name: &str| records[0].iter().position(|column| column == name).unwrap();
    let plain = records.iter().find(|record| record[column("kind")] == "plain").unwrap();
    assert_eq!((&*plain[column("payload")], &*plain[column("priority")], &*plain[column("key")]), ("-5", "3", ""));
    let quoted = records.iter().find(|record| record[column("kind")].starts_with("a,")).unwrap();
    assert_eq!((&*quoted[column("kind")], &*quoted[column("last_error")]), ("a,\"b\"  c", "a,\"b\"  c"));
    assert_eq!(records.iter().filter(|record| record[column("queue")].starts_with('\'')).count(), 8);
}

#[tokio::test]
async fn a_listing_takes_a_time_an_age_and_an_order() {
    let database = database().await;
    let rows = "insert into reveille.jobs (queue, kind, created_at, available_at)
        select 'q', 'k', now() - n * interval '1 minute', now() + (5 - n) * interval '1 hour'
        from generate_series(1, 9) as n";
    database.run(rows).await;
    let ids = |arguments: &[&str]| {
        let listed = reveille(&database, &[&["jobs", "--json"], arguments].concat());
        Value::from(listed.json().iter().map(|job| job["id"].clone()).collect::<Vec<_>>())
    };
    assert_eq!(ids(&["--since", "3m 30s"]), json!([3, 2, 1]));
    assert_eq!(ids(&["--since", "3m 30s", "--newer-than", "90s"]), json!([1]));
    assert_eq!(ids(&["--since", "yesterday", "--limit", "2"]), json!([9, 8]));
    assert_eq!(ids(&["--since", "tomorrow"]), json!([]));
    assert_eq!(ids(&["--sort", "due", "--queue", "q", "--limit", "3"]), json!([9, 8, 7]));
    assert_eq!(ids(&["--sort", "due", "--queue", "q", "--state", "delayed", "--limit", "2"]), json!([4, 3]));
    assert_eq!(ids(&["--sort", "created"]), json!([1, 2, 3, 4, 5, 6, 7, 8, 9]));
    reveille(&database, &["jobs", "--since", "whenever"]).refused(&["whenever"]);
    reveille(&database, &["jobs", "--sort", "finished"]).refused(&["live jobs have no end"]);
    reveille(&database, &["jobs", "--sort", "odd"]).refused(&["due", "created"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn following_prints_new_and_changed_jobs_until_ctrl_c() {
    let database = database().await;
    database.run("insert into reveille.jobs (queue, kind) values ('q', 'first')").await;
    for format in [&["--json"][..], &["--csv"], &[]] {
        database.run("insert into reveille.jobs (queue, kind) values ('q', 'first')").await;
        let mut follow = command(&[&["jobs", "--follow", "--queue", "q", "--limit", "1"], format].concat());
        let mut process = Worker(follow.env("DATABASE_URL", &database.address).spawn().unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut next = |part: &'static str| {
            let line = lines.by_ref().find(|line| line.contains(part));
            line.unwrap_or_else(|| panic!("no line with {part}"))
        };
        tokio::task::block_in_place(|| next("first"));
        database.run("insert into reveille.jobs (queue, kind) values ('q', 'evil\x1b[31m'), ('other', 'other')").await;
        let line = tokio::task::block_in_place(|| next("evil"));
        assert!(line.contains("\\u001b[31m"), "{line}");
        database.run("select reveille.cancel(id) from reveille.jobs where kind like 'evil%'").await;
        tokio::task::block_in_place(|| next("cancelled"));
        process.signal("-INT");
        assert_eq!(process.ended().await.code(), Some(0), "{format:?}");
        assert!(lines.next().is_none());
    }
}
