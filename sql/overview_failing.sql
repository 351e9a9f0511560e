-- Lists the failing jobs for `reveille top`, newest first.
--
-- Returns one row per job, at most 200: columns of the view as JSON, and times in seconds.
select to_jsonb(listed) as record
from (
    select
        id, queue, kind, failures, max_attempts, running,
        -- An infinite due time has no age.
        case when isfinite(next_try_at) then extract(epoch from next_try_at - now()) end as next_try_seconds,
        left(last_error, 500) as last_error
    from reveille.failing_jobs
    order by id desc
    limit 200
) as listed
