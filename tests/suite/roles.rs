//! Least privilege: each role may do its work, and the server refuses the rest.

use std::time::Duration;

use reveille::admin::doctor::Verdict;
use reveille::admin::{
    BulkAction, Cancelled, DeadJobs, Edited, Filter, JobEdit, OverviewList, Pause, QueueSettings, RemovedQueue,
    Retried, StateFilter, View,
};
use reveille::database::grants_sql;
use reveille::driver::ClaimRequest;
use reveille::enqueue::{Workflow, copy_all};
use reveille::schedule::Schedule;
use reveille::{
    Attempt, Database, Outcome, State, Worker,
    driver::{Driver, Postgres},
    enqueue,
    enqueue::enqueue_all,
};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::harness::{
    Note, Reporter, TestDatabase, client, database, empty_database, host_and_port, note, report, reporting, start,
};

/// A database with the roles, and one user in each role. Roles belong to the whole server, so their names begin with
/// the schema of this test.
pub struct Roles {
    pub behind: TestDatabase,
    pub schema: String,
}

impl Roles {
    pub async fn new() -> Roles {
        let behind = database().await;
        let schema = format!("r{}_{:08x}", std::process::id(), fastrand::u32(..));
        let roles = Roles { behind, schema };
        let owner = roles.connect(&roles.behind.address).await;
        owner.migrate().await.unwrap();
        let grants = grants_sql(&roles.schema).unwrap();
        // The grants run twice, as they do after a migration.
        roles.behind.run(&grants).await;
        roles.behind.run(&grants).await;
        for role in ["producer", "worker", "monitor", "admin"] {
            let schema = &roles.schema;
            let create = format!("create role {schema}_{role}_user login password 'secret' in role {schema}_{role}");
            roles.behind.run(&create).await;
        }
        roles
    }

    async fn connect(&self, address: &str) -> Database {
        Database::options(Some(address.into())).schema(&self.schema).connect().await.unwrap()
    }

    /// Returns the address for the user in this role.
    fn address(&self, role: &str) -> String {
        let config: tokio_postgres::Config = self.behind.address.parse().unwrap();
        let ((host, port), dbname) = (host_and_port(&config), config.get_dbname().unwrap());
        format!("host={host} port={port} dbname={dbname} user={}_{role}_user password=secret", self.schema)
    }

    pub async fn database(&self, role: &str) -> Database {
        self.connect(&self.address(role)).await
    }

    pub fn sql(&self, sql: &str) -> String {
        sql.replace("reveille.", &format!("{}.", self.schema))
    }

    /// Checks that the user in this role may run all these statements.
    async fn may(&self, role: &str, statements: &[&str]) {
        let client = client(&self.address(role)).await;
        for sql in statements {
            client.batch_execute(&self.sql(sql)).await.unwrap_or_else(|error| panic!("{role}: {sql}: {error:?}"));
        }
    }

    /// Checks that the server refuses each of these statements to the user in this role.
    async fn may_not(&self, role: &str, statements: &[&str]) {
        let client: Client = client(&self.address(role)).await;
        for sql in statements {
            let error = client.batch_execute(&self.sql(sql)).await.expect_err(sql);
            assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{role}: {sql}: {error:?}");
        }
    }

    /// Returns the abilities of the user in this role, by the doctor's finding.
    async fn abilities(&self, role: &str) -> String {
        let findings = self.database(role).await.doctor().examine().await.unwrap();
        let found = findings.into_iter().find(|found| found.check == "roles").unwrap().finding;
        found.split(';').next().unwrap().replace(&format!("{}_{role}_user may ", self.schema), "")
    }

    pub async fn end(self) {
        for role in ["producer", "worker", "monitor", "admin"] {
            let schema = &self.schema;
            self.behind
                .run(&format!(
                    "drop role {schema}_{role}_user; drop owned by {schema}_{role}; drop role {schema}_{role}"
                ))
                .await;
        }
    }
}

const VIEWS: [&str; 20] = [
    "select * from reveille.queue_limits",
    "select * from reveille.queue_stats",
    "select * from reveille.running_jobs",
    "select * from reveille.waiting_jobs",
    "select * from reveille.job_list",
    "select * from reveille.dead_job_list",
    "select * from reveille.finished_job_list",
    "select * from reveille.failing_jobs",
    "select * from reveille.dead_jobs_overview",
    "select * from reveille.worker_status",
    "select * from reveille.throughput",
    "select * from reveille.queue_totals",
    "select * from reveille.kind_totals",
    "select * from reveille.kind_stats",
    "select * from reveille.schedule_status",
    "select * from reveille.passed_over_jobs",
    "select * from reveille.action_status",
    "select * from reveille.pause_status",
    "select * from reveille.job_dependencies",
    "select * from reveille.job_steps",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_enqueues_in_every_way_and_does_nothing_else() {
    let roles = Roles::new().await;
    let producer = roles.database("producer").await;
    producer.check().await.unwrap();
    enqueue(&producer, &note("one")).await.unwrap();
    enqueue_all(&producer, [&note("two"), &note("three")]).await.unwrap();
    copy_all(&producer, &[note("four")]).await.unwrap();
    let id = enqueue(&producer, &note("first")).unique_key("k").await.unwrap().id;
    roles
        .may(
            "producer",
            &[
                "select id from reveille.enqueue(kind => 'note', payload => '{\"text\": \"five\"}')",
                "select id from reveille.enqueue(kind => 'note', unique_key => 'k')",
                "select id from reveille.enqueue(kind => 'note', unique_key => 'k', unique_mode => 'replace')",
                "select id from reveille.enqueue(kind => 'note', payload => '{\"text\": \"last\"}', unique_key => 'k', \
                    unique_mode => 'debounce', delay => '1 hour')",
                "insert into reveille.jobs (kind, payload) values ('note', '{\"text\": \"six\"}')",
                "select id from reveille.enqueue(kind => 'note', payload => '{\"text\": \"seven\"}', \
                    unique_key => 'p', unique_until => '1 hour')",
                "select id from reveille.enqueue(kind => 'note', unique_key => 'p')",
                "select id from reveille.enqueue_json('{\"kind\": \"note\", \"payload\": {\"text\": \"eight\"}}')",
                "select id from reveille.enqueue_json('[{\"kind\": \"note\", \"delay\": 1}, \
                    {\"kind\": \"note\", \"unique_key\": \"p\", \"unique_until\": \"1 hour\"}]')",
                "select reveille.emit('paid:7', '1'), reveille.emit('paid:7', '2')",
            ],
        )
        .await;
    let last = format!("select payload ->> 'text' from {}.jobs where id = {id} and available_at > now()", roles.schema);
    assert_eq!(roles.behind.value(&last).await, "last");
    assert_eq!(roles.behind.value(&roles.sql("select count(*) from reveille.jobs")).await, 10);

    roles
        .may_not(
            "producer",
            &[
                "select payload from reveille.jobs",
                "select * from reveille.jobs",
                "select reveille.complete_in(1, 1, 1, now(), 0)",
                "update reveille.jobs set payload = '{}'",
                "update reveille.jobs set reserved_at = now(), reserved_by = 1",
                "delete from reveille.jobs",
                "truncate reveille.jobs",
                "select id from reveille.jobs for update",
                "insert into reveille.jobs (kind, attempts) values ('note', 1)",
                "insert into reveille.jobs (kind, reserved_at, reserved_by) values ('note', now(), 1)",
                "insert into reveille.jobs (id, kind) overriding system value values (1000000, 'note')",
                "insert into reveille.jobs (kind, errors) values ('note', '[]')",
                "select reveille.cancel(1)",
                "select reveille.retry(1)",
                "select reveille.pause('default')",
                "select reveille.resume('default')",
                "select reveille.pause(kind => 'note')",
                "insert into reveille.pauses (kind) values ('note')",
                "select * from reveille.pauses",
                "select reveille.unpark(1)",
                "select reveille.stop_worker(1)",
                "select reveille.ring('{default}')",
                "select reveille.truncate_finished_jobs()",
                "select reveille.fresh_job_id()",
                "select reveille.pass_given_ids()",
                "select payload from reveille.events",
                "insert into reveille.events (name, until) values ('e', now())",
                "delete from reveille.events",
                "select value from reveille.steps",
                "insert into reveille.waits (job, event, until) values (1, 'e', now())",
                "select reveille.forget_steps('{1}')",
                "select payload from reveille.dead_jobs",
                "select result from reveille.finished_jobs",
                "select result from reveille.await(1)",
                "insert into reveille.unique_periods values ('note', 'k', 1, now())",
                "delete from reveille.unique_periods",
                "insert into reveille.dead_jobs (id) values (1)",
                "insert into reveille.workers (id) values (1)",
                "insert into reveille.sleepers values ('default', 1)",
                "select from reveille.limits for update",
                "insert into reveille.queues (name) values ('default')",
                "select * from reveille.workers",
                "select reveille.schedule('s', kind => 'note', every => '1 hour')",
                "select reveille.trigger_schedule('s')",
                "select payload from reveille.schedules",
                "create table reveille.mine ()",
                "drop function reveille.cancel(bigint)",
                "select * from reveille.held_jobs()",
                "select * from reveille.dead_groups()",
                "select from reveille.chores for update",
            ],
        )
        .await;
    roles.may_not("producer", &VIEWS).await;
    assert_eq!(roles.abilities("producer").await, "enqueue");
    let driver = Postgres::new(producer).unwrap();
    let error = driver.claim(&ClaimRequest::new(1, "default", 1)).await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    roles.end().await;
}

pub async fn fail(note: Note, State(reporter): State<Reporter>, attempt: Attempt) -> Outcome {
    reporter.report(format!("{} {}", note.text, attempt.number));
    Outcome::Dead("no more".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_works_and_changes_no_settings() {
    let roles = Roles::new().await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(roles.database("worker").await).poll_interval(Duration::from_secs(3600));
    let often = Schedule::every("often", Duration::from_millis(50), &note("tick")).unwrap();
    let worker = start(builder.state(reporter).handle(fail).schedule(often.queue("ticks")));
    let asleep = roles.sql("select count(*) = 1 from reveille.sleepers");
    roles.behind.until(&asleep).await;
    // The worker's role parks and unparks jobs.
    roles.behind.run(&roles.sql("select reveille.pause(kind => 'note')")).await;
    let woken = enqueue(&roles.database("producer").await, &note("woken")).await.unwrap();
    let parked = roles.sql("select count(*) = 1 from reveille.jobs where queue = 'default' and paused_by is not null");
    roles.behind.until(&parked).await;
    roles
        .behind
        .run(&roles.sql("alter table reveille.pauses disable trigger ended; delete from reveille.pauses"))
        .await;
    roles.behind.run(&roles.sql("select reveille.ring('{default}')")).await;
    assert_eq!(reports.next().await, "woken 1");
    roles.behind.until(&roles.sql("select count(*) = 1 from reveille.dead_jobs")).await;
    roles.behind.until(&roles.sql("select count(*) > 1 from reveille.jobs where queue = 'ticks'")).await;
    worker.stop().await;
    let driver = Postgres::new(roles.database("worker").await).unwrap();
    driver.prune().await.unwrap();
    assert_eq!(roles.database("worker").await.finished(woken.id).await.unwrap().unwrap().state.name(), "dead");
    assert_eq!(roles.abilities("worker").await, "enqueue, work, fire schedules");
    let statements = [
        "insert into reveille.jobs (kind, awaited, attempts, reserved_by, reserved_at) \
            values ('held', true, 1, 7, 'epoch')",
        "select reveille.complete_in(id, 7, 1, 'epoch', 0) from reveille.jobs where kind = 'held'",
        "select reveille.fresh_job_id(), reveille.pass_given_ids()",
    ];
    roles.may("worker", &statements).await;
    let completed = "select jsonb_agg(outcome) from reveille.finished_jobs where kind = 'held'";
    assert_eq!(roles.behind.value(&roles.sql(completed)).await, json!(["completed"]));
    roles
        .may_not(
            "worker",
            &[
                "select reveille.pause('default')",
                "select reveille.pause(kind => 'note')",
                "delete from reveille.pauses",
                "select reveille.pause_schedule('often')",
                "delete from reveille.schedules",
                "select reveille.stop_worker(1)",
                "insert into reveille.unique_periods values ('note', 'k', 1, now())",
                "insert into reveille.queues (name, paused_at) values ('default', now())",
                "truncate reveille.jobs",
                "truncate reveille.finished_jobs_1",
                "drop table reveille.sleepers",
                "select actor from reveille.actions",
                "insert into reveille.actions (actor, source, action) values ('alice', 'test', 'pause')",
                "alter table reveille.jobs add column mine int",
            ],
        )
        .await;
    roles.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starts_workflows() {
    let roles = Roles::new().await;
    let (reporter, mut reports) = reporting();
    let builder = Worker::builder(roles.database("worker").await).state(reporter).handle(report);
    let worker = start(builder);
    let workflow = Workflow::batch("w", [note("started")]);
    enqueue(&roles.database("producer").await, &workflow).await.unwrap();
    assert_eq!(reports.next().await, "started");
    // The kind has the same name in any schema.
    enqueue(&roles.database("producer").await, &workflow).delay(Duration::from_secs(9)).await.unwrap();
    let findings = roles.database("admin").await.doctor().examine().await.unwrap();
    let handlers: Vec<_> = findings.iter().filter(|found| found.check == "handlers").collect();
    assert!(handlers.iter().all(|found| found.state == Verdict::Ok), "{handlers:?}");
    worker.stop().await;
    roles.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_reads_the_views_and_no_payload() {
    let roles = Roles::new().await;
    enqueue(&roles.database("producer").await, &note("secret")).await.unwrap();
    roles.may("monitor", &VIEWS).await;
    let stats = roles.database("monitor").await.admin().view(View::QueueStats).await.unwrap();
    assert_eq!(stats[0].get("ready"), Some("1"));
    let metrics = reveille::admin::metrics::text(&roles.database("monitor").await).await.unwrap();
    assert!(metrics.contains("\nreveille_jobs{queue=\"default\",state=\"ready\"} 1\n"), "{metrics}");
    let admin = roles.database("monitor").await.admin();
    assert_eq!(admin.overview().await.unwrap().decode::<Value>("queues").unwrap()[0]["ready"], json!(1));
    assert_eq!(admin.queue_sums().await.unwrap().decode::<Value>("sums").unwrap()["ready"], json!(1));
    let stats = admin.stats_of_queues(&["default".to_owned()], 1).await.unwrap();
    assert_eq!(stats[0].decode::<Value>("queue").unwrap()["ready"], json!(1));
    let waiting = admin.overview_list(&OverviewList::Waiting { queue: None }).await.unwrap();
    assert_eq!((waiting.len(), waiting[0].get("ready"), waiting[0].get("payload")), (1, Some("true"), None));
    for list in [OverviewList::Failing, OverviewList::DeadGroups, OverviewList::Workers, OverviewList::Limits] {
        admin.overview_list(&list).await.unwrap();
    }
    let (all, hour) = (DeadJobs::new(), Duration::from_secs(3600));
    admin.dead_groups(&all).await.unwrap();
    admin.dead_errors(&all, 10, 10).await.unwrap();
    admin.deaths(&all, hour, 2).await.unwrap();
    admin.kind_histories(hour, 2).await.unwrap();
    admin.job_links(1, 10).await.unwrap();
    admin.listed_steps(1, 10).await.unwrap();
    admin.workflow_jobs(1, "", 10).await.unwrap();
    assert_eq!(roles.abilities("monitor").await, "look");
    roles
        .may_not(
            "monitor",
            &[
                "select payload from reveille.jobs",
                "select payload from reveille.dead_jobs",
                "select payload from reveille.finished_jobs",
                "select value from reveille.steps",
                "select result from reveille.workflow_jobs",
                "select * from reveille.totals",
                "select * from reveille.jobs",
                "select from reveille.chores for update",
                "select id from reveille.enqueue(kind => 'note')",
                "insert into reveille.jobs (kind) values ('note')",
                "update reveille.jobs set queue = 'other'",
                "select reveille.pause('default')",
                "select reveille.stop_worker(1)",
                "select from reveille.limits for update",
                "select * from reveille.actions",
                "insert into reveille.actions (actor, source, action) values ('alice', 'test', 'pause')",
            ],
        )
        .await;
    roles.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_controls_jobs_and_changes_no_tables() {
    let roles = Roles::new().await;
    let database = roles.database("admin").await;
    let id = enqueue(&database, &note("x")).delay(Duration::from_secs(3600)).await.unwrap().id;
    let admin = database.admin().acting_as("alice", "test").unwrap();
    assert_eq!(admin.retry(id).await.unwrap(), Retried::Due);
    admin.pause("default").await.unwrap();
    admin.resume("default").await.unwrap();
    let covered = Pause::new().kind("note");
    admin.pause(covered.clone()).await.unwrap();
    roles.behind.run(&roles.sql("update reveille.jobs set paused_by = 1")).await;
    admin.resume(covered).await.unwrap();
    let parked = roles.sql("select count(*) from reveille.jobs where paused_by is not null");
    assert_eq!(roles.behind.value(&parked).await, 0);
    assert!(admin.job(id).await.unwrap().is_some());
    assert!(!admin.stop_worker(1).await.unwrap());
    let stuck = Filter::new().state(StateFilter::Stuck);
    assert!(admin.jobs(&stuck, 1).await.unwrap().is_empty());
    assert_eq!(admin.cancel(id).await.unwrap(), Cancelled::Cancelled);
    admin.wait_until_drained("default", |_| {}).await.unwrap();
    admin.purge_dead(&Filter::new()).await.unwrap();
    admin.revive_dead(&Filter::new()).await.unwrap();
    let edit = BulkAction::Edit(JobEdit::new().queue("other"));
    let (again, retry, cancel) = (BulkAction::RunAgain, BulkAction::Retry, BulkAction::Cancel);
    for action in [again, retry, edit, cancel, BulkAction::Revive, BulkAction::Purge] {
        let mut bulk = admin.bulk(action, &Filter::new()).unwrap();
        bulk.count().await.unwrap();
        bulk.run().await.unwrap();
    }
    admin.follow(&Filter::new()).await.unwrap().next().await.unwrap();
    let edited = enqueue(&database, &note("edited")).delay(Duration::from_secs(3600)).await.unwrap().id;
    assert_eq!(admin.edit(edited, JobEdit::new().queue("other")).await.unwrap(), Edited::Waiting);
    admin.cancel(edited).await.unwrap();
    admin.set_queue("other", QueueSettings::new().max_running(1)).await.unwrap();
    assert_eq!(admin.remove_queue("other").await.unwrap(), RemovedQueue::Removed);
    admin.prune().await.unwrap();
    roles.may("admin", &VIEWS).await;
    let schedules = [
        "select reveille.schedule('s', kind => 'note', every => '1 hour')",
        "select reveille.pause_schedule('s'), reveille.resume_schedule('s')",
        "select reveille.trigger_schedule('s')",
        "select reveille.unschedule('s')",
    ];
    roles.may("admin", &schedules).await;
    let hourly = Schedule::every("hourly", Duration::from_secs(3600), &note("x")).unwrap();
    admin.add_schedule(&hourly).await.unwrap();
    assert!(admin.remove_schedule("hourly").await.unwrap());
    assert!(!admin.stop_action(0).await.unwrap());
    let actions = admin.actions(None, 100).await.unwrap();
    assert!(actions.len() == 22 && actions.iter().all(|action| action.actor == "alice"), "{}", actions.len());
    let revoke = format!("revoke insert on {0}.actions from {0}_admin", roles.schema);
    roles.behind.run(&revoke).await;
    let error = admin.pause("other").await.unwrap_err();
    assert!(error.is_denied() && error.to_string().contains("insert and update on reveille.actions"), "{error}");
    database.admin().pause("other").await.unwrap();
    roles
        .may_not(
            "admin",
            &[
                "select from reveille.limits for update",
                "drop table reveille.jobs",
                "truncate reveille.jobs",
                "alter table reveille.jobs disable trigger ring",
            ],
        )
        .await;
    roles.end().await;
}

#[tokio::test]
async fn an_owner_without_the_right_to_create_roles_grants_to_existing_roles() {
    let roles = Roles::new().await;
    let (other, schema) = (empty_database().await, &roles.schema);
    let name = other.value("select current_database()").await;
    let name = name.as_str().unwrap();
    other.run(&format!("create role {schema}_owner_user login password 'secret'")).await;
    other.run(&format!("grant create on database {name} to {schema}_owner_user")).await;
    let address = roles.address("owner").replace(
        &format!("dbname={}", roles.behind.value("select current_database()").await.as_str().unwrap()),
        &format!("dbname={name}"),
    );
    roles.connect(&address).await.migrate().await.unwrap();
    client(&address).await.batch_execute(&grants_sql(schema).unwrap()).await.unwrap();
    let may = format!("select has_table_privilege('{schema}_admin', '{schema}.queues', 'insert')");
    assert_eq!(other.value(&may).await, true);
    other
        .run(&format!("drop schema {schema} cascade; drop owned by {schema}_owner_user; drop role {schema}_owner_user"))
        .await;
    roles.end().await;
}
