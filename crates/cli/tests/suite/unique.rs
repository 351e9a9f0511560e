//! The command enqueues unique jobs.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::database;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_processes_of_one_key_make_one_job() {
    let database = database().await;
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["enqueue", "k", "--unique-key", "u", "--unique-for", "1h", "--json"]);
        command
            .env("DATABASE_URL", &database.address)
            .env("PGCONNECT_TIMEOUT", "60")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let processes: Vec<_> = (0..50).map(|_| command()).collect();
    let mut existed = Vec::new();
    for process in processes {
        let output = crate::cli::finish(process);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        existed.push(serde_json::from_slice::<Value>(&output.stdout).unwrap()["existed"].clone());
    }
    assert_eq!(existed.iter().filter(|existed| **existed == json!(false)).count(), 1);
    assert_eq!(database.value("select count(*) from reveille.jobs").await, 1);
}

#[tokio::test]
async fn a_revival_that_collides_is_reported_and_left_over() {
    let database = database().await;
    let bury = "insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts, \
        available_at,
            created_at, unique_key, reason)
        overriding system value
        select n, 'default', 'k', '{}', 2, 1, 1, 1, now(), now(), 'u', 'failed' from generate_series(1, 2) as n;
        select setval('reveille.jobs_id_seq', 2)";
    database.run(&bury.replace("        overriding system value\n", "")).await;
    let command = |arguments: &[&str]| {
        let ended = crate::cli::reveille(&database, arguments);
        (Some(ended.code), ended.out, ended.err)
    };
    let (code, out, _) = command(&["dead", "revive", "--all", "--json"]);
    let counts = json!({"revived": 1, "passed_over": 0, "left_over": 1, "refused": 0});
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (Some(1), counts));
    let (code, out, err) = command(&["retry", "2"]);
    assert_eq!((code, &*err), (Some(1), ""));
    assert!(
        out.contains("job 2 cannot be revived: a live job of its kind has its unique key") && out.lines().count() == 1,
        "{out}"
    );
    assert_eq!(database.value("select count(*) from reveille.dead_jobs").await, 1);
}

#[tokio::test]
async fn the_command_enqueues_unique_jobs_in_every_way() {
    let database = database().await;
    let command = |arguments: &[&str]| {
        let ended = crate::cli::reveille(&database, &[&["enqueue"], arguments].concat());
        (Some(ended.code), ended.out + &ended.err)
    };
    for (place, arguments) in [
        &["a", "--unique-by-kind", "--unique-for", "1h"][..],
        &["b", r#"{"x": 1, "y": 2}"#, "--unique-by-payload", "--unique-until", "started"],
        &["c", "--unique-key", "u", "--unique-mode", "debounce", "--delay", "1h"],
    ]
    .iter()
    .enumerate()
    {
        let id = 2 * place + 1;
        assert_eq!(command(arguments), (Some(0), format!("{id}\n")));
        assert_eq!(command(arguments), (Some(0), format!("{id} (existed)\n")));
        // Resets the sequence, because an enqueue whose unique key is taken uses up an id.
        database.run(&format!("select setval('reveille.jobs_id_seq', {})", id + 1)).await;
    }
    assert_eq!(command(&["b", r#"{"y":2,"x":1}"#, "--unique-by-payload"]).1, "3 (existed)\n");
    for (arguments, part) in [
        (&["k", "--unique-for", "1h"][..], "--unique-key"),
        (&["k", "--unique-key", "u", "--unique-by-kind"], "cannot be used with"),
        (&["k", "--unique-key", "u", "--unique-for", "1h", "--unique-until", "started"], "cannot be used with"),
        (&["k", "--unique-key", "u", "--unique-for", "0"], "a microsecond or longer"),
        (&["k", "--unique-key", "u", "--unique-for", "soon"], "500ms"),
    ] {
        let (code, text) = command(arguments);
        assert!(code == Some(2) && text.contains(part), "{arguments:?}: {text}");
    }
}
