-- Counters, functions of upkeep, and the views for people and monitors.

create table reveille.counters (
    queue            text             not null,
    started_at       timestamptz      not null,
    worker           bigint           not null,
    completed        bigint           not null default 0,
    failed           bigint           not null default 0,
    wait_seconds     double precision not null default 0,
    max_wait_seconds double precision not null default 0,
    run_seconds      double precision not null default 0,
    max_run_seconds  double precision not null default 0,
    primary key (queue, started_at, worker)
) with (fillfactor = 50);
create index counters_started_at on reveille.counters (started_at);
-- This index finds the counters of workers, which upkeep has not summed by minute yet. When a worker updates its row,
-- no column of the index changes, so the index does not slow the update down.
create index counters_by_workers on reveille.counters (started_at, queue) where worker <> 0;
comment on table reveille.counters is
    'The counts of ended attempts, made as the attempts are settled: one row per queue, worker and 10 seconds. After 5 '
    'minutes, upkeep sums these rows into one row per queue and minute (worker 0).';
comment on column reveille.counters.queue is 'The queue.';
comment on column reveille.counters.started_at is 'The start of the 10 seconds, or of the minute if worker is 0.';
comment on column reveille.counters.worker is
    'The worker that settled the attempts; no other worker writes the row. 0: all workers together.';
comment on column reveille.counters.completed is 'The number of completed jobs.';
comment on column reveille.counters.failed is 'The number of failed attempts.';
comment on column reveille.counters.wait_seconds is 'The sum of the times from the due time to the start.';
comment on column reveille.counters.max_wait_seconds is 'The longest time from the due time to the start.';
comment on column reveille.counters.run_seconds is 'The sum of the run times.';
comment on column reveille.counters.max_run_seconds is 'The longest run time.';

create table reveille.totals (
    queue        text    primary key,
    completed    bigint  not null default 0,
    failed       bigint  not null default 0,
    wait_seconds numeric not null default 0,
    run_seconds  numeric not null default 0
) with (fillfactor = 50);
comment on table reveille.totals is
    'The counts of all ended attempts of each queue, except the attempts that workers'' rows in reveille.counters '
    'still count; see the view reveille.queue_totals.';
comment on column reveille.totals.queue is 'The queue.';
comment on column reveille.totals.completed is 'The number of completed jobs.';
comment on column reveille.totals.failed is 'The number of failed attempts.';
comment on column reveille.totals.wait_seconds is
    'The sum of the times from the due time to the start. Numeric, since a floating-point sum depends on the order of '
    'its terms: it could fall when upkeep sums counters by minute, and a total must never fall.';
comment on column reveille.totals.run_seconds is 'The sum of the run times.';

-- This function adds deleted counters to the totals. It runs as a trigger, so that the totals are right even if a
-- worker of another version does the upkeep. The function runs with the rights of its owner, so that no role needs
-- rights on reveille.totals.
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
comment on function reveille.keep_totals() is
    'Adds the rows that are deleted from reveille.counters to reveille.totals. Leaves out the rows of worker 0, '
    'because the totals already contain their counts.';

create trigger keep_totals after delete on reveille.counters
    referencing old table as deleted
    for each statement execute function reveille.keep_totals();

create table reveille.kind_counters (
    queue        text             not null,
    kind         text             not null,
    started_at   timestamptz      not null,
    completed    bigint           not null,
    failed       bigint           not null,
    wait_seconds double precision not null,
    run_seconds  double precision not null,
    waits        bigint[]         not null,
    runs         bigint[]         not null,
    primary key (queue, kind, started_at)
) with (fillfactor = 50);
create index kind_counters_started_at on reveille.kind_counters (started_at);
comment on table reveille.kind_counters is
    'The counts of ended attempts by kind: one row per queue, kind and 10 minutes of the last 7 days, and one row for '
    'all times. Each worker adds its counts every 10 seconds. At most 200 pairs of a queue and a kind are counted; the '
    'other jobs of a queue count as the kind (other).';
comment on column reveille.kind_counters.queue is 'The queue.';
comment on column reveille.kind_counters.kind is 'The kind; (other): all kinds that have no row of their own.';
comment on column reveille.kind_counters.started_at is 'The start of the 10 minutes; -infinity: all times.';
comment on column reveille.kind_counters.completed is 'The number of completed jobs.';
comment on column reveille.kind_counters.failed is 'The number of failed attempts.';
comment on column reveille.kind_counters.wait_seconds is 'The sum of the times from the due time to the start.';
comment on column reveille.kind_counters.run_seconds is 'The sum of the run times.';
comment on column reveille.kind_counters.waits is
    'The number of attempts by their time from the due time to the start: one number for each bucket of '
    'reveille.histogram_bounds(), and one for longer times.';
comment on column reveille.kind_counters.runs is 'The number of attempts by their run time, in the same buckets.';

create function reveille.histogram_bounds() returns double precision[]
    language sql immutable parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select '{0.001,0.0025,0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,300,1800}'::double precision[]
$$;
comment on function reveille.histogram_bounds() is
    'Returns the upper bounds of the buckets of the histograms of times, in seconds.';

create function reveille.sum_of_histograms(one bigint[], other bigint[]) returns bigint[]
    language sql immutable parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select array_agg(coalesce(a, 0) + coalesce(b, 0) order by bucket)
    from unnest(one, other) with ordinality as counts (a, b, bucket)
$$;
comment on function reveille.sum_of_histograms(bigint[], bigint[]) is 'Adds two histograms bucket by bucket.';

-- Within a bucket, the times are taken to be spread evenly, as by histogram_quantile in Prometheus. The last bucket has
-- no upper bound, so a quantile in this bucket is the last bound.
create function reveille.histogram_quantile(counts bigint[], quantile double precision) returns double precision
    language sql immutable parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select lower + (coalesce(upper, lower) - lower) * (wanted - (up_to - count)) / count
    from (
        select
            coalesce((reveille.histogram_bounds())[bucket - 1], 0) as lower,
            (reveille.histogram_bounds())[bucket] as upper, count,
            sum(count) over (order by bucket) as up_to, quantile * sum(count) over () as wanted, bucket
        from unnest(counts) with ordinality as buckets (count, bucket)
    ) as buckets
    where count > 0 and up_to >= wanted
    order by bucket
    limit 1
$$;
comment on function reveille.histogram_quantile(bigint[], double precision) is
    'Estimates a quantile of a histogram in seconds, such as 0.95; null if the histogram is empty. Times above the '
    'last bound count as that bound.';

-- This function runs with the rights of its owner, since a worker's role may not analyze a table by itself.
create function reveille.analyze_unknown_tables() returns int
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    unknown text;
    analyzed int := 0;
begin
    for unknown in
        select format('%I.%I', nspname, relname)
        from pg_class
        join pg_namespace on pg_namespace.oid = relnamespace
        where pg_class.oid in ('reveille.jobs'::regclass, 'reveille.dead_jobs'::regclass)
            and pg_relation_size(pg_class.oid) > 1000000
            and not exists (select from pg_statistic where starelid = pg_class.oid)
    loop
        execute 'analyze (skip_locked) ' || unknown;
        analyzed := analyzed + 1;
    end loop;
    return analyzed;
end
$$;
comment on function reveille.analyze_unknown_tables() is
    'Analyzes the tables of live and dead jobs if they are large and have no statistics. Returns the number of tables '
    'analyzed. Workers call it.';

-- Each call truncates the partition of one day, so that one partition at a time is locked. The function runs with the
-- rights of its owner, since a worker's role may not truncate a partition by itself.
create function reveille.truncate_finished_jobs() returns int
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '100ms'
as $$
declare
    today constant int := extract(epoch from now())::bigint / 86400;
    longest interval;
    kept_days int;
begin
    select greatest(max(coalesce(retention, interval '1 day')), interval '1 day') into longest from reveille.queues;
    kept_days := ceil(extract(epoch from coalesce(longest, interval '1 day')) / 86400);
    for age in kept_days + 1 .. 31 loop
        declare
            partition constant text := format('reveille.finished_jobs_%s', (today - age + 32) % 32);
        begin
            if pg_relation_size(partition) > 0 then
                execute 'truncate ' || partition;
                return 1;
            end if;
        exception when lock_not_available then
            null; -- Another session has locked the partition, so a later call truncates it.
        end;
    end loop;
    return 0;
end
$$;
comment on function reveille.truncate_finished_jobs() is
    'Empties one daily partition that is past the longest retention. Returns the number of emptied partitions: 1 or '
    '0. Workers call it.';

-- The views read running and dead jobs by the functions held_jobs and dead_groups, which set the planner to use an
-- index: without statistics, the planner would read a table of millions of dead rows for the few running jobs. A view
-- itself cannot set the planner, since it runs with the settings of the session that reads the view.
--
-- A view reads its tables with the rights of the view's owner, but calls functions with the rights of the role that
-- reads the view. For this reason the two functions run with the rights of their own owner, and any role can call them.
-- They check with reads_any that the caller may read one of the views. Inside these functions the current user is the
-- owner. Therefore reads_any takes as the caller the role that is set (`set role`), or else the session's user.
create function reveille.reads_any(variadic relations text[]) returns boolean
    language sql stable
    set search_path = pg_catalog, pg_temp
as $$
    select bool_or(has_table_privilege(
        coalesce(nullif(current_setting('role'), 'none'), session_user::text)::name, relation::regclass, 'select'
    ))
    from unnest(relations) as relation
$$;
comment on function reveille.reads_any(text[]) is 'Returns true if the caller may read one of these tables or views.';

create function reveille.held_jobs(
    out id bigint, out queue text, out kind text, out attempt int, out worker bigint, out reserved_at timestamptz,
    out cancel_requested_at timestamptz
) returns setof record
    language plpgsql stable security definer rows 100
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_sort = off
    set jit = off
as $$
#variable_conflict use_column
begin
    if not reveille.reads_any(
        'reveille.jobs', 'reveille.known_queues', 'reveille.queue_stats', 'reveille.running_jobs',
        'reveille.worker_status'
    ) then
        raise exception 'permission denied for view running_jobs' using errcode = 'insufficient_privilege';
    end if;
    return query
        select
            jobs.id, jobs.queue, jobs.kind, jobs.attempts, jobs.reserved_by, jobs.reserved_at,
            jobs.cancel_requested_at
        from reveille.jobs
        where jobs.reserved_at is not null
        order by jobs.reserved_by;
end
$$;
comment on function reveille.held_jobs() is
    'Returns the jobs that workers hold, for the views. See reveille.running_jobs.';

create function reveille.dead_groups(
    out queue text, out kind text, out reason text, out jobs bigint, out first_died_at timestamptz,
    out last_died_at timestamptz
) returns setof record
    language plpgsql stable security definer rows 100
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_sort = off
    set enable_hashagg = off
    set jit = off
as $$
#variable_conflict use_column
begin
    if not reveille.reads_any('reveille.dead_jobs', 'reveille.queue_stats', 'reveille.dead_jobs_overview') then
        raise exception 'permission denied for view dead_jobs_overview' using errcode = 'insufficient_privilege';
    end if;
    return query
        select dead.queue, dead.kind, dead.reason, count(*), min(dead.finished_at), max(dead.finished_at)
        from reveille.dead_jobs as dead
        group by dead.queue, dead.kind, dead.reason
        order by dead.queue, dead.kind, dead.reason;
end
$$;
comment on function reveille.dead_groups() is
    'Returns the number of dead jobs by queue, kind and reason, for the views. See reveille.dead_jobs_overview.';

create view reveille.known_queues as
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
union select queue from dead where queue is not null
union select queue from reveille.held_jobs()
union select name from reveille.queues
union select unnest(queues) from reveille.workers
union
select queue from counted
where exists (
    select from reveille.counters
    where counters.queue = counted.queue and counters.started_at > now() - interval '1 day'
);
comment on view reveille.known_queues is
    'Each queue that has jobs, dead jobs, settings or a worker, or had an ended attempt within a day.';
comment on column reveille.known_queues.queue is 'The queue.';

create view reveille.queue_stats as
with known as materialized (
    select queue from reveille.known_queues
),
-- Up to this number, the jobs of a queue are counted one by one. All queues together take at most 100,000 steps, or 100
-- for each queue.
exact as materialized (
    select least(10000, greatest(100, 100000 / greatest(count(*), 1))) as jobs from known
),
planner as materialized (
    -- This query reads four things from the planner's statistics: the number of rows in the claim index, the shares of
    -- the most common queues, the mean share of the other queues, and the share of due jobs.
    select
        (select reltuples from pg_catalog.pg_class where oid = 'reveille.jobs_claim'::regclass) as waiting,
        common.queues, common.shares, common.other_share,
        coalesce((
            select coalesce(common.due, 0) + (1 - coalesce(common.share, 0)) * coalesce(others.due, 0.5)
            from pg_catalog.pg_stats as stats
            cross join lateral (
                select sum(freq) as share, sum(freq) filter (where val <= now()) as due
                from unnest(stats.most_common_vals::text::timestamptz[], stats.most_common_freqs) as mcv (val, freq)
            ) as common
            cross join lateral (
                select avg((bound <= now())::int) as due
                from unnest(stats.histogram_bounds::text::timestamptz[]) as bound
            ) as others
            where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'available_at'
        ), 0.5) as due_share
    from (values (true)) as always (one)
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
    recent.completed as completed_last_minute,
    recent.failed as failed_last_minute,
    parked.counted as parked
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
        ) as a_queue) as dead
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
    select coalesce(sum(completed), 0)::bigint as completed, coalesce(sum(failed), 0)::bigint as failed
    from reveille.counters
    where counters.queue = known.queue and counters.started_at > now() - interval '70 seconds' and counters.worker <> 0
) as recent
cross join lateral (
    select count(*) as counted
    from (
        select from reveille.jobs
        where jobs.queue = known.queue and jobs.paused_by is not null
        order by jobs.queue, jobs.paused_by, jobs.id
        limit 10000
    ) as bounded
) as parked;
comment on view reveille.queue_stats is
    'One row per queue. The counts `ready` and `delayed` are exact up to 10,000; above that they are estimates, and '
    '`estimated` is true. With more than 10 queues they are exact up to 100,000 divided by their number. The counts '
    'of the last minute cover the last 60 to 70 seconds.';
comment on column reveille.queue_stats.queue is 'The queue.';
comment on column reveille.queue_stats.paused is 'True if the queue is paused.';
comment on column reveille.queue_stats.ready is 'The number of due jobs that wait.';
comment on column reveille.queue_stats.delayed is 'The number of jobs that are not due yet, including retries.';
comment on column reveille.queue_stats.running is 'The number of jobs that workers hold.';
comment on column reveille.queue_stats.dead is 'The number of dead jobs.';
comment on column reveille.queue_stats.estimated is 'True if `ready` or `delayed` is an estimate.';
comment on column reveille.queue_stats.oldest_ready_age is 'The time for which the oldest ready job has been due.';
comment on column reveille.queue_stats.completed_last_minute is 'The number of jobs completed in the last minute.';
comment on column reveille.queue_stats.failed_last_minute is 'The number of attempts that failed in the last minute.';
comment on column reveille.queue_stats.parked is
    'The number of parked jobs, counted up to 10,000: due jobs that a pause of their kind or key keeps from starting. '
    'They are not counted as `ready` or `delayed`.';

create view reveille.running_jobs as
select
    held.id, held.queue, held.kind, held.attempt, held.worker, workers.host,
    now() - case when isfinite(held.reserved_at) then held.reserved_at end as running_for,
    held.cancel_requested_at,
    workers.stuck_since[array_position(workers.stuck_jobs, held.id)] as stuck_since
from reveille.held_jobs() as held
left join reveille.workers on workers.id = held.worker;
comment on view reveille.running_jobs is 'The jobs that workers hold right now.';
comment on column reveille.running_jobs.id is 'The job.';
comment on column reveille.running_jobs.queue is 'The queue.';
comment on column reveille.running_jobs.kind is 'The kind.';
comment on column reveille.running_jobs.attempt is 'The number of the attempt.';
comment on column reveille.running_jobs.worker is 'The worker that holds the job.';
comment on column reveille.running_jobs.host is
    'The host of the worker; null if the worker''s row is gone: a rescue will take the job back.';
comment on column reveille.running_jobs.running_for is 'The time for which the worker has held the job.';
comment on column reveille.running_jobs.cancel_requested_at is
    'The time at which reveille.cancel asked the handler to stop.';
comment on column reveille.running_jobs.stuck_since is
    'The time at which the handler was asked to stop, by a cancel, its timeout or its worker; null unless the job is '
    'stuck.';

create view reveille.waiting_jobs as
select
    id, queue, kind, priority, attempts, failures, max_attempts, available_at, created_at,
    available_at <= now() as ready
from reveille.jobs
where reserved_at is null and paused_by is null;
comment on view reveille.waiting_jobs is
    'The jobs that wait, ready and delayed, without the parked jobs. Give a query a `limit`. An index has the jobs of '
    'each queue and priority in the order of `available_at`.';
comment on column reveille.waiting_jobs.id is 'The job.';
comment on column reveille.waiting_jobs.queue is 'The queue.';
comment on column reveille.waiting_jobs.kind is 'The kind.';
comment on column reveille.waiting_jobs.priority is
    '0 urgent, 1 high, 2 normal, 3 low; jobs with the lowest number start first.';
comment on column reveille.waiting_jobs.attempts is 'The number of times the job has been reserved.';
comment on column reveille.waiting_jobs.failures is 'The number of failed attempts.';
comment on column reveille.waiting_jobs.max_attempts is 'The number of failures at which the job becomes a dead job.';
comment on column reveille.waiting_jobs.available_at is 'The due time.';
comment on column reveille.waiting_jobs.created_at is 'The start of the transaction that enqueued the job.';
comment on column reveille.waiting_jobs.ready is 'True if the job is due, false if it is delayed.';

create view reveille.job_list as
select
    id, queue, kind, priority, attempts, failures, max_attempts, reserved_at, reserved_by, available_at, created_at,
    cancel_requested_at, unique_key, unique_until, key, timeout, tags, errors, parent_id, schedule_id, paused_by
from reveille.jobs;
comment on view reveille.job_list is
    'The columns of reveille.jobs without the payload, the metadata and the progress, for roles that may not read '
    'these. Give a query a `limit`.';

create view reveille.dead_job_list as
select
    id, queue, kind, priority, attempts, failures, max_attempts, available_at, created_at, unique_key, unique_until,
    key, timeout, tags, errors, parent_id, schedule_id, reason, worker, wait_seconds, run_seconds, finished_at
from reveille.dead_jobs;
comment on view reveille.dead_job_list is
    'The columns of reveille.dead_jobs without the payload, the metadata and the progress. Give a query a `limit`.';

create view reveille.finished_job_list as
select
    day, id, queue, kind, priority, attempts, failures, max_attempts, available_at, created_at, key, tags, errors,
    parent_id, schedule_id, outcome, worker, wait_seconds, run_seconds, finished_at
from reveille.finished_jobs;
comment on view reveille.finished_job_list is
    'The columns of reveille.finished_jobs without the payload, the metadata, the progress and the result. Give a '
    'query a `limit`.';
create view reveille.pause_status as
with recursive parked as (
    (select queue from reveille.jobs where paused_by is not null order by queue limit 1)
    union all
    select (
        select jobs.queue from reveille.jobs
        where jobs.paused_by is not null and jobs.queue > parked.queue order by jobs.queue limit 1
    )
    from parked
    where parked.queue is not null
)
select
    pauses.queue, pauses.kind, pauses.key, pauses.paused_at, pauses.id,
    -- The counts of more pauses would take too long.
    case when pauses.place <= 100 then (
        select count(*)
        from (
            select
            from (
                select pauses.queue where pauses.queue is not null
                union all
                select parked.queue from parked where pauses.queue is null
            ) as paused
            cross join lateral (
                select from reveille.jobs
                where jobs.queue = paused.queue and jobs.paused_by = pauses.id
                order by jobs.queue, jobs.paused_by, jobs.id
                limit 10000
            ) as of_queue
            limit 10000
        ) as bounded
    ) end as parked
from (
    select *, row_number() over (order by pauses.paused_at desc, pauses.id desc) as place from reveille.pauses
) as pauses
union all
select name, null, null, paused_at, null, null from reveille.queues where paused_at is not null;
comment on view reveille.pause_status is 'One row per pause: of a queue, a kind, a key, or a kind and a key.';
comment on column reveille.pause_status.queue is 'The queue; null: the pause covers all queues.';
comment on column reveille.pause_status.kind is 'The kind; null: the pause covers all kinds.';
comment on column reveille.pause_status.key is 'The key; null: the pause covers all keys, and jobs without a key.';
comment on column reveille.pause_status.paused_at is 'The time at which the pause began.';
comment on column reveille.pause_status.id is
    'The pause, as in reveille.jobs.paused_by; null: a whole queue is paused.';
comment on column reveille.pause_status.parked is
    'The number of jobs that the pause keeps parked, counted up to 10,000. Null: the pause is older than the 100 '
    'latest, so it is not counted; or a whole queue is paused, so that no claim of it parks jobs.';

-- Each column of these views has the comment of its table's column.
do $$
declare
    listed record;
begin
    for listed in
        select
            attributes.attname as name, lists.list,
            col_description(lists.jobs::regclass, originals.attnum) as comment
        from (
            values
                ('reveille.job_list', 'reveille.jobs'), ('reveille.dead_job_list', 'reveille.dead_jobs'),
                ('reveille.finished_job_list', 'reveille.finished_jobs')
        ) as lists (list, jobs)
        join pg_attribute as attributes on attributes.attrelid = lists.list::regclass
        join pg_attribute as originals
            on originals.attrelid = lists.jobs::regclass and originals.attname = attributes.attname
        where attributes.attnum > 0
    loop
        execute format('comment on column %s.%I is %L', listed.list, listed.name, listed.comment);
    end loop;
end
$$;

create view reveille.failing_jobs as
select
    id, queue, kind, attempts, failures, max_attempts,
    errors -> -1 ->> 'error' as last_error,
    (errors -> -1 ->> 'at')::timestamptz as last_failed_at,
    available_at as next_try_at,
    reserved_at is not null as running
from reveille.jobs
where failures > 0;
comment on view reveille.failing_jobs is 'Live jobs with at least one failure, with their last error and next attempt.';
comment on column reveille.failing_jobs.id is 'The job.';
comment on column reveille.failing_jobs.queue is 'The queue.';
comment on column reveille.failing_jobs.kind is 'The kind.';
comment on column reveille.failing_jobs.attempts is 'The number of times the job has been reserved.';
comment on column reveille.failing_jobs.failures is 'The number of failed attempts.';
comment on column reveille.failing_jobs.max_attempts is 'The number of failures at which the job becomes a dead job.';
comment on column reveille.failing_jobs.last_error is 'The error of the last failed attempt.';
comment on column reveille.failing_jobs.last_failed_at is 'The time of the last failure.';
comment on column reveille.failing_jobs.next_try_at is 'The due time of the next attempt.';
comment on column reveille.failing_jobs.running is 'True if a worker holds the job.';

create view reveille.dead_jobs_overview as
select
    grouped.queue, grouped.kind, grouped.reason, grouped.jobs, grouped.first_died_at, grouped.last_died_at,
    last.id as last_id, last.error as last_error
from reveille.dead_groups() as grouped
left join lateral (
    select dead_jobs.id, dead_jobs.errors -> -1 ->> 'error' as error
    from reveille.dead_jobs
    where dead_jobs.queue = grouped.queue and dead_jobs.kind = grouped.kind and dead_jobs.reason = grouped.reason
    -- The `order by` names all columns of the index dead_jobs_by_kind, so that the planner uses no other index.
    order by dead_jobs.queue desc, dead_jobs.kind desc, dead_jobs.reason desc, dead_jobs.finished_at desc
    limit 1
) as last on true;
comment on view reveille.dead_jobs_overview is
    'Dead jobs by queue, kind and reason, with the latest dead job of each group.';
comment on column reveille.dead_jobs_overview.queue is 'The queue.';
comment on column reveille.dead_jobs_overview.kind is 'The kind.';
comment on column reveille.dead_jobs_overview.reason is 'The reason why the jobs are dead, as in reveille.dead_jobs.';
comment on column reveille.dead_jobs_overview.jobs is 'The number of dead jobs.';
comment on column reveille.dead_jobs_overview.first_died_at is
    'The time at which the first of these jobs became a dead job.';
comment on column reveille.dead_jobs_overview.last_died_at is
    'The time at which the last of these jobs became a dead job.';
comment on column reveille.dead_jobs_overview.last_id is 'The id of the job that became a dead job last.';
comment on column reveille.dead_jobs_overview.last_error is 'The last error of the job last_id.';

create view reveille.worker_status as
select
    workers.id as worker, workers.host, workers.pid, workers.queues,
    coalesce((
        (select jsonb_object_agg(worker, jobs) from (
            select worker, count(*) as jobs from reveille.held_jobs() group by worker
        ) as a_worker) ->> workers.id::text
    )::bigint, 0) as running,
    workers.slots, workers.started_at, workers.last_seen_at as last_seen,
    workers.last_seen_at > clock_timestamp() - interval '30 seconds' as alive,
    workers.stopping or workers.stop_requested_at is not null as stopping,
    workers.version,
    coalesce(cardinality(workers.stuck_jobs), 0) as stuck,
    workers.queue_slots
from reveille.workers;
comment on view reveille.worker_status is 'One row per worker process.';
comment on column reveille.worker_status.worker is 'The worker''s id.';
comment on column reveille.worker_status.host is 'The name of the worker''s host.';
comment on column reveille.worker_status.pid is 'The process id on that host.';
comment on column reveille.worker_status.queues is 'The queues that the worker works.';
comment on column reveille.worker_status.running is 'The number of jobs that the worker holds.';
comment on column reveille.worker_status.slots is 'The number of slots, all queues together.';
comment on column reveille.worker_status.started_at is 'The time at which the worker started.';
comment on column reveille.worker_status.last_seen is 'The time of the last heartbeat.';
comment on column reveille.worker_status.alive is 'True if the last heartbeat is less than 30 seconds old.';
comment on column reveille.worker_status.stopping is
    'True if the worker is shutting down, or has been asked to shut down.';
comment on column reveille.worker_status.version is 'The version of Reveille that the worker runs.';
comment on column reveille.worker_status.stuck is 'The number of the worker''s stuck jobs.';
comment on column reveille.worker_status.queue_slots is 'The number of slots of each queue, in the order of queues.';

-- The first part of the union reads the rows that upkeep has already summed, one per queue and minute. This part does
-- not aggregate, so that a condition on the minute can use an index.
create view reveille.throughput as
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
comment on view reveille.throughput is
    'One row per queue and minute of the last 7 days: the numbers of completed jobs and failed attempts, their wait '
    'times (from the due time to the start) and their run times.';
comment on column reveille.throughput.queue is 'The queue.';
comment on column reveille.throughput.minute is 'The start of the minute.';
comment on column reveille.throughput.completed is 'The number of completed jobs.';
comment on column reveille.throughput.failed is 'The number of failed attempts.';
comment on column reveille.throughput.mean_wait_seconds is 'The mean time from the due time to the start.';
comment on column reveille.throughput.max_wait_seconds is 'The longest time from the due time to the start.';
comment on column reveille.throughput.mean_run_seconds is 'The mean run time.';
comment on column reveille.throughput.max_run_seconds is 'The longest run time.';

create view reveille.queue_limits as
select
    queues.name as queue,
    queues.max_running,
    running.counted as running,
    queues.max_running_per_key,
    queues.ordered,
    running.keys as running_keys,
    running.most as most_running_per_key,
    queues.rate_limit,
    coalesce(queues.rate_period, interval '1 second') as rate_period,
    coalesce(queues.rate_burst, 1) as rate_burst,
    queues.rate_per_key,
    rates.next_at as rate_used_until
from reveille.queues
cross join lateral (
    select
        coalesce(sum(counted), 0)::bigint as counted, count(key) as keys,
        coalesce(max(counted) filter (where key is not null), 0) as most
    from (
        select key, count(*) as counted from reveille.jobs
        where jobs.queue = queues.name and jobs.limited and jobs.reserved_at is not null
        group by key
    ) as by_key
) as running
left join reveille.rates on rates.queue = queues.name and rates.key = ''
where queues.limited is not null;
comment on view reveille.queue_limits is 'The queues that have limits or an order, and the present use of the limits.';
comment on column reveille.queue_limits.queue is 'The queue.';
comment on column reveille.queue_limits.max_running is
    'The maximum number of running jobs of the queue; null: no limit.';
comment on column reveille.queue_limits.running is 'The number of jobs of the queue that workers hold.';
comment on column reveille.queue_limits.max_running_per_key is
    'The maximum number of running jobs with the same key; null: no limit.';
comment on column reveille.queue_limits.ordered is
    'True if jobs with the same key run one at a time, in the order of their ids.';
comment on column reveille.queue_limits.running_keys is 'The number of keys that have running jobs.';
comment on column reveille.queue_limits.most_running_per_key is 'The largest number of running jobs with the same key.';
comment on column reveille.queue_limits.rate_limit is
    'The maximum number of jobs of the queue that start in each rate_period; null: no limit.';
comment on column reveille.queue_limits.rate_period is 'The period of rate_limit and rate_per_key.';
comment on column reveille.queue_limits.rate_burst is
    'The number of jobs that may start at once after a time without starts, for the queue and for each key.';
comment on column reveille.queue_limits.rate_per_key is
    'The maximum number of jobs with the same key that start in each rate_period; null: no limit.';
comment on column reveille.queue_limits.rate_used_until is
    'The time at which the queue''s next job would start if all jobs had started at an even pace; null or past: the '
    'whole burst may start at once.';

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
    'One row per queue: the counts of all attempts that ever ended. The counts only grow: a row that upkeep sums by '
    'minute or deletes in reveille.counters stays counted.';
comment on column reveille.queue_totals.queue is 'The queue.';
comment on column reveille.queue_totals.completed is 'The number of completed jobs.';
comment on column reveille.queue_totals.failed is 'The number of failed attempts.';
comment on column reveille.queue_totals.wait_seconds is 'The sum of the times from the due time to the start.';
comment on column reveille.queue_totals.run_seconds is 'The sum of the run times.';

create view reveille.kind_totals as
select queue, kind, completed, failed, wait_seconds, run_seconds, waits, runs
from reveille.kind_counters
where started_at = '-infinity';
comment on view reveille.kind_totals is
    'One row per queue and kind: the counts of all attempts that ever ended, as the workers have added them every 10 '
    'seconds. A kind without an attempt for 7 days has no row.';
comment on column reveille.kind_totals.queue is 'The queue.';
comment on column reveille.kind_totals.kind is 'The kind; (other): all kinds past the first 200.';
comment on column reveille.kind_totals.completed is 'The number of completed jobs.';
comment on column reveille.kind_totals.failed is 'The number of failed attempts.';
comment on column reveille.kind_totals.wait_seconds is 'The sum of the times from the due time to the start.';
comment on column reveille.kind_totals.run_seconds is 'The sum of the run times.';
comment on column reveille.kind_totals.waits is
    'The number of attempts by their time from the due time to the start, in the buckets of '
    'reveille.histogram_bounds(), and one for longer times.';
comment on column reveille.kind_totals.runs is 'The number of attempts by their run time, in the same buckets.';

create view reveille.kind_stats as
select
    queue,
    kind,
    completed::bigint as completed,
    failed::bigint as failed,
    wait_seconds / nullif(completed + failed, 0)::double precision as mean_wait_seconds,
    reveille.histogram_quantile(waits, 0.5) as median_wait_seconds,
    reveille.histogram_quantile(waits, 0.95) as p95_wait_seconds,
    run_seconds / nullif(completed + failed, 0)::double precision as mean_run_seconds,
    reveille.histogram_quantile(runs, 0.5) as median_run_seconds,
    reveille.histogram_quantile(runs, 0.95) as p95_run_seconds
from (
    select
        queue, kind, sum(completed) as completed, sum(failed) as failed, sum(wait_seconds) as wait_seconds,
        sum(run_seconds) as run_seconds
    from reveille.kind_counters
    where started_at > now() - interval '1 hour'
    group by queue, kind
) as counts
join (
    select
        queue, kind, array_agg(waits order by bucket) as waits, array_agg(runs order by bucket) as runs
    from (
        select queue, kind, bucket, sum(waiting)::bigint as waits, sum(running)::bigint as runs
        from reveille.kind_counters
        cross join unnest(waits, runs) with ordinality as buckets (waiting, running, bucket)
        where started_at > now() - interval '1 hour'
        group by queue, kind, bucket
    ) as buckets
    group by queue, kind
) as histograms using (queue, kind);
comment on view reveille.kind_stats is
    'One row per queue and kind with attempts in the last 50 to 60 minutes: their numbers and times. Medians and 95th '
    'percentiles are estimates from histograms.';
comment on column reveille.kind_stats.queue is 'The queue.';
comment on column reveille.kind_stats.kind is 'The kind; (other): all kinds past the first 200.';
comment on column reveille.kind_stats.completed is 'The number of completed jobs.';
comment on column reveille.kind_stats.failed is 'The number of failed attempts.';
comment on column reveille.kind_stats.mean_wait_seconds is 'The mean time from the due time to the start.';
comment on column reveille.kind_stats.median_wait_seconds is 'The median time from the due time to the start.';
comment on column reveille.kind_stats.p95_wait_seconds is
    'The time from the due time to the start that 95 % of the attempts did not exceed.';
comment on column reveille.kind_stats.mean_run_seconds is 'The mean run time.';
comment on column reveille.kind_stats.median_run_seconds is 'The median run time.';
comment on column reveille.kind_stats.p95_run_seconds is 'The run time that 95 % of the attempts did not exceed.';

create view reveille.schedule_status as
select
    schedules.name,
    coalesce(schedules.cron, 'every ' || schedules.every) as timing,
    schedules.time_zone,
    schedules.kind,
    schedules.queue,
    schedules.catch_up,
    case when schedules.paused_at is null then schedules.next_at end as next_at,
    schedules.last_at,
    schedules.paused_at is not null as paused,
    schedules.declared_at is not null and not exists (
        select from reveille.schedule_declarations as declared
        join reveille.workers on workers.id = declared.worker
        where declared.schedule_id = schedules.id and workers.last_seen_at > now() - interval '30 seconds'
    ) as stale,
    schedules.error
from reveille.schedules;
comment on view reveille.schedule_status is 'One row per schedule.';
comment on column reveille.schedule_status.name is 'The schedule''s name.';
comment on column reveille.schedule_status.timing is 'The cron text; or the word `every` and the interval.';
comment on column reveille.schedule_status.time_zone is 'The zone of the cron text.';
comment on column reveille.schedule_status.kind is 'The kind of the schedule''s jobs.';
comment on column reveille.schedule_status.queue is 'The queue of the schedule''s jobs.';
comment on column reveille.schedule_status.catch_up is 'The catch-up for missed ticks: `skip`, `one` or `all`.';
comment on column reveille.schedule_status.next_at is
    'The next tick; null if the schedule is paused or invalid, or no worker has computed it yet.';
comment on column reveille.schedule_status.last_at is 'The last tick for which a job was enqueued.';
comment on column reveille.schedule_status.paused is 'True if the schedule is paused.';
comment on column reveille.schedule_status.stale is
    'True if a worker declared the schedule in its code, and no living worker declares it any more. The schedule still '
    'fires until it is removed.';
comment on column reveille.schedule_status.error is 'The reason why the next tick cannot be computed.';

create view reveille.passed_over_jobs as
select passed_over.id, passed_over.queue, passed_over.code, passed_over.error, passed_over.seen_at
from reveille.passed_over
where passed_over.seen_at > now() - interval '1 hour'
    and exists (select from reveille.jobs where jobs.id = passed_over.id and jobs.reserved_by is null);
comment on view reveille.passed_over_jobs is 'Waiting jobs that a worker failed to claim within the last hour.';
comment on column reveille.passed_over_jobs.id is 'The job''s id.';
comment on column reveille.passed_over_jobs.queue is 'The queue.';
comment on column reveille.passed_over_jobs.code is 'The SQLSTATE of the error with which a claim of the job fails.';
comment on column reveille.passed_over_jobs.error is 'The message of the error with which a claim of the job fails.';
comment on column reveille.passed_over_jobs.seen_at is 'The time at which a worker last tried to claim the job.';

-- This statement keeps other roles from executing these functions, because the functions run with the rights of their
-- owner. Another role could otherwise create a trigger on its own table with one of the trigger functions. If a column
-- of that table had a type of that role, the type's casts would run with the owner's rights. Reveille's own triggers
-- still run for every role, because only the role that creates a trigger needs the right to execute the trigger's
-- function.
revoke execute on function
    reveille.ring_after_insert(), reveille.ring_after_update(), reveille.mark_sleeper(), reveille.mark_sleepers(),
    reveille.limits_changed(), reveille.keep_totals(), reveille.await(bigint), reveille.pass_given_ids(),
    reveille.fresh_job_id(), reveille.analyze_unknown_tables()
from public;
