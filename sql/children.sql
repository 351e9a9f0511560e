-- Returns the jobs that a job's handler has enqueued, as far as they are among the first 10,000 live, blocked, dead and
-- finished jobs each with a higher id, and up to 20 of them.
--
--   $1 bigint  the id of the parent
--
-- Returns one row as JSON for each job, without payload, metadata, progress, result and errors. No index has the
-- parents, and a child comes soon after the begin of its parent's attempt.
select to_jsonb(children) as record
from (
    (
        select
            case
                when reserved_at is not null then 'running'
                when paused_by is not null then 'parked'
                when available_at > now() then 'delayed'
                else 'ready'
            end as state,
            id, queue, kind, priority, attempts, failures, max_attempts, key, tags, available_at, created_at,
            reserved_at, reserved_by, parent_id, null::timestamptz as finished_at
        from (select * from reveille.job_list where id > $1 order by id limit 10000) as live
        where parent_id = $1
        limit 20
    )
    union all
    (
        select
            'blocked', id, queue, kind, priority, 0, 0, max_attempts, key, tags, available_at, created_at,
            null, null, parent_id, null
        from (select * from reveille.blocked_jobs_overview where id > $1 order by id limit 10000) as blocked
        where parent_id = $1
        limit 20
    )
    union all
    (
        select
            'dead', id, queue, kind, priority, attempts, failures, max_attempts, key, tags, available_at, created_at,
            null, worker, parent_id, finished_at
        from (select * from reveille.dead_job_list where id > $1 order by id limit 10000) as dead
        where parent_id = $1
        limit 20
    )
    union all
    (
        select
            outcome, id, queue, kind, priority, attempts, failures, max_attempts, key, tags, available_at, created_at,
            null, worker, parent_id, finished_at
        from (select * from reveille.finished_job_list where id > $1 order by id limit 10000) as finished
        where parent_id = $1
        limit 20
    )
) as children
order by id
limit 20
