-- Put reserved jobs back to wait: failed and to be retried, snoozed, or released without having run.
--
--   $1 bigint[]            ids            $2 bigint[]  workers that reserved them
--   $3 int[]               attempts       $4 timestamptz[]  reserved_at: with the three before, the fence
--   $5 text[]              reasons of failed attempts (null: no failure)
--   $6 text[]              their errors   $7 double precision[]  seconds until they are due again
--   $8 double precision[]  run seconds   $9 double precision[]  seconds from being due to the start
--
-- One whose cancelling has been asked for is due at once: the next worker to claim it ends it. Rings the bell. Returns
-- the ids that were settled; the others are no longer those workers' to settle. `is not distinct from` keeps the planner on
-- the primary key, since one worker can hold many jobs.
with ending as (
    select * from unnest($1::bigint[], $2::bigint[], $3::int[], $4::timestamptz[], $5::text[], $6::text[], $7::double precision[], $8::double precision[], $9::double precision[])
        as ending (id, worker, attempts, reserved_at, reason, error, delay_seconds, run_seconds, wait_seconds)
), put_back as (
    update reveille.jobs
    set reserved_at = null,
        reserved_by = null,
        available_at = case
            when jobs.cancel_requested_at is null then now() + make_interval(secs => ending.delay_seconds) else now()
        end,
        failures = jobs.failures + (ending.reason is not null)::int,
        errors = case when ending.reason is null then jobs.errors else
            case when jsonb_array_length(jobs.errors) >= 100 then jobs.errors - 0 else coalesce(jobs.errors, '[]') end
            || jsonb_build_object(
                'at', now(), 'worker', ending.worker, 'attempt', ending.attempts, 'reason', ending.reason, 'error', ending.error)
        end
    from ending
    where jobs.id = ending.id and jobs.reserved_by is not distinct from ending.worker
        and jobs.attempts = ending.attempts and jobs.reserved_at = ending.reserved_at
    returning
        jobs.id, jobs.queue, ending.worker, ending.reason, ending.run_seconds, ending.wait_seconds
), counted as (
    insert into reveille.counters as counters (
        queue, started_at, worker, failed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    )
    select
        queue, date_bin('10 seconds', now(), 'epoch'), worker, count(*), sum(wait_seconds), max(wait_seconds),
        sum(run_seconds), max(run_seconds)
    from put_back
    where reason is not null
    group by queue, worker
    on conflict (queue, started_at, worker) do update
    set failed = counters.failed + excluded.failed,
        wait_seconds = counters.wait_seconds + excluded.wait_seconds,
        max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
        run_seconds = counters.run_seconds + excluded.run_seconds,
        max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
)
select id from put_back, reveille.ring(array(select queue from put_back))
