-- Lists the workers for `reveille top`, in the order in which they started.
--
-- Returns one row per worker, at most 200: the columns of the view as JSON, and times in seconds.
select to_jsonb(listed) as record
from (
    select
        status.*, extract(epoch from now() - started_at) as started_seconds,
        greatest(extract(epoch from now() - last_seen), 0) as last_seen_seconds
    from reveille.worker_status as status
    where slots > 0
    order by started_at
    limit 200
) as listed
