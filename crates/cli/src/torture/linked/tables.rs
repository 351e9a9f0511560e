//! What the tables say about linked jobs at the end.

use deadpool_postgres::Client;
use serde_json::Value;

use super::KINDS;
use crate::torture::report::TortureFigures;

/// The linked jobs that have an end or are live, by their ids and numbers. `lost` is true if a worker had reserved the
/// job when that worker was declared dead. No journal needs to have this failure. The hostile role makes operators of
/// its own in `public`, so the query uses none of these.
pub const ENDED: &str = "with rows (id, payload, kind, errors, how) as (
        select id, payload, kind, errors, outcome from reveille.finished_jobs
        union all select id, payload, kind, errors, 'dead' from reveille.dead_jobs
        union all select id, payload, kind, errors, 'live' from reveille.jobs
        union all select id, payload, kind, null, 'blocked' from reveille.blocked_jobs
    ), ended as materialized (
        select
            id, (payload #>> '{job}')::bigint as job, how,
            coalesce(errors @> '[{\"reason\": \"lost\"}]', false) as lost
        from rows where kind = any ($1)
    )";

/// Jobs and their effects.
const JOBS: &str = ", known as (
        select job from torture.linked union select unnest($2::bigint[])
    )
    select
        (select count(*) from torture.linked) as linked_jobs,
        (select count(*) from ended where how = 'completed') as linked_completed,
        (select count(*) from ended where how = 'cancelled') as linked_cancelled,
        (select count(*) from ended where how = 'dead') as linked_dead,
        (
            select count(*) from known
            where job not in (select job from ended) and job not in (select job from torture.purged)
        ) as linked_lost,
        (select count(*) from ended where how in ('live', 'blocked')) as linked_unfinished,
        (select count(*) from (select from ended group by job having count(*) > 1) as twice) as linked_ended_twice,
        (
            select count(*)
            from (select from torture.linked_applied where once group by job having count(*) > 1) as twice
        ) as linked_effects_twice,
        (
            select count(*) from ended
            where how = 'completed' and job not in (select job from torture.linked_applied)
        ) as linked_effects_missing,
        (
            select count(*) from torture.linked_applied
            where once and job not in (select job from ended where how = 'completed')
        ) as linked_effects_of_unfinished,
        (select count(*) from reveille.linked_ends) as ends_not_applied,
        (
            select count(*) from reveille.waits where job not in (select id from reveille.dead_jobs)
        ) as waits_left_over,
        (
            select count(distinct job) from reveille.steps where job not in (select id from reveille.dead_jobs)
        ) as steps_left_over";

/// Workflows, and the rows of their jobs.
const WORKFLOWS: &str = ", counted as (
        select
            workflow, count(*) as jobs, count(*) filter (where outcome = 'completed') as completed,
            count(*) filter (where outcome = 'dead') as dead,
            count(*) filter (where outcome = 'cancelled') as cancelled,
            count(*) filter (where outcome = 'skipped') as skipped
        from reveille.workflow_jobs group by workflow
    )
    select
        (select count(*) from reveille.workflows) as workflows,
        (select count(*) from reveille.workflows where state = 'completed') as workflows_completed,
        (select count(*) from reveille.workflows where state = 'failed') as workflows_failed,
        (select count(*) from reveille.workflows where state = 'cancelled') as workflows_ended_as_cancelled,
        (select count(*) from reveille.workflow_jobs where outcome = 'skipped') as linked_skipped,
        (select count(*) from reveille.workflows where finished_at is null) as workflows_unfinished,
        (
            select count(*) from reveille.workflow_jobs as members
            left join ended on ended.id = members.job
            where members.ended_at is null
                or coalesce(ended.how, case when members.job in (select id from torture.purged) then 'cancelled' end)
                    is distinct from case members.outcome when 'skipped' then 'cancelled' else members.outcome end
        ) as workflow_jobs_wrong,
        (
            select count(*) from reveille.workflows
            left join counted on counted.workflow = workflows.id
            where (workflows.jobs, workflows.blocked, workflows.completed, workflows.dead, workflows.cancelled,
                    workflows.skipped)
                is distinct from (counted.jobs, 0::bigint, counted.completed, counted.dead, counted.cancelled,
                    counted.skipped)
                or workflows.state = 'completed' and (workflows.dead > 0 or workflows.cancelled > 0)
                or workflows.state = 'failed' and workflows.dead = 0
        ) as workflow_counts_wrong";

/// The dependencies of workflows. A job whose name begins with `first`, and the callback `on dead`, needs one of its
/// dependencies; each other job needs all. The outcome of a job that was revived or purged may have met a dependency
/// before.
const DEPENDENCIES: &str = ", linked as (
        select
            dependencies.waiter, dependencies.state, waiters.outcome,
            waiters.name like 'first %' or waiters.name = 'on dead' as needs_one,
            case
                when dependencies.on_job not in (select id from torture.revived)
                    and dependencies.on_job not in (select id from torture.purged)
                then reveille.dependency_state(dependencies.fires_on, dependencies.on_dead, members.outcome)
            end as expected
        from reveille.dependencies
        join reveille.workflow_jobs as waiters on waiters.job = dependencies.waiter
        join reveille.workflow_jobs as members on members.job = dependencies.on_job
    )
    select
        count(*) filter (
            where outcome in ('completed', 'dead') and not needs_one and state <> 'met'
                or state in ('met', 'skipped') and state <> expected
                or outcome = 'skipped' and waiter not in (select waiter from linked where state = 'skipped')
        ) as dependencies_wrong
    from linked";

/// What is held up although no dead job holds it up, once nothing changes any more.
const STALLED: &str = "select
        (
            select count(*) from reveille.workflows
            where finished_at is null and not (state = 'stalled' and exists (
                select from reveille.workflow_jobs
                join reveille.dead_jobs on dead_jobs.id = workflow_jobs.job
                where workflow_jobs.workflow = workflows.id
            ))
        ) + (
            select count(*) from reveille.blocked_jobs
            where not exists (
                select from reveille.dependencies
                where dependencies.waiter = blocked_jobs.id and dependencies.state in ('open', 'held') and (
                    dependencies.on_job in (select id from reveille.dead_jobs)
                    or dependencies.on_job in (select id from reveille.blocked_jobs)
                )
            )
        ) as stalled_wrongly,
        (select count(*) from reveille.workflows where state = 'stalled') as workflows_stalled";

/// Adds the figures of what is held up. Call this once no job is live, and before the repair.
pub async fn stalled(figures: &mut TortureFigures, client: &Client) -> Result<(), tokio_postgres::Error> {
    add(figures, &client.query_one(STALLED, &[]).await?);
    Ok(())
}

/// Adds the figures of the tables. `committed` are the jobs whose commit was seen.
pub async fn tables(
    figures: &mut TortureFigures,
    client: &Client,
    committed: &[i64],
) -> Result<(), tokio_postgres::Error> {
    let kinds = &KINDS[..];
    add(figures, &client.query_one(&format!("{ENDED}{JOBS}"), &[&kinds, &committed]).await?);
    add(figures, &client.query_one(&format!("{ENDED}{WORKFLOWS}"), &[&kinds]).await?);
    add(figures, &client.query_one(&format!("{ENDED}{DEPENDENCIES}"), &[&kinds]).await?);
    Ok(())
}

fn add(figures: &mut TortureFigures, row: &tokio_postgres::Row) {
    for column in row.columns() {
        figures.insert(column.name().into(), Value::from(row.get::<_, i64>(column.name())));
    }
}
