//! `reveille work --pipe`: what a child can do, and what its messages become. The children are shell scripts.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::exec::{Folder, Worker, enqueue, idle};
use crate::harness::{TestDatabase, database, eventually};

/// Returns a child that runs `on_job` for each job and `on_cancel` for each cancel. `$line` is the message, `$run` the
/// number of its run, and `say` writes a message.
pub fn child(on_job: &str, on_cancel: &str) -> String {
    format!(
        r#"say() {{ printf '%s\n' "$1"; }}
        say '{{"type":"ready","version":1}}'
        while IFS= read -r line; do
            run=${{line#*'"run":'}}; run=${{run%%,*}}
            case $line in
                '{{"type":"job"'*) {on_job} ;;
                '{{"type":"cancel"'*) {on_cancel} ;;
                '{{"type":"stop"'*) exit 0 ;;
            esac
        done"#
    )
}

/// The answer that completes a run.
pub const DONE: &str = r#"say '{"type":"done","run":'"$run"'}'"#;

pub fn pipe_to(log: Stdio, database: &TestDatabase, child: &str, more: &[&str]) -> Worker {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(["work", "--pipe", child]).args(more).env("DATABASE_URL", &database.address);
    command.env("RUST_LOG", "info,reveille::pipe=debug");
    Worker(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

pub fn pipe(database: &TestDatabase, child: &str, more: &[&str]) -> Worker {
    pipe_to(Stdio::null(), database, child, more)
}

/// Starts a worker whose log is a file of this folder.
pub fn pipe_with_log(folder: &Folder, database: &TestDatabase, child: &str, more: &[&str]) -> Worker {
    pipe_to(std::fs::File::create(folder.path("log")).unwrap().into(), database, child, more)
}

#[tokio::test]
async fn a_childs_answer_decides_how_the_job_ends() {
    let database = database().await;
    let on_job = r#"case $line in
        *'"kind":"done"'*) say '{"type":"done","run":'"$run"',"result":{"n": 12345678901234567890123}}' ;;
        *'"kind":"fails"'*) say '{"type":"fail","run":'"$run"',"error":"no\tluck"}' ;;
        *'"kind":"later"'*) say '{"type":"fail","run":'"$run"',"error":"busy","retry_in":3600}' ;;
        *'"kind":"never"'*) say '{"type":"fail","run":'"$run"',"error":"wrong","permanent":true}' ;;
        *'"kind":"snoozes"'*) say '{"type":"snooze","run":'"$run"',"for":3600}' ;;
    esac"#;
    let _worker = pipe(&database, &child(on_job, ""), &[]);
    for (kind, most) in [("done", 1), ("fails", 1), ("later", 2), ("never", 9), ("snoozes", 1)] {
        enqueue(&database, &format!("kind => '{kind}', max_attempts => {most}")).await;
    }
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    database.until("select count(*) = 2 from reveille.dead_jobs").await;
    database.until("select count(*) = 2 from reveille.jobs where available_at > now() + interval '50 minutes'").await;
    let result = database.value("select result::text from reveille.finished_jobs").await;
    assert_eq!(result, "{\"n\": 12345678901234567890123}");
    let dead = "select jsonb_agg(jsonb_build_array(kind, reason, errors -> 0 -> 'error') order by id) \
        from reveille.dead_jobs";
    let expected = json!([["fails", "failed", "no\tluck"], ["never", "permanent", "wrong"]]);
    assert_eq!(database.value(dead).await, expected);
    let waiting = "select jsonb_agg(jsonb_build_array(kind, failures) order by id) from reveille.jobs";
    assert_eq!(database.value(waiting).await, json!([["later", 1], ["snoozes", 0]]));
}

#[tokio::test]
async fn a_child_gets_all_that_is_known_of_a_job() {
    let (database, folder) = (database().await, Folder::new());
    let on_job = format!("say \"$line\" >>{}; {DONE}", folder.path("seen"));
    let _worker = pipe(&database, &child(&on_job, ""), &["--queue", "mail=3", "--children", "2"]);
    let call = "kind => 'greet', queue => 'mail', payload => '{\"a\": \"ü\", \"n\": 12345678901234567890123}', \
        key => 'k', tags => '{x,y}', metadata => '{\"m\": 1}', max_attempts => 4, timeout => '1.5 s'";
    enqueue(&database, call).await;
    idle(&database).await;
    let seen = folder.read("seen");
    assert!(seen.contains("\"payload\":{\"a\": \"ü\", \"n\": 12345678901234567890123}}\n"), "{seen}");
    let mut seen: Value = serde_json::from_str(&seen).unwrap();
    let finished = database.value("select worker::text from reveille.finished_jobs").await;
    assert_eq!(seen["worker"], finished);
    let reserved_at = seen["reserved_at"].take();
    assert!(reserved_at.as_str().unwrap().ends_with('Z'), "{reserved_at}");
    for name in ["worker", "reserved_at", "payload"] {
        seen.as_object_mut().unwrap().remove(name);
    }
    let expected = json!({
        "type": "job", "run": 1, "id": 1, "kind": "greet", "queue": "mail", "attempt": 1, "failures": 0,
        "max_attempts": 4, "key": "k", "tags": ["x", "y"], "metadata": {"m": 1}, "timeout": 1.5,
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn hello_says_the_slots_of_one_child() {
    let (database, folder) = (database().await, Folder::new());
    let seen = folder.path("seen");
    let child = format!("IFS= read -r hello; printf '%s\\n' \"$hello\" >>{seen}; {}", child(DONE, ""));
    let _worker = pipe(&database, &child, &["--queue", "mail=5", "--queue", "a=1", "--children", "2"]);
    eventually("both children have started", async || folder.read("seen").lines().count() == 2).await;
    for line in folder.read("seen").lines() {
        let expected = json!({
            "type": "hello", "versions": [1], "capabilities": ["enqueue"], "queues": ["mail", "a"], "slots": 4,
        });
        assert_eq!(serde_json::from_str::<Value>(line).unwrap(), expected);
    }
}

#[tokio::test]
async fn the_latest_progress_of_a_run_is_kept() {
    let database = database().await;
    let on_job = format!(
        r#"n=0
        while [ $n -lt 500 ]; do n=$((n + 1)); say '{{"type":"progress","run":'"$run"',"value":'$n'}}'; done
        {DONE}"#
    );
    let _worker = pipe(&database, &child(&on_job, ""), &[]);
    enqueue(&database, "kind => 'k'").await;
    idle(&database).await;
    assert_eq!(database.value("select progress from reveille.finished_jobs").await, 500);
}

#[tokio::test]
async fn a_cancelled_run_may_still_be_done() {
    let (database, folder) = (database().await, Folder::new());
    let seen = folder.path("seen");
    let on_cancel = format!(
        "say \"$line\" >>{seen}\n\
         case $kind in fails) say '{{\"type\":\"fail\",\"run\":'$run',\"error\":\"stopped\"}}' ;; \
         *) {DONE} ;; esac"
    );
    let on_job = format!("kind=${{line#*'\"kind\":\"'}}; kind=${{kind%%\\\"*}}; echo started >>{seen}");
    let _worker = pipe(&database, &child(&on_job, &on_cancel), &["--queue", "default=1"]);
    for (kind, outcome) in [("does", "completed"), ("fails", "cancelled")] {
        let before = folder.read("seen").lines().count();
        enqueue(&database, &format!("kind => '{kind}'")).await;
        eventually("the run has started", async || folder.read("seen").lines().count() > before).await;
        let cancel = format!("select reveille.cancel(id) from reveille.jobs where kind = '{kind}'");
        assert_eq!(database.value(&cancel).await, "requested");
        idle(&database).await;
        let ended = format!("select outcome from reveille.finished_jobs where kind = '{kind}'");
        assert_eq!(database.value(&ended).await, outcome);
    }
    let seen = folder.read("seen");
    assert!(seen.contains(r#"{"type":"cancel","run":1,"reason":"cancelled"}"#), "{seen}");
}

#[tokio::test]
async fn a_late_answer_does_not_end_the_next_attempt() {
    let (database, folder) = (database().await, Folder::new());
    // Answers the first run only when the second attempt has come, and the second run never.
    let on_job = format!(
        r#"case $line in
            *'"attempt":1,'*) first=$run ;;
            *) say '{{"type":"done","run":'"$first"'}}'; say '{{"type":"progress","run":'"$run"',"value":"runs"}}'
                say "$line" >{} ;;
        esac"#,
        folder.path("second")
    );
    let _worker = pipe(&database, &child(&on_job, ""), &["--queue", "default=2"]);
    enqueue(&database, "kind => 'k', timeout => '100 ms', max_attempts => 9").await;
    database.until("select attempts = 1 and failures = 1 from reveille.jobs").await;
    database.run("update reveille.jobs set timeout = '1 hour', available_at = now()").await;
    database.until("select progress = '\"runs\"' from reveille.jobs").await;
    let job = "select jsonb_build_array(attempts, failures, reserved_at is not null) from reveille.jobs";
    assert_eq!(database.value(job).await, json!([2, 1, true]));
    assert!(folder.read("second").contains("\"run\":2,"), "each run has a number of its own");
}

#[tokio::test]
async fn only_the_first_answer_counts_and_one_warning_says_so() {
    let (database, folder) = (database().await, Folder::new());
    let on_job = format!(
        r#"{DONE}; say '{{"type":"fail","run":'"$run"',"error":"x","permanent":true}}'
        say '{{"type":"progress","run":'"$run"',"value":1}}'"#
    );
    let mut worker = pipe_with_log(&folder, &database, &child(&on_job, ""), &[]);
    for _ in 0..5 {
        enqueue(&database, "kind => 'k'").await;
    }
    database.until("select count(*) = 5 from reveille.finished_jobs").await;
    worker.signal("-TERM");
    assert!(worker.ended().await.success());
    assert_eq!(folder.read("log").matches("a run that has ended").count(), 1, "{}", folder.read("log"));
}

#[tokio::test]
async fn a_kind_that_no_child_knows_goes_back() {
    let database = database().await;
    let child = child(DONE, "").replace(r#""version":1"#, r#""version":1,"kinds":["known","other"]"#);
    let _worker = pipe(&database, &child, &[]);
    for kind in ["known", "unknown"] {
        enqueue(&database, &format!("kind => '{kind}', max_attempts => 1")).await;
    }
    database.until("select count(*) = 1 from reveille.finished_jobs where kind = 'known'").await;
    database.until("select failures = 0 and attempts = 1 and available_at > now() from reveille.jobs").await;
    assert_eq!(database.value("select kinds from reveille.workers").await, json!(["known", "other"]));
}

#[tokio::test]
async fn a_child_enqueues_jobs_whose_parent_is_its_run() {
    let (database, folder) = (database().await, Folder::new());
    let on_job = format!(
        r#"case $line in
            *'"kind":"parent"'*)
                leaves='[{{"kind":"leaf","payload":{{"n":1}}}},{{"kind":"leaf"}}]'
                say '{{"type":"enqueue","request":7,"run":'"$run"',"jobs":'"$leaves"'}}'
                IFS= read -r answer; printf '%s\n' "$answer" >>{0}
                say '{{"type":"enqueue","request":8,"jobs":[{{"kind":"leaf"}},{{"kind":"leaf","wrong":1}}]}}'
                IFS= read -r answer; printf '%s\n' "$answer" >>{0}; {DONE} ;;
        esac"#,
        folder.path("answers")
    );
    let _worker = pipe(&database, &child(&on_job, ""), &["--queue", "default=1"]);
    enqueue(&database, "kind => 'parent'").await;
    database.until("select count(*) = 1 from reveille.finished_jobs").await;
    let answers = folder.read("answers");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let result = json!([{"id": 2, "existed": false}, {"id": 3, "existed": false}]);
    assert_eq!(answers[0], json!({"type": "answer", "request": 7, "result": result}));
    assert!(answers[1]["error"].as_str().unwrap().starts_with("job 2: unknown field"), "{}", answers[1]);
    let leaves = "select jsonb_agg(jsonb_build_array(parent_id, payload) order by id) from reveille.jobs";
    assert_eq!(database.value(leaves).await, json!([[1, {"n": 1}], [1, {}]]));
}

#[tokio::test]
async fn a_job_completes_in_the_childs_own_transaction_or_fails_with_it() {
    let (database, folder) = (database().await, Folder::new());
    // The test plays the part of the child's connection.
    let on_job = format!(
        r#"printf '%s\n' "$line" >{0}.new; mv {0}.new {0}
        until [ -e {1} ]; do :; done
        say '{{"type":"done","run":'"$run"',"transaction":"'"$(cat {1})"'"}}'; rm {1}"#,
        folder.path("job"),
        folder.path("transaction")
    );
    let _worker = pipe(&database, &child(&on_job, ""), &["--queue", "default=1"]);
    let mut client = database.client().await;
    for commits in [true, false] {
        enqueue(&database, "kind => 'k', max_attempts => 1").await;
        eventually("the job has come", async || folder.read("job").ends_with('\n')).await;
        let job: Value = serde_json::from_str(&folder.read("job")).unwrap();
        std::fs::remove_file(folder.path("job")).unwrap();
        let tx = client.transaction().await.unwrap();
        let text = |name: &str| job[name].as_str().map_or_else(|| job[name].to_string(), str::to_owned);
        let complete = format!(
            "select reveille.complete_in({}, {}::bigint, {}, '{}'::timestamptz, 0.1)",
            text("id"),
            text("worker"),
            text("attempt"),
            text("reserved_at")
        );
        let transaction: String = tx.query_one(&complete, &[]).await.unwrap().get(0);
        if commits {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        std::fs::write(folder.path("new"), transaction).unwrap();
        std::fs::rename(folder.path("new"), folder.path("transaction")).unwrap();
        idle(&database).await;
    }
    database.until("select completed = 1 from reveille.queue_totals").await;
    assert_eq!(database.value("select outcome from reveille.finished_jobs").await, "completed");
    let error = database.value("select errors -> 0 -> 'error' from reveille.dead_jobs").await;
    assert_eq!(error, "the transaction that completed the job was rolled back");
}

#[tokio::test]
async fn a_child_gets_the_databases_address_only_if_asked_for() {
    let database = database().await;
    let names =
        "$(env | grep -E '^(DATABASE_URL|REVEILLE_LISTEN_URL|PG[A-Z]*)=' | sed 's/=.*//' | sort | tr '\\n' ' ')";
    let on_job = format!(r#"say '{{"type":"done","run":'"$run"',"result":"'"{names}"'"}}'"#);
    for (more, expected) in [
        (&[][..], json!("")),
        (&["--pass-env", "DATABASE_URL", "--pass-env", "PGPASS*"], json!("DATABASE_URL PGPASSWORD ")),
        (&["--pass-database"], json!("DATABASE_URL PGAPPNAME PGPASSWORD REVEILLE_LISTEN_URL ")),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["work", "--pipe", &child(&on_job, "")]).args(more);
        for name in ["DATABASE_URL", "REVEILLE_LISTEN_URL"] {
            command.env(name, &database.address);
        }
        command.env("PGPASSWORD", "secret").env("PGAPPNAME", "x").stdin(Stdio::null()).stdout(Stdio::null());
        let _worker = Worker(command.stderr(Stdio::null()).spawn().unwrap());
        enqueue(&database, "kind => 'k'").await;
        idle(&database).await;
        let result = database.value("select result from reveille.finished_jobs order by id desc limit 1").await;
        assert_eq!(result, expected);
    }
}

#[tokio::test]
async fn the_worker_itself_starts_workflows_and_the_child_gets_their_jobs() {
    let (database, folder) = (database().await, Folder::new());
    let on_job = format!("say \"$line\" >>{}; {DONE}", folder.path("seen"));
    let _worker = pipe(&database, &child(&on_job, ""), &[]);
    let jobs = r#"[{"name": "a", "kind": "a"}, {"name": "b", "kind": "b", "after": ["a"]}]"#;
    for payload in [format!(r#"{{"name": "w", "jobs": {jobs}}}"#), r#"{"name": "w"}"#.to_owned()] {
        enqueue(&database, &format!("kind => 'reveille.workflow', payload => '{payload}'")).await;
    }
    database.until("select state = 'completed' from reveille.workflow_status").await;
    database.until("select count(*) = 1 from reveille.dead_jobs where reason = 'undecodable'").await;
    idle(&database).await;
    let seen = folder.read("seen");
    let kinds: Vec<Value> =
        seen.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].take()).collect();
    assert_eq!(kinds, ["a", "b"]);
    assert_eq!(database.value("select count(*) from reveille.finished_jobs where outcome = 'completed'").await, 3);
}
