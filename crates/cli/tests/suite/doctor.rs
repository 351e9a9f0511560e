//! The doctor names each fault, and its advice repairs the fault.

use std::process::Output;
use std::time::Duration;

use reveille::admin::doctor::{CHECKS, Finding, Verdict};
use reveille::dev::Server;
use reveille::{Database, enqueue};
use serde_json::{Value, json};

use crate::harness::{client, database, empty_database, eventually, note, reporting_worker, start, worker};

pub async fn examine(database: &Database) -> Vec<Finding> {
    database.doctor().examine().await.expect("the doctor can examine")
}

/// Returns the findings of one check.
pub async fn found(database: &Database, check: &str) -> Vec<Finding> {
    let mut findings = examine(database).await;
    findings.retain(|found| found.check == check);
    findings
}

/// Checks that `check` has one finding, with this verdict and these words. Returns the finding's advice.
pub async fn only(database: &Database, check: &str, state: Verdict, parts: &[&str]) -> String {
    let findings = found(database, check).await;
    let [one] = &findings[..] else { panic!("one finding of {check}: {findings:?}") };
    assert!(one.state == state && parts.iter().all(|part| one.finding.contains(part)), "{parts:?} in {one:?}");
    one.advice.clone().unwrap_or_default()
}

pub fn doctor(address: &str, arguments: &[&str]) -> Output {
    let mut command = crate::cli::command(&[&["doctor"], arguments].concat());
    crate::cli::finish(command.env("DATABASE_URL", address).spawn().unwrap())
}

pub fn lines(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_database_with_a_worker_is_well() {
    // Uses a separate server, because the doctor would report that the shared server of the tests does not wait for the
    // disk.
    let server = Server::options().fsync(true).setting("full_page_writes", "on").start().unwrap();
    let database = Database::connect(server.url("postgres")).await.unwrap();
    database.migrate().await.unwrap();
    let (builder, mut reports) = reporting_worker(&database);
    let worker = start(builder);
    enqueue(&database, &note("a")).await.unwrap();
    reports.next().await;
    let findings = examine(&database).await;
    assert!(findings.iter().all(|found| found.state == Verdict::Ok && found.advice.is_none()), "{findings:#?}");
    assert_eq!(findings.iter().map(|found| found.check.as_str()).collect::<Vec<_>>(), CHECKS);

    let (shown, printed) = (doctor(&server.url("postgres"), &[]), doctor(&server.url("postgres"), &["--json"]));
    assert_eq!((shown.status.code(), printed.status.code()), (Some(0), Some(0)), "{shown:?}");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("a notification arrived"), "{shown:?}");
    let line =
        json!({"check": "trigger", "state": "ok", "finding": "inserts are checked and ring the bell", "advice": null});
    assert!(lines(&printed).contains(&line), "{printed:?}");
    worker.stop().await;
}

#[tokio::test]
async fn sessions_that_hold_back_vacuum_are_named_without_their_query() {
    let server = Server::options().setting("max_prepared_transactions", "2").start().unwrap();
    let (address, database) = (server.url("postgres"), Database::connect(server.url("postgres")).await.unwrap());
    let (report, idle) = (client(&address).await, client(&address).await);
    let begin = "set application_name = 'report'; begin isolation level repeatable read; select 'secret' from pg_class";
    report.batch_execute(begin).await.unwrap();
    idle.batch_execute("set application_name = 'idler'; begin; select 'secret'").await.unwrap();
    let left = "create table t (); begin; drop table t; prepare transaction 'left over'";
    client(&address).await.batch_execute(left).await.unwrap();
    client(&address).await.batch_execute("select pg_create_physical_replication_slot('standby', true)").await.unwrap();
    let is = |found: &Finding, state: Verdict, part: &str| found.state == state && found.finding.contains(part);
    let doctor = database.doctor().patience(Duration::from_millis(10));
    eventually("all transactions are old enough", async || {
        let findings = doctor.examine().await.unwrap();
        assert!(!format!("{findings:?}").contains("secret"), "{findings:#?}");
        let has = |state, part: &str| findings.iter().any(|found| found.check == "horizon" && is(found, state, part));
        has(Verdict::Bad, "application report")
            && has(Verdict::Note, "application idler")
            && has(Verdict::Bad, "'left over'")
            && has(Verdict::Note, "slot standby is not in use")
    })
    .await;
    let waiting = found(&database, "horizon").await;
    assert!(
        waiting.len() == 1 && is(&waiting[0], Verdict::Note, "slot standby"),
        "all other transactions are young: {waiting:?}"
    );
    drop(report);
}

#[tokio::test]
async fn prepared_transactions_get_the_advice_to_switch_the_bell_off() {
    let server =
        Server::options().fsync(true).setting("full_page_writes", "on").setting("max_prepared_transactions", "2");
    let server = server.start().unwrap();
    let (address, database) = (server.url("postgres"), Database::connect(server.url("postgres")).await.unwrap());
    let advice = only(&database, "settings", Verdict::Note, &["max_prepared_transactions is 2"]).await;
    let advised = advice.split_once(": ").unwrap().1.split(';').next().unwrap().replace("...", "postgres");
    client(&address).await.batch_execute(&advised).await.unwrap();
    only(&database, "settings", Verdict::Ok, &[]).await;
}

#[tokio::test]
async fn a_server_that_runs_out_of_sessions_is_named() {
    let server = Server::options().setting("max_connections", "13").start().unwrap();
    let (address, database) = (server.url("postgres"), Database::connect(server.url("postgres")).await.unwrap());
    let few = futures::future::join_all((0..8).map(|_| client(&address))).await;
    only(&database, "connections", Verdict::Note, &["9 of 10"]).await;
    let more = client(&address).await;
    only(&database, "connections", Verdict::Bad, &["10 of 10"]).await;
    drop((few, more));
}

#[tokio::test]
async fn a_listener_that_hangs_in_a_transaction_is_named() {
    let database = database().await;
    let listener = database.client().await;
    listener.batch_execute("set application_name = 'reveille listener'; begin; select 1").await.unwrap();
    let advice = only(&database, "notifications", Verdict::Note, &["hangs in a transaction"]).await;
    database.run(advice.split(';').next().unwrap()).await;
    eventually("the listener's session is gone", async || {
        found(&database, "notifications").await[0].state == Verdict::Ok
    })
    .await;
}

#[tokio::test]
async fn without_the_current_schema_other_checks_are_left_out() {
    let empty = empty_database().await;
    let printed = doctor(&empty.address, &["--json", "--ignore", "settings"]);
    let of_schema: Vec<Value> = lines(&printed).into_iter().filter(|found| found["check"] == "schema").collect();
    assert_eq!((printed.status.code(), of_schema.len()), (Some(1), 2), "{printed:?}");
    assert_eq!((&of_schema[0]["state"], &of_schema[0]["advice"]), (&json!("bad"), &json!("run `reveille migrate`")));
    assert!(of_schema[1]["finding"].as_str().unwrap().contains("indexes"), "{of_schema:?}");
    assert!(!lines(&printed).iter().any(|found| found["check"] == "indexes"));

    let older = database().await;
    older.run("delete from reveille.schema_history where version > 1").await;
    let findings = found(&older, "schema").await;
    assert!(findings[0].state == Verdict::Bad && findings[0].finding.contains("version 1"), "{findings:?}");
}

#[tokio::test]
async fn every_missing_index_is_named_and_the_advice_restores_it() {
    let database = database().await;
    // The index jobs_claim is left out, because a view of Reveille depends on it.
    let indexes = "from pg_index join pg_class on pg_class.oid = indrelid
        left join pg_constraint on conindid = indexrelid and contype = 'p'
        where relnamespace = 'reveille'::regnamespace and not relispartition and relname <> 'schema_history'
            and indexrelid <> 'reveille.jobs_claim'::regclass";
    let list = &format!("select jsonb_agg(indexrelid::regclass::text order by indexrelid::regclass::text) {indexes}");
    let before = database.value(list).await;
    let drop_all = format!(
        "do $$ declare i record; begin
            for i in select indexrelid::regclass as name, indrelid::regclass as of, conname {indexes} loop
                execute case when i.conname is null then format('drop index %s', i.name)
                    else format('alter table %s drop constraint %I cascade', i.of, i.conname) end;
            end loop;
        end $$"
    );
    database.run(&drop_all).await;
    assert_eq!(database.value(list).await, json!(null));
    let missing = found(&database, "indexes").await;
    assert_eq!(missing.len(), before.as_array().unwrap().len(), "{missing:#?}");
    for index in missing {
        assert_eq!(index.state, Verdict::Bad);
        database.run(&index.advice.unwrap()).await;
    }
    assert_eq!(database.value(list).await, before);
    // The doctor counts jobs_claim too.
    let all = (before.as_array().unwrap().len() + 1).to_string();
    only(&database, "indexes", Verdict::Ok, &[&all]).await;
}

#[tokio::test]
async fn an_invalid_and_a_doubled_index_are_named() {
    let database = database().await;
    database.run("create index mine on reveille.jobs (reserved_by) where reserved_at is not null").await;
    let advice = only(&database, "indexes", Verdict::Note, &["jobs_reserved, mine"]).await;
    database.run(&advice).await;
    only(&database, "indexes", Verdict::Ok, &[]).await;
    database.run("update pg_index set indisvalid = false where indexrelid = 'reveille.jobs_claim'::regclass").await;
    let advice = only(&database, "indexes", Verdict::Bad, &["jobs_claim is not valid"]).await;
    database.run(advice.split(',').next().unwrap()).await;
    only(&database, "indexes", Verdict::Ok, &[]).await;
}

#[tokio::test]
async fn a_trigger_that_is_missing_or_disabled_is_bad() {
    let database = database().await;
    // The triggers that only let the data of another database be restored are left out.
    let triggers = "select string_agg(tgrelid::regclass || ' ' || tgname, ',' order by tgrelid::regclass::text, tgname)
        from pg_trigger join pg_class on pg_class.oid = tgrelid
        where relnamespace = 'reveille'::regnamespace and not tgisinternal and tgname <> 'pass_over_known'";
    let triggers = database.value(triggers).await;
    for place in triggers.as_str().unwrap().split(',') {
        let (table, trigger) = place.split_once(' ').unwrap();
        database.run(&format!("alter table {table} disable trigger {trigger}")).await;
        let advice = only(&database, "trigger", Verdict::Bad, &[trigger, table, "disabled"]).await;
        database.run(&advice).await;
        only(&database, "trigger", Verdict::Ok, &[]).await;
    }
    database.run("drop trigger ring on reveille.jobs").await;
    only(&database, "trigger", Verdict::Bad, &["ring", "missing"]).await;
}

#[tokio::test]
async fn a_missing_partition_is_bad_and_the_advice_restores_it() {
    let database = database().await;
    let detached = "alter table reveille.finished_jobs detach partition reveille.finished_jobs_7";
    for breaking in [detached, "drop table reveille.finished_jobs_31"] {
        database.run(breaking).await;
        let name = &breaking[breaking.rfind("finished_jobs_").unwrap()..];
        let advice = only(&database, "partitions", Verdict::Bad, &[name]).await;
        database.run(&advice).await;
        only(&database, "partitions", Verdict::Ok, &["32"]).await;
    }
    only(&database, "indexes", Verdict::Ok, &[]).await;
}

#[tokio::test]
async fn jobs_that_have_waited_long_are_named_with_the_reason() {
    let database = database().await;
    let insert =
        "insert into reveille.jobs (kind, queue, available_at) values ('k', 'mail', now() - interval '1 hour'),
            ('k', 'slow', now() - interval '2 minutes'), ('k', 'off', now() - interval '1 hour'), ('k', 'new', now()),
            ('k', 'held', now() - interval '90 seconds');
        insert into reveille.workers (id, host, pid, version, queues, slots)
            values (7, 'h', 1, '0', '{slow,off,held}', 1);
        insert into reveille.queues (name, max_running) values ('held', 1);
        select reveille.pause('off')";
    database.run(insert).await;
    let waiting = found(&database, "waiting").await;
    let [mail, slow, held, off] = &waiting[..] else { panic!("four queues: {waiting:#?}") };
    let says = |found: &Finding, state, part: &str| found.state == state && found.finding.contains(part);
    assert!(says(mail, Verdict::Bad, "queue mail has 1 ready") && mail.finding.contains("no living worker works it"));
    assert!(says(slow, Verdict::Note, "queue slow") && slow.advice.as_ref().unwrap().contains("slots"), "{slow:?}");
    assert!(held.advice.as_ref().unwrap().contains("limits"), "{held:?}");
    assert!(says(off, Verdict::Note, "paused") && off.advice.as_ref().unwrap().contains("resume \"off\""), "{off:?}");
    assert_eq!(doctor(&database.address, &["--ignore", "settings"]).status.code(), Some(1));
    assert_eq!(doctor(&database.address, &["--ignore", "settings", "--ignore", "waiting"]).status.code(), Some(0));
}

#[tokio::test]
async fn a_pause_of_more_than_a_day_is_named() {
    let database = database().await;
    let two = "('mail', 'charge', 'card 7', now() - interval '2 days'), (null, 'new', null, now())";
    database.run(&format!("insert into reveille.pauses (queue, kind, key, paused_at) values {two}")).await;
    let parts = ["pause of kind \"charge\" with key \"card 7\" in the queue \"mail\" began 2 days", "parked: 0"];
    let advice = only(&database, "waiting", Verdict::Note, &parts).await;
    assert!(advice.ends_with("reveille resume \"mail\" --kind \"charge\" --key \"card 7\""), "{advice}");
}

#[tokio::test]
async fn workers_that_are_missing_silent_or_without_a_lock_are_named() {
    let database = database().await;
    only(&database, "workers", Verdict::Note, &["no worker is alive"]).await;
    database.run("insert into reveille.jobs (kind) values ('k')").await;
    only(&database, "workers", Verdict::Bad, &["no worker is alive while jobs are ready"]).await;
    let insert = "insert into reveille.workers (id, host, pid, version, queues, slots, started_at, last_seen_at) values
            (7, 'gone', 1, '0', '{default}', 1, now() - interval '1 hour', now() - interval '2 minutes'),
            (8, 'here', 2, '0', '{default}', 1, now() - interval '1 hour', now());
        update reveille.jobs set reserved_at = now() - interval '2 minutes', reserved_by = 7, attempts = 1";
    database.run(insert).await;
    only(&database, "workers", Verdict::Note, &["worker 7 (gone, pid 1)", "00:02:0"]).await;
    only(&database, "reserved", Verdict::Bad, &["gone: 1, for up to 00:02:0", "job 1"]).await;
    only(&database, "locks", Verdict::Note, &["worker 8 (here, pid 2) has no session lock"]).await;
    database.run("update reveille.jobs set reserved_by = 8; delete from reveille.workers where id = 7").await;
    only(&database, "reserved", Verdict::Ok, &[]).await;
    only(&database, "workers", Verdict::Ok, &["1 alive with 1 slots"]).await;
    only(&database, "stuck", Verdict::Ok, &[]).await;
    let stuck = "update reveille.workers set stuck_jobs = '{1}', stuck_since = array[now() - interval '2 minutes']";
    database.run(stuck).await;
    only(&database, "stuck", Verdict::Bad, &["asked to: 1, for up to 00:02:0", "job 1"]).await;
}

#[tokio::test]
async fn history_past_its_retention_is_noted_and_prune_empties_it() {
    let database = database().await;
    let finished = |days: u32| {
        format!(
            "insert into reveille.finished_jobs (day, id, queue, kind, payload, priority, attempts, failures, \
                max_attempts,
                available_at, created_at, outcome)
            select (extract(epoch from now())::bigint / 86400 - {days}) % 32, 1, 'q', 'k', '{{}}', 2, 1, 0, 1, now(),
            now(), 'completed'"
        )
    };
    database.run(&finished(2)).await;
    only(&database, "history", Verdict::Ok, &["1 day"]).await;
    database.run(&finished(5)).await;
    only(&database, "history", Verdict::Note, &["5 days ago", "upkeep does not run"]).await;
    database.run("insert into reveille.queues (name, retention) values ('q', '6 days')").await;
    only(&database, "history", Verdict::Ok, &["6 days"]).await;
    database.run("delete from reveille.queues").await;
    database.admin().prune().await.unwrap();
    only(&database, "history", Verdict::Ok, &["1 day"]).await;
}

#[tokio::test]
async fn settings_that_lose_jobs_or_surprise_are_named() {
    let database = database().await;
    let name = database.value("select current_database()").await;
    let name = name.as_str().unwrap();
    let set = [
        "default_transaction_read_only = on",
        "statement_timeout = '7s'",
        "default_transaction_isolation = serializable",
    ]
    .map(|setting| format!("alter database {name} set {setting}"));
    database.run(&set.join("; ")).await;
    let fresh = Database::connect(&*database.address).await.unwrap();
    let settings = found(&fresh, "settings").await;
    let has = |state, part: &str| settings.iter().any(|found| found.state == state && found.finding.contains(part));
    assert!(has(Verdict::Bad, "default_transaction_read_only is on"), "{settings:#?}");
    assert!(has(Verdict::Note, "statement_timeout is 7000 ms"), "{settings:#?}");
    assert!(has(Verdict::Note, "default_transaction_isolation is serializable"), "{settings:#?}");
    database.run("set transaction_read_only = off; alter table reveille.jobs set (autovacuum_enabled = off)").await;
    only(&fresh, "vacuum", Verdict::Bad, &["switched off for reveille.jobs"]).await;
}

#[tokio::test]
async fn notifications_that_do_not_arrive_are_bad() {
    let (database, elsewhere) = (database().await, empty_database().await);
    let misdirected =
        Database::options(Some(database.address.clone())).listen_url(&*elsewhere.address).connect().await.unwrap();
    only(&misdirected, "listening", Verdict::Bad, &["no notification arrived", "pooler"]).await;
    let nowhere = Database::options(Some(database.address.clone())).listen_url("postgres://127.0.0.1:1/db");
    only(&nowhere.connect().await.unwrap(), "listening", Verdict::Bad, &["127.0.0.1:1"]).await;
}

#[tokio::test]
async fn a_locked_table_holds_up_the_doctor_only_briefly() {
    let database = database().await;
    let holder = database.client().await;
    holder.batch_execute("begin; lock table reveille.jobs in access exclusive mode").await.unwrap();
    let findings = found(&database, "workers").await;
    assert!(findings[0].state == Verdict::Bad && findings[0].advice.as_ref().unwrap().contains("lock"), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_another_name_is_examined_under_its_name() {
    let database = database().await;
    let other = Database::options(Some(database.address.clone())).schema("other").connect().await.unwrap();
    other.migrate().await.unwrap();
    database.run("drop index reveille.jobs_reserved; drop index other.jobs_failing").await;
    let advice = only(&other, "indexes", Verdict::Bad, &["jobs_failing"]).await;
    assert!(advice.contains("on other.jobs"), "{advice}");
    let working = start(worker(&other).handle(async |_: crate::harness::Note| {}));
    other.doctor().examine().await.unwrap();
    eventually("the doctor finds the schema's worker", async || {
        found(&other, "workers").await.iter().all(|found| found.state == Verdict::Ok)
    })
    .await;
    working.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dropped_function_and_view_is_missed() {
    let database = database().await;
    only(&database, "functions", Verdict::Ok, &["functions and", "views are there"]).await;
    let there = "select count(*) from (
        select distinct proname from pg_proc where pronamespace = 'reveille'::regnamespace
        union all select relname from pg_class where relnamespace = 'reveille'::regnamespace
        and relkind = 'v') as made";
    let there = database.value(there).await.as_i64().unwrap();
    // Reads all names first, because each drop also removes dependent objects.
    let drop_all = "do $$ declare gone text; begin
        foreach gone in array array(
            select 'view if exists ' || oid::regclass from pg_class where relnamespace = 'reveille'::regnamespace
            and relkind = 'v'
            union all
            select 'routine if exists ' || oid::regprocedure from pg_proc where pronamespace = 'reveille'::regnamespace
        ) loop
            execute format('drop %s cascade', gone);
        end loop;
    end $$";
    database.run(drop_all).await;
    let missed = found(&database, "functions").await;
    assert_eq!(missed.len() as i64, there, "{missed:?}");
    assert!(
        missed.iter().all(|missed| missed.state == Verdict::Bad && missed.finding.ends_with("is missing")),
        "{missed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_ignores_settings_that_workers_override() {
    let database = database().await;
    let name = database.value("select current_database()").await;
    database.run(&format!("alter database {} set idle_session_timeout = '30s'", name.as_str().unwrap())).await;
    let set = Database::connect(database.address.clone()).await.unwrap();
    let settings = found(&set, "settings").await;
    assert!(settings.iter().all(|found| !found.finding.contains("idle_session_timeout")), "{settings:?}");
}
