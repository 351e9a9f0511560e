//! Attacks by a role without any right on Reveille's schema: notifications, advisory locks, and operators in `public`.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::queues::TestQueue;

/// Creates the role, and a sequence that counts the calls of traps. A rollback does not undo a sequence.
pub const SET_UP: &str = "create role torture_hostile;
    grant create on schema public to torture_hostile;
    create sequence torture.sprung;
    grant usage on schema torture to public;
    grant usage on sequence torture.sprung to public;";

/// Makes a session act as the hostile role.
const BECOME_HOSTILE: &str = "set session authorization torture_hostile";

/// The number of ids that one statement of a flood sends.
const IDS: i64 = 500;

/// Operators and functions whose types match better than the types of the built-in ones, so that Postgres prefers them.
/// The third text of each is the type that it returns.
const TRAPS: [(&str, &str, &str); 8] = [
    ("operator", "%(bigint, integer)", "bigint"),
    ("operator", "*(interval, integer)", "interval"),
    ("operator", "->>(jsonb, jsonb)", "text"),
    ("operator", "=(text, character varying)", "boolean"),
    ("function", "width_bucket(bigint, bigint[])", "integer"),
    ("function", "array_position(bigint[], bigint)", "integer"),
    ("function", "power(integer, integer)", "double precision"),
    ("function", "cardinality(bigint[])", "integer"),
];

/// Ids that a hostile role can see or guess.
pub struct Known {
    pub workers: Vec<i64>,
    pub last_job: i64,
}

impl Known {
    pub async fn look(client: &Client) -> Result<Known, tokio_postgres::Error> {
        let sql = "select array(select id from reveille.workers), coalesce((select max(id) from reveille.jobs), 0)";
        let row = client.query_one(sql, &[]).await?;
        Ok(Known { workers: row.get(0), last_job: row.get(1) })
    }
}

/// Floods the channels on which workers listen, as the hostile role, for the time `lasts`. The notifications name jobs,
/// workers and queues.
pub async fn notify(client: &Client, known: &Known, lasts: Duration) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(BECOME_HOSTILE).await?;
    let queues: Vec<&str> = TestQueue::all().map(TestQueue::name).collect();
    let until = Instant::now() + lasts;
    while Instant::now() < until {
        let flood = "select pg_notify('reveille.cancel', id::text) from generate_series($1::bigint, $2::bigint) as id
            union all select pg_notify('reveille.stop', id::text) from unnest($3::bigint[]) as id
            union all
            select pg_notify('reveille.' || channel, queue)
            from unnest($4::text[]) as queue, unnest(array['bell', 'pause', 'schedules', 'linked']) as channel";
        let first = (known.last_job - IDS).max(1);
        client.execute(flood, &[&first, &known.last_job.max(1), &known.workers, &queues]).await?;
    }
    Ok(())
}

/// Holds every advisory lock that any version of Reveille has used, as the hostile role, for the time `lasts`. Workers
/// prove by some of these locks that they live.
pub async fn lock(client: &Client, known: &Known, lasts: Duration) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(BECOME_HOSTILE).await?;
    let queues: Vec<&str> = TestQueue::all().map(TestQueue::name).collect();
    let named = "select pg_try_advisory_lock(hashtextextended(name, seed))
        from unnest(array['reveille.somebody_sleeps', 'reveille.prune', 'reveille.schedules']
            || array(select 'reveille.limits.' || queue from unnest($1::text[]) as queue)
            || array(select 'reveille.claims.' || queue from unnest($1::text[]) as queue)) as name,
            generate_series(0::bigint, 3::bigint) as seed";
    client.execute(named, &[&queues]).await?;
    client.execute("select pg_try_advisory_lock_shared(id) from unnest($1::bigint[]) as id", &[&known.workers]).await?;
    tokio::time::sleep(lasts).await;
    Ok(())
}

/// Creates operators and functions in the schema `public`, as the hostile role, for the time `lasts`. A search path may
/// find these before the operators and functions of Postgres. Each function counts its calls.
pub async fn set_traps(client: &Client, lasts: Duration) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(BECOME_HOSTILE).await?;
    for (number, (kind, signature, returns)) in TRAPS.into_iter().enumerate() {
        client.batch_execute(&trap(number, kind, signature, returns)).await?;
    }
    tokio::time::sleep(lasts).await;
    client.batch_execute("drop owned by torture_hostile; reset session authorization").await?;
    // `drop owned` also revokes the right to create, so this grants the right again.
    client.batch_execute("grant create on schema public to torture_hostile").await
}

fn trap(number: usize, kind: &str, signature: &str, returns: &str) -> String {
    let (name, types) = signature.split_once('(').unwrap_or((signature, ")"));
    let types = types.trim_end_matches(')');
    let function = if kind == "function" { format!("public.{name}") } else { format!("public.trap_{number}") };
    let body = "begin perform pg_catalog.nextval('torture.sprung'); raise exception 'a trap was sprung'; end";
    let made = format!(
        "create or replace function {function}({types}) returns {returns} language plpgsql as $trap$ {body} $trap$;"
    );
    match (kind, types.split_once(", ")) {
        ("operator", Some((left, right))) => format!(
            "{made} create operator public.{name} (leftarg = {left}, rightarg = {right}, function = {function});"
        ),
        _ => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_a_function_or_an_operator_with_its_function() {
        let function = trap(0, "function", "power(integer, integer)", "double precision");
        assert!(function.starts_with("create or replace function public.power(integer, integer) returns double"));
        assert!(!function.contains("create operator"));
        let operator = trap(3, "operator", "%(bigint, integer)", "bigint");
        assert!(operator.contains("function public.trap_3(bigint, integer) returns bigint"));
        let made = "create operator public.% (leftarg = bigint, rightarg = integer, function = public.trap_3);";
        assert!(operator.ends_with(made));
    }
}
