//! The statements that list blocked jobs and workflows read few rows, whatever the planner knows of the tables.

use crate::harness::database;
use crate::plans::{by_index, slice, source};

/// Many blocked jobs, workflows, and jobs of one workflow. The last one of these waits for all others.
const FILL: &str = "alter table reveille.blocked_jobs set (autovacuum_enabled = false);
    alter table reveille.workflows set (autovacuum_enabled = false);
    alter table reveille.workflow_jobs set (autovacuum_enabled = false);
    alter table reveille.dependencies set (autovacuum_enabled = false);
    insert into reveille.blocked_jobs (id, queue, kind, payload, priority, max_attempts, needs, chances, key)
    select n, 'q', 'k', '{}', 2, 1, 1, 1, 'key' from generate_series(1, 40000) as n;
    insert into reveille.workflows (name, state) select 'w' || n % 10, 'completed' from generate_series(1, 30000) as n;
    insert into reveille.workflow_jobs (job, workflow, name)
    select n, 1, lpad(n::text, 5, '0') from generate_series(1, 30000) as n;
    insert into reveille.actions (actor, source, action, target)
    select 'ada', 'test', 'cancel', jsonb_build_object('job', n) from generate_series(1, 20000) as n;
    insert into reveille.steps (job, name, value, outcome, attempt, reserved_at)
    select n / 10, n::text, '1', 'done', 1, now() from generate_series(1, 30000) as n;
    insert into reveille.dependencies (waiter, on_job, label, fires_on, state)
    select 30000, n, lpad(n::text, 5, '0'), 'any', 'met' from generate_series(1, 29999) as n";

/// Returns the statements, with the number of rows that each may read.
fn statements() -> Vec<(String, i64)> {
    let mut all = Vec::new();
    for rest in ["slice_ids", "slice_blocked_rows", "page_of_blocked_jobs", "slice_cancelled_blocked"] {
        for (walk, newest_first) in ["id", "queue", "ids"].into_iter().flat_map(|walk| [(walk, false), (walk, true)]) {
            all.push((slice("slice_of_blocked_jobs", rest, walk, newest_first), 4000));
        }
    }
    let filled = |name: &str, values: &[&str]| {
        let values = values.iter().enumerate();
        values.fold(source(&format!("sql/{name}.sql")), |sql, (place, value)| {
            sql.replace(&format!("${}", place + 1), value)
        })
    };
    for (name, state) in [("null", "null"), ("'w1'", "null"), ("'w1'", "'completed'"), ("null", "'completed'")] {
        all.push((filled("list_workflows", &[name, state, "null::bigint", "50"]), 60));
    }
    all.push((filled("list_workflows", &["null", "'stalled'", "null::bigint", "50"]), 10));
    let two_states = "array['running', 'completed']";
    all.push((filled("count_workflows", &[two_states, "300"]), 300));
    // The rows of 200 jobs, for each the rows of blocked_jobs and jobs, and 100 prerequisites twice.
    all.push((filled("workflow_jobs", &["1", "'29900'", "200"]), 1500));
    all.push((filled("workflow_results", &["array[7, 30000]", "2000"]), 2));
    all.push((filled("actions_on", &[r#"'{"job": 7}'::jsonb"#, "10"]), 2));
    // The first 1,000 prerequisites, twice.
    all.push((filled("job", &["30000"]), 2100));
    // Up to 20 jobs at each side: the row of the dependency, and the rows of the job. One job has a workflow.
    all.push((filled("job_links", &["30000", "20"]), 120));
    all.push((filled("job_links", &["7", "20"]), 20));
    all.push((filled("job_steps", &["7", "50"]), 10));
    let values = filled("job_steps", &["7", "50"]).replace("reveille.job_steps", "reveille.steps");
    all.push((values, 10));
    all
}

#[tokio::test]
async fn no_list_of_blocked_jobs_or_workflows_reads_a_whole_table() {
    let mut wrong = Vec::new();
    for state in ["never analyzed", "analyzed"] {
        let database = database().await;
        let client = database.client().await;
        client.batch_execute(FILL).await.unwrap();
        if state == "analyzed" {
            client.batch_execute("analyze").await.unwrap();
        }
        let read = async || {
            let read = "select coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint
                from pg_stat_xact_user_tables
                where relname in (
                        'jobs', 'blocked_jobs', 'workflows', 'workflow_jobs', 'dependencies', 'steps', 'actions'
                    )
                    or relname like 'dead_jobs%' or relname like 'finished_jobs%'";
            let row = client.query_one(read, &[]).await.unwrap();
            (row.get::<_, i64>(0), row.get::<_, i64>(1))
        };
        for (statement, most) in statements() {
            client.batch_execute(&format!("begin; {}", by_index())).await.unwrap();
            let before = read().await;
            client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
            let (by_scan, by_index) = read().await;
            client.batch_execute("rollback").await.unwrap();
            let (by_scan, by_index) = (by_scan - before.0, by_index - before.1);
            if by_scan > 0 || by_index > most {
                wrong.push(format!("{state}: {by_scan} and {by_index} rows: {statement}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
