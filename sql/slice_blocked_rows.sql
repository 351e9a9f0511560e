-- The last part of a statement over blocked jobs: returns one row as JSON for each job of the slice that passes the
-- filter, with what it waits for, and the row reached as JSON. See sql/slice_of_blocked_jobs.sql.
select to_jsonb(listed) as record
from (
    select 'blocked' as state, blocked_jobs.*, overview.name, overview.waits_for, overview.is_held
    from reveille.blocked_jobs
    join reveille.blocked_jobs_overview as overview on overview.id = blocked_jobs.id
    where blocked_jobs.id = any (array(select id from passing))
) as listed
union all
select to_jsonb(reached) from reached
