-- The views: what people, the command and dashboards read. Cheap at any size: counts are bounded by 10,000 a queue,
-- the rest is index probes and the counters kept by the workers.

-- Each queue that something is known of. A loose index scan: one probe a queue, however many jobs it has.
create view reveille.known_queues as
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
)
select queue from waiting where queue is not null
union select queue from dead where queue is not null
union select queue from reveille.jobs where reserved_at is not null
union select name from reveille.queues
union select unnest(queues) from reveille.workers
union select queue from reveille.counters where started_at > now() - interval '1 day';
comment on view reveille.known_queues is 'Each queue that has jobs, dead jobs, settings, a worker, or had an ended attempt within a day.';

create view reveille.queue_stats as
select
    known.queue,
    coalesce(settings.paused_at is not null, false) as paused,
    case
        when ready.counted <= 10000 then ready.counted
        when delayed.counted <= 10000 then greatest(ready.counted, planner.waiting::bigint - delayed.counted)
        else greatest(ready.counted, (planner.waiting * planner.due_share)::bigint)
    end as ready,
    case
        when delayed.counted <= 10000 then delayed.counted
        when ready.counted <= 10000 then greatest(delayed.counted, planner.waiting::bigint - ready.counted)
        else greatest(delayed.counted, (planner.waiting * (1 - planner.due_share))::bigint)
    end as delayed,
    running.counted as running,
    dead.counted as dead,
    ready.counted > 10000 or delayed.counted > 10000 as estimated,
    oldest.ready_age as oldest_ready_age,
    recent.completed as completed_last_minute,
    recent.failed as failed_last_minute
from reveille.known_queues as known
left join reveille.queues as settings on settings.name = known.queue
cross join lateral (
    select count(*) as counted
    from (
        select from reveille.jobs
        where jobs.queue = known.queue and jobs.reserved_at is null and jobs.available_at <= now()
        limit 10001
    ) as bounded
) as ready
cross join lateral (
    select count(*) as counted
    from (
        select from reveille.jobs
        where jobs.queue = known.queue and jobs.reserved_at is null and jobs.available_at > now()
        limit 10001
    ) as bounded
) as delayed
left join lateral (
    -- From the planner's statistics: rows in the claim index, times the share of this queue, times the share that is due.
    select
        (select reltuples from pg_catalog.pg_class where oid = 'reveille.jobs_claim'::regclass) * coalesce((
            select stats.most_common_freqs[array_position(stats.most_common_vals::text::text[], known.queue)]
            from pg_catalog.pg_stats as stats
            where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'queue'
        ), 0) as waiting,
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
    where ready.counted > 10000 or delayed.counted > 10000
) as planner on true
cross join lateral (
    select count(*) as counted from reveille.jobs where jobs.reserved_at is not null and jobs.queue = known.queue
) as running
cross join lateral (
    select count(*) as counted from reveille.dead_jobs where dead_jobs.queue = known.queue
) as dead
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
comment on view reveille.queue_stats is
    'A row a queue. ready and delayed are exact up to 10,000; above that they are estimates and estimated is true. '
    'The counts of the last minute cover the last 60 to 70 seconds.';
comment on column reveille.queue_stats.queue is 'The queue.';
comment on column reveille.queue_stats.paused is 'Whether it is paused.';
comment on column reveille.queue_stats.ready is 'Jobs that could start now.';
comment on column reveille.queue_stats.delayed is 'Jobs whose time has not come, retries among them.';
comment on column reveille.queue_stats.running is 'Jobs that a worker holds.';
comment on column reveille.queue_stats.dead is 'Its dead jobs.';
comment on column reveille.queue_stats.estimated is 'Whether ready or delayed is an estimate.';
comment on column reveille.queue_stats.oldest_ready_age is 'How long the oldest ready job has been due.';
comment on column reveille.queue_stats.completed_last_minute is 'Jobs completed in the last minute.';
comment on column reveille.queue_stats.failed_last_minute is 'Attempts failed in the last minute.';

create view reveille.running_jobs as
select
    jobs.id, jobs.queue, jobs.kind, jobs.attempts as attempt, jobs.reserved_by as worker, workers.host,
    now() - jobs.reserved_at as running_for
from reveille.jobs
left join reveille.workers on workers.id = jobs.reserved_by
where jobs.reserved_at is not null;
comment on view reveille.running_jobs is 'The jobs that workers hold right now.';
comment on column reveille.running_jobs.host is 'Null if the worker is gone: the job will be put back.';

create view reveille.failing_jobs as
select
    id, queue, kind, attempts, failures, max_attempts,
    errors -> -1 ->> 'error' as last_error,
    (errors -> -1 ->> 'at')::timestamptz as last_failed_at,
    available_at as next_try_at,
    reserved_at is not null as running
from reveille.jobs
where failures > 0;
comment on view reveille.failing_jobs is 'Live jobs with at least one failure, their last error and next try.';
comment on column reveille.failing_jobs.next_try_at is 'When it is tried again.';

create view reveille.dead_jobs_overview as
select
    grouped.queue, grouped.kind, grouped.reason, grouped.jobs, grouped.first_died_at, grouped.last_died_at,
    last.id as last_id, last.error as last_error
from (
    select queue, kind, reason, count(*) as jobs, min(finished_at) as first_died_at, max(finished_at) as last_died_at
    from reveille.dead_jobs
    group by queue, kind, reason
) as grouped
left join lateral (
    select dead_jobs.id, dead_jobs.errors -> -1 ->> 'error' as error
    from reveille.dead_jobs
    where dead_jobs.queue = grouped.queue and dead_jobs.kind = grouped.kind and dead_jobs.reason = grouped.reason
    order by dead_jobs.finished_at desc
    limit 1
) as last on true;
comment on view reveille.dead_jobs_overview is 'Dead jobs by queue, kind and reason, with the latest of each.';

create view reveille.worker_status as
select
    workers.id as worker, workers.host, workers.pid, workers.queues,
    (select count(*) from reveille.jobs where jobs.reserved_at is not null and jobs.reserved_by = workers.id) as running,
    workers.slots, workers.started_at, workers.last_seen_at as last_seen,
    workers.last_seen_at > clock_timestamp() - interval '30 seconds' as alive,
    workers.stopping, workers.version
from reveille.workers;
comment on view reveille.worker_status is 'A row a worker process.';
comment on column reveille.worker_status.alive is 'Whether it has been seen within 30 seconds.';

create view reveille.throughput as
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
group by queue, date_trunc('minute', started_at);
comment on view reveille.throughput is
    'A row a queue and minute of the last 7 days: attempts completed and failed, and how long they waited (from being due) and ran.';
