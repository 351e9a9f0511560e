-- Returns what `reveille.queue_stats` tells about some queues, but for the dead jobs: their number is not read, since
-- that would count the dead jobs of all queues.
--
--   $1 text[]  the names of the queues
--
-- Returns one row per known queue: a JSON object with the object queue, whose age is in seconds.
with served as (
    select distinct unnest(queues) as queue from reveille.worker_status where alive
)
select jsonb_build_object('queue', to_jsonb(listed)) as record
from (
    select
        stats.queue, served.queue is not null as served, paused, ready, delayed, running, estimated,
        extract(epoch from oldest_ready_age) as oldest_ready_seconds, completed_last_minute, failed_last_minute, parked,
        blocked
    from reveille.queue_stats as stats
    left join served on served.queue = stats.queue
    where stats.queue = any ($1)
) as listed
