//! What pages show of the recent past: groups and errors of dead jobs, counts by time, and the last job of a kind.

use std::time::Duration;

use reveille::admin::{Admin, DeadJobs, FailureReason, Filter};
use reveille::job::JobState;

use crate::harness::{TestDatabase, database};

/// Dead jobs: 30 of queue a, kind k, and 5 of queue b, kind l. The jobs of a have errors of two lines, of which the
/// first is one of three; one has no error.
const DEAD: &str = "insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, reason, errors,
        finished_at
    )
    select
        n, case when n <= 30 then 'a' else 'b' end, case when n <= 30 then 'k' else 'l' end, '[1]', 2, 1, 1, 1, now(),
        now(), case when n <= 30 then 'failed' else 'lost' end,
        case when n > 1 then jsonb_build_array('\"odd\"'::jsonb,
            jsonb_build_object('error', 'line ' || n % 3 || E'\\nsecond ' || n)) end,
        now() - n * interval '1 minute'
    from generate_series(1, 35) as n";

async fn with_dead_jobs() -> (TestDatabase, Admin) {
    let database = database().await;
    database.run(DEAD).await;
    let admin = database.admin();
    (database, admin)
}

#[tokio::test]
async fn dead_jobs_are_counted_by_queue_kind_and_reason() {
    let (_database, admin) = with_dead_jobs().await;
    let groups = admin.dead_groups(&DeadJobs::new()).await.unwrap();
    let found: Vec<_> = groups.iter().map(|group| (&*group.queue, &*group.kind, &*group.reason, group.jobs)).collect();
    assert_eq!(found, [("a", "k", "failed", 30), ("b", "l", "lost", 5)], "the group with the latest dead job first");
    assert!(groups.iter().all(|group| (group.of_groups, group.of_jobs) == (2, 35)));
    assert!(groups[0].first_died_at < groups[0].last_died_at);
    for (chosen, count) in [
        (DeadJobs::new().queues(["b", "c"]), 1),
        (DeadJobs::new().kind("k").reason(FailureReason::Failed), 1),
        (DeadJobs::new().kind("k").reason(FailureReason::Lost), 0),
        (DeadJobs::new().queues(Vec::<String>::new()), 0),
    ] {
        assert_eq!(admin.dead_groups(&chosen).await.unwrap().len(), count, "{chosen:?}");
    }
}

#[tokio::test]
async fn errors_are_grouped_by_their_first_line_within_a_bound() {
    let (database, admin) = with_dead_jobs().await;
    let of_a = DeadJobs::new().queues(["a"]);
    let errors = admin.dead_errors(&of_a, 1000, 10).await.unwrap();
    let found: Vec<_> = errors.iter().map(|error| (error.line.as_deref(), error.jobs)).collect();
    assert_eq!(found, [(Some("line 2"), 10), (Some("line 0"), 10), (Some("line 1"), 9), (None, 1)]);
    assert!(errors.iter().all(|error| (error.looked_at, error.of_errors) == (30, 4)));
    let last = &errors[0].last;
    assert_eq!((last.id, last.state, last.errors().len()), (2, JobState::Dead, 1));
    assert_eq!((last.errors()[0].error.as_str(), last.payload().as_bytes()), ("line 2\nsecond 2", &b"null"[..]));
    let few = admin.dead_errors(&of_a, 1, 2).await.unwrap();
    assert!(few.len() == 2 && few.iter().all(|error| (error.looked_at, error.of_errors) == (20, 4)), "{few:?}");
    let long = "x".repeat(600);
    database
        .run(&format!(
            "update reveille.dead_jobs set errors = jsonb_build_array(jsonb_build_object('error', '{long}'))
            where id in (3, 5)"
        ))
        .await;
    let errors = admin.dead_errors(&of_a, 1000, 10).await.unwrap();
    let cut = errors.iter().filter_map(|error| error.line.clone()).find(|line| line.starts_with('x')).unwrap();
    assert_eq!(cut.len(), 500);
    let jobs = admin.jobs(&Filter::new().state(JobState::Dead).error_line(&cut), 10).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [5, 3]);
}

#[tokio::test]
async fn a_filter_by_the_first_line_finds_the_jobs_that_are_grouped_by_it() {
    let (database, admin) = with_dead_jobs().await;
    let errors = [
        "'refused'",
        "E'failed\\nrefused'",
        "E'\\nan empty line, then one'",
        "E'failed\\n\\nCaused by:\\n    refused'",
        "''",
        "repeat('é', 500)",
        "repeat('é', 600)",
        "E'failed\\n' || repeat('é', 600)",
        "repeat('é', 499)",
    ];
    for (place, error) in errors.iter().enumerate() {
        let set = "update reveille.dead_jobs set queue = 'c', errors = jsonb_build_array(jsonb_build_object('error',";
        database.run(&format!("{set} {error})) where id = {}", place + 1)).await;
    }
    let groups = admin.dead_errors(&DeadJobs::new().queues(["c"]), 1000, 100).await.unwrap();
    let mut found = Vec::new();
    for group in groups {
        let filter = Filter::new().queue("c").state(JobState::Dead).error_line(group.line.unwrap());
        let mut ids: Vec<i64> = admin.jobs(&filter, 100).await.unwrap().iter().map(|job| job.id).collect();
        ids.sort_unstable();
        assert_eq!(ids.len() as u64, group.jobs, "{ids:?}");
        found.push(ids);
    }
    found.sort();
    assert_eq!(found, [vec![1], vec![2, 4, 8], vec![3, 5], vec![6, 7], vec![9]]);
    let anywhere = Filter::new().queue("c").state(JobState::Dead).error("refused");
    assert_eq!(admin.jobs(&anywhere, 100).await.unwrap().len(), 3, "a part of an error is found in any line");
}

#[tokio::test]
async fn dead_jobs_are_counted_by_kind_however_many_groups_there_are() {
    let (database, admin) = with_dead_jobs().await;
    database.run("update reveille.dead_jobs set queue = 'c', kind = 'k' || id where id > 5").await;
    let kinds = admin.dead_kinds(&DeadJobs::new(), 3).await.unwrap();
    let found: Vec<_> = kinds.iter().map(|kind| (&*kind.queue, &*kind.kind, kind.jobs, kind.of_kinds)).collect();
    assert_eq!(found, [("a", "k", 5, 31), ("c", "k10", 1, 31), ("c", "k11", 1, 31)]);
    assert_eq!(admin.dead_kinds(&DeadJobs::new().queues(["c"]), 500).await.unwrap().len(), 30);
}

#[tokio::test]
async fn dead_jobs_are_counted_by_time() {
    let (database, admin) = with_dead_jobs().await;
    // The bars begin at full hours, so a job may have died in the hour before.
    let deaths = admin.deaths(&DeadJobs::new(), Duration::from_secs(3600), 3).await.unwrap();
    let of_a = deaths.iter().find(|deaths| deaths.queue == "a").unwrap();
    assert_eq!((of_a.bars.len(), of_a.bars[1] + of_a.bars[2], of_a.is_cut), (3, 30, false), "{of_a:?}");
    database.run("update reveille.dead_jobs set finished_at = finished_at - interval '1 day'").await;
    assert!(admin.deaths(&DeadJobs::new(), Duration::from_secs(3600), 3).await.unwrap().is_empty());
}

#[tokio::test]
async fn attempts_of_kinds_are_counted_by_time() {
    let database = database().await;
    database
        .run(
            "insert into reveille.kind_counters
            select 'q', 'k', started_at, 3, 1, 1, 1, array_fill(0::bigint, array[18]), array_fill(0::bigint, array[18])
            from (values ('-infinity'), (date_bin('1 hour', now(), 'epoch')),
                (date_bin('1 hour', now(), 'epoch') - interval '2 hours'),
                (date_bin('1 hour', now(), 'epoch') - interval '90 minutes'),
                (date_bin('1 hour', now(), 'epoch') - interval '9 hours')) as at (started_at)",
        )
        .await;
    let histories = database.admin().kind_histories(Duration::from_secs(3600), 4).await.unwrap();
    assert_eq!((histories.len(), &*histories[0].kind), (1, "k"));
    assert_eq!((&*histories[0].completed, &*histories[0].failed), (&[0, 6, 0, 3][..], &[0, 2, 0, 1][..]));
}

#[tokio::test]
async fn the_last_job_of_a_kind_is_found_live_finished_or_dead() {
    let (database, admin) = with_dead_jobs().await;
    let last = async |kind: &str, queues: Option<&[String]>| {
        admin.latest_of_kind(kind, queues).await.unwrap().map(|job| (job.id, job.state))
    };
    assert_eq!(last("k", None).await, Some((1, JobState::Dead)), "the job that died last");
    assert_eq!((last("none", None).await, last("k", Some(&["b".to_owned()])).await), (None, None));
    database.run("insert into reveille.jobs (id, queue, kind) overriding system value values (100, 'b', 'k')").await;
    assert_eq!(last("k", None).await, Some((100, JobState::Ready)));
    assert_eq!(last("k", Some(&["a".to_owned()])).await, Some((1, JobState::Dead)));
    database.run("select reveille.cancel(100)").await;
    assert_eq!(last("k", None).await, Some((100, JobState::Cancelled)));
}
