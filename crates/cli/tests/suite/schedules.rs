//! Each tick of a schedule is enqueued once, on time, by any worker.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::cli::{command, reveille, run};
use crate::harness::{TestDatabase, database, eventually, reporting_worker, start};

/// A worker process that fires schedules and runs no job. Dropping this kills the process.
struct Process(Child);

impl Process {
    fn start(database: &TestDatabase) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["work", "--queue", "nothing", "--exec", "true"]).env("DATABASE_URL", &database.address);
        Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tick_comes_once_while_one_of_three_workers_is_killed() {
    let database = database().await;
    let mut processes: Vec<Process> = (0..3).map(|_| Process::start(&database)).collect();
    database.until("select count(*) = 3 from reveille.workers").await;
    let add = "select reveille.schedule('s' || n, kind => 'k', every => '1 second', queue => 'kept', catch_up => 'all')
        from generate_series(1, 200) as n";
    database.run(add).await;
    database.until("select count(*) >= 500 from reveille.jobs").await;
    drop(processes.pop());
    database
        .until(
            "select min(last_at) > now() - interval '2 seconds' and min(last_at - created_at) > '4 seconds' \
        from reveille.schedules",
        )
        .await;
    drop(processes);
    let each = "select jsonb_build_array(count(*), bool_and(ticks = kinds), \
        bool_and(ticks = extract(epoch from last - counted_from)))
        from (
            select count(*) as ticks, count(distinct available_at) as kinds, max(available_at) as last, counted_from
            from reveille.jobs join reveille.schedules on schedules.id = schedule_id
            where last_at = (select max(available_at) from reveille.jobs as its where its.schedule_id = schedules.id)
            group by schedules.id
        ) as of_each";
    assert_eq!(database.value(each).await, json!([200, true, true]));
    assert_eq!(database.value("select bool_and(created_at >= available_at) from reveille.jobs").await, true);
}

/// A worker process on a host that has the files of only two time zones. Dropping this kills the process.
struct PoorHost(Child, PathBuf);

impl PoorHost {
    fn start(database: &TestDatabase) -> PoorHost {
        let folder =
            std::env::temp_dir().join(format!("reveille-zones-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::create_dir_all(folder.join("Europe")).unwrap();
        for zone in ["UTC", "Europe/Berlin"] {
            std::fs::copy(format!("/usr/share/zoneinfo/{zone}"), folder.join(zone)).unwrap();
        }
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["work", "--queue", "none=1", "--exec", "true"]).env("DATABASE_URL", &database.address);
        command.env("TZDIR", &folder).env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        PoorHost(command.spawn().unwrap(), folder)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.1.join("log")).unwrap_or_default()
    }
}

impl Drop for PoorHost {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

#[tokio::test]
async fn a_host_without_a_time_zone_leaves_its_schedules_to_others() {
    let database = database().await;
    let added = "insert into reveille.schedules (name, kind, cron, time_zone) values
        ('far', 'k', '* * * * * *', 'Asia/Tokyo'), ('near', 'k', '* * * * * *', 'Europe/Berlin'),
        ('nowhere', 'k', '@daily', 'Mars/Olympus')";
    database.run(added).await;
    let poor = PoorHost::start(&database);
    let fired = |name: &str| {
        format!(
            "select count(*) > 0 from reveille.jobs join reveille.schedules on schedules.id = schedule_id \
                where name = '{name}'"
        )
    };
    database.until(&fired("near")).await;
    eventually("the log names the unknown time zone", async || poor.log().contains("Asia/Tokyo")).await;
    database.until("select error like '%unknown time zone%' from reveille.schedules where name = 'nowhere'").await;
    assert_eq!(
        database.value("select error is null and next_at is null from reveille.schedules where name = 'far'").await,
        true
    );
    assert_eq!(poor.log().matches("Asia/Tokyo").count(), 1, "the unknown time zone is logged once");
    let rich = start(reporting_worker(&database).0);
    database.until(&fired("far")).await;
    rich.stop().await;
}

#[tokio::test]
async fn schedules_are_added_listed_paused_triggered_and_removed() {
    let database = database().await;
    let schedule = |arguments: &[&str]| reveille(&database, &[&["schedule"], arguments].concat());
    let nightly =
        ["add", "nightly", "report", "[1]", "--cron", "0 3 * * *", "--time-zone", "Europe/Berlin", "--queue", "q"];
    assert_eq!(schedule(&nightly).out, "scheduled nightly\n");
    let often = [
        "add",
        "often",
        "ping",
        "--every",
        "5m",
        "--catch-up",
        "skip",
        "--priority",
        "high",
        "--tag",
        "t",
        "--key",
        "k",
    ];
    assert_eq!(schedule(&often).code, 0);
    let listed = schedule(&["list", "--json"]).json();
    let fields = |name: &str| listed.iter().map(|schedule| schedule[name].clone()).collect::<Vec<_>>();
    assert_eq!(fields("timing"), ["0 3 * * *", "every 00:05:00"]);
    assert_eq!(
        (fields("time_zone"), fields("catch_up")),
        (vec![json!("Europe/Berlin"), json!("UTC")], vec![json!("one"), json!("skip")])
    );
    assert!(schedule(&["list"]).out.contains("nightly"));
    assert_eq!(schedule(&["pause", "nightly"]).out, "paused nightly\n");
    assert_eq!(schedule(&["list", "--json"]).json()[0]["paused"], true);
    assert_eq!(schedule(&["resume", "nightly"]).out, "resumed nightly\n");
    assert_eq!(schedule(&["trigger", "nightly"]).out, "1\n");
    let job = "select jsonb_build_array(kind, payload, queue) from reveille.jobs";
    assert_eq!(database.value(job).await, json!(["report", [1], "q"]));
    assert_eq!(schedule(&["remove", "nightly"]).out, "removed nightly\n");
    for action in ["pause", "resume", "trigger", "remove"] {
        let unknown = schedule(&[action, "nightly"]);
        assert_eq!((unknown.code, unknown.err.contains("no schedule nightly")), (1, true), "{action}");
    }
}

#[test]
fn a_bad_schedule_is_refused_before_anything_is_sent() {
    let schedule = |arguments: &[&str]| {
        let mut command = command(&[&["schedule"], arguments].concat());
        command.env("DATABASE_URL", "postgres://127.0.0.1:1/nowhere");
        run(command, "")
    };
    schedule(&["add", "s", "k", "--cron", "61 * * * *"]).refused(&["61 * * * *", "cannot be read"]);
    schedule(&["add", "s", "k", "--cron", "0 0 30 2 *"]).refused(&["never comes"]);
    schedule(&["add", "s", "k", "--cron", "@daily", "--time-zone", "Mars/Olympus"])
        .refused(&["Mars/Olympus", "Europe/Berlin"]);
    schedule(&["add", "s", "k", "--every", "0"]).refused(&["a millisecond"]);
    schedule(&["add", "s", "k", "--every", "1h", "--catch-up", "some"]).refused(&["skip, one or all"]);
    schedule(&["add", "s", "k", "--every", "1h", "--cron", "@daily"]).refused(&["cannot be used with"]);
    schedule(&["add", "s", "k"]).refused(&["--cron"]);
    schedule(&["add", "s", "k", "{oops", "--every", "1h"]).refused(&["payload is not JSON"]);
    schedule(&["next", "* * *"]).refused(&["cannot be read"]);
    schedule(&["next", "@daily", "--time-zone", "Mars/Olympus"]).refused(&["Mars/Olympus"]);
}

#[test]
fn the_next_ticks_are_shown_in_their_zone_without_a_database() {
    let next = |arguments: &[&str]| {
        let ended = run(command(&[&["schedule", "next"], arguments].concat()), "");
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended
    };
    let berlin = ["30 2 * * *", "--time-zone", "Europe/Berlin", "--after", "2026-03-28", "--count", "3"];
    let shown = next(&berlin).out;
    let expected = "Sat 2026-03-28 02:30:00 +01:00 CET\nSun 2026-03-29 03:00:00 +02:00 CEST\nMon 2026-03-30 02:30:00 \
        +02:00 CEST\n";
    assert_eq!(shown, expected);
    let json = next(&["@yearly", "--after", "2026-03-28T12:00", "--count", "1", "--json"]).json();
    assert_eq!(json, [json!({"at": "2027-01-01T00:00:00Z", "local": "2027-01-01T00:00:00+00:00"})]);
    assert_eq!(next(&["* * * * *"]).out.lines().count(), 5);
}
