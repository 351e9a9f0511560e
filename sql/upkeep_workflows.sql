-- Upkeep: deletes the workflows that ended more than 30 days ago, with the rows of their jobs and dependencies.
--
--   $1 bigint  the maximum number of jobs
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted rows of jobs and workflows
with mine as materialized (
    select name from reveille.chores where name = 'workflows' for update skip locked
), old as materialized (
    select id
    from reveille.workflows
    where exists (select from mine) and finished_at < now() - interval '30 days'
    order by finished_at
    limit 100
    for update skip locked
), members as materialized (
    select workflow_jobs.job, workflow_jobs.workflow
    from old
    cross join lateral (
        select job, workflow from reveille.workflow_jobs where workflow_jobs.workflow = old.id order by name limit $1
    ) as workflow_jobs
    limit $1
), loosed as (
    delete from reveille.dependencies where waiter = any (array(select job from members))
), gone as (
    delete from reveille.workflow_jobs where job = any (array(select job from members)) returning job
), emptied as (
    delete from reveille.workflows
    where id = any (array(select id from old))
        and not exists (
            select from reveille.workflow_jobs as members_left
            where members_left.workflow = workflows.id
                and members_left.job <> all (array(select job from members where members.workflow = workflows.id))
        )
    returning id
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) + (select count(*) from emptied) as done
