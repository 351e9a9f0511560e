-- The last part of a statement over dead jobs: returns one row as JSON for each job of the slice that passes the
-- filter, without its payload, metadata and progress and with its last error only, and the row reached as JSON. See
-- sql/slice_of_dead_jobs.sql.
select to_jsonb(listed) as record
from (
    select
        'dead' as state, id, queue, kind, priority, attempts, failures, max_attempts, available_at, created_at, key,
        tags, parent_id, schedule_id, reason, worker, wait_seconds, run_seconds, finished_at,
        case when errors is not null then jsonb_build_array(errors -> -1) end as errors
    from reveille.dead_job_list
    where id = any (array(select id from passing))
) as listed
union all
select to_jsonb(reached) from reached
