-- Finds the job of a kind that was enqueued last: among the newest 5,000 live jobs, the newest 5,000 finished jobs, and
-- the dead jobs that died last.
--
--   $1 text    the kind
--   $2 text[]  the queues; null: all
--
-- Returns one row: the job's id, null if there is none.
select max(id) as id
from (
    select id
    from (select id, queue, kind from reveille.job_list order by id desc limit 5000) as live
    where kind = $1 and ($2::text[] is null or queue = any ($2))
    union all
    select id
    from (select id, queue, kind from reveille.finished_job_list order by id desc limit 5000) as finished
    where kind = $1 and ($2::text[] is null or queue = any ($2))
    union all
    select died.id
    from reveille.dead_groups() as groups
    cross join lateral (
        select listed.id
        from reveille.dead_job_list as listed
        where listed.queue = groups.queue and listed.kind = groups.kind and listed.reason = groups.reason
        -- The `order by` names all columns of the index dead_jobs_by_kind, so that the planner uses no other index.
        order by listed.queue desc, listed.kind desc, listed.reason desc, listed.finished_at desc
        limit 1
    ) as died
    where groups.kind = $1 and ($2::text[] is null or groups.queue = any ($2))
) as found
