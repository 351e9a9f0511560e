//! One filter chooses jobs for listings and for changes of many jobs.

use std::time::Duration;

use reveille::admin::{Admin, BulkAction, Filter, Sort, StateFilter};
use reveille::driver::FailureReason;
use reveille::job::{JobState, Payload};
use serde_json::{Value, json};

use crate::harness::database;

/// Live, dead and finished jobs with many values, 3,000 of each.
pub const MIXED: &str = "insert into reveille.workers (id, host, pid, version, queues, slots, stuck_jobs, stuck_since)
    values (7, 'here', 1, '0', '{a}', 9, '{1000, 2000}', '{now, now}');
    insert into reveille.queues (name, retention) values ('short', '1 hour');
    insert into reveille.jobs (
        queue, kind, payload, key, tags, available_at, created_at, attempts, failures, errors, reserved_at, reserved_by
    )
    select
        case n % 3 when 0 then 'a' else 'b' end, 'k' || n % 4, jsonb_build_object('n', n % 10, 'list', array[n % 3, 7]),
        'key' || n % 5, case n % 6 when 0 then array['t', 'u'] when 1 then array['t'] end,
        now() + (n % 2 * 2 - 1) * interval '1 hour', now() - n * interval '1 minute', (n % 7 = 0 or n % 100 = 0)::int,
        (n % 7 = 0)::int,
        case n % 7 when 0 then jsonb_build_array(jsonb_build_object('error', 'old'),
            jsonb_build_object('error', 'host ' || n % 9 || ' refused')) when 1 then '[]' end,
        case n % 100 when 0 then now() end, case n % 100 when 0 then 7 end
    from generate_series(1, 3000) as n;
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, key, tags,
        errors, reason, finished_at
    )
    select
        n, case n % 3 when 0 then 'a' else 'b' end, 'k' || n % 4, jsonb_build_object('n', n % 10), 2, 1, 1, 1, now(),
        now(), 'key' || n % 5, case n % 6 when 0 then array['t', 'u'] when 1 then array['t'] end,
        jsonb_build_array(jsonb_build_object('error', 'host ' || n % 9 || ' refused')),
        case n % 2 when 0 then 'failed' else 'lost' end, now() - n * interval '1 minute'
    from generate_series(10001, 13000) as n;
    insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, key, tags,
        outcome, finished_at
    )
    select
        extract(epoch from ended)::bigint / 86400 % 32, n, case n % 3 when 0 then 'a' when 1 then 'short' else 'b' end,
        'k' || n % 4, jsonb_build_object('n', n % 10), 2, 1, 1, 1, now(), now(), 'key' || n % 5,
        case n % 6 when 0 then array['t', 'u'] when 1 then array['t'] end,
        case n % 2 when 0 then 'completed' else 'cancelled' end, ended
    from (select n, now() - (n - 20000) * interval '1 minute' as ended from generate_series(20001, 23000) as n) as jobs;
    select setval('reveille.jobs_id_seq', 30000)";

pub fn payload(json: &str) -> Payload {
    Payload::parse(json).unwrap()
}

/// Filters, each with the table and the condition that it stands for.
fn filters() -> Vec<(Filter, &'static str, &'static str)> {
    let f = Filter::new;
    let dead = || f().state(JobState::Dead);
    let finished = || f().state(StateFilter::Finished);
    let minutes = |n: u64| Duration::from_secs(n * 60 + 30);
    let kept = "finished_at > now() - case queue when 'short' then interval '1 hour' else interval '1 day' end";
    vec![
        (f(), "jobs", "true"),
        (f().queue("a"), "jobs", "queue = 'a'"),
        (f().kind("k1"), "jobs", "kind = 'k1'"),
        (f().queue("a").key("key2"), "jobs", "queue = 'a' and key = 'key2'"),
        (
            f().queue("a").key("key2").state(JobState::Delayed),
            "jobs",
            "queue = 'a' and key = 'key2' and available_at > now() and reserved_at is null",
        ),
        (f().key("key2"), "jobs", "key = 'key2'"),
        (f().tag("t"), "jobs", "'t' = any (tags)"),
        (f().tag("u").tag("t").queue("a"), "jobs", "'t' = any (tags) and 'u' = any (tags) and queue = 'a'"),
        (f().state(JobState::Ready), "jobs", "available_at <= now() and reserved_at is null"),
        (f().state(JobState::Running), "jobs", "reserved_at is not null"),
        (
            f().state(JobState::Running).kind("k0").queue("b"),
            "jobs",
            "reserved_at is not null and kind = 'k0' and queue = 'b'",
        ),
        (f().state(StateFilter::Stuck), "jobs", "id in (1000, 2000)"),
        (f().state(StateFilter::Failing), "jobs", "failures > 0"),
        (f().state(StateFilter::Failing).queue("a"), "jobs", "failures > 0 and queue = 'a'"),
        (f().error("host 3 ref"), "jobs", "errors -> -1 ->> 'error' like '%host 3 ref%'"),
        (f().error("old"), "jobs", "false"),
        (f().error_line("host 3 refused"), "jobs", "errors -> -1 ->> 'error' = 'host 3 refused'"),
        (f().error_line("host 3 refuse"), "jobs", "false"),
        (f().error_line("host 3 refused\nand more"), "jobs", "errors -> -1 ->> 'error' = 'host 3 refused'"),
        (f().error_line("host 3 refused").error("3"), "jobs", "errors -> -1 ->> 'error' = 'host 3 refused'"),
        (f().error_line("host 3 refused").error("4"), "jobs", "false"),
        (f().payload(payload(r#"{"n": 4}"#)), "jobs", "payload ->> 'n' = '4'"),
        (f().payload(payload(r#"{"list": [2]}"#)).queue("b"), "jobs", "payload -> 'list' @> '2' and queue = 'b'"),
        (f().older_than(minutes(2000)), "jobs", "created_at < now() - interval '2000 minutes 30 s'"),
        (f().newer_than(minutes(2000)), "jobs", "created_at > now() - interval '2000 minutes 30 s'"),
        (
            f().older_than(minutes(10)).newer_than(minutes(20)),
            "jobs",
            "now() - created_at between interval '10 minutes 30 s' and interval '20 minutes 30 s'",
        ),
        (f().queue("no such"), "jobs", "false"),
        (dead(), "dead_jobs", "true"),
        (f().reason(FailureReason::Lost), "dead_jobs", "reason = 'lost'"),
        (dead().queue("a").kind("k0"), "dead_jobs", "queue = 'a' and kind = 'k0'"),
        (
            f().queue("a").kind("k0").reason(FailureReason::Failed),
            "dead_jobs",
            "queue = 'a' and kind = 'k0' and reason = 'failed'",
        ),
        (f().queue("b").reason(FailureReason::Failed), "dead_jobs", "queue = 'b' and reason = 'failed'"),
        (dead().key("key3").tag("t"), "dead_jobs", "key = 'key3' and 't' = any (tags)"),
        (dead().error("host 3 ref"), "dead_jobs", "errors -> -1 ->> 'error' like '%host 3 ref%'"),
        (dead().error_line("host 3 refused"), "dead_jobs", "errors -> -1 ->> 'error' = 'host 3 refused'"),
        (dead().error_line("refused"), "dead_jobs", "false"),
        (dead().payload(payload(r#"{"n": 4}"#)), "dead_jobs", "payload ->> 'n' = '4'"),
        (dead().older_than(minutes(12_000)), "dead_jobs", "finished_at < now() - interval '12000 minutes 30 s'"),
        (dead().newer_than(minutes(12_000)), "dead_jobs", "finished_at > now() - interval '12000 minutes 30 s'"),
        (finished(), "finished_jobs", kept),
        (
            f().state(JobState::Cancelled).queue("a"),
            "finished_jobs",
            "outcome = 'cancelled' and queue = 'a' and finished_at > now() - interval '1 day'",
        ),
        (
            finished().key("key3").tag("t").queue("b"),
            "finished_jobs",
            "key = 'key3' and 't' = any (tags) and queue = 'b' and finished_at > now() - interval '1 day'",
        ),
        (
            finished().older_than(minutes(70)).queue("a"),
            "finished_jobs",
            "queue = 'a' and now() - finished_at between interval '70 minutes 30 s' and interval '1 day'",
        ),
        (finished().newer_than(minutes(20)), "finished_jobs", "finished_at > now() - interval '20 minutes 30 s'"),
        (
            finished().payload(payload(r#"{"n": 4}"#)).queue("a"),
            "finished_jobs",
            "payload ->> 'n' = '4' and queue = 'a' and finished_at > now() - interval '1 day'",
        ),
    ]
}

async fn listed(admin: &Admin, filter: &Filter) -> Value {
    let jobs = admin.jobs(filter, 100_000).await.unwrap();
    Value::from(jobs.iter().map(|job| job.id).collect::<Vec<_>>())
}

fn action(table: &str) -> BulkAction {
    match table {
        "jobs" => BulkAction::Cancel,
        "dead_jobs" => BulkAction::Purge,
        _ => BulkAction::RunAgain,
    }
}

#[tokio::test]
async fn each_condition_of_a_filter_chooses_exactly_its_jobs() {
    let database = database().await;
    database.run(MIXED).await;
    let admin = database.admin();
    for (filter, table, condition) in filters() {
        let ids =
            format!("select coalesce(jsonb_agg(id order by id desc), '[]') from reveille.{table} where {condition}");
        let expected = database.value(&ids).await;
        assert_eq!(listed(&admin, &filter).await, expected, "{filter:?}");
        let few = admin.jobs(&filter, 3).await.unwrap();
        assert!(
            few.iter().map(|job| job.id).eq(expected.as_array().unwrap().iter().take(3).map(|id| id.as_i64().unwrap()))
        );
        let mut bulk = admin.bulk(action(table), &filter).unwrap();
        assert_eq!(bulk.count().await.unwrap(), expected.as_array().unwrap().len() as u64, "{filter:?}");
    }
}

#[tokio::test]
async fn a_change_of_many_jobs_touches_exactly_the_jobs_that_it_counts() {
    let template = database().await;
    template.run(MIXED).await;
    let admin = template.admin();
    for (filter, table, condition) in filters() {
        let count = |which: &str| format!("select count(*) from reveille.{table} where {which}");
        let matching = template.value(&count(condition)).await.as_u64().unwrap();
        let others = template.value(&count(&format!("({condition}) is not true"))).await.as_u64().unwrap();
        let result = admin.bulk(action(table), &filter).unwrap().run().await.unwrap();
        assert_eq!((result.done, result.passed_over, result.refused.len()), (matching, 0, 0), "{filter:?}");
        match table {
            "finished_jobs" => {}
            // The handlers of running jobs are asked to stop; the jobs stay.
            "jobs" => {
                let left = template.value(&count("cancel_requested_at is null")).await.as_u64().unwrap();
                let requested = template.value(&count("cancel_requested_at is not null")).await.as_u64().unwrap();
                assert_eq!((result.requested, left), (requested, others), "{filter:?}");
            }
            _ => assert_eq!(template.value(&count("true")).await.as_u64().unwrap(), others, "{filter:?}"),
        }
        let empty = "truncate reveille.jobs, reveille.dead_jobs, reveille.finished_jobs, reveille.queues; \
            delete from reveille.workers; alter sequence reveille.jobs_id_seq restart";
        template.run(&format!("{empty}; {MIXED}")).await;
    }
}

/// Texts that could end a string, a pattern, a path or an array, if they were not only values.
const HOSTILE: [&str; 12] = [
    "'; drop table reveille.jobs; --",
    "$1",
    "%",
    "_",
    "\\",
    "\\x27",
    "{\"a\":1}",
    "{a,b}",
    "$$; select 1; $$",
    "reveille.jobs",
    "\u{1f418} \u{202e} \t\n\"",
    "null",
];

#[tokio::test]
async fn hostile_text_in_a_filter_is_only_text() {
    let database = database().await;
    let client = database.client().await;
    let insert = "insert into reveille.jobs (queue, kind, key, tags, payload, errors, attempts, failures)
        values ($1, $1, $1, array[$1], jsonb_build_object('text', $1::text),
            jsonb_build_array(jsonb_build_object('error', '<' || $1 || '>')), 1, 1)";
    for text in HOSTILE {
        client.execute(insert, &[&text]).await.unwrap();
    }
    client.execute(insert, &[&"plain"]).await.unwrap();
    let admin = database.admin();
    for (place, text) in (1..).zip(HOSTILE) {
        let contained = Payload::encode(&json!({"text": text})).unwrap();
        let filters = [
            Filter::new().queue(text),
            Filter::new().kind(text),
            Filter::new().key(text),
            Filter::new().queue(text).key(text),
            Filter::new().tag(text),
            Filter::new().error(format!("<{text}>")),
            Filter::new().payload(contained),
        ];
        for filter in filters {
            assert_eq!(listed(&admin, &filter).await, json!([place]), "{filter:?}");
        }
    }
    let all = Filter::new().queue(HOSTILE[0]).kind("x");
    assert_eq!(admin.bulk(BulkAction::Cancel, &all).unwrap().run().await.unwrap().done, 0);
    let result = admin.bulk(BulkAction::Cancel, &Filter::new().error("%")).unwrap().run().await.unwrap();
    assert_eq!((result.done, database.value("select count(*) from reveille.jobs").await), (1, json!(HOSTILE.len())));
    let nul = admin.jobs(&Filter::new().error("a\0b"), 1).await.unwrap_err();
    assert!(nul.is_invalid(), "{nul}");
}

#[tokio::test]
async fn a_listing_is_sorted_by_due_time_as_the_index_has_it() {
    let database = database().await;
    let jobs = "insert into reveille.jobs (queue, kind, priority, available_at)
        select
            case n % 2 when 0 then 'a' else 'b' end, 'k' || n % 3, n % 4,
            now() + (n * 7919 % 5000 - 2500) * interval '1 s'
        from generate_series(1, 5000) as n;
        update reveille.jobs set reserved_at = now(), reserved_by = 1, attempts = 1 where id % 50 = 0";
    database.run(jobs).await;
    let admin = database.admin();
    let q = Filter::new().queue("a");
    for (filter, condition, limit) in [
        (q.clone(), "true", 2500),
        (q.clone().kind("k1"), "kind = 'k1'", 100),
        (q.clone().state(JobState::Delayed), "available_at > now()", 10),
        (q.state(JobState::Ready), "available_at <= now()", 5000),
    ] {
        let jobs = admin.jobs_sorted(&filter, Sort::Due, limit).await.unwrap();
        let expected = format!(
            "select jsonb_agg(id order by available_at, id) from (select * from reveille.jobs where queue = 'a' and \
                reserved_at is null and {condition} order by available_at, id limit {limit}) as jobs"
        );
        let ids = Value::from(jobs.iter().map(|job| job.id).collect::<Vec<_>>());
        assert_eq!(ids, database.value(&expected).await, "{filter:?}");
    }
    let newest = admin.jobs_sorted(&Filter::new(), Sort::Created, 20).await.unwrap();
    assert_eq!(newest.len(), 20);
    for (sort, filter) in
        [(Sort::Due, Filter::new().state(JobState::Dead)), (Sort::Finished, Filter::new().state(JobState::Ready))]
    {
        assert!(admin.jobs_sorted(&filter, sort, 1).await.unwrap_err().is_invalid());
    }
}

#[tokio::test]
async fn a_listing_since_a_time_has_only_later_jobs() {
    let database = database().await;
    database.run(MIXED).await;
    let admin = database.admin();
    let since = admin.job(20).await.unwrap().unwrap().created_at.unwrap() - Duration::from_secs(30);
    assert_eq!(admin.jobs(&Filter::new().since(since), 100).await.unwrap().len(), 20);
    let finished = Filter::new().state(StateFilter::Finished).since(since);
    assert_eq!(admin.jobs(&finished, 100).await.unwrap().len(), 20);
}
