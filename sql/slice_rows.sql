-- The last part of a statement over live jobs: returns one row as JSON for each job of the slice that passes the
-- filter, and the row reached as JSON. See sql/slice_of_jobs.sql.
select to_jsonb(listed) as record
from (
    select
        case
            when reserved_at is not null then 'running'
            when paused_by is not null then 'parked'
            when available_at > now() then 'delayed'
            else 'ready'
        end as state,
        jobs.*,
        workers.stuck_since[array_position(workers.stuck_jobs, jobs.id)] as stuck_since
    from reveille.jobs
    left join reveille.workers on workers.id = jobs.reserved_by
    where jobs.id = any (array(select id from passing))
) as listed
union all
select to_jsonb(reached) from reached
