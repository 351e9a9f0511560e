//! A small workflow costs the same beside a large one, whatever the planner knows of the tables.

use serde_json::Value;
use tokio_postgres::Client;

use crate::harness::database;

/// A batch of 20,000 jobs, of which 10,000 have ended. No worker has applied these ends.
const LARGE: &str = "alter table reveille.workflow_jobs set (autovacuum_enabled = false);
    alter table reveille.dependencies set (autovacuum_enabled = false);
    alter table reveille.linked_ends set (autovacuum_enabled = false);
    select reveille.open_workflow('large');
    select reveille.add_to_workflow(1, '[{\"name\": \"done\", \"kind\": \"k\", \"after\": []}]');
    select reveille.add_to_workflow(1, (
        select jsonb_agg(jsonb_build_object(
            'name', 'n' || part || '-' || n, 'kind', 'k',
            'before', '[{\"name\": \"done\", \"fires_on\": \"any\"}]'::jsonb
        ))
        from generate_series(1, 1000) as n
    ))
    from generate_series(1, 20) as part;
    select reveille.seal_workflow(1);
    with ended as (delete from reveille.jobs where id % 2 = 0 returning id)
    insert into reveille.linked_ends (job, outcome, workflow) select id, 'completed', 1 from ended";

/// A small workflow, whose first job has ended: number 2. And a workflow that is being filled: number 3.
const SMALL: &str = "select reveille.enqueue_workflow('small', '[
        {\"name\": \"a\", \"kind\": \"k\"}, {\"name\": \"b\", \"kind\": \"k\", \"after\": [\"a\"]}
    ]');
    with ended as (
        delete from reveille.jobs using reveille.workflow_jobs
        where workflow_jobs.job = jobs.id and workflow_jobs.workflow = 2 returning jobs.id
    )
    insert into reveille.linked_ends (job, outcome, workflow, ended_at)
    select id, 'completed', 2, '-infinity' from ended;
    select reveille.open_workflow('open');
    select reveille.add_to_workflow(3, '[{\"name\": \"done\", \"kind\": \"k\", \"after\": []}]')";

/// Calls, with the most rows and pages that each may read. Half of the pages are of the system's tables.
const CALLS: [(&str, i64, u64); 8] = [
    ("select reveille.enqueue_workflow('other', '[{\"name\": \"a\", \"kind\": \"k\"}]')", 100, 1000),
    (
        "select reveille.add_to_workflow(3, (
            select jsonb_agg(jsonb_build_object('name', n::text, 'kind', 'k', 'before', '[\"done\"]'::jsonb))
            from generate_series(1, 100) as n
        ))",
        1500,
        8000,
    ),
    ("select reveille.apply_linked_ends(1)", 50, 1500),
    ("select reveille.apply_linked_ends(100)", 1500, 6000),
    ("select reveille.cancel_workflow(2)", 20, 500),
    ("select reveille.seal_workflow(2)", 20, 100),
    ("select * from reveille.workflow_status where id = 2", 20, 100),
    (
        "select * from reveille.inputs((select job from reveille.workflow_jobs where workflow = 2 and name = 'b'))",
        20,
        4000,
    ),
];

async fn rows_read(client: &Client) -> i64 {
    let rows = "select sum(coalesce(idx_tup_fetch, 0) + seq_tup_read)::bigint from pg_stat_xact_user_tables";
    client.query_one(rows, &[]).await.unwrap().get(0)
}

/// Returns the numbers of rows and of pages that a call reads.
async fn read_by(client: &Client, call: &str) -> (i64, u64) {
    client.batch_execute("begin").await.unwrap();
    let before = rows_read(client).await;
    let plan = client.query_one(&format!("explain (analyze, buffers, format json) {call}"), &[]).await.unwrap();
    let rows = rows_read(client).await - before;
    client.batch_execute("rollback").await.unwrap();
    let plan = &plan.get::<_, Value>(0)[0]["Plan"];
    let pages = |key: &str| plan[key].as_u64().unwrap();
    (rows, pages("Shared Hit Blocks") + pages("Shared Read Blocks"))
}

#[tokio::test]
async fn a_small_workflow_reads_little_beside_a_large_one() {
    let mut wrong = Vec::new();
    let database = database().await;
    let client = database.client().await;
    client.batch_execute(LARGE).await.unwrap();
    client.batch_execute("analyze").await.unwrap();
    let mut check = async |state, (call, most_rows, most_pages)| {
        let (rows, pages) = read_by(&client, call).await;
        if rows > most_rows || pages > most_pages {
            wrong.push(format!("{state}: {rows} rows, {pages} pages: {call}"));
        }
    };
    check("the large one alone", ("select reveille.apply_linked_ends(100)", 1500, 6000)).await;
    client.batch_execute(SMALL).await.unwrap();
    for call in CALLS {
        check("analyzed before the small one", call).await;
    }
    client.batch_execute("analyze").await.unwrap();
    for call in CALLS {
        check("analyzed", call).await;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
