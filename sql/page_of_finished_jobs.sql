-- The last part of a statement over finished jobs: returns one row as JSON for each job of the slice that passes the
-- filter, without its payload, metadata, progress and result and with its last error only, and the row reached as
-- JSON. See sql/slice_of_finished_jobs.sql.
select to_jsonb(listed) as record
from (
    select
        outcome as state, finished.id, queue, kind, priority, attempts, failures, max_attempts, available_at,
        created_at, key, tags, parent_id, schedule_id, outcome, worker, wait_seconds, run_seconds, finished_at,
        case when errors is not null then jsonb_build_array(errors -> -1) end as errors
    from passing
    cross join lateral (
        select * from reveille.finished_job_list where day = passing.day and id = passing.id
    ) as finished
) as listed
union all
select to_jsonb(reached) from reached
