-- Lists the dead jobs by queue, kind and reason for `reveille top`, the group with the latest dead job first.
--
-- Returns one row per group, at most 200: columns of the view as JSON, and times in seconds.
select to_jsonb(listed) as record
from (
    select
        queue, kind, reason, jobs, extract(epoch from now() - last_died_at) as last_died_seconds, last_id,
        left(last_error, 500) as last_error
    from reveille.dead_jobs_overview
    order by last_died_at desc
    limit 200
) as listed
