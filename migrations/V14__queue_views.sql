-- The views of queues, with the number of blocked jobs.

-- Any role can call this function. The planner's statistics show a role only the columns that it may read, so without
-- a right to read `available_at` the share is 0.5.
create function reveille.expected_waiting(out jobs double precision, out due_share double precision)
    language sql stable
    set search_path = pg_catalog, pg_temp
as $$
    select
        (select reltuples from pg_class where oid = 'reveille.jobs_claim'::regclass),
        coalesce((
            select coalesce(common.due, 0) + (1 - coalesce(common.share, 0)) * coalesce(others.due, 0.5)
            from pg_stats as stats
            cross join lateral (
                select sum(freq) as share, sum(freq) filter (where val <= now()) as due
                from unnest(stats.most_common_vals::text::timestamptz[], stats.most_common_freqs) as mcv (val, freq)
            ) as common
            cross join lateral (
                select avg((bound <= now())::int) as due
                from unnest(stats.histogram_bounds::text::timestamptz[]) as bound
            ) as others
            where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'available_at'
        ), 0.5)
$$;
comment on function reveille.expected_waiting() is
    'Returns the number of waiting jobs and the share of due jobs among them, by the planner''s statistics.';

create or replace view reveille.known_queues as
with recursive waiting as (
    (select queue from reveille.jobs where reserved_at is null and paused_by is null order by queue limit 1)
    union all
    select (
        select jobs.queue from reveille.jobs
        where jobs.reserved_at is null and jobs.paused_by is null and jobs.queue > waiting.queue
        order by jobs.queue limit 1
    )
    from waiting
    where waiting.queue is not null
),
parked as (
    (select queue from reveille.jobs where paused_by is not null order by queue limit 1)
    union all
    select (
        select jobs.queue from reveille.jobs
        where jobs.paused_by is not null and jobs.queue > parked.queue order by jobs.queue limit 1
    )
    from parked
    where parked.queue is not null
),
blocked as (
    (select queue from reveille.blocked_jobs order by queue limit 1)
    union all
    select (
        select blocked_jobs.queue from reveille.blocked_jobs
        where blocked_jobs.queue > blocked.queue order by blocked_jobs.queue limit 1
    )
    from blocked
    where blocked.queue is not null
),
dead as (
    (select queue from reveille.dead_jobs order by queue limit 1)
    union all
    select (
        select dead_jobs.queue from reveille.dead_jobs
        where dead_jobs.queue > dead.queue order by dead_jobs.queue limit 1
    )
    from dead
    where dead.queue is not null
),
counted as (
    (select queue from reveille.counters order by queue limit 1)
    union all
    select (
        select counters.queue from reveille.counters
        where counters.queue > counted.queue order by counters.queue limit 1
    )
    from counted
    where counted.queue is not null
)
select queue from waiting where queue is not null
union select queue from parked where queue is not null
union select queue from blocked where queue is not null
union select queue from dead where queue is not null
union select queue from reveille.held_jobs()
union select name from reveille.queues
union select unnest(queues) from reveille.workers
union
select queue from counted
-- Most queues with counters have jobs, too. Their counters are not read.
where queue in (select queue from waiting) or exists (
    select from reveille.counters
    where counters.queue = counted.queue and counters.started_at > now() - interval '1 day'
);
comment on view reveille.known_queues is
    'Each queue that has jobs, blocked jobs, dead jobs, settings or a worker, or had an ended attempt within a day.';

create or replace view reveille.queue_stats as
with known as materialized (
    select queue from reveille.known_queues
),
-- Up to this number, the jobs of a queue are counted one by one. All queues together take at most 100,000 steps, or 100
-- for each queue.
exact as materialized (
    select least(10000, greatest(100, 100000 / greatest(count(*), 1))) as jobs from known
),
planner as materialized (
    -- The shares of the most common queues, and the mean share of the other queues.
    select
        expected.jobs as waiting, expected.due_share, common.queues, common.shares, common.other_share
    from reveille.expected_waiting() as expected
    left join lateral (
        select
            stats.most_common_vals::text::text[] as queues, stats.most_common_freqs as shares,
            greatest(0, 1 - coalesce((select sum(share) from unnest(stats.most_common_freqs) as share), 0))
                / greatest(
                    (select count(*) from known) - coalesce(cardinality(stats.most_common_freqs), 0), 1
                ) as other_share
        from pg_catalog.pg_stats as stats
        where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'queue'
    ) as common on true
)
select
    known.queue,
    coalesce(settings.paused_at is not null, false) as paused,
    case
        when ready.counted <= exact.jobs then ready.counted
        when delayed.counted <= exact.jobs then greatest(ready.counted, planned.waiting::bigint - delayed.counted)
        else greatest(ready.counted, (planned.waiting * planned.due_share)::bigint)
    end as ready,
    case
        when delayed.counted <= exact.jobs then delayed.counted
        when ready.counted <= exact.jobs then greatest(delayed.counted, planned.waiting::bigint - ready.counted)
        else greatest(delayed.counted, (planned.waiting * (1 - planned.due_share))::bigint)
    end as delayed,
    coalesce((counts.running ->> known.queue)::bigint, 0) as running,
    coalesce((counts.dead ->> known.queue)::bigint, 0) as dead,
    ready.counted > exact.jobs or delayed.counted > exact.jobs as estimated,
    oldest.ready_age as oldest_ready_age,
    coalesce((counts.recent -> known.queue ->> 0)::bigint, 0) as completed_last_minute,
    coalesce((counts.recent -> known.queue ->> 1)::bigint, 0) as failed_last_minute,
    parked.counted as parked,
    blocked.counted as blocked
-- The condition on the length only makes the planner expect one queue. It removes no row, because constraints give each
-- name 1 to 128 characters.
from (
    select queue from known where length(queue) between 1 and 128
) as known
cross join exact
cross join (
    select
        (select jsonb_object_agg(queue, jobs) from (
            select queue, count(*) as jobs from reveille.held_jobs() group by queue
        ) as a_queue) as running,
        (select jsonb_object_agg(queue, jobs) from (
            select queue, sum(jobs) as jobs from reveille.dead_groups() group by queue
        ) as a_queue) as dead,
        -- The counters of all queues are read at once. For one queue at a time, the planner may choose the index by
        -- time, and read the counters of all queues once for each queue.
        (select jsonb_object_agg(queue, jsonb_build_array(completed, failed)) from (
            select queue, sum(completed) as completed, sum(failed) as failed
            from reveille.counters
            where started_at > now() - interval '70 seconds' and worker <> 0
            group by queue
        ) as a_queue) as recent
) as counts
left join reveille.queues as settings on settings.name = known.queue
-- The count goes level by level, so that it reads only the rows of one queue, in the order of the claim index. The
-- `order by` keeps the planner from using another index.
cross join lateral (
    select count(*) as counted
    from (
        select from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
        cross join lateral (
            select from reveille.jobs
            where jobs.queue = known.queue and jobs.priority = level.priority
                and jobs.reserved_at is null and jobs.paused_by is null and jobs.available_at <= now()
            order by jobs.available_at
            limit 10001
        ) as due
        limit (select jobs + 1 from exact)
    ) as bounded
) as ready
cross join lateral (
    select count(*) as counted
    from (
        select from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
        cross join lateral (
            select from reveille.jobs
            where jobs.queue = known.queue and jobs.priority = level.priority
                and jobs.reserved_at is null and jobs.paused_by is null and jobs.available_at > now()
            order by jobs.available_at
            limit 10001
        ) as later
        limit (select jobs + 1 from exact)
    ) as bounded
) as delayed
left join lateral (
    select
        planner.waiting
            * coalesce(planner.shares[array_position(planner.queues, known.queue)], planner.other_share, 0) as waiting,
        planner.due_share
    from planner
    where ready.counted > exact.jobs or delayed.counted > exact.jobs
) as planned on true
cross join lateral (
    -- An infinite due time has no age.
    select now() - nullif(min(first.available_at), '-infinity') as ready_age
    from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
    cross join lateral (
        select jobs.available_at from reveille.jobs
        where jobs.queue = known.queue and jobs.priority = level.priority
            and jobs.reserved_at is null and jobs.paused_by is null and jobs.available_at <= now()
        order by jobs.available_at limit 1
    ) as first
) as oldest
cross join lateral (
    select count(*) as counted
    from (
        select from reveille.jobs
        where jobs.queue = known.queue and jobs.paused_by is not null
        order by jobs.queue, jobs.paused_by, jobs.id
        limit 10000
    ) as bounded
) as parked
cross join lateral (
    select count(*) as counted
    from (
        select from reveille.blocked_jobs
        where blocked_jobs.queue = known.queue
        order by blocked_jobs.queue, blocked_jobs.id
        limit 10000
    ) as bounded
) as blocked;
comment on column reveille.queue_stats.blocked is
    'The number of blocked jobs, counted up to 10,000: they wait for the ends of other jobs.';
