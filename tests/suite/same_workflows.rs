//! Workflows end in the same way in Postgres and in `Memory`, whatever their graphs are.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use reveille::driver::Driver;
use reveille::enqueue::{Member, Members, Workflow};
use reveille::handler::Attempt;
use reveille::job::{FiresOn, NewJob, Payload};
use reveille::testing::conformance::StoreUnderTest;
use reveille::{Outcome, Worker};

use crate::conformance::{Store, job};
use crate::harness::Note;

/// What a workflow is like, and what is done to it.
#[derive(Debug, Clone)]
struct Plan {
    jobs: Vec<Planned>,
    is_open: bool,
    is_cancelled: bool,
    added: Vec<Planned>,
    forced: bool,
    is_purged: bool,
}

/// A job that waits for some of the jobs before it.
#[derive(Debug, Clone)]
struct Planned {
    end: &'static str,
    /// The jobs to wait for. Of `count` earlier jobs, a number stands for the job at the place `number % count`.
    after: Vec<(usize, FiresOn)>,
    /// Jobs that are to wait for this one, if it is added later.
    before: Vec<usize>,
    cancel_if_dead: bool,
    on_first: bool,
}

fn planned() -> impl Strategy<Value = Planned> {
    let end = select(vec!["completed", "completed", "dead", "dead once", "cancelled"]);
    let outcome = select(vec![FiresOn::Completed, FiresOn::Completed, FiresOn::Dead, FiresOn::Cancelled, FiresOn::Any]);
    let (after, before) = (vec((0..1000_usize, outcome), 0..4), vec(0..1000_usize, 0..2));
    (end, after, before, any::<bool>(), any::<bool>()).prop_map(|(end, after, before, cancel_if_dead, on_first)| {
        Planned { end, after, before, cancel_if_dead, on_first }
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let flags = (any::<bool>(), prop::bool::weighted(0.3), any::<bool>(), any::<bool>());
    (vec(planned(), 1..9), vec(planned(), 0..4), flags).prop_map(|(jobs, added, flags)| {
        let (is_open, is_cancelled, forced, is_purged) = flags;
        Plan { jobs, is_open, is_cancelled, added, forced, is_purged }
    })
}

/// Ends a job as its text says: `dead`, `dead once` (in its first attempt), or `cancelled`.
async fn act(note: Note, attempt: Attempt) -> Outcome {
    match note.text.as_str() {
        "dead" => Outcome::Dead("told to".into()),
        "dead once" if attempt.number == 1 => Outcome::Dead("told to".into()),
        "cancelled" => Outcome::Cancel,
        _ => Outcome::CompleteWith(Payload::encode(&attempt.number).unwrap()),
    }
}

/// Runs the due jobs of a queue, one after another. Each end is applied before the next job runs: if several jobs die
/// before a worker applies the first death, a job that waits for the first of them has acted on all of them.
async fn run(store: &Store, queue: &str) {
    let worker = Worker::builder(store.driver()).queue(queue, 1).handle(act).build().unwrap();
    while worker.work_one::<Note>().await.unwrap().is_some() {}
}

/// Lets a job wait for some of the first `count` jobs.
fn link(member: Member, planned: &Planned, count: usize) -> Member {
    let mut seen = Vec::new();
    let member = planned.after.iter().filter(|_| count > 0).fold(member, |member, (number, outcome)| {
        let other = number % count;
        if seen.contains(&other) {
            return member;
        }
        seen.push(other);
        let name = other.to_string();
        match outcome {
            FiresOn::Completed => member.after(name.as_str()),
            FiresOn::Dead => member.after_dead(name.as_str()),
            FiresOn::Cancelled => member.after_cancelled(name.as_str()),
            FiresOn::Any => member.after_any_end(name.as_str()),
        }
    });
    let member = if planned.cancel_if_dead { member.cancel_if_dead() } else { member };
    if planned.on_first { member.on_first() } else { member }
}

fn to_job(planned: &Planned) -> NewJob {
    job(planned.end)
}

/// Does what a plan says. Returns the state of the workflow and of its jobs after each part.
async fn carry_out(store: &Store, plan: &Plan) -> Vec<String> {
    let driver: &dyn Driver = &*store.driver();
    let mut workflow = Workflow::new("w");
    for (place, planned) in plan.jobs.iter().enumerate() {
        link(workflow.add(place.to_string(), &to_job(planned)), planned, place);
    }
    let handle = workflow.on_complete(&job("completed")).on_dead(&job("completed")).open(driver).await.unwrap();
    let mut seen = Vec::new();
    let mut note = async |what: &str| {
        run(store, "another").await;
        let mut standing = store.workflow(handle.id()).await.unwrap();
        standing.jobs.sort_by(|one, other| one.0.cmp(&other.0));
        seen.push(format!("{what}: {standing:?}"));
    };
    if !plan.is_open {
        handle.seal(driver).await.unwrap();
    }
    note("enqueued").await;
    if plan.is_cancelled {
        store.cancel_workflow(handle.id()).await;
        note("cancelled").await;
    }
    run(store, "default").await;
    note("run").await;
    for (place, planned) in plan.added.iter().enumerate() {
        let members = Members::new();
        let member = link(members.add(format!("added {place}"), &to_job(planned)), planned, plan.jobs.len());
        if let Some(number) = planned.before.first() {
            member.before((number % plan.jobs.len()).to_string().as_str());
        }
        let refused = handle.add(driver, members).await.is_err();
        note(if refused { "refused" } else { "added" }).await;
    }
    run(store, "default").await;
    handle.seal(driver).await.unwrap();
    run(store, "default").await;
    note("sealed").await;
    let retried = store.retry_workflow(handle.id(), plan.forced).await.unwrap();
    let mut answers: Vec<_> = retried.into_iter().map(|retried| (retried.name, retried.retried)).collect();
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    note(&format!("retried {answers:?}")).await;
    run(store, "default").await;
    note("run again").await;
    if plan.is_purged {
        purge(store).await;
        note("purged").await;
        run(store, "default").await;
        note("run after the purge").await;
    }
    seen
}

async fn purge(store: &Store) {
    match store {
        Store::Postgres(database, _) => {
            let dead = database.value("select coalesce(jsonb_agg(id order by id), '[]') from reveille.dead_jobs").await;
            for id in dead.as_array().unwrap() {
                assert!(database.database.admin().purge_dead_job(id.as_i64().unwrap()).await.unwrap());
            }
        }
        Store::Memory(memory) => {
            let dead = memory.jobs().into_iter().filter(|job| job.state == reveille::job::JobState::Dead);
            assert!(dead.map(|job| job.id).all(|id| memory.purge(id)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seal_starts_jobs_in_the_same_order_in_both_stores() {
    let job = |end, after| Planned { end, after, before: Vec::new(), cancel_if_dead: false, on_first: false };
    // The seal starts the last job and skips the second job. The third job starts once the end of the second one is
    // applied.
    let jobs = vec![
        job("completed", Vec::new()),
        job("completed", vec![(0, FiresOn::Dead)]),
        job("dead", vec![(1, FiresOn::Cancelled)]),
        job("dead", vec![(0, FiresOn::Any)]),
    ];
    let plan = Plan { jobs, is_open: true, is_cancelled: false, added: Vec::new(), forced: false, is_purged: false };
    let (postgres, memory) = (Store::postgres().await, Store::memory().await);
    assert_eq!(carry_out(&memory, &plan).await, carry_out(&postgres, &plan).await);
}

#[test]
fn a_random_workflow_ends_alike_in_both_stores() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let postgres = runtime.block_on(Store::postgres());
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 30 };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let compare = |plan: Plan| {
        runtime.block_on(async {
            let memory = Store::memory().await;
            let (expected, found) = (carry_out(&postgres, &plan).await, carry_out(&memory, &plan).await);
            for (expected, found) in expected.iter().zip(&found) {
                prop_assert_eq!(found, expected, "in memory, and in Postgres");
            }
            prop_assert_eq!(found.len(), expected.len());
            Ok(())
        })
    };
    if let Err(failed) = TestRunner::new(config).run(&plan(), compare) {
        panic!("{failed}");
    }
}
