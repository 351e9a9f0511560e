//! Schedules: each tick is enqueued once, at its time, by whichever worker is there.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::harness::{TestDatabase, database, eventually, start, teller};

/// A worker process that fires schedules and runs nothing; killed with the test.
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
    database.until("select min(last_at) > now() - interval '2 seconds' and min(last_at - created_at) > '4 seconds' from reveille.schedules").await;
    drop(processes);
    let each = "select jsonb_build_array(count(*), bool_and(ticks = kinds), bool_and(ticks = extract(epoch from last - counted_from)))
        from (
            select count(*) as ticks, count(distinct available_at) as kinds, max(available_at) as last, counted_from
            from reveille.jobs join reveille.schedules on schedules.id = schedule_id
            where last_at = (select max(available_at) from reveille.jobs as its where its.schedule_id = schedules.id)
            group by schedules.id
        ) as of_each";
    assert_eq!(database.value(each).await, json!([200, true, true]));
    assert_eq!(database.value("select bool_and(created_at >= available_at) from reveille.jobs").await, true);
}

/// A worker process on a host that has the zone files of two zones alone; it ends with the test.
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
async fn a_host_that_lacks_a_time_zone_leaves_its_schedules_to_others_and_says_so() {
    let database = database().await;
    let added = "insert into reveille.schedules (name, kind, cron, time_zone) values
        ('far', 'k', '* * * * * *', 'Asia/Tokyo'), ('near', 'k', '* * * * * *', 'Europe/Berlin'), ('nowhere', 'k', '@daily', 'Mars/Olympus')";
    database.run(added).await;
    let poor = PoorHost::start(&database);
    let fired = |name: &str| {
        format!(
            "select count(*) > 0 from reveille.jobs join reveille.schedules on schedules.id = schedule_id where name = '{name}'"
        )
    };
    database.until(&fired("near")).await;
    eventually("it says so", async || poor.log().contains("Asia/Tokyo")).await;
    database.until("select error like '%unknown time zone%' from reveille.schedules where name = 'nowhere'").await;
    assert_eq!(
        database.value("select error is null and next_at is null from reveille.schedules where name = 'far'").await,
        true
    );
    assert_eq!(poor.log().matches("Asia/Tokyo").count(), 1, "once");
    let rich = start(teller(&database).0);
    database.until(&fired("far")).await;
    rich.stop().await;
}
