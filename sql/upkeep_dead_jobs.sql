-- Upkeep: deletes the dead jobs that are past their queue's dead_retention.
--
--   $1 bigint  the maximum number of jobs
--
-- Returns one row:
--   mine  true if no other worker is doing this chore
--   done  the number of deleted jobs
--
-- The query `groups` finds the queues, kinds and reasons that have dead jobs by skipping from one to the next in the
-- index, so that the statement does not read the dead jobs that it keeps.
with recursive mine as materialized (
    select name from reveille.chores where name = 'dead jobs' for update skip locked
), kept as materialized (
    select name as queue, dead_retention
    from reveille.queues
    where exists (select from mine) and dead_retention is not null
), groups (queue, kind, reason, dead_retention) as (
    select kept.queue, found.kind, found.reason, kept.dead_retention
    from kept
    cross join lateral (
        select kind, reason from reveille.dead_jobs where dead_jobs.queue = kept.queue order by kind, reason limit 1
    ) as found
    union all
    select groups.queue, found.kind, found.reason, groups.dead_retention
    from groups
    cross join lateral (
        select kind, reason from reveille.dead_jobs
        where dead_jobs.queue = groups.queue and (dead_jobs.kind, dead_jobs.reason) > (groups.kind, groups.reason)
        order by kind, reason
        limit 1
    ) as found
), past as materialized (
    select found.place
    from groups
    cross join lateral (
        select dead_jobs.ctid as place from reveille.dead_jobs
        where dead_jobs.queue = groups.queue and dead_jobs.kind = groups.kind and dead_jobs.reason = groups.reason
            and dead_jobs.finished_at < now() - groups.dead_retention
        order by dead_jobs.finished_at
        limit $1
        for update skip locked
    ) as found
    limit $1
), gone as (
    delete from reveille.dead_jobs where ctid = any (array(select place from past)) returning id, linked
), linked_ends as materialized (
    -- A purge counts as a cancellation for the jobs that wait for the dead job.
    select reveille.note_end(id, 'purged') from gone where linked
), noted as (
    update reveille.chores set done_at = now() where name = (select name from mine)
)
select exists (select from mine) as mine, (select count(*) from gone) as done
where (select count(*) from linked_ends) >= 0
