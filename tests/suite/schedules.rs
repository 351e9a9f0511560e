//! Each tick of a schedule is enqueued once, on time, by any worker.

use std::time::Duration;

use reveille::admin::doctor::Verdict;
use reveille::job::Payload;
use reveille::schedule::{CatchUp, Schedule};
use reveille::{
    Context, State, Worker,
    driver::{Driver, Memory, Postgres},
    job::NewJob,
};
use serde_json::{Value, json};

use crate::conformance::Store;
use crate::harness::{
    Note, Reporter, client, database, eventually, note, report, reporting, reporting_worker, start, worker,
};

/// A time that is shorter than a poll interval. Only a signal can wake a worker within this time.
const WOKEN_WITHIN: Duration = Duration::from_secs(20);

fn every(name: &str, every: Duration, text: &str) -> Schedule {
    Schedule::every(name, every, &note(text)).unwrap()
}

const HOUR: Duration = Duration::from_secs(3600);

async fn report_tick(note: Note, State(reporter): State<Reporter>, context: Context) {
    reporter.report(format!(
        "{} {} {}",
        note.text,
        context.metadata().unwrap()["schedule"],
        context.metadata().unwrap()["tick"].is_string()
    ));
}

#[tokio::test]
async fn a_declared_schedule_runs_and_its_jobs_name_it() {
    for store in [Store::postgres().await, Store::memory().await] {
        let (reporter, mut reports) = reporting();
        let builder = match &store {
            Store::Postgres(database, _) => worker(database),
            Store::Memory(memory) => Worker::builder(memory.clone()),
        };
        let often = every("often", Duration::from_millis(50), "a");
        let running = start(builder.state(reporter).handle(report_tick).schedule(often));
        for _ in 0..3 {
            assert_eq!(reports.next().await, "a \"often\" true");
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn moving_the_clock_of_the_memory_driver_makes_a_tick_due() {
    let (memory, (reporter, mut reports)) = (Memory::new(), reporting());
    let builder =
        Worker::builder(memory.clone()).state(reporter).handle(report).schedule(every("hourly", HOUR, "tick"));
    let running = start(builder);
    eventually("the tick is due", async || {
        memory.advance(HOUR / 2);
        !memory.jobs().is_empty()
    })
    .await;
    assert_eq!(reports.next().await, "tick");
    running.stop().await;
}

#[tokio::test]
async fn a_schedule_added_resumed_or_moved_by_sql_wakes_a_worker() {
    let database = database().await;
    let (builder, mut reports) = reporting_worker(&database);
    let running = start(builder);
    database.until("select count(*) = 1 from reveille.sleepers").await;
    let mut fires = async |what: &str| {
        let text = tokio::time::timeout(WOKEN_WITHIN, reports.next()).await.expect(what);
        assert_eq!(text, "s");
    };
    let add = "select reveille.schedule('s', kind => 'note', payload => '{\"text\": \"s\"}', cron => '* * * * * *')";
    database.run(add).await;
    fires("added").await;
    database.run("select reveille.pause_schedule('s')").await;
    database.run("update reveille.schedules set cron = '0 0 1 1 *'").await;
    database.run("select reveille.resume_schedule('s')").await;
    database.until("select next_at > now() from reveille.schedules").await;
    database.run("delete from reveille.jobs; update reveille.schedules set next_at = now()").await;
    database
        .until("select last_at = date_trunc('microsecond', last_at) and next_at > now() from reveille.schedules")
        .await;
    fires("moved").await;
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_cannot_listen_finds_new_schedules_at_its_polls() {
    let database = database().await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(database.database.clone()).listen(false).poll_interval(Duration::from_millis(50));
    let running = start(builder.state(reporter).handle(report));
    database.until("select count(*) = 1 from reveille.workers").await;
    database
        .run("select reveille.schedule('s', kind => 'note', payload => '{\"text\": \"s\"}', cron => '* * * * * *')")
        .await;
    assert_eq!(tokio::time::timeout(WOKEN_WITHIN, reports.next()).await.expect("polled"), "s");
    running.stop().await;
}

#[tokio::test]
async fn missed_ticks_are_caught_up_as_the_schedule_says() {
    let database = database().await;
    let late = "insert into reveille.schedules (name, kind, queue, cron, catch_up, counted_from, next_at)
        select policy, 'k', 'kept', '0 0 1 1 *', policy, '2000-06-01', '2001-01-01 00:00Z'
        from unnest(array['skip', 'one', 'all']) as policy";
    database.run(late).await;
    let running = start(reporting_worker(&database).0);
    database.until("select bool_and(next_at > now()) from reveille.schedules").await;
    running.stop().await;
    let caught = "select jsonb_object_agg(name, ticks) from (
        select name, count(jobs.id) - case name when 'all' then extract(year from now()) - 2000 else 0 end as ticks
        from reveille.schedules left join reveille.jobs on schedule_id = schedules.id group by name) as of_each";
    assert_eq!(database.value(caught).await, json!({"skip": 0, "one": 1, "all": 0}));
    let which = "select bool_and(available_at = date_trunc('year', now(), 'UTC')) from reveille.jobs
        join reveille.schedules on schedules.id = schedule_id where name = 'one'";
    assert_eq!(database.value(which).await, true, "one job, that of the last tick, stands for all missed ticks");
    let order = "select array_agg(jobs.id order by jobs.id) = array_agg(jobs.id order by available_at)
        from reveille.jobs join reveille.schedules on schedules.id = schedule_id where name = 'all'";
    assert_eq!(database.value(order).await, true, "the job of the oldest tick comes first");
}

#[tokio::test]
async fn an_unreadable_schedule_is_marked_and_the_others_go_on() {
    let database = database().await;
    let added = "insert into reveille.schedules (name, kind, cron, time_zone) values
        ('text', 'k', 'whenever', 'UTC'), ('zone', 'k', '@daily', 'Mars/Olympus'), ('never', 'k', '0 0 30 2 *', 'UTC');
        select reveille.schedule('good', kind => 'k', every => '50 milliseconds')";
    database.run(added).await;
    let running = start(reporting_worker(&database).0);
    database.until("select count(*) > 1 from reveille.jobs").await;
    let errors = "select jsonb_object_agg(name, error) from reveille.schedule_status";
    let errors = database.value(errors).await;
    for (name, part) in [("text", "cannot be read"), ("zone", "unknown time zone"), ("never", "never comes")] {
        assert!(errors[name].as_str().unwrap().contains(part), "{errors}");
    }
    assert_eq!(errors["good"], Value::Null);
    let found = database.doctor().examine().await.unwrap();
    let bad: Vec<_> = found.iter().filter(|found| found.check == "schedules" && found.state == Verdict::Bad).collect();
    assert_eq!(bad.len(), 3, "{bad:?}");
    database.run("update reveille.schedules set cron = '@hourly', time_zone = 'UTC' where cron is not null").await;
    database.until("select bool_and(error is null and next_at is not null) from reveille.schedules").await;
    running.stop().await;
}

#[tokio::test]
async fn a_locked_schedule_delays_no_other() {
    let database = database().await;
    let add = "select reveille.schedule(n, kind => 'k', queue => 'kept', every => '100 milliseconds', \
        catch_up => 'all') from unnest(array['held', 'free']) as n";
    database.run(add).await;
    let mut holder = database.client().await;
    let holding = holder.transaction().await.unwrap();
    holding.batch_execute("select from reveille.schedules where name = 'held' for update").await.unwrap();
    let running = start(reporting_worker(&database).0);
    let of = |name: &str, enough: u32| {
        format!("select count(*) >= {enough} from reveille.jobs where metadata ->> 'schedule' = '{name}'")
    };
    database.until(&of("free", 10)).await;
    assert_eq!(database.value(&of("held", 1)).await, false);
    holding.commit().await.unwrap();
    database.until(&of("held", 10)).await;
    let gaps = "select bool_and(gap = '100 milliseconds') from (
        select available_at - lag(available_at) over (partition by schedule_id order by available_at) as gap
        from reveille.jobs) as gaps
        where gap is not null";
    assert_eq!(database.value(gaps).await, true, "no tick is left out");
    running.stop().await;
}

#[tokio::test]
async fn a_declared_schedule_follows_the_code_and_keeps_its_next_tick() {
    let database = database().await;
    let running = |schedule: Schedule| start(reporting_worker(&database).0.schedule(schedule));
    let row =
        "select jsonb_build_array(next_at, payload ->> 'text', queue, paused_at is not null) from reveille.schedules";
    let status = async || database.value("select jsonb_build_array(stale, paused) from reveille.schedule_status").await;
    let first = running(every("hourly", HOUR, "old"));
    database.until("select next_at is not null from reveille.schedules").await;
    let before = database.value(row).await;
    assert_eq!((&before[1], status().await), (&json!("old"), json!([false, false])));
    first.stop().await;
    assert_eq!(status().await, json!([true, false]), "no worker declares the schedule any more");

    database.run("update reveille.schedules set paused_at = now()").await;
    let second = running(every("hourly", HOUR, "new").queue("other"));
    database.until("select payload ->> 'text' = 'new' from reveille.schedules").await;
    assert_eq!(database.value(row).await, json!([before[0], "new", "other", true]));
    assert_eq!(status().await, json!([false, true]));
    second.stop().await;

    let third = running(Schedule::cron("hourly", "@daily", &note("new")).unwrap().time_zone("Asia/Tokyo"));
    database.run("select reveille.resume_schedule('hourly')").await;
    database.until("select extract(hour from next_at at time zone 'Asia/Tokyo') = 0 from reveille.schedules").await;
    third.stop().await;
}

#[tokio::test]
async fn a_worker_declared_dead_declares_its_schedules_anew() {
    let database = database().await;
    let running =
        start(reporting_worker(&database).0.schedule(every("hourly", HOUR, "a")).heartbeat(Duration::from_millis(50)));
    database.until("select count(*) = 1 from reveille.schedule_declarations").await;
    database.run("create table before as select id from reveille.workers; delete from reveille.workers").await;
    let anew = "select count(*) = 1 from reveille.schedule_declarations where worker not in (select id from before)";
    let declared = async || database.value(anew).await == true;
    tokio::time::timeout(WOKEN_WITHIN, eventually("the schedule is declared anew", declared))
        .await
        .expect("without a poll");
    running.stop().await;
}

#[tokio::test]
async fn schedules_can_be_managed_by_sql_alone() {
    let database = database().await;
    let call = async |sql: &str| database.value(&format!("select reveille.{sql}")).await;
    assert_eq!(
        call("schedule('s', kind => 'k', cron => '@daily', queue => 'q', time_zone => 'Europe/Berlin')").await,
        1
    );
    assert_eq!(call("trigger_schedule('s')").await, 1);
    let job = "select jsonb_build_array(kind, queue, schedule_id, metadata ->> 'schedule', available_at <= now()) \
        from reveille.jobs";
    assert_eq!(database.value(job).await, json!(["k", "q", 1, "s", true]));
    assert_eq!(call("schedule('s', kind => 'other', every => '1 hour')").await, 1, "the schedule keeps its id");
    assert_eq!(call("pause_schedule('s')").await, true);
    let shown = "select to_jsonb(s) from reveille.schedule_status as s";
    let expected = json!({"name": "s", "timing": "every 01:00:00", "time_zone": "UTC", "kind": "other",
        "queue": "default", "catch_up": "one", "next_at": null, "last_at": null,
        "paused": true, "stale": false, "error": null});
    assert_eq!(database.value(shown).await, expected);
    assert_eq!(call("resume_schedule('s')").await, true);
    assert_eq!(call("unschedule('s')").await, true);
    assert_eq!(
        database.value("select count(*) from reveille.jobs").await,
        1,
        "the jobs that the schedule enqueued stay"
    );
    for call_on in ["unschedule", "pause_schedule", "resume_schedule"] {
        assert_eq!(call(&format!("{call_on}('s')")).await, false);
    }
    assert_eq!(call("trigger_schedule('s')").await, Value::Null);

    let refused =
        async |arguments: &str| database.refusal(&format!("select reveille.schedule('s', {arguments})")).await;
    assert!(refused("kind => 'k'").await.contains("either cron or every"));
    assert!(refused("kind => 'k', cron => '@daily', every => '1 hour'").await.contains("either cron or every"));
    assert!(refused("kind => 'k', cron => '@daily', time_zone => 'Mars/Olympus'").await.contains("Mars/Olympus"));
    assert!(refused("kind => 'k', every => '1 month'").await.contains("every_has_no_months"));
    assert!(refused("kind => 'k', every => '0'").await.contains("every_is_a_millisecond"));
    assert!(refused("kind => 'k', every => '1 hour', catch_up => 'some'").await.contains("catch_up_is"));
    assert!(refused("kind => '', every => '1 hour'").await.contains("kind_has"));
}

#[tokio::test]
async fn an_administrator_adds_a_schedule_with_every_option_of_a_job() {
    let database = database().await;
    let admin = database.admin();
    let schedule =
        Schedule::cron("n; drop \"schema\" '--", "*/5 * * * *", &NewJob::new("k", Payload::parse("[1]").unwrap()))
            .unwrap()
            .time_zone("America/New_York")
            .catch_up(CatchUp::All)
            .queue("q")
            .priority(reveille::job::Priority::High)
            .max_attempts(3)
            .timeout(Duration::from_secs(9))
            .key("k")
            .tag("t")
            .metadata(&json!({"m": 1}))
            .unwrap();
    assert_eq!(admin.add_schedule(&schedule).await.unwrap(), 1);
    assert_eq!(admin.add_schedule(&schedule).await.unwrap(), 1);
    let row = "select jsonb_build_array(cron, time_zone, catch_up, kind, payload, queue, priority, max_attempts, \
        timeout, key, tags,
        metadata, declared_at) from reveille.schedules";
    let expected =
        json!(["*/5 * * * *", "America/New_York", "all", "k", [1], "q", 1, 3, "00:00:09", "k", ["t"], {"m": 1}, null]);
    assert_eq!(database.value(row).await, expected);
    assert!(admin.add_schedule(&schedule.clone().time_zone("Nowhere")).await.unwrap_err().is_invalid());
    assert_eq!(admin.trigger_schedule(&schedule.name).await.unwrap(), Some(1));
    assert!(admin.pause_schedule(&schedule.name).await.unwrap());
    let shown = &admin.schedules().await.unwrap()[0];
    assert!(shown.paused && shown.catch_up == CatchUp::All && shown.next_at.is_none(), "{shown:?}");
    assert_eq!((&*shown.timing, &*shown.time_zone), ("*/5 * * * *", "America/New_York"));
    assert_eq!(shown.record().get("paused"), Some("true"));
    assert!(admin.resume_schedule(&schedule.name).await.unwrap());
    assert!(admin.remove_schedule(&schedule.name).await.unwrap() && admin.schedules().await.unwrap().is_empty());
    assert_eq!(admin.trigger_schedule(&schedule.name).await.unwrap(), None);
}

#[tokio::test]
async fn a_worker_with_an_invalid_schedule_is_not_built() {
    let database = database().await;
    let build = |schedules: Vec<Schedule>| {
        let builder = reporting_worker(&database).0;
        schedules
            .into_iter()
            .fold(builder, |builder, schedule| builder.schedule(schedule))
            .build()
            .err()
            .unwrap()
            .to_string()
    };
    assert!(Schedule::cron("s", "61 * * * *", &note("a")).unwrap_err().is_invalid());
    let daily = || Schedule::cron("s", "@daily", &note("a")).unwrap();
    assert!(build(vec![daily().time_zone("Mars/Olympus")]).contains("Mars/Olympus"));
    assert!(build(vec![daily(), daily()]).contains("declared twice"));
}

#[tokio::test]
async fn finding_due_schedules_reads_few_pages() {
    let database = database().await;
    let many = "insert into reveille.schedules (name, kind, every, next_at) \
        select n::text, 'k', '1 day', now() + n * interval '1 minute'
        from generate_series(1, 20000) as n; analyze reveille.schedules";
    database.run(many).await;
    let driver = Postgres::new(database.database.clone()).unwrap();
    let looked = driver.due_schedules(256).await.unwrap();
    assert!(looked.schedules.is_empty() && looked.due_in.unwrap() < Duration::from_secs(60), "{looked:?}");
    let reading = client(&database.address).await;
    reading
        .batch_execute("set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off")
        .await
        .unwrap();
    let sql = include_str!("../../sql/due_schedules.sql").replace("$1", "256");
    let plan = reading.query_one(&format!("explain (analyze, buffers, format json) {sql}"), &[]).await.unwrap();
    let read = plan.get::<_, Value>(0)[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap();
    assert!(read < 50, "{read} pages");
}

#[tokio::test]
async fn a_time_zone_that_differs_between_hosts_is_refused() {
    let database = database().await;
    for zone in ["localtime", "right/UTC"] {
        let schedule = Schedule::cron("s", "@daily", &note("x")).unwrap().time_zone(zone);
        let refused = database.admin().add_schedule(&schedule).await.unwrap_err();
        assert!(refused.is_invalid() && refused.to_string().contains("depends on the host"), "{refused}");
    }
    database
        .run("insert into reveille.schedules (name, kind, cron, time_zone) values ('s', 'k', '@daily', 'localtime')")
        .await;
    let running = start(reporting_worker(&database).0);
    database.until("select error like '%depends on the host%' from reveille.schedules").await;
    running.stop().await;
}
