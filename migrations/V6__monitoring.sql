-- The views at full scale, and totals that only grow, for metrics.
--
-- What made queue_stats slow: a scan of all of a queue to count the fewer of its ready and delayed jobs, of all that is reserved for
-- each queue, and of the planner's statistics for each large queue. It is to hold for whoever asks, in a session that is set as it may
-- be, and whether or not the tables were vacuumed of late: so the plan is made the only good one, by asking in an index's order, and
-- so cheap by the planner's reckoning that it does not think of JIT, which compiles for a second what runs for a millisecond.

-- For what is not folded yet, however many days are. A worker's updates of its row touch none of these columns.
create index counters_by_workers on reveille.counters (started_at, queue) where worker <> 0;

create table reveille.totals (
    queue               text        primary key,
    completed           bigint      not null default 0,
    failed              bigint      not null default 0,
    wait_seconds        numeric     not null default 0,
    run_seconds         numeric     not null default 0
) with (fillfactor = 50);
comment on table reveille.totals is
    'Ended attempts of a queue since ever, but for those that reveille.counters has in rows of workers; see the view reveille.queue_totals.';
comment on column reveille.totals.queue is 'The queue.';
comment on column reveille.totals.completed is 'Completed jobs.';
comment on column reveille.totals.failed is 'Failed attempts.';
comment on column reveille.totals.wait_seconds is 'Sum of the times from being due to being started. Numeric: a sum that comes out smaller in another order is a counter that falls.';
comment on column reveille.totals.run_seconds is 'Sum of the run times.';

-- A trigger, so that upkeep of any version keeps them; with its owner's rights, so that no role need be granted the table.
create function reveille.keep_totals() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    insert into reveille.totals as totals (queue, completed, failed, wait_seconds, run_seconds)
    select
        queue, sum(completed), sum(failed), sum(round(wait_seconds::numeric, 6)), sum(round(run_seconds::numeric, 6))
    from deleted
    where worker <> 0
    group by queue
    order by queue
    on conflict (queue) do update
    set completed = totals.completed + excluded.completed,
        failed = totals.failed + excluded.failed,
        wait_seconds = totals.wait_seconds + excluded.wait_seconds,
        run_seconds = totals.run_seconds + excluded.run_seconds;
    return null;
end
$$;
comment on function reveille.keep_totals() is 'Adds the rows of workers that are removed from reveille.counters to reveille.totals.';

create trigger keep_totals after delete on reveille.counters
    referencing old table as deleted
    for each statement execute function reveille.keep_totals();

create view reveille.queue_totals as
select
    queue, sum(completed)::bigint as completed, sum(failed)::bigint as failed,
    sum(wait_seconds) as wait_seconds, sum(run_seconds) as run_seconds
from (
    select queue, completed, failed, wait_seconds, run_seconds from reveille.totals
    union all
    select queue, completed, failed, round(wait_seconds::numeric, 6), round(run_seconds::numeric, 6)
    from reveille.counters
    where worker <> 0
) as parts
group by queue;
comment on view reveille.queue_totals is
    'A row a queue: attempts ended since ever. Only grows: what is folded and forgotten in reveille.counters stays in it.';
comment on column reveille.queue_totals.queue is 'The queue.';
comment on column reveille.queue_totals.completed is 'Completed jobs.';
comment on column reveille.queue_totals.failed is 'Failed attempts.';
comment on column reveille.queue_totals.wait_seconds is 'Sum of the times from being due to being started.';
comment on column reveille.queue_totals.run_seconds is 'Sum of the run times.';

create or replace view reveille.known_queues as
with recursive waiting as (
    (select queue from reveille.jobs where reserved_at is null order by queue limit 1)
    union all
    select (
        select jobs.queue from reveille.jobs
        where jobs.reserved_at is null and jobs.queue > waiting.queue order by jobs.queue limit 1
    )
    from waiting
    where waiting.queue is not null
),
dead as (
    (select queue from reveille.dead_jobs order by queue limit 1)
    union all
    select (select dead_jobs.queue from reveille.dead_jobs where dead_jobs.queue > dead.queue order by dead_jobs.queue limit 1)
    from dead
    where dead.queue is not null
),
counted as (
    (select queue from reveille.counters order by queue limit 1)
    union all
    select (select counters.queue from reveille.counters where counters.queue > counted.queue order by counters.queue limit 1)
    from counted
    where counted.queue is not null
)
select queue from waiting where queue is not null
union select queue from dead where queue is not null
union select queue from reveille.jobs where reserved_at is not null
union select name from reveille.queues
union select unnest(queues) from reveille.workers
union
select queue from counted
where exists (
    select from reveille.counters where counters.queue = counted.queue and counters.started_at > now() - interval '1 day'
);

create or replace view reveille.queue_stats as
with planner as materialized (
    -- The planner's statistics: rows in the claim index, the shares of the commonest queues, the share that is due.
    select
        (select reltuples from pg_catalog.pg_class where oid = 'reveille.jobs_claim'::regclass) as waiting,
        common.queues, common.shares,
        coalesce((
            select coalesce(common.due, 0) + (1 - coalesce(common.share, 0)) * coalesce(others.due, 0.5)
            from pg_catalog.pg_stats as stats
            cross join lateral (
                select sum(freq) as share, sum(freq) filter (where val <= now()) as due
                from unnest(stats.most_common_vals::text::timestamptz[], stats.most_common_freqs) as mcv (val, freq)
            ) as common
            cross join lateral (
                select avg((bound <= now())::int) as due from unnest(stats.histogram_bounds::text::timestamptz[]) as bound
            ) as others
            where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'available_at'
        ), 0.5) as due_share
    from (values (true)) as always (one)
    left join lateral (
        select stats.most_common_vals::text::text[] as queues, stats.most_common_freqs as shares
        from pg_catalog.pg_stats as stats
        where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'queue'
    ) as common on true
)
select
    known.queue,
    coalesce(settings.paused_at is not null, false) as paused,
    case
        when ready.counted <= 10000 then ready.counted
        when delayed.counted <= 10000 then greatest(ready.counted, planned.waiting::bigint - delayed.counted)
        else greatest(ready.counted, (planned.waiting * planned.due_share)::bigint)
    end as ready,
    case
        when delayed.counted <= 10000 then delayed.counted
        when ready.counted <= 10000 then greatest(delayed.counted, planned.waiting::bigint - ready.counted)
        else greatest(delayed.counted, (planned.waiting * (1 - planned.due_share))::bigint)
    end as delayed,
    coalesce((counts.running ->> known.queue)::bigint, 0) as running,
    coalesce((counts.dead ->> known.queue)::bigint, 0) as dead,
    ready.counted > 10000 or delayed.counted > 10000 as estimated,
    oldest.ready_age as oldest_ready_age,
    recent.completed as completed_last_minute,
    recent.failed as failed_last_minute
-- That each name has 1 to 128 characters says a constraint; said here, it has the planner expect a single queue.
from (
    select queue from unnest(array(select queue from reveille.known_queues)) as listed (queue)
    where length(queue) between 1 and 128
) as known
cross join (
    select
        (select jsonb_object_agg(queue, jobs) from (
            select queue, count(*) as jobs from reveille.jobs where reserved_at is not null group by queue
        ) as a_queue) as running,
        (select jsonb_object_agg(queue, jobs) from (
            select queue, count(*) as jobs from reveille.dead_jobs group by queue
        ) as a_queue) as dead
) as counts
left join reveille.queues as settings on settings.name = known.queue
-- Level by level, so that nothing is passed over; in the order of the claims' index, so that no other is thought of.
cross join lateral (
    select count(*) as counted
    from (
        select from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
        cross join lateral (
            select from reveille.jobs
            where jobs.queue = known.queue and jobs.priority = level.priority
                and jobs.reserved_at is null and jobs.available_at <= now()
            order by jobs.available_at
            limit 10001
        ) as due
        limit 10001
    ) as bounded
) as ready
cross join lateral (
    select count(*) as counted
    from (
        select from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
        cross join lateral (
            select from reveille.jobs
            where jobs.queue = known.queue and jobs.priority = level.priority
                and jobs.reserved_at is null and jobs.available_at > now()
            order by jobs.available_at
            limit 10001
        ) as later
        limit 10001
    ) as bounded
) as delayed
left join lateral (
    select
        planner.waiting * coalesce(planner.shares[array_position(planner.queues, known.queue)], 0) as waiting,
        planner.due_share
    from planner
    where ready.counted > 10000 or delayed.counted > 10000
) as planned on true
cross join lateral (
    select now() - min(first.available_at) as ready_age
    from (values (0::smallint), (1::smallint), (2::smallint), (3::smallint)) as level (priority)
    cross join lateral (
        select jobs.available_at from reveille.jobs
        where jobs.queue = known.queue and jobs.priority = level.priority
            and jobs.reserved_at is null and jobs.available_at <= now()
        order by jobs.available_at limit 1
    ) as first
) as oldest
cross join lateral (
    select coalesce(sum(completed), 0)::bigint as completed, coalesce(sum(failed), 0)::bigint as failed
    from reveille.counters
    where counters.queue = known.queue and counters.started_at > now() - interval '70 seconds' and counters.worker <> 0
) as recent;

-- Counting them reads the index alone, as far as vacuum has been there.
alter table reveille.dead_jobs set (autovacuum_vacuum_insert_scale_factor = 0.05);

-- What is folded is read as it is, and a condition on the minute finds its way to an index.
create or replace view reveille.throughput as
select
    queue, started_at as minute, completed, failed,
    wait_seconds / nullif(completed + failed, 0) as mean_wait_seconds,
    max_wait_seconds,
    run_seconds / nullif(completed + failed, 0) as mean_run_seconds,
    max_run_seconds
from reveille.counters
where worker = 0
union all
select
    queue,
    date_trunc('minute', started_at) as minute,
    sum(completed)::bigint as completed,
    sum(failed)::bigint as failed,
    sum(wait_seconds) / nullif(sum(completed + failed), 0) as mean_wait_seconds,
    max(max_wait_seconds) as max_wait_seconds,
    sum(run_seconds) / nullif(sum(completed + failed), 0) as mean_run_seconds,
    max(max_run_seconds) as max_run_seconds
from reveille.counters
where worker <> 0
group by queue, date_trunc('minute', started_at);
