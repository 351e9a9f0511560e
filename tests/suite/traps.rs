//! Functions and operators of strangers do not run with the rights of a worker, an owner or a producer.
//!
//! If a schema on the search path is writable, strangers can plant operators and functions there that fit better than
//! the server's. These tests plant a trap for every name in Reveille's SQL, and for each combination of types that the
//! name may meet.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use reveille::admin::{BulkAction, Filter, JobEdit, OverviewList, Pause, QueueSettings, Retried, View};
use reveille::enqueue::copy_all;
use reveille::job::{Payload, UniqueMode, UniqueUntil};
use reveille::schedule::Schedule;
use reveille::{Attempt, Context, Database, Job, Outcome, State, Worker, enqueue, enqueue::enqueue_all, job::NewJob};
use serde_json::json;
use tokio_postgres::Client;

use crate::harness::{
    Note, Reporter, TestDatabase, client, database, empty_database, eventually, host_and_port, note, reporting, start,
};

const TYPES: &str = "{int2,int4,int8,float8,numeric,text,bool,interval,timestamptz,jsonb,name,oid,regclass,\
    int8[],text[],timestamptz[],float8[],jsonb[]}";

/// A trap: a function that fails, and notes its run in a sequence. A rollback does not undo this note.
const SPRUNG: &str = "returns %s language plpgsql as $f$ begin
        perform pg_catalog.nextval(''strangers.sprung'');
        raise exception ''the trap %% was sprung'', %L;
    end $f$";

/// Plants traps in the schema `strangers`: operators, and functions with the names in Reveille's SQL.
async fn plant(database: &TestDatabase) {
    let functions: Vec<String> = functions_used().into_iter().collect();
    let operators = format!(
        "set search_path = pg_catalog;
        create schema strangers;
        create sequence strangers.sprung;
        do $do$
        declare
            l text; r text; o text; result text; fits text[];
        begin
            foreach result in array array['bool', 'left', 'text'] loop
                fits := case result
                    when 'bool' then '{{=,<>,<,<=,>,>=,&&,@>,<@,~,!~,~~}}'
                    when 'left' then '{{+,-,*,/,%,||,#,&,|,<<,>>,->}}'
                    else '{{->>}}'
                end;
                foreach l in array '{TYPES}'::text[] loop
                    foreach r in array '{TYPES}'::text[] loop
                        execute format(
                            'create function strangers.sprung_%s(%s, %s) {SPRUNG}', result, l, r, case result
                            when 'left' then l else result end,
                            concat_ws(' ', l, result, r)
                        );
                        foreach o in array fits loop
                            execute format(
                                'create operator strangers.%s (leftarg = %s, rightarg = %s,
                                function = strangers.sprung_%s)', o, l, r, result
                            );
                        end loop;
                    end loop;
                end loop;
            end loop;
        end
        $do$;"
    );
    let functions = format!(
        "do $do$
        declare
            f record; l text; r text;
        begin
            for f in
                select distinct on (proname, n) proname, n, case when typtype <> 'p'
                then format_type(prorettype, null) end as result
                from pg_proc
                join pg_type on pg_type.oid = prorettype
                cross join generate_series(
                    greatest(pronargs - pronargdefaults, 1), least(pronargs + (provariadic <> 0)::int, 2)
                ) as n
                where pronamespace = 'pg_catalog'::regnamespace and proname = any ('{{{}}}'::text[])
                order by proname, n, typtype = 'p'
            loop
                foreach l in array '{TYPES}'::text[] loop
                    foreach r in array case f.n when 1 then array[''] else '{TYPES}'::text[] end loop
                        execute format(
                            'create function strangers.%I(%s%s) {SPRUNG}', f.proname,
                            -- Its callers name its argument.
                            concat(case when f.proname = 'make_interval' then 'secs ' end, l), ', ' || nullif(r, ''),
                            coalesce(f.result, l), f.proname
                        );
                    end loop;
                end loop;
            end loop;
        end
        $do$",
        functions.join(",")
    );
    database.run(&operators).await;
    database.run(&functions).await;
}

fn folder(name: &str) -> Vec<(String, String)> {
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let read = |path: std::path::PathBuf| {
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap())
    };
    files.map(|file| read(file.unwrap().path())).collect()
}

/// Returns every name that a parenthesis follows in Reveille's SQL.
fn functions_used() -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (_, sql) in folder("sql").into_iter().chain(folder("migrations")) {
        for (end, _) in sql.match_indices('(') {
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let name = sql[..end].rsplit(|c| !is_name(c)).next().unwrap();
            used.insert(name.to_owned());
        }
    }
    used.remove("");
    used
}

/// Returns the address of a database for sessions with this search path.
fn on_path(database: &TestDatabase, path: &str) -> String {
    let config: tokio_postgres::Config = database.address.parse().unwrap();
    let ((host, port), user) = (host_and_port(&config), config.get_user().unwrap());
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let dbname = config.get_dbname().unwrap();
    format!(
        "host={host} port={port} user='{user}' password='{password}' dbname='{dbname}' options='-c search_path={path}'"
    )
}

/// A search path on which the traps precede the server's schema, so they win even against an exact match.
const FIRST: &str = "strangers,pg_catalog";
/// A search path on which the traps follow the server's schema, as `public` does for most users.
const LAST: &str = "strangers";

async fn nothing_was_sprung(database: &TestDatabase) {
    assert_eq!(database.value("select is_called from strangers.sprung").await, false, "a trap was sprung");
}

/// Returns the statements of enqueuing and of workers. Enqueuing runs with a user's search path; workers set the search
/// path of their sessions.
fn statements() -> Vec<(String, String)> {
    let source = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/driver/postgres/statements.rs")).unwrap();
    let names = source.split_once("\nstatements! {").unwrap().1.split_once('}').unwrap().0;
    let names: Vec<&str> = names
        .split(',')
        .map(|name| name.rsplit(char::is_whitespace).next().unwrap())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.contains(&"claim") && names.contains(&"fire_schedules"), "{names:?}");
    let others =
        ["await", "enqueue", "enqueue_alike", "enqueue_all", "enqueue_unique", "enqueued_all", "enqueued_here"];
    let wanted = |name: &String| names.contains(&name.as_str()) || others.contains(&name.as_str());
    folder("sql").into_iter().filter(|(name, _)| wanted(name)).collect()
}

/// Returns the traps that a statement uses. The catalog lists these traps once the statement is the body of a function.
async fn found_by(
    planted: &Client,
    clean: &Client,
    name: &str,
    sql: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = sql.trim_end().trim_end_matches(';');
    clean.batch_execute(&format!("prepare {name} as {sql}")).await?;
    let types = "select array_to_string(parameter_types, ',') from pg_prepared_statements where name = $1";
    let types: String = clean.query_one(types, &[&name]).await?.get(0);
    let function = format!("create function strangers.bound_{name}({types}) returns void begin atomic {sql}\n; end");
    planted.batch_execute(&function).await?;
    let found = "select pg_describe_object(refclassid, refobjid, 0)
        from pg_depend
        join pg_proc on pg_proc.oid = objid and classid = 'pg_proc'::regclass
        where proname = 'bound_' || $1 and pg_describe_object(refclassid, refobjid, 0) ~ ' strangers\\.'";
    Ok(clean.query(found, &[&name]).await?.iter().map(|row| row.get(0)).collect())
}

#[tokio::test]
async fn no_statement_uses_what_strangers_have_planted() {
    let database = database().await;
    plant(&database).await;
    let (planted, clean) = (client(&on_path(&database, LAST)).await, client(&on_path(&database, "pg_catalog")).await);
    let mut sprung = Vec::new();
    for (name, sql) in statements() {
        match found_by(&planted, &clean, &name, &sql).await {
            Ok(found) if found.is_empty() => {}
            // The statement found a trap, and the trap's type does not fit.
            Err(error) => sprung.push((name, vec![error.as_db_error().unwrap().message().to_owned()])),
            Ok(found) => sprung.push((name, found)),
        }
    }
    assert!(sprung.is_empty(), "{sprung:#?}");
}

#[tokio::test]
async fn a_migration_binds_nothing_of_strangers() {
    let database = empty_database().await;
    plant(&database).await;
    Database::connect(on_path(&database, LAST)).await.unwrap().migrate().await.unwrap();
    let bound = "select jsonb_agg(pg_describe_object(classid, objid, 0)) from pg_depend
        where pg_describe_object(refclassid, refobjid, 0) ~ ' strangers\\.' and deptype = 'n'
            and pg_describe_object(classid, objid, 0) !~ ' strangers\\.'";
    assert_eq!(database.value(bound).await, json!(null));
    nothing_was_sprung(&database).await;
}

#[tokio::test]
async fn enqueuing_runs_nothing_of_strangers() {
    let database = database().await;
    plant(&database).await;
    database
        .run(
            "insert into reveille.workers (id, host, pid, version, queues, slots) values (1, 'h', 1, 'v', '{}', 1);
            insert into reveille.sleepers (queue, worker) values ('default', 1)",
        )
        .await;
    let ours = Database::connect(on_path(&database, FIRST)).await.unwrap();
    let plain = NewJob::new("plain", Payload::parse("{\"a\": 1}").unwrap());
    let full = plain.clone().timeout(Duration::from_secs(1)).key("k").tag("t").metadata(&json!({"m": 1})).unwrap();
    let unique = |mode, until| full.clone().unique_key("u").unique_mode(mode).unique_until(until);
    enqueue(&ours, &plain).await.unwrap();
    enqueue(&ours, &full).delay(Duration::from_secs(1)).await.unwrap();
    enqueue_all(&ours, [&plain, &plain]).await.unwrap();
    enqueue_all(&ours, [&plain, &full]).await.unwrap();
    copy_all(&ours, &[plain.clone(), full.clone()]).await.unwrap();
    let hour = UniqueUntil::Period(Duration::from_secs(3600));
    for mode in [UniqueMode::Keep, UniqueMode::Replace, UniqueMode::Debounce] {
        enqueue_all(&ours, [&unique(mode, hour), &unique(mode, UniqueUntil::Finished)]).await.unwrap();
    }

    let user = client(&on_path(&database, FIRST)).await;
    for isolation in ["read committed", "repeatable read"] {
        user.batch_execute(&format!(
            "begin isolation level {isolation};
            select reveille.enqueue(kind => 'k', delay => '1 hour', timeout => '1 s', key => 'k', tags => '{{a}}',
            metadata => '{{}}');
            select reveille.enqueue(kind => 'k', unique_key => 'v', unique_until => '1 hour',
            unique_mode => 'debounce');
            select reveille.enqueue(kind => 'k', unique_key => 'v', unique_until => 'started',
            unique_mode => 'replace');
            select * from reveille.enqueue_json('[{{\"kind\": \"k\"}}, {{\"kind\": \"k\", \"queue\": \"q\"}}]');
            select * from reveille.enqueue_json('{{\"kind\": \"k\", \"delay\": 1, \"timeout\": \"1 s\", \"key\": \"k\",
                \"priority\": \"low\", \"tags\": [\"a\"], \"metadata\": {{\"a\": 1}}, \"max_attempts\": 3}}');
            select * from reveille.enqueue_json('[{{\"kind\": \"k\", \"available_at\": \"now\"}}, {{\"kind\": \"k\",
                \"unique_key\": \"x\", \"unique_until\": \"1 hour\", \"max_payload\": 9}}]');
            insert into reveille.jobs (kind, payload, priority, key, tags, metadata, unique_key, unique_until, timeout)
            values ('k', '{{}}', 1, 'k', '{{a}}', '{{}}', 'w', 'finished', '1 s');
            update reveille.jobs set payload = '{{\"b\": 1}}', priority = 3;
            select reveille.ring('{{default}}');
            rollback"
        ))
        .await
        .unwrap_or_else(|error| panic!("{isolation}: {error:?}"));
    }
    // The checks of the table refuse these rows.
    for bad in ["queue, kind) values ('', 'k'", "kind, priority) values ('k', 4", "kind, tags) values ('k', '{null}'"] {
        let error = user.batch_execute(&format!("insert into reveille.jobs ({bad})")).await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("23514"), "{bad}: {error:?}");
    }
    nothing_was_sprung(&database).await;
}

/// A handler that ends as the note's text says.
async fn ends(note: Note, State(reporter): State<Reporter>, attempt: Attempt, context: Context) -> Outcome {
    reporter.report(note.text.clone());
    context.progress(&json!({"at": 1})).await.unwrap();
    match note.text.as_str() {
        "fails" if attempt.number == 1 => Outcome::RetryIn(Duration::from_millis(1), "once".into()),
        "dies" => Outcome::Dead("no more".into()),
        "snoozes" if attempt.number == 1 => Outcome::Snooze(Duration::from_millis(1)),
        "is cancelled" => Outcome::Cancel,
        _ => Outcome::Complete,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_and_its_operators_run_nothing_of_strangers() {
    let database = database().await;
    plant(&database).await;
    let ours = Database::connect(on_path(&database, FIRST)).await.unwrap();
    let admin = ours.admin();
    admin.set_queue("limited", QueueSettings::new().max_running(2).rate_limit(1000)).await.unwrap();
    let ordered = QueueSettings::new().ordered(true).rate_per_key(1000);
    admin.set_queue("ordered", ordered).await.unwrap();
    // Inserts a job that a dead worker holds.
    database
        .run(
            "insert into reveille.workers (id, host, pid, version, queues, slots, holds_lock, last_seen_at)
            values (7, 'h', 1, 'v', '{default}', 1, true, now() - interval '1 hour');
            insert into reveille.jobs (kind, payload, attempts, reserved_at, reserved_by)
            values ('note', '{\"text\": \"rescued\"}', 1, now() - interval '1 hour', 7)",
        )
        .await;
    let (reporter, mut reports) = reporting();
    let often = Schedule::every("often", Duration::from_millis(100), &note("tick")).unwrap().queue("ticks");
    let builder = Worker::builder(ours.clone()).heartbeat(Duration::from_millis(50)).schedule(often);
    let builder = ["default", "limited", "ordered"].iter().fold(builder, |builder, queue| builder.queue(*queue, 4));
    let worker = start(builder.poll_interval(Duration::from_secs(1)).state(reporter).handle(ends));
    let texts = ["completes", "fails", "dies", "snoozes", "is cancelled"];
    for queue in ["default", "limited", "ordered"] {
        for text in texts {
            enqueue(&ours, &note(text)).queue(queue).key("k").await.unwrap();
        }
    }
    let over = "select count(*) = 0 from reveille.jobs where queue <> 'ticks'";
    database.until("select count(*) = 3 from reveille.dead_jobs").await;
    database.until("select count(*) > 1 from reveille.jobs where queue = 'ticks'").await;
    database.until(over).await;
    let mut begun = reports.rest();
    begun.sort();
    begun.dedup();
    assert_eq!(begun, ["completes", "dies", "fails", "is cancelled", "rescued", "snoozes"]);

    // Runs everything that an operator can do.
    for view in View::ALL {
        admin.view(view).await.unwrap();
    }
    let dead: i64 = database.value("select min(id) from reveille.dead_jobs").await.as_i64().unwrap();
    admin.overview().await.unwrap();
    admin.queue_sums().await.unwrap();
    admin.stats_of_queues(&admin.queues().await.unwrap(), 1).await.unwrap();
    admin.overview_list(&OverviewList::Waiting { queue: None }).await.unwrap();
    admin.jobs(&Filter::new(), 10).await.unwrap();
    assert!(admin.job(dead).await.unwrap().is_some());
    let admin = admin.acting_as("alice", "test").unwrap();
    admin.pause("default").await.unwrap();
    admin.resume("default").await.unwrap();
    admin.set_queue("limited", QueueSettings::new().max_running(2)).await.unwrap();
    admin.edit(dead, JobEdit::new().max_attempts(20)).await.unwrap();
    admin.add_schedule(&Schedule::every("seldom", Duration::from_secs(3600), &note("tick")).unwrap()).await.unwrap();
    let payload = || Payload::parse("{}").unwrap();
    let held = NewJob::new("held", payload()).queue("held").delay(Duration::from_secs(3600));
    admin.enqueue(&held).await.unwrap();
    let edit = BulkAction::Edit(JobEdit::new().payload(payload()).at(SystemTime::UNIX_EPOCH));
    admin.bulk(edit, &Filter::new().queue("held").payload(payload())).unwrap().run().await.unwrap();
    admin.bulk(BulkAction::Cancel, &Filter::new().queue("held")).unwrap().run().await.unwrap();
    assert!(!admin.stop_action(0).await.unwrap());
    admin.actions(None, 10).await.unwrap();
    admin.pause(Pause::new().kind(Note::KIND).key("paused")).await.unwrap();
    for queue in ["default", "limited", "ordered"] {
        enqueue(&ours, &note("completes")).queue(queue).key("paused").await.unwrap();
    }
    database.until("select count(*) = 3 from reveille.jobs where paused_by is not null").await;
    let parked = database.value("select min(id) from reveille.jobs where paused_by is not null").await;
    admin.edit(parked.as_i64().unwrap(), JobEdit::new().key("other")).await.unwrap();
    admin.resume(Pause::new().kind(Note::KIND).key("paused")).await.unwrap();
    database.until(over).await;
    assert_eq!(admin.retry(dead).await.unwrap(), Retried::Revived);
    database.until("select count(*) = 3 from reveille.dead_jobs").await;
    admin.revive_dead(&Filter::new()).await.unwrap();
    database.until("select count(*) = 3 from reveille.dead_jobs").await;
    admin.purge_dead(&Filter::new()).await.unwrap();
    admin.prune().await.unwrap();
    reveille::admin::metrics::text(&ours).await.unwrap();
    let findings = ours.doctor().examine().await.unwrap();
    assert!(!findings.iter().any(|found| found.finding.contains("sprung")), "{findings:#?}");
    eventually("the worker is at work", async || worker.is_working()).await;
    worker.stop().await;
    nothing_was_sprung(&database).await;
}
