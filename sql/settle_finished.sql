-- End jobs for good, as completed or cancelled: into the history, unless their queue keeps none.
--
--   $1 bigint[]            ids            $2 bigint[]  workers that reserved them
--   $3 int[]               attempts       $4 timestamptz[]  reserved_at: with the three before, the fence
--   $5 text[]              outcomes       $6 double precision[]  run seconds
--   $7 double precision[]  seconds from being due to the start
--   $8 jsonb[]             results
--
-- Returns the ids that were settled; the others are no longer those workers' to settle. `is not distinct from` keeps the
-- planner on the primary key, since one worker can hold many jobs. The end of one that is awaited is notified.
with ending as (
    select * from unnest($1::bigint[], $2::bigint[], $3::int[], $4::timestamptz[], $5::text[], $6::double precision[], $7::double precision[], $8::jsonb[])
        as ending (id, worker, attempts, reserved_at, outcome, run_seconds, wait_seconds, result)
), ended as (
    delete from reveille.jobs
    using ending
    where jobs.id = ending.id and jobs.reserved_by is not distinct from ending.worker
        and jobs.attempts = ending.attempts and jobs.reserved_at = ending.reserved_at
    -- First what the queries below ask each row for: the further back a column stands, the more it costs to read.
    returning
        jobs.id, jobs.awaited, jobs.limited, jobs.queue, ending.worker, ending.outcome, ending.run_seconds, ending.wait_seconds,
        jobs.kind, jobs.payload, jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts, jobs.available_at, jobs.created_at,
        jobs.key, jobs.tags, jobs.metadata, jobs.errors, jobs.progress, jobs.parent_id, jobs.schedule_id, ending.result
), history as (
    insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
        key, tags, metadata, errors, progress, parent_id, schedule_id, outcome, result, worker, wait_seconds, run_seconds
    )
    select
        (select extract(epoch from now())::bigint / 86400 % 32), id, queue, kind, payload, priority, attempts, failures, max_attempts,
        available_at, created_at, key, tags, metadata, errors, progress, parent_id, schedule_id, outcome, result, worker,
        wait_seconds, run_seconds
    from ended
    where ended.queue <> all (array(select queues.name from reveille.queues where queues.retention = interval '0'))
), sums as materialized (
    select
        queue, worker, outcome, bool_or(limited) as limited, count(*) as jobs, sum(wait_seconds) as wait_seconds,
        max(wait_seconds) as max_wait_seconds, sum(run_seconds) as run_seconds, max(run_seconds) as max_run_seconds
    from ended
    group by queue, worker, outcome
), counted as (
    insert into reveille.counters as counters (
        queue, started_at, worker, completed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    )
    select
        queue, date_bin('10 seconds', now(), 'epoch'), worker, jobs, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    from sums
    where outcome = 'completed'
    on conflict (queue, started_at, worker) do update
    set completed = counters.completed + excluded.completed,
        wait_seconds = counters.wait_seconds + excluded.wait_seconds,
        max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
        run_seconds = counters.run_seconds + excluded.run_seconds,
        max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
), rung as materialized (
    -- Where limits are kept, another one may start. Once, and not again for each row.
    select case when bool_or(limited) then reveille.ring(array_agg(distinct queue) filter (where limited)) end from sums
)
select id
from ended
-- True for all of them; evaluated so that the last is reached by those alone that are awaited.
where (select count(*) from rung) = 1
    and (not awaited or pg_notification_queue_usage() >= 0.9 or pg_notify('reveille.finished', id || ' ' || outcome) is not null)
