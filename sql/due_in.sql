-- In how many seconds the next unreserved job of a queue is due: null if there is none or the queue is paused, not
-- positive if one is due already (which somebody else has locked for the moment).
--
--   $1 text  queue
select min(extract(epoch from first.available_at - clock_timestamp()))::double precision as seconds
from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
cross join lateral (
    select jobs.available_at
    from reveille.jobs
    where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
    order by jobs.available_at, jobs.id
    limit 1
) as first
where not exists (select from reveille.queues where queues.name = $1 and queues.paused_at is not null)
