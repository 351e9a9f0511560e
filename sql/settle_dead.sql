-- Bury jobs: out of attempts, or failed in a way that no further attempt can mend.
--
--   $1 bigint[]            ids            $2 bigint[]  workers that reserved them
--   $3 int[]               attempts       $4 timestamptz[]  reserved_at: with the three before, the fence
--   $5 text[]              reasons        $6 text[]  errors
--   $7 double precision[]  run seconds
--
-- Returns the ids that were settled; the others are no longer those workers' to settle. `is not distinct from` keeps the
-- planner on the primary key, since one worker can hold many jobs. The end of one that is awaited is notified.
with ending as (
    select * from unnest($1::bigint[], $2::bigint[], $3::int[], $4::timestamptz[], $5::text[], $6::text[], $7::double precision[])
        as ending (id, worker, attempts, reserved_at, reason, error, run_seconds)
), ended as (
    delete from reveille.jobs
    using ending
    where jobs.id = ending.id and jobs.reserved_by is not distinct from ending.worker
        and jobs.attempts = ending.attempts and jobs.reserved_at = ending.reserved_at
    returning
        jobs.*, ending.worker, ending.reason, ending.error, ending.run_seconds,
        greatest(extract(epoch from jobs.reserved_at - jobs.available_at), 0)::double precision as wait_seconds
), buried as (
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, unique_key,
        unique_until, key, timeout, tags, metadata, errors, progress, parent_id, schedule_id, reason, worker, wait_seconds,
        run_seconds
    )
    select
        id, queue, kind, payload, priority, attempts, failures + 1, max_attempts, available_at, created_at, unique_key,
        unique_until, key, timeout, tags, metadata,
        case when jsonb_array_length(errors) >= 100 then errors - 0 else coalesce(errors, '[]') end
        || jsonb_build_object('at', now(), 'worker', worker, 'attempt', attempts, 'reason', reason, 'error', error),
        progress, parent_id, schedule_id, reason, worker, wait_seconds, run_seconds
    from ended
), counted as (
    insert into reveille.counters as counters (
        queue, started_at, worker, failed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    )
    select
        queue, date_bin('10 seconds', now(), 'epoch'), worker, count(*), sum(wait_seconds), max(wait_seconds),
        sum(run_seconds), max(run_seconds)
    from ended
    group by queue, worker
    on conflict (queue, started_at, worker) do update
    set failed = counters.failed + excluded.failed,
        wait_seconds = counters.wait_seconds + excluded.wait_seconds,
        max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
        run_seconds = counters.run_seconds + excluded.run_seconds,
        max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
), rung as materialized (
    -- Where limits are kept, another one may start. Once, and not again for each row.
    select case when bool_or(limited) then reveille.ring(array_agg(distinct queue) filter (where limited)) end from ended
)
select id
from ended
-- True for all of them; evaluated so that the last is reached by those alone that are awaited.
where (select count(*) from rung) = 1
    and (not awaited or pg_notification_queue_usage() >= 0.9 or pg_notify('reveille.finished', id || ' dead') is not null)
