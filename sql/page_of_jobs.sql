-- The last part of a statement over live jobs: returns one row as JSON for each job of the slice that passes the
-- filter, without its payload, metadata and progress and with its last error only, and the row reached as JSON. See
-- sql/slice_of_jobs.sql.
select to_jsonb(listed) as record
from (
    select
        case
            when reserved_at is not null then 'running'
            when paused_by is not null then 'parked'
            when available_at > now() then 'delayed'
            else 'ready'
        end as state,
        listed.id, listed.queue, kind, priority, attempts, failures, max_attempts, reserved_at, reserved_by,
        available_at, created_at, cancel_requested_at, key, tags, parent_id, schedule_id,
        paused_by,
        case when errors is not null then jsonb_build_array(errors -> -1) end as errors,
        workers.stuck_since[array_position(workers.stuck_jobs, listed.id)] as stuck_since
    from reveille.job_list as listed
    left join reveille.workers on workers.id = listed.reserved_by
    where listed.id = any (array(select id from passing))
) as listed
union all
select to_jsonb(reached) from reached
