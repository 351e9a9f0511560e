-- Returns the ended attempts of the last hour by queue, in 30 parts of two minutes.
--
--   $1 text[]  the queues
--
-- Returns one row as JSON for each queue with ended attempts: queue, and parts, an object with the number of ended
-- attempts by part, from 0 for the oldest.
select jsonb_build_object('queue', queue, 'parts', jsonb_object_agg(part, ended)) as record
from (
    select
        queue, least(floor(extract(epoch from started_at - (now() - interval '1 hour')) / 120)::int, 29) as part,
        sum(completed + failed) as ended
    -- The view `throughput` groups by minute, so a condition on the time would read all counters of the queues.
    from reveille.counters
    where started_at >= now() - interval '1 hour' and queue = any ($1)
    group by queue, part
) as parts
group by queue
