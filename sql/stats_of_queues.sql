-- Returns what `reveille.queue_stats` tells about some queues, but for the dead jobs. The view lists the queues of the
-- database first, which takes as long as all the rest of this statement where there are 1,000 queues.
--
--   $1 text[]  the names of the queues
--   $2 bigint  the number of all queues: the more, the fewer jobs of each are counted one by one
--
-- Returns one row per queue: a JSON object with the object queue, whose age is in seconds. A queue of which nothing is
-- known has no jobs.
with served as (
    select distinct unnest(queues) as queue from reveille.worker_status where alive
), exact as materialized (
    select least(10000, greatest(100, 100000 / greatest($2, 1))) as jobs
), planner as materialized (
    select expected.jobs as waiting, expected.due_share, common.queues, common.shares, common.other_share
    from reveille.expected_waiting() as expected
    left join lateral (
        select
            stats.most_common_vals::text::text[] as queues, stats.most_common_freqs as shares,
            greatest(0, 1 - coalesce((select sum(share) from unnest(stats.most_common_freqs) as share), 0))
                / greatest($2 - coalesce(cardinality(stats.most_common_freqs), 0), 1) as other_share
        from pg_catalog.pg_stats as stats
        where (stats.schemaname || '.' || stats.tablename) = 'reveille.jobs' and stats.attname = 'queue'
    ) as common on true
), running as materialized (
    select queue, count(*) as jobs from reveille.held_jobs() group by queue
), recent as materialized (
    select queue, sum(completed) as completed, sum(failed) as failed
    from reveille.counters
    where started_at > now() - interval '70 seconds' and worker <> 0
    group by queue
), levels (priority) as (
    values (0::smallint), (1::smallint), (2::smallint), (3::smallint)
)
select jsonb_build_object('queue', to_jsonb(listed)) as record
from (
    select
        asked.queue, served.queue is not null as served, coalesce(settings.paused_at is not null, false) as paused,
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
        coalesce(running.jobs, 0) as running,
        ready.counted > exact.jobs or delayed.counted > exact.jobs as estimated,
        extract(epoch from oldest.ready_age) as oldest_ready_seconds,
        coalesce(recent.completed, 0) as completed_last_minute, coalesce(recent.failed, 0) as failed_last_minute,
        parked.counted as parked, blocked.counted as blocked
    from unnest($1) as asked (queue)
    cross join exact
    left join reveille.queues as settings on settings.name = asked.queue
    left join served on served.queue = asked.queue
    left join running on running.queue = asked.queue
    left join recent on recent.queue = asked.queue
    -- Counted and estimated as by the view; see there.
    cross join lateral (
        select count(*) as counted
        from (
            select from levels
            cross join lateral (
                select from reveille.waiting_jobs as jobs
                where jobs.queue = asked.queue and jobs.priority = levels.priority and available_at <= now()
                order by available_at
                limit 10001
            ) as due
            limit (select jobs + 1 from exact)
        ) as bounded
    ) as ready
    cross join lateral (
        select count(*) as counted
        from (
            select from levels
            cross join lateral (
                select from reveille.waiting_jobs as jobs
                where jobs.queue = asked.queue and jobs.priority = levels.priority and available_at > now()
                order by available_at
                limit 10001
            ) as later
            limit (select jobs + 1 from exact)
        ) as bounded
    ) as delayed
    left join lateral (
        select
            planner.waiting
                * coalesce(planner.shares[array_position(planner.queues, asked.queue)], planner.other_share, 0)
                as waiting,
            planner.due_share
        from planner
        where ready.counted > exact.jobs or delayed.counted > exact.jobs
    ) as planned on true
    cross join lateral (
        -- An infinite due time has no age.
        select now() - nullif(min(first.available_at), '-infinity') as ready_age
        from levels
        cross join lateral (
            select available_at from reveille.waiting_jobs as jobs
            where jobs.queue = asked.queue and jobs.priority = levels.priority and available_at <= now()
            order by available_at limit 1
        ) as first
    ) as oldest
    cross join lateral (
        select count(*) as counted
        from (
            select from reveille.job_list as jobs
            where jobs.queue = asked.queue and paused_by is not null
            order by jobs.queue, paused_by, id limit 10000
        ) as bounded
    ) as parked
    cross join lateral (
        select count(*) as counted
        from (
            select from reveille.blocked_jobs_overview as jobs
            where jobs.queue = asked.queue order by jobs.queue, id limit 10000
        ) as bounded
    ) as blocked
) as listed
