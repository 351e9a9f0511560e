//! Odd rows, and rows that an application locks.

use std::time::Duration;

use reveille::Job;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Client;

/// Creates the table that lists the odd rows by their tags.
pub const SET_UP: &str = "create table torture.odd (tag text primary key);";

/// A job with an odd row. Its handler fails if the payload is `"fails"`.
#[derive(Serialize, Deserialize)]
pub struct Odd(pub Value);

impl Job for Odd {
    const KIND: &'static str = "odd";
}

/// The handler of jobs with odd rows.
pub async fn work(Odd(payload): Odd) -> Result<(), &'static str> {
    if payload == "fails" { Err("asked to fail") } else { Ok(()) }
}

/// The number of sorts of odd rows.
const SORTS: u64 = 7;

/// Switches off the checks of the tables, as a restore or a superuser can.
const UNCHECKED: &str = "set local session_replication_role = replica;";

/// Inserts an odd row of the sort that `dice` selects. Returns false if there was no row to change into an odd row.
pub async fn insert(client: &Client, dice: u64) -> Result<bool, tokio_postgres::Error> {
    let tag = format!("odd-{dice:016x}");
    let insert = |columns: &str, values: &str| {
        format!(
            "insert into torture.odd values ('{tag}');
            insert into reveille.jobs (queue, kind, tags, {columns}) values ('plain', 'odd', array['{tag}'], {values});"
        )
    };
    let sql = match dice % SORTS {
        0 => UNCHECKED.to_owned() + &insert("attempts", "2147483647"),
        1 => UNCHECKED.to_owned() + &insert("failures, errors", "7, '{\"no\": \"array\"}'"),
        2 => {
            let buried = "with known as (select * from reveille.jobs where tags = array[$tag$] limit 1)
                insert into reveille.dead_jobs (
                    id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
                    reason
                )
                select id, queue, kind, payload, priority, 1, 1, 1, available_at, created_at, 'failed' from known;";
            insert("payload, max_attempts, available_at", "'\"fails\"', 1, now() + interval '1 second'")
                + &buried.replace("$tag$", &format!("'{tag}'"))
        }
        3 => return reset_running(client).await,
        4 => insert("payload", "(repeat('[', 300) || repeat(']', 300))::jsonb"),
        5 => insert("payload, metadata", "'{\"a\": 1e400}', '{\"a\": 1e400}'"),
        _ => insert("payload", "to_jsonb(repeat('large', 200000))"),
    };
    client.batch_execute(&format!("begin; {sql} commit")).await?;
    Ok(true)
}

/// Resets the counts of a running job, as an operator may do to give the job more attempts.
async fn reset_running(client: &Client) -> Result<bool, tokio_postgres::Error> {
    let reset = "update reveille.jobs set attempts = 0, failures = 0 where id = (
            select id from reveille.jobs
            where reserved_at is not null and queue = 'plain' limit 1 for update skip locked
        )";
    Ok(client.execute(reset, &[]).await? > 0)
}

/// Locks the rows of at most 10 running jobs for the time `lasts`, as a transaction of an application may. Returns true
/// if any job was running.
pub async fn lock_running(client: &Client, lasts: Duration) -> Result<bool, tokio_postgres::Error> {
    let lock = "select id from reveille.jobs where reserved_at is not null and queue <> 'calm'
        order by random() limit 10 for update skip locked";
    client.batch_execute("begin").await?;
    let locked = !client.query(lock, &[]).await?.is_empty();
    if locked {
        tokio::time::sleep(lasts).await;
    }
    client.batch_execute("rollback").await?;
    Ok(locked)
}
