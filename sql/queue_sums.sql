-- Returns the sums over all queues that the dashboard shows, from the views only, without counting the jobs of each
-- queue.
--
-- Returns one row: a JSON object with the sums, and with two objects that have a number by queue: dead_by_queue, and
-- failed_by_queue for the attempts that failed in the last minute. Waiting jobs are counted up to 10,000; above that,
-- ready and delayed are estimates.
with counted as (
    select count(*) filter (where ready) as ready, count(*) filter (where not ready) as delayed
    from (
        -- The `order by` is that of the claim index.
        select ready from reveille.waiting_jobs order by queue, priority, available_at limit 10001
    ) as bounded
), waiting as (
    select
        ready + delayed > 10000 as estimated,
        case when ready + delayed > 10000 then greatest(ready, (jobs * due_share)::bigint) else ready end as ready,
        case
            when ready + delayed > 10000 then greatest(delayed, (jobs * (1 - due_share))::bigint) else delayed
        end as delayed
    from counted
    cross join reveille.expected_waiting()
), dead as (
    select queue, sum(jobs) as jobs from reveille.dead_groups() group by queue
), recent as (
    select queue, sum(completed) as completed, sum(failed) as failed
    from reveille.counters
    where started_at > now() - interval '70 seconds' and worker <> 0
    group by queue
)
select jsonb_build_object(
    'sums', to_jsonb(waiting) || jsonb_build_object(
        'running', (select count(*) from reveille.held_jobs()),
        'dead', (select coalesce(sum(jobs), 0) from dead),
        'completed_last_minute', (select coalesce(sum(completed), 0) from recent),
        'failed_last_minute', (select coalesce(sum(failed), 0) from recent),
        'workers', (select count(*) from reveille.worker_status where alive),
        'slots', (select coalesce(sum(slots), 0) from reveille.worker_status where alive)
    ),
    'dead_by_queue', (select coalesce(jsonb_object_agg(queue, jobs), '{}') from dead),
    'failed_by_queue', (select coalesce(jsonb_object_agg(queue, failed), '{}') from recent where failed > 0)
) as record
from waiting
