//! New and changed jobs are returned as they come.

use std::time::Duration;

use reveille::admin::{Filter, Follower, JobEdit, JobRow, StateFilter};
use reveille::enqueue::enqueue_all;
use reveille::job::{JobState, Priority};
use reveille::{State, enqueue};

use crate::harness::{Note, Reporter, database, note, reporting, soon, start, worker};

/// Returns the next jobs that pass, and waits until there are some.
async fn next(follower: &mut Follower) -> Vec<JobRow> {
    let waiting = async {
        loop {
            let jobs = follower.next().await.unwrap();
            if !jobs.is_empty() {
                return jobs;
            }
        }
    };
    soon("a job comes or changes", waiting).await
}

/// Waits until the follower has returned a job in this state. Returns all states that it returned for the job.
async fn until(follower: &mut Follower, id: i64, state: JobState) -> Vec<JobState> {
    let mut states = Vec::new();
    while states.last() != Some(&state) {
        states.extend(next(follower).await.iter().filter(|job| job.id == id).map(|job| job.state));
    }
    states
}

async fn hold(
    note: Note,
    State(reporter): State<Reporter>,
    State(gate): State<std::sync::Arc<tokio::sync::Semaphore>>,
) -> Result<(), &'static str> {
    reporter.report(&note.text);
    gate.acquire().await.map_err(|_| "closed")?.forget();
    if note.text == "fails" { Err("no") } else { Ok(()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_followed_from_its_enqueue_to_its_end() {
    let database = database().await;
    let mut follower = database.admin().follow(&Filter::new()).await.unwrap();
    assert!(follower.list(10).await.unwrap().is_empty());
    let id = enqueue(&database.database, &note("x")).delay(Duration::from_secs(3600)).await.unwrap().id;
    assert_eq!(until(&mut follower, id, JobState::Delayed).await, [JobState::Delayed]);
    database.admin().edit(id, JobEdit::new().priority(Priority::Low)).await.unwrap();
    let changed = next(&mut follower).await;
    assert_eq!((changed.len(), changed[0].id, changed[0].priority), (1, id, Priority::Low));
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (reporter, mut reports) = reporting();
    let worker = start(worker(&database).state(reporter).state(gate.clone()).handle(hold));
    database.admin().retry(id).await.unwrap();
    reports.next().await;
    until(&mut follower, id, JobState::Running).await;
    gate.add_permits(1);
    assert_eq!(until(&mut follower, id, JobState::Completed).await, [JobState::Completed]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ends_of_old_jobs_are_seen_although_they_were_never_returned() {
    let database = database().await;
    let notes: Vec<Note> = (0..3000).map(|n| note(&n.to_string())).collect();
    enqueue_all(&database.database, &notes).await.unwrap();
    let completed =
        Filter::new().state(JobState::Completed).payload(reveille::job::Payload::encode(&note("7")).unwrap());
    let mut completed = database.admin().follow(&completed).await.unwrap();
    let mut dead = database.admin().follow(&Filter::new().state(JobState::Dead)).await.unwrap();
    let mut all = database.admin().follow(&Filter::new()).await.unwrap();
    assert_eq!(all.list(10).await.unwrap().len(), 10);
    async fn quick(note: Note) -> reveille::Outcome {
        if note.text == "8" { reveille::Outcome::Dead("no".into()) } else { reveille::Outcome::Complete }
    }
    let worker = start(worker(&database).handle(quick));
    assert_eq!(next(&mut completed).await[0].id, 8);
    let died = next(&mut dead).await;
    assert_eq!((died.len(), died[0].id, died[0].state), (1, 9, JobState::Dead));
    let mut ended = std::collections::HashSet::new();
    while ended.len() < 3000 {
        let jobs = next(&mut all).await;
        ended.extend(jobs.iter().filter(|job| job.finished_at.is_some()).map(|job| job.id));
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_job_is_returned_once_for_each_change() {
    let database = database().await;
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 5)").await;
    let mut follower = database.admin().follow(&Filter::new().kind("k")).await.unwrap();
    assert_eq!(follower.list(3).await.unwrap().iter().map(|job| job.id).collect::<Vec<_>>(), [3, 4, 5]);
    database.run("insert into reveille.jobs (kind) values ('k'), ('other')").await;
    assert_eq!(next(&mut follower).await.iter().map(|job| job.id).collect::<Vec<_>>(), [6]);
    for _ in 0..3 {
        assert!(follower.next().await.unwrap().is_empty(), "nothing has changed");
    }
    database.run("select reveille.cancel(4); select reveille.cancel(6)").await;
    let ended = next(&mut follower).await;
    assert_eq!(
        ended.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(),
        [(4, JobState::Cancelled), (6, JobState::Cancelled)]
    );
}

#[tokio::test]
async fn a_job_whose_transaction_commits_late_is_not_missed() {
    let database = database().await;
    let mut follower = database.admin().follow(&Filter::new()).await.unwrap();
    let mut client = database.client().await;
    let late = client.transaction().await.unwrap();
    late.batch_execute("insert into reveille.jobs (kind) values ('late')").await.unwrap();
    database.run("insert into reveille.jobs (kind) values ('early')").await;
    assert_eq!(next(&mut follower).await[0].kind, "early");
    late.commit().await.unwrap();
    assert_eq!(next(&mut follower).await[0].kind, "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_jobs_are_followed_by_their_state() {
    let database = database().await;
    let mut follower = database.admin().follow(&Filter::new().state(StateFilter::Failing)).await.unwrap();
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(10));
    let (reporter, _reports) = reporting();
    let worker = start(worker(&database).state(reporter).state(gate).handle(hold));
    enqueue(&database.database, &note("works")).await.unwrap();
    let id = enqueue(&database.database, &note("fails")).await.unwrap().id;
    let failing = next(&mut follower).await;
    assert_eq!((failing[0].id, failing[0].failures >= 1, failing[0].errors()[0].error.as_str()), (id, true, "no"));
    worker.stop().await;
}

#[tokio::test]
async fn a_job_of_a_queue_without_history_leaves_without_a_trace() {
    let database = database().await;
    database.run("insert into reveille.queues (name, retention) values ('default', '0')").await;
    let mut follower = database.admin().follow(&Filter::new()).await.unwrap();
    database.run("insert into reveille.jobs (kind) values ('gone')").await;
    assert_eq!(next(&mut follower).await.len(), 1);
    database.run("select reveille.cancel(1); insert into reveille.jobs (kind) values ('next')").await;
    assert_eq!(next(&mut follower).await.iter().map(|job| job.id).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn each_of_many_new_jobs_is_returned_once() {
    let database = database().await;
    let mut follower = database.admin().follow(&Filter::new()).await.unwrap();
    database.run("insert into reveille.jobs (kind) select 'k' from generate_series(1, 25000)").await;
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 25_000 {
        for job in next(&mut follower).await {
            assert!(seen.insert(job.id), "job {} is returned again", job.id);
        }
    }
    // The looks go back over these jobs several times more.
    for _ in 0..8 {
        assert!(follower.next().await.unwrap().is_empty());
    }
}
