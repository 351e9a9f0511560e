-- Finds one job, live, blocked, dead or finished.
--
--   $1 bigint  the job's id
--
-- Returns one row with the job as JSON, or no row.
select to_jsonb(jobs) || jsonb_build_object(
    'state', case
        when reserved_at is not null then 'running'
        when paused_by is not null then 'parked'
        when available_at > now() then 'delayed'
        else 'ready'
    end,
    'stuck_since', workers.stuck_since[array_position(workers.stuck_jobs, jobs.id)]
) as record
from reveille.jobs
left join reveille.workers on workers.id = jobs.reserved_by
where jobs.id = $1
union all
select to_jsonb(blocked_jobs) || jsonb_build_object(
    'state', 'blocked', 'name', overview.name, 'waits_for', overview.waits_for, 'is_held', overview.is_held
)
from reveille.blocked_jobs
join reveille.blocked_jobs_overview as overview on overview.id = blocked_jobs.id
where blocked_jobs.id = $1
union all
select to_jsonb(dead_jobs) || jsonb_build_object('state', 'dead') from reveille.dead_jobs where id = $1
union all
select to_jsonb(finished_jobs) - 'day' || jsonb_build_object('state', outcome) from reveille.finished_jobs where id = $1
limit 1
