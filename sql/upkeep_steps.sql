-- Upkeep: deletes the steps and waits of jobs that are neither live nor dead. Usually they go when the job's end is
-- applied. This chore is for jobs that a program has deleted, or that a worker of an older version has ended.
--
--   $1 bigint  the maximum number of steps
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted steps
--
-- Each job is looked up by its id, so that the statement reads no other jobs.
with mine as materialized (
    select name from reveille.chores where name = 'steps' for update skip locked
), left_over as materialized (
    select steps.job
    from reveille.steps
    where exists (select from mine)
        and (select jobs.id from reveille.jobs where jobs.id = steps.job) is null
        and (select dead_jobs.id from reveille.dead_jobs where dead_jobs.id = steps.job) is null
        and (select linked_ends.job from reveille.linked_ends where linked_ends.job = steps.job) is null
    order by steps.job
    limit $1
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select
    exists (select from mine) as mine,
    coalesce((select reveille.forget_steps(pg_catalog.array_agg(distinct left_over.job)) from left_over), 0) as done
