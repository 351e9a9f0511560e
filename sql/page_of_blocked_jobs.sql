-- The last part of a statement over blocked jobs: returns one row as JSON for each job of the slice that passes the
-- filter, without its payload and metadata, and the row reached as JSON. See sql/slice_of_blocked_jobs.sql.
select to_jsonb(listed) as record
from (
    select
        'blocked' as state, id, queue, kind, priority, 0 as attempts, 0 as failures, max_attempts, available_at,
        created_at, key, tags, parent_id, schedule_id, workflow, name, needs, waits_for, is_held
    from reveille.blocked_jobs_overview
    where id = any (array(select id from passing))
) as listed
union all
select to_jsonb(reached) from reached
