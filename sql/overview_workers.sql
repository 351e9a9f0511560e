-- Lists the workers for `reveille top`, in the order in which they started.
--
-- Returns one row per worker, at most 200: the columns of the view as JSON, times in seconds, and `queue_running`, the
-- number of jobs that the worker holds of each of its queues.
with held as materialized (
    select worker, queue, count(*) as jobs from reveille.held_jobs() group by worker, queue
)
select to_jsonb(listed) as record
from (
    select
        status.*, extract(epoch from now() - started_at) as started_seconds,
        greatest(extract(epoch from now() - last_seen), 0) as last_seen_seconds,
        array(
            select coalesce(held.jobs, 0)
            from unnest(status.queues) with ordinality as worked (queue, place)
            left join held on held.worker = status.worker and held.queue = worked.queue
            order by place
        ) as queue_running
    from reveille.worker_status as status
    where slots > 0
    order by started_at
    limit 200
) as listed
