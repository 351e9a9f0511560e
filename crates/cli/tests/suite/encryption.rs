//! `reveille work` with encryption: programs and children see plain text, and the database does not.

use std::process::{Command, Stdio};

use reveille::handler::{EncryptedField, Encryption};
use reveille::job::{NewJob, Payload};
use serde_json::{Value, json};

use crate::cli::reveille;
use crate::exec::{Folder, Worker, idle, work};
use crate::harness::{TestDatabase, database, eventually};
use crate::pipe::{DONE, child, pipe, pipe_with_log};

const KEYS: &str = "# newest first\nnew:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n\
    old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

/// Counts the rows of the tables of jobs that hold the word `secret` anywhere.
const PLAIN: &str = "select count(*) from (
        select jobs::text from reveille.jobs
        union all select dead_jobs::text from reveille.dead_jobs
        union all select finished_jobs::text from reveille.finished_jobs
    ) as stored (line) where line like '%secret%'";

fn encryption() -> Encryption {
    Encryption::parse(KEYS).unwrap()
}

/// Returns the path of a file with the keys.
fn keys(folder: &Folder) -> String {
    std::fs::write(folder.path("keys"), KEYS).unwrap();
    folder.path("keys")
}

async fn enqueue(database: &TestDatabase, kind: &str, payload: Value) {
    let job = NewJob::new(kind, Payload::encode(&payload).unwrap()).max_attempts(1);
    database.enqueuer().middleware(encryption()).enqueue(&database.database, &job).await.unwrap();
}

/// Returns a value of the database, decrypted.
async fn opened(database: &TestDatabase, kind: &str, field: EncryptedField, sql: &str) -> Value {
    let stored = Payload::encode(&database.value(sql).await).unwrap();
    encryption().open(kind, field, &stored).unwrap().decode().unwrap()
}

#[tokio::test]
async fn a_child_gets_plain_text_and_what_it_writes_is_encrypted() {
    let (database, folder) = (database().await, Folder::new());
    let on_job = format!(
        r#"printf '%s\n' "$line" >>{}
        case $line in
            *'"kind":"fails"'*) say '{{"type":"fail","run":'"$run"',"error":"a secret error"}}' ;;
            *'"kind":"tells"'*)
                say '{{"type":"progress","run":'"$run"',"value":"secret progress"}}'
                say '{{"type":"enqueue","request":1,"run":'"$run"',"jobs":[{{"kind":"leaf","payload":"secret leaf"}}]}}'
                IFS= read -r answer
                say '{{"type":"done","run":'"$run"',"result":{{"told":"secret result"}}}}' ;;
            *) {DONE} ;;
        esac"#,
        folder.path("seen")
    );
    let keys = keys(&folder);
    let _worker = pipe(&database, &child(&on_job, ""), &["--queue", "default=1", "--encryption-keys-file", &keys]);
    enqueue(&database, "tells", json!({ "text": "secret payload" })).await;
    enqueue(&database, "fails", json!({ "text": "secret payload" })).await;
    idle(&database).await;
    let seen = folder.read("seen");
    for plain in [r#""payload":{"text":"secret payload"}}"#, r#""payload":"secret leaf"}"#] {
        assert!(seen.contains(plain), "{seen}");
    }
    assert_eq!(database.value(PLAIN).await, 0);
    let of = |column: &str| format!("select {column} from reveille.finished_jobs where kind = 'tells'");
    let result = opened(&database, "tells", EncryptedField::Result, &of("result")).await;
    let progress = opened(&database, "tells", EncryptedField::Progress, &of("progress")).await;
    assert_eq!((result, progress), (json!({ "told": "secret result" }), json!("secret progress")));
    let error = database.value("select errors -> 0 ->> 'error' from reveille.dead_jobs").await;
    assert_eq!(encryption().open_error("fails", error.as_str().unwrap()).unwrap(), "a secret error");
    let leaf = "select parent_id = 1 and payload ->> 'key' = 'new' from reveille.finished_jobs where kind = 'leaf'";
    assert_eq!(database.value(leaf).await, true, "the first key encrypts");
}

#[tokio::test]
async fn a_job_whose_child_died_runs_alone_though_its_error_is_encrypted() {
    let (database, folder) = (database().await, Folder::new());
    let on_job = format!(
        r#"case $line in *'"failures":0'*'"payload":"poison"'*) echo secret >&2; exit 1 ;; esac
        name=${{line#*'"payload":"'}}; name=${{name%%\"*}}; echo "$name" >>{0}
        ( until [ -e {1}$name ]; do sleep 0.01; done; {DONE} ) &"#,
        folder.path("begun"),
        folder.path("end-")
    );
    let keys = keys(&folder);
    let options = ["--queue", "default=4", "--haste", "100", "--encryption-keys-file", &keys];
    let _worker = pipe_with_log(&folder, &database, &child(&on_job, ""), &options);
    let enqueuer = database.enqueuer().middleware(encryption());
    let job = |payload: &str| NewJob::new("k", Payload::encode(payload).unwrap());
    enqueuer.enqueue(&database.database, &job("poison")).await.unwrap();
    database.until("select failures = 1 from reveille.jobs").await;
    assert_eq!(database.value(PLAIN).await, 0);
    enqueuer.enqueue(&database.database, &job("a")).await.unwrap();
    eventually("another job has begun", async || folder.read("begun") == "a\n").await;
    database.run("update reveille.jobs set available_at = now() where failures = 1").await;
    eventually("the child is reserved", async || folder.read("log").contains("a child gets nothing new")).await;
    std::fs::write(folder.path("end-a"), "").unwrap();
    eventually("the job has begun alone", async || folder.read("begun") == "a\npoison\n").await;
    std::fs::write(folder.path("end-poison"), "").unwrap();
    idle(&database).await;
}

#[tokio::test]
async fn a_program_gets_plain_text_and_only_of_the_kinds_it_is_told_of() {
    let (database, folder) = (database().await, Folder::new());
    let keys = keys(&folder);
    let options = ["--keep-output", "--encryption-keys-file", &keys, "--encrypt-kind", "k"];
    let _worker = work(&database, "cat", &options);
    enqueue(&database, "k", json!("secret payload")).await;
    crate::exec::enqueue(&database, "kind => 'other', payload => '\"open payload\"'").await;
    idle(&database).await;
    assert_eq!(database.value(PLAIN).await, 0);
    let result = "select result from reveille.finished_jobs where kind = 'k'";
    assert_eq!(opened(&database, "k", EncryptedField::Result, result).await, "secret payload");
    assert_eq!(database.value("select result from reveille.finished_jobs where kind = 'other'").await, "open payload");
}

#[tokio::test]
async fn a_child_does_not_inherit_the_keys() {
    let database = database().await;
    let result = r#""'"${REVEILLE_ENCRYPTION_KEYS-none}"'""#;
    let on_job = format!(r#"say '{{"type":"done","run":'"$run"',"result":{result}}}'"#);
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(["work", "--pass-database", "--pipe", &child(&on_job, "")]).env("DATABASE_URL", &database.address);
    command.env("REVEILLE_ENCRYPTION_KEYS", KEYS).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _worker = Worker(command.spawn().unwrap());
    enqueue(&database, "k", json!({})).await;
    idle(&database).await;
    let result = "select result from reveille.finished_jobs";
    assert_eq!(opened(&database, "k", EncryptedField::Result, result).await, "none");
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_refused_before_the_worker_starts() {
    let (database, folder) = (database().await, Folder::new());
    let file = keys(&folder);
    let refusal = |keys: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(["work", "--exec", "true"]).args(more).env("DATABASE_URL", &database.address);
        let output = command.env("REVEILLE_ENCRYPTION_KEYS", keys).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let why = "encryption key 3: behind its colon, an encryption key has 32 bytes in base64";
    assert!(refusal(&format!("{KEYS}oldest:AAEC"), &[]).contains(why));
    assert!(refusal("AAECAwQF", &[]).contains("written as `id:key`"));
    assert!(!refusal("AAECAwQF", &[]).contains("AAECAwQF"), "a key is not shown");
    assert!(refusal(KEYS, &["--encryption-keys-file", &file]).contains("not from both"));
    assert!(refusal("", &["--encryption-keys-file", "/none"]).contains("cannot read the encryption keys in /none"));
    assert!(refusal("", &["--encrypt-kind", "k"]).contains("there are no encryption keys"));
}

#[tokio::test]
async fn a_worker_without_keys_runs_no_encrypted_job_and_loses_none() {
    let (database, folder) = (database().await, Folder::new());
    let exec = format!("cat >>{}", folder.path("seen"));
    enqueue(&database, "k", json!("secret payload")).await;
    let worker = work(&database, &exec, &[]);
    database.until("select count(*) = 1 from reveille.dead_jobs where reason = 'undecodable'").await;
    drop(worker);
    let error = database.value("select errors -> 0 ->> 'error' from reveille.dead_jobs").await;
    assert!(
        error.as_str().unwrap().contains("the key \"new\", and this worker has no keys: set REVEILLE_ENCRYPTION_KEYS"),
        "{error}"
    );
    assert_eq!(folder.read("seen"), "");
    assert_eq!(reveille(&database, &["dead", "revive", "--reason", "undecodable"]).code, 0);
    let _worker = work(&database, &exec, &["--encryption-keys-file", &keys(&folder)]);
    idle(&database).await;
    assert_eq!(folder.read("seen"), "\"secret payload\"");
}

/// Returns true if a text contains a part of a key.
fn shows_a_key(text: &str) -> bool {
    KEYS.lines().filter_map(|line| line.split_once(':')).any(|(_, key)| text.contains(&key[..12]))
}

#[tokio::test]
async fn keys_stand_in_no_help_and_in_no_log() {
    let (database, folder) = (database().await, Folder::new());
    let reveille = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(arguments).env("DATABASE_URL", &database.address).env("REVEILLE_ENCRYPTION_KEYS", KEYS);
        command.stdin(Stdio::null());
        command
    };
    let mut command = reveille(&["work", "--queue", "default=1", "--exec", "exit 1"]);
    let log = std::fs::File::create(folder.path("log")).unwrap();
    let worker = Worker(command.env("RUST_LOG", "trace").stdout(Stdio::null()).stderr(log).spawn().unwrap());
    enqueue(&database, "k", json!("secret payload")).await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    drop(worker);
    let log = folder.read("log");
    assert!(log.contains("dead") && !shows_a_key(&log), "{log}");
    for help in ["-h", "--help"] {
        let help = reveille(&["work", help]).env("REVEILLE_ENCRYPTION_KEYS_FILE", "/a/path").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("--encryption-keys-file") && !help.contains("/a/path") && !shows_a_key(&help), "{help}");
    }
}

#[tokio::test]
async fn commands_show_the_stored_form_and_do_not_replace_it_by_plain_text() {
    let (database, folder) = (database().await, Folder::new());
    let keys = keys(&folder);
    let _worker = work(&database, "echo a secret error >&2; exit 1", &["--encryption-keys-file", &keys]);
    enqueue(&database, "k", json!("secret payload")).await;
    database.until("select count(*) = 1 from reveille.dead_jobs").await;
    for line in ["job 1", "jobs --state dead", "jobs --state dead --csv", "dead", "dead --json", "top --once", "status"]
    {
        let shown = reveille(&database, &line.split(' ').collect::<Vec<_>>());
        assert!(shown.code == 0 && !shown.out.contains("secret"), "{line}: {} {}", shown.out, shown.err);
    }
    let shown = reveille(&database, &["job", "1"]).out;
    assert_eq!(shown.matches("(encrypted with the key new)").count(), 2, "payload and error: {shown}");
    let job = reveille(&database, &["job", "1", "--json"]).json().remove(0);
    assert_eq!((&job["payload"]["reveille_encrypted"], &job["payload"]["key"]), (&json!(1), &json!("new")));
    let error = encryption().open_error("k", job["errors"][0]["error"].as_str().unwrap()).unwrap();
    assert!(error.contains("a secret error"), "{error}");

    let refused = reveille(&database, &["edit", "1", "--payload", "\"plain\""]);
    assert!(refused.code == 1 && refused.out.contains("the payload of job 1 is encrypted"), "{}", refused.out);
    let sealed = encryption().seal("k", EncryptedField::Payload, &Payload::encode("new").unwrap()).unwrap();
    let sealed = String::from_utf8(sealed.as_bytes().to_vec()).unwrap();
    assert_eq!(reveille(&database, &["edit", "1", "--payload", &sealed]).out, "1 edited_dead\n");

    let waiting = "insert into reveille.jobs (kind, payload, available_at)
        select 'k', payload, now() + interval '1 hour' from reveille.dead_jobs";
    database.run(waiting).await;
    let bulk = reveille(&database, &["edit", "--kind", "k", "--payload", "\"plain\""]);
    let why = "1 stay unchanged, because their payloads are encrypted";
    assert!(bulk.code == 1 && bulk.out == "0 edited\n" && bulk.err.contains(why), "{} {}", bulk.out, bulk.err);
}
