//! The doctor's findings about roles and their rights.

use crate::doctor::{examine, found, only};
use crate::harness::{TestDatabase, database, note, reporting_worker, start, worker};
use reveille::admin::doctor::{Finding, Verdict};
use reveille::{Database, enqueue};

#[tokio::test]
async fn row_security_that_may_hide_jobs_from_workers_is_named() {
    let database = database().await;
    database.run("alter table reveille.queues enable row level security").await;
    let alone = ["reveille.queues:", "roles that do not own a table"];
    only(&database, "roles", Verdict::Bad, &alone).await;
    let forced = "alter table reveille.sleepers enable row level security, force row level security";
    database.run(forced).await;
    let both = ["reveille.queues, reveille.sleepers:", "the triggers that wake them"];
    let advice = only(&database, "roles", Verdict::Bad, &both).await;
    database.run(&advice).await;
    only(&database, "roles", Verdict::Ok, &[]).await;
}

/// Makes a role with only the rights in `grants`. Returns a connection of this role to the database, and the role's
/// name.
async fn as_user(database: &TestDatabase, grants: &[&str]) -> (Database, String) {
    let (url, role) = new_user(database, grants).await;
    (Database::connect(url).await.unwrap(), role)
}

/// Makes a role with only the rights in `grants`. Returns the address for this role, and its name.
async fn new_user(database: &TestDatabase, grants: &[&str]) -> (String, String) {
    let role = format!("reveille_role_{:08x}", fastrand::u32(..));
    database.run(&format!("create role {role} login password 'p'")).await;
    for grant in grants {
        database.run(&format!("grant {grant} to {role}")).await;
    }
    let mut url = format!("{} ", database.address);
    if let Some((start, rest)) = database.address.split_once("://") {
        let (_, place) = rest.split_once('@').unwrap();
        url = format!("{start}://{role}:p@{place}");
    } else {
        url.push_str(&format!("user={role} password=p"));
    }
    (url, role)
}

#[tokio::test]
async fn a_role_with_the_name_of_the_schema_is_named() {
    let database = database().await;
    let schema = format!("named_{:08x}", fastrand::u32(..));
    let other = Database::options(Some(database.address.clone())).schema(&schema).connect().await.unwrap();
    other.migrate().await.unwrap();
    database.run(&format!("create role {schema} login")).await;
    only(&other, "roles", Verdict::Ok, &[]).await;
    database.run(&format!("grant create on schema {schema} to {schema}")).await;
    let advice =
        only(&other, "roles", Verdict::Note, &[&format!("the role {schema} has the name of the schema")]).await;
    database.run(advice.split_once(": ").unwrap().1).await;
    only(&other, "roles", Verdict::Ok, &[]).await;
    drop(other);
    drop_role(&database, &schema).await;
}

async fn drop_role(database: &TestDatabase, role: &str) {
    database.run(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_user_without_rights_gets_notes_and_no_error() {
    let database = database().await;
    let (user, role) = as_user(&database, &[]).await;
    let findings = examine(&user).await;
    assert!(findings.iter().all(|found| found.state != Verdict::Bad || found.check == "settings"), "{findings:#?}");
    let noted = |check: &str, part: &str| {
        findings
            .iter()
            .any(|found| found.check == check && found.state == Verdict::Note && found.finding.contains(part))
    };
    assert!(noted("roles", "may do nothing here") && noted("schema", "may not read"), "{findings:#?}");
    assert!(noted("workers", "not checked: workers, waiting, reserved, stuck, schedules"), "{findings:#?}");
    assert!(noted("locks", "permission denied"), "{findings:#?}");
    only(&user, "indexes", Verdict::Ok, &[]).await;
    drop(user);
    drop_role(&database, &role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_can_do_what_the_doctor_lists() {
    const ENQUEUE: [&str; 2] = ["usage on schema reveille", "insert, select on reveille.jobs"];
    let database = database().await;
    let views =
        "select on reveille.queue_stats, reveille.running_jobs, reveille.failing_jobs, reveille.dead_jobs_overview,
        reveille.worker_status, reveille.throughput, reveille.queue_limits, reveille.queue_totals,
        reveille.kind_totals, reveille.kind_stats, reveille.waiting_jobs, reveille.schedule_status,
        reveille.action_status, reveille.pause_status, reveille.job_list, reveille.dead_job_list,
        reveille.finished_job_list, reveille.workflow_status, reveille.workflow_job_status,
        reveille.blocked_jobs_overview, reveille.job_dependencies, reveille.job_steps";
    let (looker, looks) = as_user(&database, &["usage on schema reveille", views]).await;
    only(&looker, "roles", Verdict::Ok, &["may look;", "to enqueue it lacks insert, select on jobs; to work"]).await;
    only(&looker, "waiting", Verdict::Ok, &[]).await;
    database.run("revoke execute on all functions in schema reveille from public").await;
    only(&looker, "roles", Verdict::Ok, &["execute on the function enqueue", "execute on the function ring"]).await;
    database.run("grant execute on all functions in schema reveille to public").await;
    let advice =
        only(&looker, "roles", Verdict::Bad, &["every role may run", "ring_after_insert", "as the owner"]).await;
    database.run(&advice).await;

    let (producer, produces) = as_user(&database, &ENQUEUE).await;
    only(&producer, "roles", Verdict::Ok, &["may enqueue; to work it lacks"]).await;
    enqueue(&producer, &note("a")).await.unwrap();

    let (worker_user, works) = as_user(
        &database,
        &[
            "usage on schema reveille",
            "select, insert, update, delete on reveille.jobs, reveille.workers, reveille.counters, reveille.rates",
            "select, insert, update, delete on reveille.kind_counters",
            "select, insert, delete on reveille.sleepers",
            "select, insert, update, delete on reveille.dead_jobs, reveille.finished_jobs",
            "select, insert, update, delete on reveille.ends, reveille.linked_ends, reveille.blocked_jobs,
                reveille.dependencies, reveille.workflow_jobs, reveille.workflows",
            "select, insert, update, delete on reveille.steps, reveille.waits, reveille.events",
            "select, update on reveille.chores",
            "select (id, started_at), delete on reveille.actions",
            "select, insert, update on reveille.limits",
            "execute on function reveille.analyze_unknown_tables()",
            "execute on function reveille.sum_of_histograms(bigint[], bigint[])",
            "select, update, delete on reveille.unique_periods",
            "select on reveille.queues, reveille.pauses, reveille.schema_history",
        ],
    )
    .await;
    only(&worker_user, "roles", Verdict::Ok, &["may enqueue, work;"]).await;
    let (builder, mut reports) = reporting_worker(&worker_user);
    let working = start(builder);
    assert_eq!(reports.next().await, "a");
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    working.stop().await;
    worker_user.admin().prune().await.unwrap();
    drop((looker, producer, worker_user));
    for role in [looks, produces, works] {
        drop_role(&database, &role).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_taken_from_the_shipped_roles_are_missed() {
    let database = database().await;
    let schema = format!("granted_{:08x}", fastrand::u32(..));
    let other = Database::options(Some(database.address.clone())).schema(&schema).connect().await.unwrap();
    other.migrate().await.unwrap();
    only(&other, "grants", Verdict::Ok, &["not in use"]).await;
    database.run(&reveille::database::grants_sql(&schema).unwrap()).await;
    only(
        &other,
        "grants",
        Verdict::Ok,
        &[&format!("{schema}_admin, {schema}_monitor"), "have all privileges that they need"],
    )
    .await;
    let takes = [
        (
            format!("revoke delete on {schema}.jobs from {schema}_worker"),
            format!("{schema}_worker lacks delete on jobs"),
        ),
        (
            format!("revoke execute on function {schema}.cancel(bigint) from {schema}_admin"),
            "the function cancel".into(),
        ),
        (format!("revoke usage on schema {schema} from {schema}_producer"), format!("usage on schema {schema}")),
        (format!("revoke select on {schema}.queue_stats from {schema}_monitor"), "select on queue_stats".into()),
    ];
    for (take, missed) in &takes {
        database.run(take).await;
        let all = found(&other, "grants").await;
        assert!(
            all.iter().any(|found| found.state == Verdict::Bad && found.finding.contains(missed)),
            "{take}: {all:?}"
        );
    }
    database.run(&reveille::database::grants_sql(&schema).unwrap()).await;
    only(&other, "grants", Verdict::Ok, &[]).await;
    for role in ["producer", "worker", "monitor", "admin"] {
        database.run(&format!("drop owned by {schema}_{role}; drop role {schema}_{role}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_without_the_right_to_vacuum_are_named() {
    let database = database().await;
    let (worker_user, role) = as_user(
        &database,
        &["usage on schema reveille", "select, insert, update, delete on all tables in schema reveille"],
    )
    .await;
    let working = start(worker(&worker_user).handle(async |_: crate::harness::Note| {}));
    database
        .until(
            "select exists (select from pg_stat_activity where application_name = 'reveille listener' \
        and datname = current_database())",
        )
        .await;
    let churn = "alter table reveille.jobs set (
            autovacuum_vacuum_threshold = 1000000000, autovacuum_vacuum_insert_threshold = -1
        );
        insert into reveille.jobs (queue, kind) select 'q', 'k' from generate_series(1, 150000);
        delete from reveille.jobs where id % 10 <> 0";
    database.run(churn).await;
    database.until("select pg_stat_get_dead_tuples('reveille.jobs'::regclass) > 100000").await;
    let of_it = |found: Vec<Finding>| found.into_iter().find(|found| found.finding.contains("may not vacuum"));
    let noted = of_it(found(&database, "vacuum").await).expect("the doctor notes the missing right");
    assert!(noted.state == Verdict::Note && noted.finding.contains(&role), "{noted:?}");
    let due = include_str!("../../../../sql/upkeep_vacuum.sql");
    let due = worker_user.client().await.unwrap().query(due, &[]).await.unwrap();
    assert!(due.is_empty(), "a worker without the right vacuums nothing");
    working.stop().await;
    drop(worker_user);
    drop_role(&database, &role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_with_too_many_rights_or_too_few_is_named() {
    let database = database().await;
    let schema = format!("shown_{:08x}", fastrand::u32(..));
    let at = |url: &str| Database::options(Some(url.to_owned())).schema(&schema);
    let other = at(&database.address).connect().await.unwrap();
    other.migrate().await.unwrap();
    database.run(&reveille::database::grants_sql(&schema).unwrap()).await;
    let opened = async |url: &str| {
        let dashboard = at(url).application_name("reveille dashboard").connect().await.unwrap();
        let session = dashboard.client().await.unwrap();
        (dashboard, session)
    };
    let closed = "select not exists (
        select from pg_stat_activity where application_name = 'reveille dashboard' and datname = current_database()
    )";
    only(&other, "dashboard", Verdict::Ok, &["no dashboard is connected"]).await;

    let session = opened(&database.address).await;
    only(&other, "dashboard", Verdict::Note, &["is a superuser"]).await;
    drop(session);
    database.until(closed).await;

    let (url, role) = new_user(&database, &[&format!("{schema}_monitor")]).await;
    let session = opened(&url).await;
    only(&other, "dashboard", Verdict::Ok, &[&role, "no more than it should"]).await;
    only(&session.0, "dashboard", Verdict::Ok, &[&role]).await;
    database.run(&format!("create table orders (); grant select on orders to {role}")).await;
    only(&other, "dashboard", Verdict::Note, &[&role, "orders", "not Reveille's"]).await;
    database.run("drop table orders").await;
    database.run(&format!("revoke select on {schema}.queue_stats from {schema}_monitor")).await;
    only(&other, "dashboard", Verdict::Note, &["may not read queue_stats: pages show errors"]).await;
    database.run(&reveille::database::grants_sql(&schema).unwrap()).await;
    database.run(&format!("grant update on {schema}.jobs to {role}")).await;
    let advice = only(&other, "dashboard", Verdict::Note, &["may not record it"]).await;
    database.run(&advice).await;
    only(&other, "dashboard", Verdict::Ok, &[]).await;
    let owner = database.value("select current_user").await;
    database.run(&format!("alter table {schema}.jobs owner to {role}")).await;
    only(&other, "dashboard", Verdict::Note, &["may alter and drop Reveille's tables"]).await;
    database.run(&format!("alter table {schema}.jobs owner to {}", owner.as_str().unwrap())).await;
    drop(session);
    drop_role(&database, &role).await;
    for role in ["producer", "worker", "monitor", "admin"] {
        drop_role(&database, &format!("{schema}_{role}")).await;
    }
}
