//! All drivers behave in the same way: the library's conformance suite runs on Postgres and on `Memory`.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reveille::admin::{Pause, QueueSettings};
use reveille::driver::{
    ClaimRequest, Driver, Ending, Failure, FailureReason, Memory, Peer, Postgres, Report, Settlement, WorkerInfo,
};
use reveille::job::{
    Cancelled, JobState, NewJob, Reservation, ReservedJob, Retried, RetriedJob, UniqueMode, WorkflowState,
};
use reveille::testing::conformance::{Conformance, Standing, StoreUnderTest, WorkflowStanding};
use reveille::{Outcome, Worker, enqueue};
use serde_json::{Value, json};

use crate::harness::{Note, TestDatabase, claim, database, note, report, reporting, start};

pub const QUEUE: &str = "default";

/// Declares one test per behaviour and driver.
macro_rules! behaviours {
    ($($name:ident),+ $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),+];
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::Conformance::new(super::Store::postgres).check(stringify!($name)).await;
            })+
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::Conformance::new(super::Store::memory).check(stringify!($name)).await;
            })+
        }
    };
}

behaviours! {
    a_claimed_job_is_as_it_was_enqueued,
    urgent_jobs_come_first_and_equal_ones_in_order,
    a_too_large_job_is_refused_with_all_jobs_beside_it,
    a_delayed_job_is_not_claimed_and_its_time_is_known,
    an_unregistered_worker_claims_nothing,
    two_claims_at_once_never_share_a_job,
    a_paused_queue_gives_nothing_until_it_is_resumed,
    a_paused_kind_or_key_gives_nothing_until_it_is_resumed,
    every_ending_does_what_it_says,
    only_the_standing_reservation_settles,
    a_retry_waits_for_its_delay_and_counts_on,
    a_released_job_keeps_its_place,
    a_unique_key_admits_one_live_job,
    a_unique_job_is_replaced_or_debounced_as_asked,
    a_key_that_is_held_until_the_start_is_free_after_the_claim,
    a_dead_job_is_not_revived_beside_its_successor,
    a_limited_queue_gives_more_as_running_jobs_end,
    keys_take_turns_within_their_limits,
    an_ordered_key_gives_only_its_first_job,
    a_rate_lets_a_burst_start_and_tells_when_the_next_may,
    cancelling_says_what_it_did,
    retrying_says_what_it_did,
    each_beat_tells_which_queues_are_paused,
    each_beat_tells_whether_the_worker_is_to_stop,
    a_dead_workers_jobs_are_put_back_as_failures,
    a_job_that_is_lost_again_and_again_waits_longer_and_dies,
    a_worker_learns_how_many_peers_share_its_queues,
    a_worker_seen_since_it_was_watched_is_left_alone,
    strays_go_back_without_a_failure,
    an_enqueue_rings_the_bell,
    every_change_that_makes_a_job_due_rings_the_bell,
    a_pause_and_a_stop_are_signalled,
    only_true_hints_are_confirmed,
    a_firing_counts_once_for_the_schedule_as_it_was_seen,
    a_schedule_goes_on_unless_its_timing_changes,
    a_recorded_step_stays_as_it_is,
    only_the_standing_reservation_records_a_step,
    something_new_that_is_recorded_sets_the_failures_to_0,
    a_dead_job_keeps_its_steps_until_it_is_done,
    a_sleep_ends_when_it_was_to_end_at_first,
    the_first_event_of_a_name_counts,
    names_of_events_that_are_reserved_are_refused,
    an_event_makes_a_waiting_job_due,
    an_event_that_comes_before_the_snooze_makes_the_job_due,
    a_wait_that_is_over_stays_over,
    a_handler_goes_on_behind_its_sleep_and_its_event,
    a_job_that_a_handler_runs_is_enqueued_once,
    the_end_of_a_job_that_a_handler_runs_is_an_event,
    a_job_starts_once_all_that_it_waits_for_are_completed,
    each_outcome_starts_holds_or_skips_a_job,
    the_first_outcome_is_enough_for_a_job_that_asks_for_no_more,
    a_prerequisite_that_has_ended_counts_at_once,
    a_job_that_cannot_wait_is_refused,
    a_delay_counts_from_the_last_end,
    only_an_end_counts,
    a_blocked_job_can_be_cancelled_but_not_retried,
    a_held_job_goes_on_once_the_dead_one_is_revived,
    a_blocked_job_does_not_hold_up_its_key,
    a_job_can_read_what_it_has_waited_for,
    the_result_of_a_linked_job_has_at_most_1_mib,
    each_job_of_a_workflow_starts_once_what_it_waits_for_has_ended,
    a_chain_runs_in_its_order,
    a_batch_calls_back_once_its_jobs_have_ended,
    no_job_that_waits_starts_before_the_seal,
    a_wrong_graph_is_refused_as_a_whole,
    a_wrong_addition_is_refused_as_a_whole,
    a_unique_workflow_is_enqueued_once_until_it_has_ended,
    a_dead_job_stalls_its_workflow_until_it_is_revived,
    a_death_that_was_acted_on_is_revived_only_by_force,
    a_cancelled_workflow_runs_only_its_cleanup,
    a_workflow_can_be_cancelled_before_its_seal,
    a_handler_reads_results_and_adds_to_its_workflow,
    a_workflow_that_is_enqueued_inline_has_run,
    draining_counts_the_jobs_that_still_wait,
    a_worker_runs_a_job_that_is_enqueued_while_it_waits,
    draining_runs_all_due_jobs_and_counts_them,
    an_inline_job_has_run_when_the_enqueue_returns,
    work_one_runs_the_first_job_of_its_kind_alone,
}

#[test]
fn every_behaviour_of_the_suite_is_tested_here() {
    assert_eq!(Conformance::new(Store::memory).behaviours(), NAMES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_ignores_what_it_cannot_do_fails_by_name() {
    let pretending = Conformance::new(Store::memory).without_unique_keys().without_notifications().without_workflows();
    let run = std::panic::AssertUnwindSafe(pretending.run()).catch_unwind().await;
    let message = *run.unwrap_err().downcast::<String>().unwrap();
    let failed: Vec<&str> = message.lines().skip(1).map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(
        failed,
        [
            "a_store_without_unique_keys_refuses_them",
            "a_store_without_notifications_says_so",
            "a_store_without_workflows_refuses_them",
        ]
    );
}

/// A driver under test, with the operations that people can do without a driver.
pub enum Store {
    Postgres(Box<TestDatabase>, Arc<Postgres>),
    Memory(Memory),
}

impl StoreUnderTest for Store {
    fn driver(&self) -> Arc<dyn Driver> {
        match self {
            Store::Postgres(_, driver) => Arc::clone(driver) as _,
            Store::Memory(memory) => Arc::new(memory.clone()),
        }
    }

    fn standing(&self, id: i64) -> BoxFuture<'_, Option<Standing>> {
        async move {
            match self {
                Store::Postgres(database, _) => standing_in(database, id).await,
                Store::Memory(memory) => {
                    let job = memory.job(id)?;
                    Some(Standing::new(job.state, job.attempts, job.failures).reason(job.reason))
                }
            }
        }
        .boxed()
    }

    fn cancel(&self, id: i64) -> BoxFuture<'_, Cancelled> {
        async move {
            match self {
                Store::Postgres(database, _) => database.database.admin().cancel(id).await.unwrap(),
                Store::Memory(memory) => memory.cancel(id),
            }
        }
        .boxed()
    }

    fn retry(&self, id: i64) -> BoxFuture<'_, reveille::Result<Retried>> {
        async move {
            match self {
                Store::Postgres(database, _) => database.database.admin().retry(id).await,
                Store::Memory(memory) => memory.retry(id),
            }
        }
        .boxed()
    }

    fn pause<'a>(&'a self, pause: &'a Pause) -> BoxFuture<'a, ()> {
        async move {
            match self {
                Store::Postgres(database, _) => database.database.admin().pause(pause.clone()).await.unwrap(),
                Store::Memory(memory) => memory.pause(pause.clone()),
            }
        }
        .boxed()
    }

    fn resume<'a>(&'a self, pause: &'a Pause) -> BoxFuture<'a, ()> {
        async move {
            match self {
                Store::Postgres(database, _) => database.database.admin().resume(pause.clone()).await.unwrap(),
                Store::Memory(memory) => memory.resume(pause.clone()),
            }
        }
        .boxed()
    }

    fn stop_worker(&self, worker: i64) -> BoxFuture<'_, bool> {
        async move {
            match self {
                Store::Postgres(database, _) => database.database.admin().stop_worker(worker).await.unwrap(),
                Store::Memory(memory) => memory.stop_worker(worker),
            }
        }
        .boxed()
    }

    fn set_queue<'a>(&'a self, queue: &'a str, settings: QueueSettings) -> BoxFuture<'a, ()> {
        async move {
            match self {
                Store::Postgres(database, _) => database.database.admin().set_queue(queue, settings).await.unwrap(),
                Store::Memory(memory) => memory.set_queue(queue, settings).unwrap(),
            }
        }
        .boxed()
    }

    fn workflow(&self, id: i64) -> BoxFuture<'_, Option<WorkflowStanding>> {
        async move {
            match self {
                Store::Postgres(database, _) => {
                    let admin = database.database.admin();
                    let state = admin.workflow(id).await.unwrap()?.state;
                    let jobs = admin.workflow_jobs(id, "", 100).await.unwrap().into_iter();
                    let jobs = jobs.map(|job| (job.name, job.state)).collect();
                    let result = admin.workflow_values(id).await.unwrap()?.result;
                    Some(WorkflowStanding::new(state, jobs).result(result))
                }
                Store::Memory(memory) => {
                    let workflow = memory.workflow(id)?;
                    let jobs = workflow.jobs.into_iter().map(|job| (job.name, job.state)).collect();
                    Some(WorkflowStanding::new(workflow.state, jobs).result(workflow.result))
                }
            }
        }
        .boxed()
    }

    fn cancel_workflow(&self, id: i64) -> BoxFuture<'_, Option<WorkflowState>> {
        async move {
            match self {
                Store::Postgres(database, _) => database.database.admin().cancel_workflow(id).await.unwrap(),
                Store::Memory(memory) => memory.cancel_workflow(id),
            }
        }
        .boxed()
    }

    fn retry_workflow(&self, id: i64, forced: bool) -> BoxFuture<'_, Option<Vec<RetriedJob>>> {
        async move {
            match self {
                Store::Postgres(database, _) => database.database.admin().retry_workflow(id, forced).await.unwrap(),
                Store::Memory(memory) => memory.retry_workflow(id, forced),
            }
        }
        .boxed()
    }
}

async fn standing_in(database: &TestDatabase, id: i64) -> Option<Standing> {
    let sql = format!(
        "select jsonb_build_array(
            case when reserved_at is not null then 'running' when paused_by is not null then 'parked'
            when available_at > now() then 'delayed' else 'ready' end,
            attempts, failures, null
        ) from reveille.jobs where id = {id}
        union all
        select jsonb_build_array('blocked', 0, 0, null) from reveille.blocked_jobs where id = {id}
        union all
        select jsonb_build_array(outcome, attempts, failures, null) from reveille.finished_jobs where id = {id}
        union all
        select jsonb_build_array('dead', attempts, failures, reason) from reveille.dead_jobs where id = {id}"
    );
    let found = database.value(&sql).await;
    let state: JobState = found[0].as_str()?.parse().unwrap();
    let count = |place: usize| u32::try_from(found[place].as_u64().unwrap()).unwrap();
    let reason = found[3].as_str().map(|name| {
        use FailureReason::{Failed, Lost, Permanent, TimedOut, Undecodable};
        let named = |reason: &FailureReason| reason.name() == name;
        [Failed, Permanent, TimedOut, Lost, Undecodable].into_iter().find(named).unwrap()
    });
    Some(Standing::new(state, count(1), count(2)).reason(reason))
}

/// Operations for the tests of other files that run on both drivers.
impl Store {
    pub async fn postgres() -> Store {
        let database = database().await;
        let driver = Postgres::new(database.database.clone()).unwrap();
        Store::Postgres(Box::new(database), Arc::new(driver))
    }

    pub async fn memory() -> Store {
        Store::Memory(Memory::new())
    }

    pub fn driver(&self) -> Arc<dyn Driver> {
        StoreUnderTest::driver(self)
    }

    pub async fn cancel(&self, id: i64) -> Cancelled {
        StoreUnderTest::cancel(self, id).await
    }

    pub async fn retry(&self, id: i64) -> reveille::Result<Retried> {
        StoreUnderTest::retry(self, id).await
    }

    /// Returns `[state, attempts, failures]` of a job. The state of a dead job is its reason; of a live waiting job,
    /// `waiting`.
    pub async fn fate(&self, id: i64) -> Value {
        let Some(standing) = self.standing(id).await else { return Value::Null };
        let state = if standing.state.is_waiting() { "waiting" } else { standing.state.name() };
        let state = standing.reason.map_or(state, |reason| reason.name());
        json!([state, standing.attempts, standing.failures])
    }

    pub async fn register(&self, worker: i64) {
        self.driver().register(&WorkerInfo::new(worker).host("test").queues([QUEUE])).await.unwrap();
    }

    pub async fn enqueue(&self, job: NewJob) -> i64 {
        self.driver().enqueue(&[job]).await.unwrap()[0].id
    }

    pub async fn claim(&self, worker: i64, limit: usize) -> Vec<ReservedJob> {
        claim(&*self.driver(), worker, limit).await
    }

    pub async fn claim_one(&self, worker: i64) -> ReservedJob {
        self.claim(worker, 1).await.pop().expect("a job is due")
    }

    pub async fn settle(&self, reservation: Reservation, ending: Ending) -> bool {
        self.driver().settle(&[Settlement::new(reservation, ending)]).await.unwrap()[0].is_counted()
    }

    pub async fn lose_worker(&self, worker: i64, asker: i64) -> Vec<i64> {
        let peers = self.driver().beat(asker, &Report::default()).await.unwrap().peers;
        let dead: Vec<Peer> = peers.into_iter().filter(|peer| peer.id == worker).collect();
        self.driver().rescue(asker, &dead).await.unwrap().jobs
    }
}

/// Changes a job in a way for which the builder has no method.
pub fn with(mut job: NewJob, change: impl FnOnce(&mut NewJob)) -> NewJob {
    change(&mut job);
    job
}

pub fn job(text: &str) -> NewJob {
    NewJob::of(&note(text)).unwrap()
}

pub fn unique(text: &str, mode: UniqueMode) -> NewJob {
    job(text).unique_key("u").unique_mode(mode)
}

pub fn text(job: &ReservedJob) -> String {
    job.payload.decode::<Note>().unwrap().text
}

pub fn failure(reason: FailureReason) -> Failure {
    Failure::new(reason, "no")
}

/// Declares each test once per driver.
macro_rules! conforms {
    ($($(#[$note:meta])* async fn $name:ident($store:ident: &Store) $body:block)+) => {
        $(async fn $name($store: &Store) $body)+
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&super::Store::postgres().await).await;
            })+
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(&super::Store::memory().await).await;
            })+
        }
    };
}

pub(crate) use conforms;

#[tokio::test]
async fn memorys_clock_can_be_put_forward() {
    let memory = Memory::new();
    let (reporter, mut reports) = reporting();
    let running =
        start(Worker::builder(memory.clone()).poll_interval(Duration::from_secs(3600)).state(reporter).handle(report));
    enqueue(&memory, &note("in a week")).delay(Duration::from_secs(7 * 86_400)).await.unwrap();
    enqueue(&memory, &note("now")).await.unwrap();
    assert_eq!(reports.next().await, "now");
    memory.advance(Duration::from_secs(7 * 86_400));
    assert_eq!(reports.next().await, "in a week");
    running.stop().await;
}

#[tokio::test]
async fn memory_forgets_ended_jobs_but_not_dead_ones() {
    let memory = Memory::new();
    async fn ends(note: Note) -> Outcome {
        if note.text == "die" { Outcome::Dead("x".into()) } else { Outcome::Complete }
    }
    let worker = Worker::builder(memory.clone()).handle(ends).build().unwrap();
    let dead = enqueue(&memory, &note("die")).await.unwrap().id;
    enqueue(&memory, &note("end")).await.unwrap();
    worker.run_until_drained().await.unwrap();
    memory.prune().await.unwrap();
    assert_eq!(memory.jobs().len(), 2);
    memory.advance(Duration::from_secs(25 * 3600));
    memory.prune().await.unwrap();
    assert_eq!(memory.jobs().iter().map(|job| job.id).collect::<Vec<_>>(), [dead]);
    assert!(memory.purge(dead) && !memory.purge(dead));
}

#[tokio::test]
async fn a_driver_behind_a_trait_object_can_be_enqueued_on() {
    let memory = Memory::new();
    let driver: Arc<dyn Driver> = Arc::new(memory.clone());
    enqueue(&*driver, &note("by reference")).await.unwrap();
    enqueue(&driver, &note("by the Arc")).await.unwrap();
    reveille::enqueue::copy_all(&*driver, &[note("copied")]).await.unwrap();
    assert_eq!(memory.jobs().len(), 3);
    driver.register(&WorkerInfo::new(1)).await.unwrap();
    assert_eq!(driver.claim(&ClaimRequest::new(1, QUEUE, 9)).await.unwrap().jobs.len(), 3);
}
