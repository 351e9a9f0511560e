//! Every driver behaves the same: one suite, run against each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use reveille::admin::QueueSettings;
use reveille::driver::{Ending, Failure, Peer, Reason, Report, Settlement, Signal, Start, Stuck, WorkerInfo, signals};
use reveille::job::{Due, Payload, Reservation, ReservedJob, UniqueMode, UniqueUntil};
use reveille::{
    Outcome, Worker,
    driver::{Driver, Memory, Postgres},
    enqueue,
    job::{NewJob, Priority},
};
use serde_json::{Value, json};

use crate::harness::{Note, TestDatabase, claim, database, eventually, note, report, reporting, soon, start};

pub const QUEUE: &str = "default";
const HOUR: Duration = Duration::from_secs(3600);

/// A driver under test, with what people can do beside it.
pub enum Store {
    Postgres(Box<TestDatabase>, Arc<Postgres>),
    Memory(Memory),
}

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
        match self {
            Store::Postgres(_, driver) => Arc::clone(driver) as _,
            Store::Memory(memory) => Arc::new(memory.clone()),
        }
    }

    pub async fn cancel(&self, id: i64) -> String {
        match self {
            Store::Postgres(database, _) => database.database.admin().cancel(id).await.unwrap(),
            Store::Memory(memory) => memory.cancel(id).into(),
        }
    }

    pub async fn retry(&self, id: i64) -> reveille::Result<String> {
        match self {
            Store::Postgres(database, _) => database.database.admin().retry(id).await,
            Store::Memory(memory) => memory.retry(id).map(Into::into),
        }
    }

    pub async fn pause(&self, queue: &str) {
        match self {
            Store::Postgres(database, _) => database.database.admin().pause(queue).await.unwrap(),
            Store::Memory(memory) => memory.pause(queue),
        }
    }

    pub async fn stop_worker(&self, worker: i64) -> bool {
        match self {
            Store::Postgres(database, _) => database.database.admin().stop_worker(worker).await.unwrap(),
            Store::Memory(memory) => memory.stop_worker(worker),
        }
    }

    pub async fn resume(&self, queue: &str) {
        match self {
            Store::Postgres(database, _) => database.database.admin().resume(queue).await.unwrap(),
            Store::Memory(memory) => memory.resume(queue),
        }
    }

    async fn set(&self, settings: QueueSettings) {
        match self {
            Store::Postgres(database, _) => database.database.admin().set_queue(QUEUE, settings).await.unwrap(),
            Store::Memory(memory) => memory.set_queue(QUEUE, settings).unwrap(),
        }
    }

    /// Enqueues jobs as they are named: by their key, a space, and something.
    async fn enqueue_keyed(&self, names: &[&str]) {
        for name in names {
            let key = name.split(' ').next().filter(|key| !key.is_empty()).map(str::to_owned);
            self.enqueue(NewJob { key, ..job(name) }).await;
        }
    }

    /// What a claim brings, by name.
    async fn claim_names(&self, limit: usize) -> Vec<String> {
        let mut names: Vec<String> = self.claim(1, limit).await.iter().map(text).collect();
        names.sort();
        names
    }

    /// Where a job stands: `[state, attempts, failures]`.
    pub async fn fate(&self, id: i64) -> Value {
        match self {
            Store::Postgres(database, _) => {
                let sql = format!(
                    "select jsonb_build_array(case when reserved_at is null then 'waiting' else 'running' end, attempts, failures) from reveille.jobs where id = {id}
                    union all select jsonb_build_array(outcome, attempts, failures) from reveille.finished_jobs where id = {id}
                    union all select jsonb_build_array(reason, attempts, failures) from reveille.dead_jobs where id = {id}"
                );
                database.value(&sql).await
            }
            Store::Memory(memory) => {
                use reveille::driver::JobState::{Cancelled, Completed, Dead, Running, Waiting};
                let Some(job) = memory.job(id) else { return Value::Null };
                let state = match job.state {
                    Waiting => "waiting",
                    Running => "running",
                    Completed(_) => "completed",
                    Cancelled => "cancelled",
                    Dead(reason) => reason.name(),
                };
                json!([state, job.attempts, job.failures])
            }
        }
    }

    pub async fn register(&self, worker: i64) {
        let info = WorkerInfo { id: worker, host: "test".into(), pid: 1, queues: vec![QUEUE.into()], slots: 1 };
        self.driver().register(&info).await.unwrap();
    }

    pub async fn enqueue(&self, job: NewJob) -> i64 {
        self.driver().enqueue(&[job]).await.unwrap()[0].id
    }

    pub async fn claim(&self, worker: i64, limit: usize) -> Vec<ReservedJob> {
        claim(&*self.driver(), worker, limit).await
    }

    /// How long until the next job is due.
    async fn due_in(&self, worker: i64) -> Option<Duration> {
        let claimed = self.driver().claim(worker, QUEUE, 1, Start::default()).await.unwrap();
        assert!(claimed.jobs.is_empty(), "nothing is due");
        claimed.due_in
    }

    pub async fn claim_one(&self, worker: i64) -> ReservedJob {
        self.claim(worker, 1).await.pop().expect("a job is due")
    }

    pub async fn settle(&self, reservation: Reservation, ending: Ending) -> bool {
        let settlement = Settlement { reservation, ending, waited: Duration::ZERO, ran: Duration::ZERO };
        self.driver().settle(&[settlement]).await.unwrap()[0].is_counted()
    }

    pub async fn lose_worker(&self, worker: i64, asker: i64) -> Vec<i64> {
        let peers = self.driver().beat(asker, &Report::default()).await.unwrap().peers;
        let dead: Vec<Peer> = peers.into_iter().filter(|peer| peer.id == worker).collect();
        self.driver().rescue(asker, &dead).await.unwrap().jobs
    }
}

pub fn job(text: &str) -> NewJob {
    NewJob::of(&note(text)).unwrap()
}

pub fn unique(text: &str, mode: UniqueMode) -> NewJob {
    NewJob { unique_key: Some("u".into()), unique_mode: mode, ..job(text) }
}

pub fn text(job: &ReservedJob) -> String {
    job.payload.decode::<Note>().unwrap().text
}

pub fn failure(reason: Reason) -> Failure {
    Failure { reason, error: "no".into() }
}

/// Each test once a driver.
macro_rules! conforms {
    ($($(#[$note:meta])* async fn $name:ident($store:ident: &Store) $body:block)+) => {
        $(async fn $name($store: &Store) $body)+
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&super::Store::postgres().await).await; })+
        }
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(&super::Store::memory().await).await; })+
        }
    };
}

pub(crate) use conforms;

conforms! {
    async fn a_claimed_job_is_as_it_was_enqueued(store: &Store) {
        store.register(1).await;
        let metadata = json!({"trace": 7}).as_object().cloned();
        let sent = NewJob {
            priority: Priority::High, max_attempts: 3, timeout: Some(Duration::from_secs(5)), key: Some("k".into()),
            tags: vec!["a".into(), "b".into()], metadata: metadata.clone(), ..job("x")
        };
        let id = store.enqueue(sent).await;
        let got = store.claim_one(1).await;
        assert_eq!((got.reservation.id, got.reservation.worker, got.reservation.attempt), (id, 1, 1));
        assert_eq!((got.queue.as_str(), got.kind.as_str(), text(&got).as_str()), (QUEUE, "note", "x"));
        assert_eq!((got.priority, got.max_attempts, got.failures), (Priority::High, 3, 0));
        assert_eq!((got.timeout, got.key.as_deref()), (Some(Duration::from_secs(5)), Some("k")));
        assert_eq!((got.tags, got.cancel_requested), (vec!["a".to_owned(), "b".into()], false));
        assert_eq!(got.metadata.map(|metadata| metadata.decode().unwrap()), metadata);
    }

    async fn the_most_urgent_comes_first_and_equals_in_order(store: &Store) {
        store.register(1).await;
        for (priority, name) in [(Priority::Low, "low"), (Priority::Normal, "a"), (Priority::Urgent, "now"), (Priority::Normal, "b")] {
            store.enqueue(NewJob { priority, ..job(name) }).await;
        }
        let order: Vec<String> = store.claim(1, 3).await.iter().map(text).collect();
        assert_eq!(order, ["now", "a", "b"]);
        assert_eq!(text(&store.claim_one(1).await), "low");
        assert!(store.claim(1, 10).await.is_empty());
    }

    async fn the_first_job_of_a_kind_is_worked_by_itself_and_what_came_before_waits_again(store: &Store) {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Other(String);
        impl reveille::Job for Other {
            const KIND: &'static str = "other";
        }
        let (reporter, mut reports) = reporting();
        let handler = async |Other(text): Other, reveille::State(reporter): reveille::State<crate::harness::Reporter>| reporter.report(text);
        let worker = Worker::builder(store.driver()).queue(QUEUE, 4).queue("b", 4).state(reporter).handle(handler).build().unwrap();
        let other = |text: &str| NewJob::of(&Other(text.into())).unwrap();
        let before = store.enqueue(job("before")).await;
        store.enqueue(NewJob { due: Due::In(HOUR), priority: Priority::Urgent, ..other("later") }).await;
        let low = store.enqueue(NewJob { priority: Priority::Low, ..other("low") }).await;
        let after = store.enqueue(NewJob { priority: Priority::Low, ..job("after") }).await;
        let high = store.enqueue(NewJob { queue: "b".into(), ..other("high") }).await;
        store.pause("b").await;
        for (id, text) in [(low, "low"), (high, "high")] {
            let worked = worker.work_one::<Other>().await.unwrap().unwrap();
            assert_eq!((worked.id, worked.ending, reports.next().await.as_str()), (id, Ending::Completed(None), text));
            store.resume("b").await;
        }
        let fates = [store.fate(before).await, store.fate(after).await];
        assert_eq!(fates, [json!(["waiting", 2, 0]), json!(["waiting", 1, 0])]);
        assert_eq!(worker.work_one::<Other>().await.unwrap(), None, "the last one is not due");
    }

    async fn a_job_that_is_too_large_for_a_worker_is_refused_and_none_beside_it_is_stored(store: &Store) {
        let object = |value: Value| Some(serde_json::Map::from_iter([("m".to_owned(), value)]));
        let large = [
            NewJob { payload: Payload::encode(&"x".repeat(8 * 1024 * 1024)).unwrap(), ..job("") },
            // Three bytes each, as it is written out.
            NewJob { payload: Payload::encode(&vec![1; 2_900_000]).unwrap(), ..job("") },
            NewJob { metadata: object("x".repeat(262_144).into()), ..job("") },
            NewJob { metadata: object(vec![1; 88_000].into()), ..job("") },
            NewJob { tags: vec!["x".repeat(257); 64], ..job("") },
        ];
        for large in large {
            let error = store.driver().enqueue(&[job("beside"), large]).await.unwrap_err();
            assert!(error.is_invalid(), "{error}");
        }
        let most = NewJob { tags: vec!["x".repeat(256); 64], metadata: object("x".repeat(262_000).into()), ..job("most") };
        let id = store.enqueue(most).await;
        store.register(1).await;
        assert_eq!(store.claim_one(1).await.reservation.id, id);
        assert!(store.claim(1, 10).await.is_empty());
    }

    async fn what_is_delayed_is_not_claimed_and_its_time_is_known(store: &Store) {
        store.register(1).await;
        assert_eq!(store.due_in(1).await, None);
        store.enqueue(NewJob { due: Due::In(Duration::from_secs(3600)), ..job("later") }).await;
        let due_in = store.due_in(1).await.expect("a job waits");
        assert!((3500..=3600).contains(&due_in.as_secs()), "{due_in:?}");
        store.enqueue(NewJob { due: Due::At(SystemTime::UNIX_EPOCH), ..job("long due") }).await;
        assert_eq!(text(&store.claim_one(1).await), "long due");
    }

    async fn a_worker_that_is_not_registered_claims_nothing(store: &Store) {
        store.enqueue(job("x")).await;
        assert!(store.claim(1, 1).await.is_empty());
        store.register(1).await;
        assert_eq!(store.claim(1, 1).await.len(), 1);
        store.enqueue(job("y")).await;
        store.driver().leave(1).await.unwrap();
        assert!(store.claim(1, 1).await.is_empty());
    }

    async fn a_paused_queue_gives_nothing_until_it_is_resumed(store: &Store) {
        store.register(1).await;
        store.enqueue(job("x")).await;
        store.pause(QUEUE).await;
        assert_eq!(store.due_in(1).await, None);
        store.resume(QUEUE).await;
        assert_eq!(store.claim(1, 1).await.len(), 1);
    }

    async fn a_limited_queue_gives_more_as_what_runs_ends(store: &Store) {
        store.register(1).await;
        store.set(QueueSettings { max_running: Some(Some(2)), ..Default::default() }).await;
        store.enqueue_keyed(&["a 1", "a 2", "a 3", "a 4"]).await;
        let running = store.claim(1, 9).await;
        assert_eq!(running.len(), 2);
        assert!(store.claim(1, 9).await.is_empty());
        assert!(store.settle(running[0].reservation, Ending::Waiting { failure: None, delay: Duration::ZERO }).await);
        assert!(store.settle(running[1].reservation, Ending::Completed(None)).await);
        assert_eq!(store.claim(1, 9).await.len(), 2);
        store.set(QueueSettings { max_running: Some(None), ..Default::default() }).await;
        assert_eq!(store.claim(1, 9).await.len(), 1);
    }

    async fn keys_take_turns_within_their_limits(store: &Store) {
        store.register(1).await;
        store.set(QueueSettings { max_running_per_key: Some(Some(1)), ..Default::default() }).await;
        store.enqueue_keyed(&["a 1", "a 2", "b 1", "b 2", "c 1", " 1", " 2"]).await;
        assert_eq!(store.claim_names(3).await, [" 1", " 2", "a 1"]);
        assert_eq!(store.claim_names(1).await, ["b 1"]);
        store.enqueue_keyed(&["aa 1"]).await;
        assert_eq!(store.claim_names(1).await, ["c 1"], "its turn comes before that of who comes in between");
        assert_eq!(store.claim_names(9).await, ["aa 1"]);
    }

    async fn an_ordered_key_gives_its_first_job_only(store: &Store) {
        store.register(1).await;
        store.set(QueueSettings { ordered: Some(true), ..Default::default() }).await;
        store.enqueue(NewJob { key: Some("a".into()), due: Due::In(HOUR), ..job("a 1") }).await;
        store.enqueue_keyed(&["a 2", "b 1", "b 2"]).await;
        let running = store.claim(1, 9).await;
        assert_eq!(running.iter().map(text).collect::<Vec<_>>(), ["b 1"], "the first of the other waits for its time");
        assert!(store.settle(running[0].reservation, Ending::Waiting { failure: Some(failure(Reason::Failed)), delay: HOUR }).await);
        assert!(store.claim(1, 9).await.is_empty());
        assert_eq!(store.retry(running[0].reservation.id).await.unwrap(), "due");
        assert_eq!(store.claim_names(9).await, ["b 1"]);
    }

    async fn a_rate_lets_a_burst_start_and_says_when_the_next_may(store: &Store) {
        store.register(1).await;
        let settings = QueueSettings {
            rate_limit: Some(Some(10)),
            rate_period: Some(Some(HOUR)),
            rate_burst: Some(Some(3)),
            ..Default::default()
        };
        store.set(settings).await;
        store.enqueue_keyed(&["a 1", "a 2", "b 3", "b 4", "b 5"]).await;
        let minutes = |due_in: Option<Duration>| due_in.unwrap().as_secs_f64() / 60.0;
        assert_eq!(store.claim(1, 2).await.len(), 2);
        assert_eq!(store.claim(1, 2).await.len(), 1);
        assert!((5.9..6.1).contains(&minutes(store.due_in(1).await)), "ten an hour");

        let by_key = QueueSettings { rate_limit: Some(None), rate_per_key: Some(Some(20)), rate_burst: Some(None), ..Default::default() };
        store.set(by_key).await;
        assert_eq!(store.claim_names(9).await, ["b 4"], "each key at its own rate");
        // A look for jobs without a key may still be due.
        let says = async || (2.9..3.1).contains(&minutes(store.due_in(1).await));
        eventually("it says when: twenty an hour", says).await;
    }

    async fn every_ending_does_what_it_says(store: &Store) {
        store.register(1).await;
        let endings = [
            (Ending::Completed(Some(Payload::encode(&7).unwrap())), json!(["completed", 1, 0])),
            (Ending::Cancelled, json!(["cancelled", 1, 0])),
            (Ending::Waiting { failure: None, delay: Duration::ZERO }, json!(["waiting", 1, 0])),
            (Ending::Waiting { failure: Some(failure(Reason::Failed)), delay: Duration::ZERO }, json!(["waiting", 1, 1])),
            (Ending::Dead(failure(Reason::Permanent)), json!(["permanent", 1, 1])),
        ];
        for (ending, _) in &endings {
            store.enqueue(job(&format!("{ending:?}"))).await;
        }
        let jobs = store.claim(1, 10).await;
        for (job, (ending, _)) in jobs.iter().zip(&endings) {
            assert_eq!(store.fate(job.reservation.id).await, json!(["running", 1, 0]));
            assert!(store.settle(job.reservation, ending.clone()).await);
        }
        for (job, (ending, fate)) in jobs.iter().zip(&endings) {
            assert_eq!(store.fate(job.reservation.id).await, *fate, "{ending:?}");
        }
    }

    async fn only_the_standing_reservation_settles(store: &Store) {
        store.register(1).await;
        let id = store.enqueue(job("x")).await;
        let good = store.claim_one(1).await.reservation;
        let wrong = [
            Reservation { id: good.id + 1, ..good },
            Reservation { worker: 2, ..good },
            Reservation { attempt: good.attempt + 1, ..good },
            Reservation { reserved_at: good.reserved_at + Duration::from_micros(1), ..good },
        ];
        for reservation in wrong {
            assert!(!store.settle(reservation, Ending::Completed(None)).await, "{reservation:?}");
        }
        assert_eq!(store.fate(id).await, json!(["running", 1, 0]));
        assert!(store.settle(good, Ending::Completed(None)).await);
        assert!(!store.settle(good, Ending::Dead(failure(Reason::Failed))).await, "an ending counts once");
        assert_eq!(store.fate(id).await, json!(["completed", 1, 0]));
    }

    async fn a_retry_waits_for_its_delay_and_counts_on(store: &Store) {
        store.register(1).await;
        store.enqueue(job("x")).await;
        for attempt in 1..=2 {
            let job = store.claim_one(1).await;
            assert_eq!((job.reservation.attempt, job.failures), (attempt, attempt as u32 - 1));
            let delay = Duration::from_secs(if attempt == 1 { 0 } else { 600 });
            store.settle(job.reservation, Ending::Waiting { failure: Some(failure(Reason::TimedOut)), delay }).await;
        }
        let due_in = store.due_in(1).await.unwrap();
        assert!((590..=600).contains(&due_in.as_secs()), "{due_in:?}");
    }

    async fn a_unique_key_admits_one_live_job(store: &Store) {
        store.register(1).await;
        let driver = store.driver();
        let first = driver.enqueue(&[unique("first", UniqueMode::Keep)]).await.unwrap()[0];
        let second = driver.enqueue(&[unique("second", UniqueMode::Keep), job("other")]).await.unwrap();
        assert_eq!((first.existed, second[0].existed, second[1].existed), (false, true, false));
        assert_eq!(second[0].id, first.id);
        let claimed = store.claim_one(1).await;
        assert_eq!(text(&claimed), "first");
        assert!(driver.enqueue(&[unique("while it runs", UniqueMode::Replace)]).await.unwrap()[0].existed);
        store.settle(claimed.reservation, Ending::Completed(None)).await;
        assert!(!driver.enqueue(&[unique("after", UniqueMode::Keep)]).await.unwrap()[0].existed);
    }

    async fn a_unique_job_is_replaced_or_debounced_as_asked(store: &Store) {
        store.register(1).await;
        store.enqueue(unique("first", UniqueMode::Keep)).await;
        store.enqueue(unique("second", UniqueMode::Replace)).await;
        let hour = Due::In(Duration::from_secs(3600));
        store.enqueue(NewJob { due: hour, ..unique("third", UniqueMode::Debounce) }).await;
        assert!(store.claim(1, 1).await.is_empty(), "put off by the debounce");
        store.enqueue(unique("fourth", UniqueMode::Debounce)).await;
        assert_eq!(text(&store.claim_one(1).await), "fourth");
        assert!(store.claim(1, 1).await.is_empty());
    }

    async fn uniqueness_until_started_ends_with_the_claim(store: &Store) {
        store.register(1).await;
        let started = |name| NewJob { unique_until: UniqueUntil::Started, ..unique(name, UniqueMode::Keep) };
        let driver = store.driver();
        store.enqueue(started("first")).await;
        assert!(driver.enqueue(&[started("second")]).await.unwrap()[0].existed);
        store.claim_one(1).await;
        assert!(!driver.enqueue(&[started("third")]).await.unwrap()[0].existed);
    }

    async fn cancelling_says_what_it_did(store: &Store) {
        store.register(1).await;
        let id = store.enqueue(job("x")).await;
        assert_eq!(store.cancel(id).await, "cancelled");
        assert_eq!(store.cancel(id).await, "finished");
        assert_eq!(store.cancel(id + 1).await, "unknown");
        let id = store.enqueue(job("y")).await;
        let reservation = store.claim_one(1).await.reservation;
        assert_eq!(store.cancel(id).await, "requested");
        let asks = Report { held: vec![id - 1, id], ..Report::default() };
        assert_eq!(store.driver().beat(1, &asks).await.unwrap().cancel, [id]);
        store.register(2).await;
        assert!(store.driver().beat(2, &asks).await.unwrap().cancel.is_empty(), "another's");
        store.settle(reservation, Ending::Waiting { failure: None, delay: Duration::from_secs(600) }).await;
        let again = store.claim_one(1).await;
        assert!(again.cancel_requested, "due at once, to be ended");
        store.settle(again.reservation, Ending::Dead(failure(Reason::Failed))).await;
        assert_eq!(store.cancel(id).await, "dead");
    }

    async fn retrying_says_what_it_did(store: &Store) {
        store.register(1).await;
        let id = store.enqueue(NewJob { due: Due::In(Duration::from_secs(600)), ..job("x") }).await;
        assert_eq!(store.retry(id).await.unwrap(), "due");
        let reservation = store.claim_one(1).await.reservation;
        assert_eq!(store.retry(id).await.unwrap(), "running");
        store.settle(reservation, Ending::Dead(failure(Reason::Failed))).await;
        assert_eq!(store.retry(id).await.unwrap(), "revived");
        assert_eq!(store.fate(id).await, json!(["waiting", 1, 0]), "attempts stay, failures begin anew");
        let reservation = store.claim_one(1).await.reservation;
        store.settle(reservation, Ending::Completed(None)).await;
        assert_eq!(store.retry(id).await.unwrap(), "finished");
        assert_eq!(store.retry(id + 1).await.unwrap(), "unknown");
    }

    async fn a_dead_job_is_not_revived_beside_its_successor(store: &Store) {
        store.register(1).await;
        let id = store.enqueue(unique("first", UniqueMode::Keep)).await;
        let reservation = store.claim_one(1).await.reservation;
        store.settle(reservation, Ending::Dead(failure(Reason::Failed))).await;
        store.enqueue(unique("second", UniqueMode::Keep)).await;
        let error = store.retry(id).await.unwrap_err();
        assert!(error.is_invalid() && error.to_string().contains("unique key"), "{error}");
        assert_eq!(store.fate(id).await, json!(["failed", 1, 1]));
    }

    async fn a_dead_workers_jobs_are_put_back_as_failures(store: &Store) {
        store.register(1).await;
        store.register(2).await;
        let id = store.enqueue(job("x")).await;
        let reservation = store.claim_one(1).await.reservation;
        assert_eq!(store.lose_worker(1, 2).await, [id]);
        assert_eq!(store.fate(id).await, json!(["waiting", 1, 1]));
        assert!(!store.driver().beat(1, &Report::default()).await.unwrap().alive);
        assert!(!store.settle(reservation, Ending::Completed(None)).await, "it is no longer that worker's");
        assert_eq!(store.claim_one(2).await.reservation.id, id, "due at once");
    }

    async fn a_job_that_is_lost_again_and_again_waits_longer_and_dies(store: &Store) {
        store.register(2).await;
        let id = store.enqueue(NewJob { max_attempts: 4, ..job("x") }).await;
        for losses in 1..=4 {
            if losses == 4 {
                assert!(store.claim(2, 1).await.is_empty(), "the third loss in a row has it wait");
                store.retry(id).await.unwrap();
            }
            store.register(1).await;
            store.claim_one(1).await;
            assert_eq!(store.lose_worker(1, 2).await, [id]);
        }
        assert_eq!(store.fate(id).await, json!(["lost", 4, 4]));
    }

    async fn a_worker_hears_how_many_others_work_its_queues(store: &Store) {
        store.register(1).await;
        store.register(2).await;
        let other = WorkerInfo { id: 3, host: "test".into(), pid: 1, queues: vec!["other".into()], slots: 1 };
        store.driver().register(&other).await.unwrap();
        let beat = store.driver().beat(1, &Report::default()).await.unwrap();
        assert_eq!((beat.peers.len(), beat.sharing), (2, 1));
        assert_eq!(store.driver().beat(3, &Report::default()).await.unwrap().sharing, 0);
    }

    async fn a_worker_seen_since_it_was_watched_is_left_alone(store: &Store) {
        store.register(1).await;
        store.register(2).await;
        let id = store.enqueue(job("x")).await;
        store.claim_one(1).await;
        let watched = store.driver().beat(2, &Report::default()).await.unwrap().peers;
        store.driver().beat(1, &Report::default()).await.unwrap();
        let rescue = store.driver().rescue(2, &watched).await.unwrap();
        assert_eq!((rescue.workers, rescue.jobs), (vec![], vec![]));
        assert_eq!(store.fate(id).await, json!(["running", 1, 0]));
    }

    async fn strays_go_back_at_no_cost(store: &Store) {
        store.register(1).await;
        let (held, stray) = (store.enqueue(job("held")).await, store.enqueue(job("stray")).await);
        store.claim(1, 2).await;
        assert_eq!(store.driver().release_strays(1, &[held]).await.unwrap(), [stray]);
        assert_eq!(store.fate(stray).await, json!(["waiting", 1, 0]));
        assert_eq!(store.fate(held).await, json!(["running", 1, 0]));
    }

    async fn whatever_makes_work_possible_rings(store: &Store) {
        store.register(1).await;
        let mut signals = signals(&*store.driver(), 0).await.unwrap();
        assert_eq!(store.driver().arm(1, QUEUE).await.unwrap(), []);
        let id = store.enqueue(job("x")).await;
        let bell = Signal::Bell(QUEUE.into());
        assert_eq!(soon("the bell", signals.next()).await.unwrap().unwrap(), bell, "enqueued");
        let reservation = store.claim_one(1).await.reservation;
        store.cancel(id).await;
        assert_eq!(soon("the call", signals.next()).await.unwrap().unwrap(), Signal::Cancel(id));
        store.settle(reservation, Ending::Waiting { failure: None, delay: Duration::ZERO }).await;
        assert_eq!(soon("the bell", signals.next()).await.unwrap().unwrap(), bell, "put back");
        store.retry(id).await.unwrap();
        assert_eq!(soon("the bell", signals.next()).await.unwrap().unwrap(), bell, "retried");
        store.pause(QUEUE).await;
        assert_eq!(soon("the pause", signals.next()).await.unwrap().unwrap(), Signal::Pause(QUEUE.into()));
        store.resume(QUEUE).await;
        assert_eq!(soon("the bell", signals.next()).await.unwrap().unwrap(), bell, "resumed");
    }

    async fn a_pause_is_signalled_and_every_beat_tells_of_it(store: &Store) {
        store.register(1).await;
        let mut signals = signals(&*store.driver(), 0).await.unwrap();
        store.pause(QUEUE).await;
        store.pause("other").await;
        assert_eq!(soon("the pause", signals.next()).await.unwrap().unwrap(), Signal::Pause(QUEUE.into()));
        let paused = async || store.driver().beat(1, &Report::default()).await.unwrap().paused;
        assert_eq!(paused().await, [QUEUE], "of its own queues only");
        store.resume(QUEUE).await;
        assert!(paused().await.is_empty());
    }

    async fn a_worker_that_is_to_stop_is_signalled_and_every_beat_tells_of_it(store: &Store) {
        store.register(1).await;
        store.register(2).await;
        let mut signals = signals(&*store.driver(), 0).await.unwrap();
        assert!(store.stop_worker(1).await && !store.stop_worker(3).await);
        assert_eq!(soon("the call", signals.next()).await.unwrap().unwrap(), Signal::Stop(1));
        let stuck = vec![Stuck { id: 7, told_for: Duration::from_secs(9) }];
        let stops = async |worker| store.driver().beat(worker, &Report { stopping: true, stuck: stuck.clone(), ..Report::default() }).await;
        assert!(stops(1).await.unwrap().stop && !stops(2).await.unwrap().stop);
    }

    async fn two_claims_at_once_never_share_a_job(store: &Store) {
        store.register(1).await;
        store.register(2).await;
        store.driver().enqueue(&vec![job("x"); 400]).await.unwrap();
        let claims = (0..8).map(|n| async move { store.claim(1 + n % 2, 60).await });
        let mut ids: Vec<i64> =
            futures::future::join_all(claims).await.iter().flatten().map(|job| job.reservation.id).collect();
        let claimed = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((claimed, ids.len()), (400, 400));
    }

    async fn a_sleeping_worker_runs_what_is_enqueued(store: &Store) {
        let (reporter, mut reports) = reporting();
        let builder = Worker::builder(store.driver()).poll_interval(Duration::from_secs(3600)).state(reporter).handle(report);
        let running = start(builder);
        let id = store.enqueue(job("awake")).await;
        assert_eq!(reports.next().await, "awake");
        eventually("it is settled", async || store.fate(id).await == json!(["completed", 1, 0])).await;
        running.stop().await;
    }

    async fn draining_runs_all_that_is_due_and_counts_it(store: &Store) {
        async fn ends(note: Note) -> Outcome {
            match note.text.as_str() {
                "fail" => Outcome::Fail("no".into()),
                "die" => Outcome::Dead("never".into()),
                "snooze" => Outcome::Snooze(Duration::from_secs(60)),
                "cancel" => Outcome::Cancel,
                _ => Outcome::Complete,
            }
        }
        let worker = Worker::builder(store.driver()).queue(QUEUE, 2).handle(ends).build().unwrap();
        for text in ["a", "b", "c", "fail", "die", "snooze", "cancel"] {
            store.enqueue(job(text)).await;
        }
        store.enqueue(NewJob { due: Due::In(Duration::from_secs(60)), ..job("later") }).await;
        store.enqueue(NewJob { kind: "unknown".into(), ..job("x") }).await;
        let drained = worker.drain().await.unwrap();
        assert_eq!((drained.completed, drained.failed, drained.dead), (3, 1, 1));
        assert_eq!((drained.put_back, drained.cancelled), (2, 1));
        assert_eq!(worker.drain().await.unwrap().completed, 0);
        assert!(store.driver().beat(0, &Report::default()).await.unwrap().peers.is_empty(), "it has taken its leave");
    }

    async fn an_inline_job_has_run_when_the_enqueue_returns(store: &Store) {
        let (reporter, mut reports) = reporting();
        let inline = Worker::builder(store.driver()).state(reporter).handle(report).build().unwrap().inline();
        let id = enqueue(&inline, &note("now")).await.unwrap().id;
        assert_eq!(reports.rest(), ["now"]);
        assert_eq!(store.fate(id).await, json!(["completed", 1, 0]));
        let later = enqueue(&inline, &note("later")).delay(Duration::from_secs(60)).await.unwrap().id;
        assert_eq!(store.fate(later).await, json!(["waiting", 0, 0]));
        let bad = NewJob::new("note", Payload::encode(&7).unwrap());
        let bad = enqueue(&inline, &bad).await.unwrap().id;
        assert_eq!(store.fate(bad).await, json!(["undecodable", 1, 1]));
    }
}

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
async fn memory_forgets_what_has_ended_but_not_what_is_dead() {
    let memory = Memory::new();
    async fn ends(note: Note) -> Outcome {
        if note.text == "die" { Outcome::Dead("x".into()) } else { Outcome::Complete }
    }
    let worker = Worker::builder(memory.clone()).handle(ends).build().unwrap();
    let dead = enqueue(&memory, &note("die")).await.unwrap().id;
    enqueue(&memory, &note("end")).await.unwrap();
    worker.drain().await.unwrap();
    memory.prune().await.unwrap();
    assert_eq!(memory.jobs().len(), 2);
    memory.advance(Duration::from_secs(25 * 3600));
    memory.prune().await.unwrap();
    assert_eq!(memory.jobs().iter().map(|job| job.id).collect::<Vec<_>>(), [dead]);
    assert!(memory.purge(dead) && !memory.purge(dead));
}
