-- Makes reserved jobs wait again: jobs that failed and are retried later, snoozed jobs, and released jobs. Rings the
-- bell.
--
--   $1  bigint[]            the jobs' ids, ascending
--   $2  bigint[]            the worker that reserved each job
--   $3  int[]               the attempt of each job
--   $4  timestamptz[]       reserved_at of each job; with $1 to $3, the fence
--   $5  text[]              the reason why the attempt of each job failed; null: no failure
--   $6  text[]              the error of each job
--   $7  double precision[]  the seconds until each job is due again; null: the job is released, and keeps its due time
--   $8  double precision[]  the run time of each job in seconds
--   $9  double precision[]  the seconds of each job from its due time to its start
--   $10 double precision    the seconds by which the counters are dated later, as in sql/settle_finished.sql
--
-- Returns the ids of the settled jobs. The reservations of the other jobs no longer stand.
--
-- A job that is to be cancelled is due at once, so that the next worker that claims the job cancels it. Each job is
-- found by its id, as in sql/settle_finished.sql.
with put_back as (
    update reveille.jobs
    set reserved_at = null,
        reserved_by = null,
        available_at = case
            when cancel_requested_at is null
            then coalesce(
                now() + make_interval(secs => ($7::double precision[])[pg_catalog.width_bucket(id, $1::bigint[])]),
                -- The row may be an odd row, whose due time is infinite.
                case when isfinite(available_at) then available_at else now() end
            )
            else now()
        end,
        (failures, attempts, errors) = (
            select
                after.failures,
                greatest(jobs.attempts, after.failures),
                case when reason is null then jobs.errors else
                    case
                        when jsonb_typeof(jobs.errors) <> 'array' then pg_catalog.jsonb_build_array(jobs.errors)
                        when jsonb_array_length(jobs.errors) >= 100 then jobs.errors - 0
                        else coalesce(jobs.errors, '[]')
                    end || pg_catalog.jsonb_build_object(
                        'at', now(), 'worker', jobs.reserved_by, 'attempt', jobs.attempts, 'reason', reason,
                        'error', ($6::text[])[pg_catalog.width_bucket(jobs.id, $1::bigint[])])
                end
            from (select ($5::text[])[pg_catalog.width_bucket(jobs.id, $1::bigint[])]) as ending (reason)
            -- The row may be an odd row, so this query gives `failures` a valid value.
            cross join lateral (
                select least(greatest(jobs.failures, 0), 999999999) + (reason is not null)::int
            ) as after (failures)
        )
    where (select set_config('lock_timeout', '200ms', true)) is not null
        and id = any ($1::bigint[])
        and reserved_by is not distinct from ($2::bigint[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and attempts = ($3::int[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and reserved_at is not distinct from ($4::timestamptz[])[pg_catalog.width_bucket(id, $1::bigint[])]
    returning id, queue, pg_catalog.width_bucket(id, $1::bigint[]) as place, linked
), waiting as (
    -- The jobs that snoozed until an event comes. Their waits are new again, since an event may have come meanwhile
    -- that could not make a running job due.
    insert into reveille.waits as waits (job, event, until)
    select steps.job, steps.name, steps.until
    from put_back
    cross join lateral (
        select job, name, until from reveille.steps
        where steps.job = put_back.id and steps.kind = 'wait' and steps.outcome is null
    ) as steps
    where put_back.linked and ($5::text[])[put_back.place] is null
    on conflict (job, event) do update set seen = false
), counted as (
    insert into reveille.counters as counters (
        queue, started_at, worker, failed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    )
    select
        queue, date_bin('10 seconds', now(), 'epoch') + make_interval(secs => $10::double precision), worker, count(*),
        sum(wait_seconds), max(wait_seconds), sum(run_seconds), max(run_seconds)
    from put_back
    cross join lateral (
        select ($2::bigint[])[place], ($8::double precision[])[place], ($9::double precision[])[place]
    ) as ending (worker, run_seconds, wait_seconds)
    where ($5::text[])[place] is not null
    group by queue, worker
    on conflict (queue, started_at, worker) do update
    set failed = counters.failed + excluded.failed,
        wait_seconds = counters.wait_seconds + excluded.wait_seconds,
        max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
        run_seconds = counters.run_seconds + excluded.run_seconds,
        max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
)
select id from put_back, reveille.ring(array(select queue from put_back))
