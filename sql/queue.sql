-- Returns what `reveille.queue_stats` tells about one queue.
--
--   $1 text  the queue's name
--
-- Returns one row: a JSON object with the object queue, whose age is in seconds. No row if nothing is known of the
-- queue.
select jsonb_build_object(
    'queue',
    to_jsonb(stats) - 'oldest_ready_age'
        || jsonb_build_object(
            'oldest_ready_seconds', extract(epoch from oldest_ready_age),
            'served', exists (select from reveille.worker_status where alive and stats.queue = any (queues))
        )
) as record
from reveille.queue_stats as stats
where queue = $1
