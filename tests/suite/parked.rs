//! Parked jobs: how they are shown, and how they come back.

use reveille::admin::{Filter, Pause, StateFilter, View};
use reveille::driver::{ClaimRequest, Driver};
use reveille::job::JobState;
use serde_json::{Value, json};

use crate::harness::{database, eventually, soon, start};
use crate::pauses::{QUEUES, add, claim, driver, until_parked, working};

#[tokio::test(flavor = "multi_thread")]
async fn parked_jobs_without_end_all_come_back() {
    let database = database().await;
    let many = "insert into reveille.jobs (kind, payload) select 'mail', '{\"text\": \"x\"}' \
        from generate_series(1, 30000)";
    for way in ["the command's library", "SQL, and the worker that finds no due job", "SQL, and upkeep"] {
        database.run("select reveille.pause(kind => 'mail')").await;
        database.run(many).await;
        let driver = driver(&database).await;
        eventually("the jobs are parked", async || {
            assert!(claim(&driver, 100).await.is_empty());
            database.value("select count(*) = 30000 from reveille.jobs where paused_by is not null").await == true
        })
        .await;
        let parked = async || database.value("select count(*) from reveille.jobs where paused_by is not null").await;
        if way.starts_with("SQL") {
            database.run("delete from reveille.pauses").await;
            assert_eq!(parked().await, 20_000);
        } else {
            database.admin().resume(Pause::new().kind("mail")).await.unwrap();
            assert_eq!(parked().await, 0);
        }
        if way.ends_with("upkeep") {
            soon("upkeep ends", database.admin().prune()).await.unwrap();
            assert_eq!(parked().await, 0);
        }
        let mut left = 30_000;
        while left > 0 {
            left -= claim(&driver, 1000).await.len();
        }
        database.run("truncate reveille.jobs").await;
        driver.leave(1).await.unwrap();
    }
}

#[tokio::test]
async fn parked_jobs_are_shown_and_counted_as_such() {
    let database = database().await;
    let driver = driver(&database).await;
    let admin = database.admin();
    database.run("select reveille.pause('held'), reveille.pause(kind => 'mail')").await;
    for kind in ["mail", "mail", "charge"] {
        add(&database, kind, "x", "").await;
    }
    assert_eq!(claim(&driver, 10).await, [3]);
    let ids = async |filter: Filter| {
        let mut ids: Vec<i64> = admin.jobs(&filter, 100).await.unwrap().iter().map(|job| job.id).collect();
        ids.sort_unstable();
        ids
    };
    let parked: StateFilter = JobState::Parked.into();
    for filter in [Filter::new().state(parked), Filter::new().state(parked).queue("default")] {
        assert_eq!(ids(filter).await, [1, 2]);
    }
    assert_eq!(ids(Filter::new().queue("default")).await, [1, 2, 3]);
    for state in [JobState::Ready, JobState::Delayed] {
        assert!(ids(Filter::new().state(state).queue("default")).await.is_empty());
    }
    let stats = "select jsonb_build_array(ready, delayed, running, parked) from reveille.queue_stats \
        where queue = 'default'";
    assert_eq!(database.value(stats).await, json!([0, 0, 1, 2]));
    let left = admin.backlog("default").await.unwrap();
    assert_eq!((left.ready, left.delayed, left.running), (0, 0, 1), "a drain does not wait for parked jobs");
    let pauses = admin.view(View::PauseStatus).await.unwrap();
    let shown: Vec<Value> = pauses
        .iter()
        .map(|pause| {
            let row: Value = serde_json::from_str(&pause.to_string()).unwrap();
            json!([row["queue"], row["kind"], row["key"], row["parked"]])
        })
        .collect();
    assert_eq!(shown, [json!(["held", null, null, null]), json!([null, "mail", null, 2])]);
    database.run("delete from reveille.jobs where id = 3").await;
    assert!(admin.queues().await.unwrap().contains(&"default".into()), "a queue of parked jobs is known");
}

#[tokio::test]
async fn many_pauses_are_listed_and_counted_within_a_bound() {
    let database = database().await;
    database
        .run(
            "insert into reveille.pauses (queue, kind, paused_at)
            select case when n % 2 = 0 then 'q' end, 'k' || n, now() - n * interval '1 s'
            from generate_series(1, 250) as n;
            insert into reveille.queues (name, paused_at) values ('held', now());
            insert into reveille.jobs (queue, kind, paused_by)
            select queue, 'k' || n, (select id from reveille.pauses where kind = 'k' || n)
            from generate_series(1, 250) as n, unnest('{q,other}'::text[]) as queue",
        )
        .await;
    let admin = database.admin();
    let read = async |queues: Option<&[String]>, most| {
        let rows = admin.latest_pauses(queues, most).await.unwrap();
        rows.iter().map(|row| serde_json::from_str(&row.to_string()).unwrap()).collect::<Vec<Value>>()
    };
    let latest = read(None, 3).await;
    let shown: Vec<Value> = latest.iter().map(|row| json!([row["kind"], row["parked"], row["of_pauses"]])).collect();
    assert_eq!(shown, [json!(["k1", 2, 250]), json!(["k2", 1, 250]), json!(["k3", 2, 250])]);
    let all = read(None, 500).await;
    let counted = all.iter().filter(|row| !row["parked"].is_null()).count();
    assert_eq!((all.len(), counted, &all[250]["queue"]), (251, 100, &json!("held")));
    let of_q = read(Some(&["q".into()]), 500).await;
    assert!(of_q.len() == 125 && of_q.iter().all(|row| row["of_pauses"] == 125), "{}", of_q.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_parked_for_a_pause_that_has_ended_is_found() {
    let database = database().await;
    let (builder, mut reports) = working(&database);
    let worker = start(builder);
    for settings in ["", "insert into reveille.queues (name, max_running) values ('default', 3)"] {
        database.run(settings).await;
        database.run("select reveille.pause(kind => 'mail')").await;
        add(&database, "mail", "seen late", "").await;
        until_parked(&database, 1).await;
        // The resume misses the job, as if a claim with an older snapshot had parked it only then.
        let missed = "begin; alter table reveille.pauses disable trigger ended; delete from reveille.pauses; \
            alter table reveille.pauses enable trigger ended; select reveille.ring('{default}'); commit";
        database.run(missed).await;
        assert_eq!(reports.next().await, "seen late");
    }
    worker.stop().await;
}

#[tokio::test]
async fn claims_without_a_pause_do_not_ask_whether_a_job_is_paused() {
    for (statement, settings) in QUEUES {
        let database = database().await;
        database.run(settings).await;
        database
            .run(
                "create or replace function reveille.pause_of(queue text, kind text, key text) returns bigint
                language plpgsql stable as $$ begin raise 'a claim has asked'; end $$",
            )
            .await;
        database.run("select reveille.pause('other', kind => 'mail')").await;
        let driver = driver(&database).await;
        for key in ["", ", key => 'k'"] {
            add(&database, "mail", "x", key).await;
        }
        assert_eq!(claim(&driver, 10).await.len(), 2, "{statement}");
        database.run("delete from reveille.jobs; select reveille.pause(kind => 'charge')").await;
        add(&database, "mail", "x", "").await;
        let error = driver.claim(&ClaimRequest::new(1, "default", 10)).await.unwrap_err();
        assert!(error.to_string().contains("a claim has asked"), "{statement}: {error}");
    }
}
