-- Lists the dead jobs of one queue, kind and reason for `reveille top`, the latest first.
--
--   $1 text  the queue
--   $2 text  the kind
--   $3 text  the reason
--
-- Returns one row per job, at most 200: some of its columns as JSON, and times in seconds.
select to_jsonb(listed) as record
from (
    select
        id, queue, kind, reason, attempts, failures, max_attempts, worker,
        extract(epoch from now() - finished_at) as died_seconds, left(errors -> -1 ->> 'error', 500) as last_error
    from reveille.dead_job_list
    where queue = $1 and kind = $2 and reason = $3
    -- The `order by` names all columns of the index dead_jobs_by_kind, so that the planner uses no other index.
    order by queue desc, kind desc, reason desc, finished_at desc
    limit 200
) as listed
