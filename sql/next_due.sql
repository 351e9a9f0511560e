-- When the next job of a queue is due, where a claim has found none or is likely to.
--
--   $1 text           queue
--   $2 bigint         worker
--   $3 timestamptz[]  per level, from which place in the order of claims to look: due time
--   $4 bigint[]       and id
--
-- One row. next_due_seconds: in how many seconds; not positive if one is due, since a moment ago or that somebody else has locked for
-- the moment; null if there is none. looked_at: now; null if nothing is to be claimed: the queue is paused or has limits, or there is no
-- row for the worker in reveille.workers. limited: what limits the queue has (see sql/claim_limited.sql and sql/claim_by_key.sql);
-- null if none.
with open as materialized (
    select
        exists (select from reveille.workers where workers.id = $2)
            and not exists (select from reveille.queues where queues.name = $1 and (queues.paused_at is not null or queues.limited is not null)) as it_is
)
select
    -- Not of the difference, which a row with an infinite time does not have.
    (min(extract(epoch from first.available_at)) - extract(epoch from clock_timestamp()))::double precision as next_due_seconds,
    case when (select it_is from open) then now() end as looked_at,
    (select queues.limited from reveille.queues where queues.name = $1) as limited
from unnest('{0,1,2,3}'::smallint[], $3::timestamptz[], $4::bigint[]) as level (priority, available_at, id)
cross join lateral (
    select jobs.available_at
    from reveille.jobs
    where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
        and (jobs.available_at, jobs.id) >= (level.available_at, level.id)
    order by jobs.available_at, jobs.id
    limit 1
) as first
where (select it_is from open)
