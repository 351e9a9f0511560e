//! The command reports the changes that it has made, and the changes that it could not make.

use serde_json::json;

use crate::cli::{command, reveille, run};
use crate::harness::{TestDatabase, database, empty_database};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_leaves_the_database_of_the_environment_alone() {
    let database = empty_database().await;
    let mut demo = command(&["demo", "--json"]);
    demo.env("DATABASE_URL", &database.address).env("REVEILLE_LISTEN_URL", &database.address);
    let demo = run(demo, "");
    assert_eq!((demo.code, demo.json().len()), (0, 1), "{}", demo.err);
    assert_eq!(database.value("select to_regnamespace('reveille') is null").await, true);
}

#[tokio::test]
async fn an_unknown_queue_is_reported_as_unknown() {
    let database = database().await;
    for arguments in [&["drain", "typo"][..], &["pause", "typo"], &["resume", "typo"], &["drain", "typo", "--json"]] {
        let unknown = reveille(&database, arguments);
        assert_eq!((unknown.code, &*unknown.out), (1, ""), "{arguments:?}");
        assert!(unknown.err.contains("no queue typo") && unknown.err.lines().count() == 1, "{}", unknown.err);
    }
    assert_eq!(database.value("select count(*) from reveille.queues").await, 0, "no queue was made");
    assert_eq!(reveille(&database, &["pause", "typo", "--create"]).out, "paused typo\n");
    assert_eq!(reveille(&database, &["resume", "typo"]).out, "resumed typo\n");
}

#[tokio::test]
async fn a_kind_and_a_key_are_paused_listed_and_resumed() {
    let database = database().await;
    for (arguments, covered) in [
        (&["--kind", "charge"][..], "kind charge in all queues"),
        (&["--key", "card 7"], "key card 7 in all queues"),
        (&["mail", "--kind", "charge", "--key", "card 7"], "kind charge with key card 7 in queue mail"),
    ] {
        let of = |command: &'static str| [&[command][..], arguments].concat();
        if arguments[0] == "mail" {
            assert_eq!(reveille(&database, &of("pause")).code, 1, "the queue is not known");
            database.run("insert into reveille.queues (name) values ('mail')").await;
        }
        let unknown = reveille(&database, &of("resume"));
        assert_eq!((unknown.code, &*unknown.out), (1, ""));
        assert!(unknown.err.contains(&format!("no pause of {covered}")), "{}", unknown.err);
        assert_eq!(reveille(&database, &of("pause")).out, format!("paused {covered}\n"));
        let listed = reveille(&database, &["queue", "pauses", "--json"]).json();
        assert_eq!((listed.len(), &listed[0]["parked"]), (1, &json!(0)));
        let resumed = reveille(&database, &[&of("resume")[..], &["--json"]].concat()).json();
        assert_eq!(resumed[0]["answer"], "resumed");
        assert_eq!(resumed[0]["kind"], listed[0]["kind"]);
        assert_eq!(database.value("select count(*) from reveille.pauses").await, 0);
    }
    for command in ["pause", "resume"] {
        reveille(&database, &[command]).refused(&["QUEUE"]);
    }
    reveille(&database, &["pause", "--kind", ""]).refused(&["kind"]);
}

#[tokio::test]
async fn a_queue_is_known_by_a_setting_a_job_a_worker_or_a_count() {
    let database = database().await;
    let rows = "insert into reveille.queues (name) values ('set');
        insert into reveille.jobs (kind, queue, available_at) values ('k', 'delayed', now() + interval '1 day');
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at, created_at,
            reason) values (9, 'dead', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed');
        insert into reveille.workers (id, host, pid, version, queues, slots) values (7, 'h', 1, 'v', '{worked}', 1);
        insert into reveille.counters (queue, started_at, worker, completed) values ('counted', now(), 7, 1);
        insert into reveille.totals (queue, completed) values ('long ago', 1)";
    database.run(rows).await;
    for queue in ["set", "delayed", "dead", "worked", "counted", "long ago"] {
        let drained = reveille(&database, &["drain", queue]);
        assert_eq!((drained.code, drained.out), (0, format!("drained {queue}\n")), "{}", drained.err);
    }
}

#[tokio::test]
async fn the_slots_of_a_queue_must_be_a_number_up_to_10000() {
    let database = database().await;
    for queue in ["mail=8x", "mail=", "mail=0", "mail=10001", "a=b"] {
        reveille(&database, &["work", "--queue", queue, "--exec", "true"]).refused(&[queue, "1 to 10000"]);
    }
}

#[tokio::test]
async fn dead_jobs_are_selected_only_by_known_reasons() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('live')").await;
    for reason in ["completed", "ready", "running", "dead", "odd"] {
        for action in [&["dead", "list"][..], &["dead"], &["dead", "purge"], &["dead", "revive"]] {
            let refused = reveille(&database, &[action, &["--reason", reason]].concat());
            refused.refused(&["--reason", reason, "timed_out"]);
            assert_eq!(refused.out, "");
        }
    }
    assert_eq!(reveille(&database, &["dead", "list", "--reason", "timed_out"]).code, 0);
}

#[tokio::test]
async fn status_marks_estimates() {
    let database = database().await;
    let rows = "insert into reveille.jobs (kind, queue) select 'k', 'many' from generate_series(1, 25000);
        insert into reveille.jobs (kind, queue) values ('k', 'few'); analyze reveille.jobs";
    database.run(rows).await;
    let status = reveille(&database, &["status"]).out;
    let line = |queue: &str| status.lines().find(|line| line.trim_start().starts_with(queue)).unwrap().to_owned();
    assert!(line("many").contains(" ~") && line("many").contains('k'), "{status}");
    assert!(!line("few").contains('~'), "{status}");
    let json = reveille(&database, &["status", "--json"]).json();
    let many = json.iter().find(|queue| queue["queue"] == "many").unwrap();
    assert!(many["ready"].as_u64().unwrap() > 10_000 && many["estimated"] == true, "JSON has numbers: {many}");
}

/// Makes dead jobs 1 to 3. Job 2 cannot be revived, because a live job has the same unique key.
async fn one_in_the_way(database: &TestDatabase) {
    let rows = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
        available_at,
            created_at, reason, unique_key)
        select n, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed', n::text from generate_series(1, 3) as n;
        select setval('reveille.jobs_id_seq', 10);
        insert into reveille.jobs (kind, unique_key) values ('k', '2')";
    database.run(rows).await;
}

#[tokio::test]
async fn a_refused_id_does_not_keep_the_others_from_being_retried() {
    let database = database().await;
    one_in_the_way(&database).await;
    let retried = reveille(&database, &["retry", "2", "3", "1"]);
    assert_eq!(retried.code, 1, "{}", retried.err);
    let lines: Vec<&str> = retried.out.lines().collect();
    assert!(lines[0].starts_with("2 refused: ") && lines[0].contains("has its unique key"), "{}", retried.out);
    assert_eq!(lines[1..], ["3 revived", "1 revived"]);
    let again = reveille(&database, &["dead", "revive", "2", "99", "--json"]).json();
    assert_eq!((&again[0]["answer"], &again[1]), (&json!("refused"), &json!({"id": 99, "answer": "unknown"})));
    assert!(again[0]["error"].as_str().unwrap().contains("unique key"));
}

#[tokio::test]
async fn a_finished_job_is_run_again_as_a_new_one() {
    let database = database().await;
    let options = [
        "--queue",
        "q",
        "--key",
        "k",
        "--tag",
        "t",
        "--metadata",
        r#"{"m": 1}"#,
        "--priority",
        "high",
        "--max-attempts",
        "3",
    ];
    let enqueue = [&["enqueue", "mail", r#"{"to": "a"}"#, "--unique-key", "u"][..], &options].concat();
    assert_eq!(reveille(&database, &enqueue).out, "1\n");
    assert_eq!(reveille(&database, &["cancel", "1"]).code, 0);
    database.run("insert into reveille.jobs (kind) values ('live')").await;
    let dead = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
        available_at,
            created_at, reason)
        values (3, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), 'failed'); select setval('reveille.jobs_id_seq', 11)";
    database.run(dead).await;
    let again = reveille(&database, &["retry", "--again", "1", "2", "3", "99"]);
    assert_eq!((again.code, &*again.out), (1, "1 again as 12\n2 live\n3 dead\n99 unknown\n"), "{}", again.err);
    let row = "select jsonb_build_array(kind, payload, queue, key, tags, metadata, priority, max_attempts, attempts, \
        unique_key,
        parent_id, available_at <= now()) from reveille.jobs where id = 12";
    let expected = json!(["mail", {"to": "a"}, "q", "k", ["t"], {"m": 1}, 1, 3, 0, null, null, true]);
    assert_eq!(database.value(row).await, expected);
    assert_eq!(
        reveille(&database, &["job", "1", "--json"]).json()[0]["state"],
        "cancelled",
        "the finished job stays in the history"
    );
    let once_more = reveille(&database, &["retry", "--again", "1", "--json"]);
    assert_eq!((once_more.code, once_more.json()), (0, vec![json!({"id": 1, "answer": "again", "job": 13})]));
    assert_eq!(reveille(&database, &["retry", "1"]).out, "1 finished\n", "without --again, the job stays finished");
}

/// Makes a role that has all rights but is subject to row security. Returns the role's name and address.
async fn bound(database: &TestDatabase) -> (String, String) {
    let role = format!("bound_{:08x}", fastrand::u32(..));
    let sql = format!(
        "create role {role} login password 'secret'; grant usage on schema reveille to {role};
        grant all on all tables in schema reveille to {role}; grant all on all sequences in schema reveille to {role}"
    );
    database.run(&sql).await;
    let config: tokio_postgres::Config = database.address.parse().unwrap();
    let ((host, port), name) = (crate::harness::host_and_port(&config), config.get_dbname().unwrap());
    (role.clone(), format!("host={host} port={port} dbname={name} user={role} password=secret"))
}

#[tokio::test]
async fn the_error_says_that_row_security_hides_rows_from_the_role() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) values ('k')").await;
    let (role, address) = bound(&database).await;
    let at = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("DATABASE_URL", &address);
        run(command, "")
    };
    assert_eq!(at(&["status"]).code, 0);
    for table in ["jobs", "schema_history", "finished_jobs"] {
        database.run(&format!("alter table reveille.{table} enable row level security")).await;
        for arguments in
            [&["drain", "default"][..], &["status"], &["work", "--exec", "true"], &["migrate"], &["migrate", "--check"]]
        {
            at(arguments).refused(&["row security", &format!("reveille.{table}"), &role, "bypassrls"]);
        }
        // A policy that shows some rows may hide other rows. A policy that shows all rows hides no row.
        let policy = format!("create policy p on reveille.{table} for all to {role} using");
        database.run(&format!("{policy} (current_date > '2000-01-01')")).await;
        at(&["status"]).refused(&["row security"]);
        database.run(&format!("drop policy p on reveille.{table}; {policy} (true)")).await;
        assert_eq!(at(&["status"]).code, 0, "{table}");
        let restricts = "create policy r on reveille.{table} as restrictive for select to public using (false)";
        database.run(&restricts.replace("{table}", table)).await;
        at(&["status"]).refused(&["row security"]);
        database.run(&format!("drop policy r on reveille.{table}")).await;
    }
    assert_eq!(reveille(&database, &["status"]).code, 0, "the owner sees all rows");
    database.run(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_word_of_sql_is_refused_as_the_name_of_a_schema() {
    let database = database().await;
    let words = "select jsonb_agg(word) from pg_get_keywords() where catcode in ('R', 'T', 'C')";
    let words = database.value(words).await;
    for word in words.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).chain(["json_table", "system_user"])
    {
        let error = reveille::Database::options(None).schema(word).connect().await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("word of SQL"), "{word}: {error}");
    }
    reveille(&database, &["migrate", "--schema", "user"]).refused(&["\"user\"", "word of SQL"]);
    reveille(&database, &["migrate", "--schema", "pg_jobs"]).refused(&["server's own"]);
    assert_eq!(reveille(&database, &["migrate", "--schema", "work"]).code, 0, "a word without quotes is accepted");
}

#[tokio::test]
async fn an_interval_given_as_cron_is_refused_with_the_right_option() {
    let database = database().await;
    for arguments in [&["add", "s", "k", "--cron", "@every 5m"][..], &["next", "@Every 5m"]] {
        reveille(&database, &[&["schedule"], arguments].concat()).refused(&["--every 5m"]);
    }
}

#[tokio::test]
async fn an_address_with_unsupported_demands_is_never_connected_to() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("postgres://u:secret@127.0.0.1:{port}/db");
    let at = |url: &str, variable: Option<(&str, &str)>| {
        let mut command = command(&["status"]);
        command.env("DATABASE_URL", url).envs(variable);
        run(command, "")
    };
    at(&format!("{url}?require_auth=scram-sha-256&sslmode=disable"), None)
        .refused(&["require_auth", "channel_binding"]);
    at(&format!("{url}?requirepeer=postgres"), None).refused(&["requirepeer", "verify-full"]);
    at(&url, Some(("PGREQUIREAUTH", "scram-sha-256"))).refused(&["PGREQUIREAUTH", "channel_binding"]);
    assert!(listener.accept().is_err(), "the command made no connection");
}
