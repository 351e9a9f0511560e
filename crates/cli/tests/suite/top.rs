//! `reveille top`, in a terminal and as text.

use std::process::{Command, Stdio};

use reveille::dev::Network;
use serde_json::json;

use crate::cli::finish;
use crate::exec::Worker;
use crate::harness::{TestDatabase, database, proxy};
use crate::terminal::Terminal;

/// The command in a terminal of 80 columns and 24 lines. Dropping this kills the process.
struct Top {
    process: Worker,
    terminal: Terminal,
}

impl Top {
    fn start(address: &str) -> Top {
        let terminal = Terminal::open(80);
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command
            .args(["top", "--interval", "100ms"])
            .env("DATABASE_URL", address)
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .env("PGAPPNAME", "watched");
        // The command gets the new terminal, so that it cannot find the terminal of the test.
        let command = command.stdin(terminal.end()).stdout(terminal.end()).stderr(Stdio::null());
        Top { process: Worker(command.spawn().unwrap()), terminal }
    }

    fn press(&mut self, keys: &str) {
        self.terminal.press(keys);
    }

    fn resize(&mut self, lines: u16, columns: u16) {
        self.terminal.resize(lines, columns);
        // The terminal does not control the process, so the kernel sends no signal.
        self.process.signal("-WINCH");
    }

    /// Waits until the screen shows `part`.
    async fn until(&self, part: &str) {
        self.terminal.until(part).await;
    }

    /// Waits for the command's successful end, and checks that the terminal is restored.
    async fn ended_well(&mut self) {
        assert!(self.process.ended().await.success());
        self.terminal.until_restored().await;
    }
}

async fn filled() -> TestDatabase {
    let database = database().await;
    let rows = "insert into reveille.workers (id, host, pid, version, queues, slots) \
        values (7, 'web-1', 42, '0', '{mail}', 16);
        insert into reveille.jobs (kind, queue) select 'welcome', 'mail' from generate_series(1, 3);
        insert into reveille.jobs (kind, queue, reserved_at, reserved_by, attempts) values
            ('quick', 'mail', now() - '5 seconds'::interval, 7, 1), ('slow', 'mail', now() - '2 hours'::interval, 7, 3);
        insert into reveille.jobs (kind, queue, attempts, failures, errors, available_at)
            values ('unlucky', 'mail', 2, 2, '[{\"error\": \"no luck\"}]', now() + '1 hour');
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at, created_at, reason, errors)
            select 100 + n, 'mail', 'card', '{}', 2, 1, 1, 1, now(), now(), 'failed', '[{\"error\": \"declined\"}]'
            from generate_series(1, 3) as n;
        insert into reveille.counters (queue, started_at, worker, completed, wait_seconds, max_wait_seconds)
            values ('mail', now(), 7, 10, 0.12, 0.5);
        update reveille.jobs set limited = true where reserved_at is not null;
        insert into reveille.queues (name, max_running, rate_limit) values ('mail', 5, 100);
        select reveille.schedule(name => 'nightly', cron => '0 3 * * *', kind => 'report')";
    database.run(rows).await;
    database
}

fn once(address: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(["top", "--once"]).args(arguments).env("DATABASE_URL", address).env("COLUMNS", "120");
    let output = finish(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_as_text_shows_what_the_views_say() {
    let database = filled().await;
    for (table, parts) in [
        ("queues", &["mail", "3", "10", "12ms", "500ms"][..]),
        ("workers", &["web-1", "42", "working", "mail"]),
        ("running", &["slow", "2h00m", "web-1"]),
        ("waiting", &["welcome", "ready", "0/20"]),
        ("failing", &["unlucky", "2/20", "59m", "no luck"]),
        ("dead", &["card", "failed", "3", "declined"]),
        ("schedules", &["nightly", "0 3 * * *", "report"]),
        ("limits", &["mail", "2/5", "100 in 1.0s"]),
    ] {
        let (success, shown) = once(&database.address, &["--table", table]);
        let row = shown.lines().nth(5).unwrap_or_default();
        assert!(success && parts.iter().all(|part| row.contains(part)), "{shown}");
        assert!(shown.contains("3 ready  1 delayed  2 of 16 slots run  10 done/m  0 failed/m  3 dead"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_top_says_what_to_use() {
    let database = filled().await;
    let ended = crate::cli::reveille(&database, &["top"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("--once"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_act_after_a_confirmation() {
    let database = filled().await;
    let mut top = Top::start(&database.address);
    top.until("mail").await;
    top.press("p");
    top.until("pause queue mail?").await;
    top.press("n");
    top.press("p");
    top.press("y");
    database.until("select paused from reveille.queue_stats").await;
    top.press("2");
    top.until("slow").await;
    top.press("c");
    top.until("cancel job 5?").await;
    top.press("y");
    database.until("select cancel_requested_at is not null from reveille.jobs where id = 5").await;
    let recorded = "select jsonb_agg(jsonb_build_array(source, action, target) order by id) from reveille.actions";
    let expected = json!([["top", "pause", {"queue": "mail"}], ["top", "cancel", {"job": 5}]]);
    assert_eq!(database.value(recorded).await, expected);
    top.press("4");
    top.until("unlucky").await;
    top.press("r");
    top.until("retry job 6?").await;
    top.press("y");
    database.until("select available_at <= now() from reveille.jobs where id = 6").await;
    top.press("5");
    top.until("card").await;
    top.press("R");
    top.until("revive all dead").await;
    top.press("y");
    database.until("select count(*) = 3 from reveille.jobs where kind = 'card'").await;
    top.press("q");
    top.ended_well().await;
    assert_eq!(
        database.value("select count(*) from reveille.jobs where cancel_requested_at is not null").await,
        json!(1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn enter_opens_a_queue_and_a_job_and_escape_goes_back() {
    let database = filled().await;
    database.run("update reveille.jobs set payload = '{\"to\": [\"ann\"]}' where kind = 'unlucky'").await;
    let mut top = Top::start(&database.address);
    top.until("1 row").await;
    top.press("\r");
    top.until("waiting in mail  4 rows").await;
    top.press("/unl");
    top.until("1 match in 4 rows").await;
    top.press("\r\r");
    top.until("    \"to\": [\n      \"ann\"").await;
    top.until("errors, the latest first").await;
    top.resize(12, 40);
    top.until("1 queues 2 3 4 5 6 7 8").await;
    top.press("G");
    top.until("  no luck").await;
    top.press("\x1b");
    top.until("1 match in 4 rows  /unl").await;
    top.press("\x1b");
    top.until("waiting in mail  4 rows").await;
    top.press("\x1b");
    top.until("1 row").await;
    top.press("q");
    top.ended_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_top_and_restores_the_terminal() {
    let database = filled().await;
    for signal in ["-TERM", "-HUP", "-INT"] {
        let mut top = Top::start(&database.address);
        top.until("mail").await;
        top.process.signal(signal);
        top.ended_well().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_shown_and_restored() {
    let database = filled().await;
    let (network, address) = proxy(&database.address).await;
    let mut top = Top::start(&address);
    top.until("mail").await;
    network.set(Network::Refuse);
    top.until("LOST").await;
    database.run("select reveille.enqueue(kind => 'k', queue => 'zzz')").await;
    network.set(Network::Pass);
    top.until("zzz").await;
    top.press("\x03");
    top.ended_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_takes_one_connection() {
    let database = filled().await;
    let mut top = Top::start(&database.address);
    top.until("mail").await;
    database.run("insert into reveille.jobs (kind, queue) values ('k', 'zzz')").await;
    top.until("zzz").await;
    database
        .until(
            "select count(*) = 1 from pg_stat_activity where application_name = 'watched' \
        and datname = current_database()",
        )
        .await;
    top.press("q");
    top.ended_well().await;
}
