//! Times: tables show them in the reader's zone, JSON has them in UTC.

use serde_json::Value;

use crate::cli::{command, reveille, run};
use crate::harness::{TestDatabase, client, database};

fn shown(database: &TestDatabase, zone: &str, arguments: &[&str]) -> String {
    let mut command = command(arguments);
    command.env("DATABASE_URL", &database.address).env("TZ", zone);
    run(command, "").out
}

#[tokio::test]
async fn times_are_shown_in_the_readers_zone_with_its_offset() {
    let database = database().await;
    let row = "insert into reveille.jobs (kind, payload, available_at)
        values ('k', '\"2026-01-01T00:00:00Z is new year\"', '2096-07-24 16:00:00.5+00')";
    database.run(row).await;
    assert!(shown(&database, "Europe/Berlin", &["jobs"]).contains("2096-07-24 18:00:00+02:00"));
    assert!(shown(&database, "America/New_York", &["job", "1"]).contains("2096-07-24 12:00:00-04:00"));
    assert!(shown(&database, "UTC", &["jobs"]).contains("2096-07-24 16:00:00+00:00"));
    assert!(
        shown(&database, "UTC", &["job", "1"]).contains("2026-01-01T00:00:00Z is new year"),
        "a text that looks like a time is not changed"
    );
}

/// Makes rows of every table with a time in them: 16:00:00 UTC of some day.
async fn at_four(database: &TestDatabase) {
    let rows = "insert into reveille.jobs (kind, available_at, attempts, failures, errors)
            values ('k', '2096-07-24 16:00:00+00', 1, 1,
                '[{\"at\": \"2026-07-24T16:00:00+00:00\", \"error\": \"e\", \"attempt\": 1, \"reason\": \"failed\"}]');
        insert into reveille.jobs (kind, attempts, reserved_by, reserved_at)
            values ('k', 1, 7, '2026-07-24 16:00:00+00');
        insert into reveille.dead_jobs (id, queue, kind, payload, priority, attempts, failures, max_attempts,
                available_at, created_at, finished_at, reason)
            values (9, 'q', 'k', '{}', 2, 1, 1, 1, now(), now(), '2026-07-24 16:00:00+00', 'failed');
        insert into reveille.workers (id, host, pid, version, queues, slots, started_at)
            values (7, 'h', 1, '0', '{default}', 1, '2026-07-24 16:00:00+00');
        select reveille.schedule(name => 's', cron => '* * * * *', kind => 'k');
        update reveille.schedules set next_at = '2026-07-24 16:00:00+00'";
    database.run(rows).await;
}

const TABLES: [&[&str]; 6] = [
    &["jobs"],
    &["jobs", "--state", "running"],
    &["job", "1"],
    &["dead", "list"],
    &["workers", "list"],
    &["schedule", "list"],
];

#[tokio::test]
async fn every_table_shows_its_times_in_the_readers_zone() {
    let database = database().await;
    at_four(&database).await;
    for arguments in TABLES {
        let shown = shown(&database, "Asia/Kolkata", arguments);
        assert!(shown.contains("-07-24 21:30:00+05:30"), "{arguments:?}: {shown}");
        assert!(!shown.contains("16:00:00"), "{arguments:?}: {shown}");
    }
    let next = ["schedule", "next", "0 16 * * *", "--count", "1", "--after", "2026-07-24"];
    assert_eq!(shown(&database, "Asia/Kolkata", &next), "Fri 2026-07-24 16:00:00 +00:00 UTC\n", "its own zone");
}

/// Returns all times among the members of an object. Objects within it are data of users.
fn times(object: &Value) -> Vec<String> {
    let texts = object.as_object().unwrap().values().filter_map(Value::as_str);
    texts.filter(|text| text.len() >= 20 && text.as_bytes()[10] == b'T').map(str::to_owned).collect()
}

#[tokio::test]
async fn json_has_times_in_utc_whatever_zone_the_server_and_the_reader_have() {
    let database = database().await;
    let payload = "insert into reveille.jobs (id, kind, payload) overriding system value
        values (77, 'k', '\"2026-07-24T16:00:00+07:00\"')";
    database.run(payload).await;
    at_four(&database).await;
    let name = database.value("select current_database()").await;
    database.run(&format!("alter database {} set timezone = 'Asia/Kolkata'", name.as_str().unwrap())).await;
    let zone = client(&database.address).await.query_one("show timezone", &[]).await.unwrap();
    assert_eq!(zone.get::<_, &str>(0), "Asia/Kolkata");
    for arguments in TABLES {
        let arguments = [arguments, &["--json"]].concat();
        for object in reveille(&database, &arguments).json() {
            let times = times(&object);
            let found = times.iter().filter(|time| time.ends_with("+00:00")).count();
            let payloads = usize::from(object["id"] == 77);
            assert!(!times.is_empty() && found + payloads == times.len(), "{arguments:?}: {times:?}");
        }
    }
    let payload = &reveille(&database, &["job", "77", "--json"]).json()[0]["payload"];
    assert_eq!(payload, "2026-07-24T16:00:00+07:00", "a user's text is not changed");
}
