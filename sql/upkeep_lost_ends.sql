-- Upkeep: notes an end for each linked job that is in no table, such as one that was deleted by hand, or that a worker
-- of an older version has completed.
--
--   $1 bigint  the maximum number of jobs
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of noted ends
--
-- A job moves between tables, and its end is noted, in one statement. So a job that is in none of the tables in one
-- snapshot has ended, and its end is applied or lost.
with mine as materialized (
    select name from reveille.chores where name = 'lost ends' for update skip locked
), expected as materialized (
    select members.job, members.outcome is not null as was_dead
    from reveille.workflows
    join reveille.workflow_jobs as members on members.workflow = workflows.id
    where exists (select from mine) and workflows.finished_at is null
        and (members.outcome is null or members.outcome = 'dead')
    union
    select dependencies.on_job, dependencies.state = 'held'
    from reveille.blocked_jobs
    join reveille.dependencies on dependencies.waiter = blocked_jobs.id
    where exists (select from mine) and blocked_jobs.workflow is null
        and dependencies.state in ('open', 'held')
), lost as materialized (
    select distinct on (job) job, was_dead
    from expected
    -- Each job is looked for by its id: a join could read the whole tables.
    where (select jobs.id from reveille.jobs where jobs.id = expected.job) is null
        and (select blocked_jobs.id from reveille.blocked_jobs where blocked_jobs.id = expected.job) is null
        and (select dead_jobs.id from reveille.dead_jobs where dead_jobs.id = expected.job) is null
        and (select linked_ends.job from reveille.linked_ends where linked_ends.job = expected.job) is null
    limit $1
), noted as (
    insert into reveille.linked_ends (job, outcome, result, workflow)
    select
        lost.job, coalesce(finished.outcome, case when lost.was_dead then 'purged' else 'cancelled' end),
        finished.result,
        (select workflow_jobs.workflow from reveille.workflow_jobs where workflow_jobs.job = lost.job)
    from lost
    left join lateral (
        select outcome, result from reveille.finished_jobs where finished_jobs.id = lost.job limit 1
    ) as finished on true
    on conflict (job) do nothing
    returning job
), without_workflow as (
    -- The workflow of an end may have been removed meanwhile. Such an end is applied like one without a workflow.
    update reveille.linked_ends
    set workflow = null
    where job = any (array(
        select ends.job from reveille.linked_ends as ends
        where exists (select from mine) and ends.workflow is not null
            and (select workflows.id from reveille.workflows where workflows.id = ends.workflow) is null
        order by ends.ended_at
        limit $1
    ))
), told as materialized (
    select reveille.tell_of_ends() where exists (select from noted)
), done as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from noted) as done
where (select count(*) from told) >= 0
