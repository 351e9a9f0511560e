-- Returns the time until the next job of a queue is due. Runs after a claim that found no job, or instead of a claim
-- that would find none.
--
--   $1 text           the queue's name
--   $2 bigint         the worker's id
--   $3 timestamptz[]  the low-water mark of each level: due time
--   $4 bigint[]       the low-water mark of each level: id
--
-- Returns one row:
--   next_due_seconds  the seconds until the next job is due; null if there is no job. Zero or less if a job is due: it
--                     has just become due, or another session has locked its row.
--   looked_at         now; null if the worker may not claim with sql/claim.sql: the queue is paused or has limits, or
--                     the worker has no row in reveille.workers
--   pauses            true if a kind or a key is paused in the queue: sql/claim_paused.sql claims from this queue
--   parked            true if the queue has parked jobs
--   limited           queue: sql/claim_limited.sql claims from this queue; key: sql/claim_by_key.sql; null: no limits
with queue as materialized (
    select
        exists (select from reveille.workers where workers.id = $2)
        and not exists (
            select from reveille.queues
            where queues.name = $1 and (queues.paused_at is not null or queues.limited is not null)
        ) as is_open
)
select
    -- Seconds are subtracted, not times, since Postgres before 17 cannot subtract an infinite time.
    (min(extract(epoch from first.available_at)) - extract(epoch from clock_timestamp()))::double precision
        as next_due_seconds,
    case when (select is_open from queue) then now() end as looked_at,
    exists (select from reveille.pauses where coalesce(pauses.queue, '') = any (array[$1, ''])) as pauses,
    exists (select from reveille.jobs where jobs.queue = $1 and jobs.paused_by is not null) as parked,
    (select queues.limited from reveille.queues where queues.name = $1) as limited
from unnest('{0,1,2,3}'::smallint[], $3::timestamptz[], $4::bigint[]) as level (priority, available_at, id)
cross join lateral (
    select jobs.available_at
    from reveille.jobs
    where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
        and jobs.paused_by is null
        and (jobs.available_at, jobs.id) >= (level.available_at, level.id)
    order by jobs.available_at, jobs.id
    limit 1
) as first
where (select is_open from queue)
