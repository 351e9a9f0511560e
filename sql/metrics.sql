-- Returns everything that is exported as metrics, from the views only, as one snapshot.
--
-- Returns one row per sample: the metric (src/admin/metrics.rs has its type and help), its labels, its value.
with stats as materialized (
    select * from reveille.queue_stats
), totals as materialized (
    select * from reveille.queue_totals
), workers as materialized (
    -- `reveille listen` has rows without slots, which are left out.
    select * from reveille.worker_status where slots > 0
), running as materialized (
    select * from reveille.running_jobs
), kinds as materialized (
    select * from reveille.kind_totals
), buckets as (
    -- A bucket of Prometheus also counts the shorter times.
    select
        queue, kind, coalesce((reveille.histogram_bounds())[bucket]::text, '+Inf') as le,
        sum(waits) over up_to as waits, sum(runs) over up_to as runs
    from (
        select queue, kind, bucket, counts.waits, counts.runs
        from kinds cross join unnest(kinds.waits, kinds.runs) with ordinality as counts (waits, runs, bucket)
    ) as counted
    window up_to as (partition by queue, kind order by bucket)
), samples as (
    select
        'reveille_jobs' as name, jsonb_build_object('queue', queue, 'state', state) as labels,
        jobs::double precision as value
    from stats
    cross join lateral (
        values ('ready', ready), ('delayed', delayed), ('running', running), ('parked', parked), ('blocked', blocked)
    ) as counted (state, jobs)
    union all
    select 'reveille_jobs_estimated', jsonb_build_object('queue', queue), estimated::int from stats
    union all
    select
        'reveille_oldest_ready_seconds', jsonb_build_object('queue', queue),
        coalesce(extract(epoch from oldest_ready_age), 0)
    from stats
    union all
    select 'reveille_queue_paused', jsonb_build_object('queue', queue), paused::int from stats
    union all
    select 'reveille_queue_workers', jsonb_build_object('queue', stats.queue), count(workers.worker)
    from stats left join workers on workers.alive and not workers.stopping and stats.queue = any (workers.queues)
    group by stats.queue
    union all
    select
        'reveille_longest_running_seconds', jsonb_build_object('queue', stats.queue),
        coalesce(max(extract(epoch from running.running_for)), 0)
    from stats left join running on running.queue = stats.queue
    group by stats.queue
    union all
    select 'reveille_dead_jobs', jsonb_build_object('queue', queue, 'reason', reason), sum(jobs)
    from reveille.dead_jobs_overview
    group by queue, reason
    union all
    select 'reveille_attempts_total', jsonb_build_object('queue', queue, 'outcome', outcome), attempts
    from totals
    cross join lateral (values ('completed', completed), ('failed', failed)) as counted (outcome, attempts)
    union all
    select 'reveille_attempt_wait_seconds_total', jsonb_build_object('queue', queue), wait_seconds from totals
    union all
    select 'reveille_attempt_run_seconds_total', jsonb_build_object('queue', queue), run_seconds from totals
    union all
    select 'reveille_workers', jsonb_build_object('state', state), count(workers.worker)
    from (values ('working'), ('stopping'), ('silent')) as known (state)
    left join workers
        on known.state = case when not alive then 'silent' when stopping then 'stopping' else 'working' end
    group by state
    union all
    select 'reveille_worker_slots', '{}', coalesce(sum(slots), 0) from workers where alive and not stopping
    union all
    select 'reveille_worker_slots_used', '{}', coalesce(sum(running), 0) from workers where alive and not stopping
    union all
    select 'reveille_notification_queue_usage_ratio', '{}', pg_notification_queue_usage()
    union all
    select
        'reveille_kind_attempts_total', jsonb_build_object('queue', queue, 'kind', kind, 'outcome', outcome), attempts
    from kinds
    cross join lateral (values ('completed', completed), ('failed', failed)) as counted (outcome, attempts)
    union all
    select name || '_bucket', jsonb_build_object('queue', queue, 'kind', kind, 'le', le), counted
    from buckets
    cross join lateral (values ('reveille_kind_wait_seconds', waits), ('reveille_kind_run_seconds', runs))
        as histogram (name, counted)
    union all
    select name || '_count', jsonb_build_object('queue', queue, 'kind', kind), counted
    from buckets
    cross join lateral (values ('reveille_kind_wait_seconds', waits), ('reveille_kind_run_seconds', runs))
        as histogram (name, counted)
    where le = '+Inf'
    union all
    select name || '_sum', jsonb_build_object('queue', queue, 'kind', kind), seconds
    from kinds
    cross join lateral (values ('reveille_kind_wait_seconds', wait_seconds), ('reveille_kind_run_seconds', run_seconds))
        as histogram (name, seconds)
)
select name, labels, value
from samples
order by
    name, labels - 'le', case labels ->> 'le' when '+Inf' then 'Infinity' else labels ->> 'le' end::double precision
