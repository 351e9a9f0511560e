-- Makes jobs dead jobs: they have no further attempts, or have failed permanently.
--
--   $1 bigint[]            the jobs' ids, ascending
--   $2 bigint[]            the worker that reserved each job
--   $3 int[]               the attempt of each job
--   $4 timestamptz[]       reserved_at of each job; with $1 to $3, the fence
--   $5 text[]              the reason of each job
--   $6 text[]              the error of each job
--   $7 double precision[]  the run time of each job in seconds
--   $8 double precision    the seconds by which the counters are dated later, as in sql/settle_finished.sql
--
-- Returns one row per settled job: its id, and whether the job is linked. The reservations of the other jobs no longer
-- stand. Notifies the ends of awaited jobs.
--
-- Each job is found by its id, as in sql/settle_finished.sql. As in sql/rescue.sql, odd rows get valid values, and a
-- job gets a fresh id if another dead job has its id.
with ended as (
    delete from reveille.jobs
    where (select set_config('lock_timeout', '200ms', true)) is not null
        and id = any ($1::bigint[])
        and reserved_by is not distinct from ($2::bigint[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and attempts = ($3::int[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and reserved_at is not distinct from ($4::timestamptz[])[pg_catalog.width_bucket(id, $1::bigint[])]
    returning
        *, ($5::text[])[pg_catalog.width_bucket(id, $1::bigint[])] as reason,
        ($6::text[])[pg_catalog.width_bucket(id, $1::bigint[])] as error,
        ($7::double precision[])[pg_catalog.width_bucket(id, $1::bigint[])] as run_seconds,
        greatest(extract(epoch from reserved_at) - extract(epoch from available_at), 0)::double precision
            as wait_seconds,
        least(greatest(failures, 0), 999999999) + 1 as all_failures,
        (select dead_jobs.id from reveille.dead_jobs where dead_jobs.id = jobs.id) as taken_id
), buried as (
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, unique_key,
        unique_until, key, timeout, tags, metadata, errors, progress, parent_id, schedule_id, reason, worker,
        wait_seconds, run_seconds, linked
    )
    select
        case when taken_id is null then id else reveille.fresh_job_id() end, queue, kind, payload, priority,
        greatest(attempts, all_failures), all_failures, max_attempts, available_at, created_at, unique_key,
        unique_until, key, timeout, tags, metadata,
        case
            when jsonb_typeof(errors) <> 'array' then pg_catalog.jsonb_build_array(errors)
            when jsonb_array_length(errors) >= 100 then errors - 0
            else coalesce(errors, '[]')
        end || pg_catalog.jsonb_build_object(
            'at', now(), 'worker', reserved_by, 'attempt', attempts, 'reason', reason, 'error', error || case
                when taken_id is null then ''
                else pg_catalog.format(' (it was job %s, whose id another dead job has)', taken_id)
            end
        ),
        progress, parent_id, schedule_id, reason, reserved_by, wait_seconds, run_seconds, linked
    from ended
), linked_ends as (
    insert into reveille.linked_ends (job, outcome, workflow)
    select
        id, 'dead',
        (select workflow_jobs.workflow from reveille.workflow_jobs where workflow_jobs.job = ended.id)
    from ended
    where linked
    on conflict (job) do update set outcome = excluded.outcome, result = null, ended_at = excluded.ended_at
), counted as (
    insert into reveille.counters as counters (
        queue, started_at, worker, failed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    )
    select
        queue, date_bin('10 seconds', now(), 'epoch') + make_interval(secs => $8::double precision), reserved_by,
        count(*), sum(wait_seconds), max(wait_seconds), sum(run_seconds), max(run_seconds)
    from ended
    group by queue, reserved_by
    on conflict (queue, started_at, worker) do update
    set failed = counters.failed + excluded.failed,
        wait_seconds = counters.wait_seconds + excluded.wait_seconds,
        max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
        run_seconds = counters.run_seconds + excluded.run_seconds,
        max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
), rung as materialized (
    -- In a limited queue, the end of a job lets another job start. The bell is rung here once for all rows.
    select
        case
            when pg_catalog.bool_or(limited)
            then reveille.ring(pg_catalog.array_agg(distinct queue) filter (where limited))
        end
    from ended
)
select id, linked
from ended
-- This condition is always true: it is here to send the notifications. Postgres promises no order, but in practice
-- evaluates these terms from left to right. Only awaited jobs reach pg_notify, and none does while the notification
-- buffer is at least 90 % full.
where (select count(*) from rung) = 1
    and (
        not awaited or pg_notification_queue_usage() >= 0.9::double precision
        or pg_notify('reveille.finished', id::text || ' dead') is not null
    )
