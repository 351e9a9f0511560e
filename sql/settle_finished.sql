-- Ends jobs as completed or cancelled: moves them to the history, unless their queue keeps none.
--
--   $1 bigint[]            the jobs' ids, ascending
--   $2 bigint[]            the worker that reserved each job
--   $3 int[]               the attempt of each job
--   $4 timestamptz[]       reserved_at of each job; with $1 to $3, the fence
--   $5 boolean[]           true for each job that was cancelled
--   $6 double precision[]  the run time of each job in seconds
--   $7 double precision[]  the seconds of each job from its due time to its start
--   $8 jsonb[]             the result of each job; an empty array if no job has one
--   $9 double precision    the seconds to add to the time of the counters, which have one row per 10 seconds: 0, or a
--                          few to choose another row, if another session may have locked the current row
--
-- Returns one row per settled job: its id, and whether the job is linked. The reservations of the other jobs no longer
-- stand. Notifies the ends of awaited jobs.
--
-- This statement must find each job by its id even with a plan that was made while the table was empty, because a
-- session keeps its first plan. It therefore joins nothing by id, and `is not distinct from` keeps the planner from
-- using the index by worker.
with ended as (
    delete from reveille.jobs
    where (select set_config('lock_timeout', '200ms', true)) is not null
        and id = any ($1::bigint[])
        and reserved_by is not distinct from ($2::bigint[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and attempts = ($3::int[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and reserved_at is not distinct from ($4::timestamptz[])[pg_catalog.width_bucket(id, $1::bigint[])]
    -- The columns that the queries below read of each row stand first: a column costs more the further back it stands.
    returning
        id, awaited, limited, linked, queue, reserved_by, pg_catalog.width_bucket(id, $1::bigint[]) as place, kind,
        payload, priority, attempts, failures, max_attempts, available_at, created_at, key, tags, metadata, errors,
        progress, parent_id, schedule_id
), history as (
    insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
        key, tags, metadata, errors, progress, parent_id, schedule_id, outcome, result, worker, wait_seconds,
        run_seconds
    )
    select
        (select extract(epoch from now())::bigint / 86400 % 32::bigint), id, queue, kind, payload, priority, attempts,
        failures, max_attempts, available_at, created_at, key, tags, metadata, errors, progress, parent_id, schedule_id,
        case when ($5::boolean[])[place] then 'cancelled' else 'completed' end, ($8::jsonb[])[place], reserved_by,
        ($7::double precision[])[place], ($6::double precision[])[place]
    from ended
    where ended.queue <> all (array(select queues.name from reveille.queues where queues.retention = interval '0'))
), ends as (
    -- If the queue keeps no history, a program that awaits the job reads the job's end in this table.
    insert into reveille.ends (id, outcome, result, errors)
    select id, case when ($5::boolean[])[place] then 'cancelled' else 'completed' end, ($8::jsonb[])[place], errors
    from ended
    where awaited and queue = any (array(select queues.name from reveille.queues where queues.retention = interval '0'))
), linked_ends as (
    insert into reveille.linked_ends (job, outcome, result, workflow)
    select
        id, case when ($5::boolean[])[place] then 'cancelled' else 'completed' end, ($8::jsonb[])[place],
        (select workflow_jobs.workflow from reveille.workflow_jobs where workflow_jobs.job = ended.id)
    from ended
    where linked
    on conflict (job) do update
    set outcome = excluded.outcome, result = excluded.result, ended_at = excluded.ended_at
), sums as materialized (
    select
        queue, reserved_by as worker, cancelled, pg_catalog.bool_or(limited) as limited, count(*) as jobs,
        sum(wait_seconds) as wait_seconds, max(wait_seconds) as max_wait_seconds, sum(run_seconds) as run_seconds,
        max(run_seconds) as max_run_seconds
    from ended
    cross join lateral (
        select ($5::boolean[])[place], ($6::double precision[])[place], ($7::double precision[])[place]
    ) as ending (cancelled, run_seconds, wait_seconds)
    group by queue, reserved_by, cancelled
), counted as (
    insert into reveille.counters as counters (
        queue, started_at, worker, completed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    )
    select
        queue, date_bin('10 seconds', now(), 'epoch') + make_interval(secs => $9::double precision), worker, jobs,
        wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
    from sums
    where not cancelled
    on conflict (queue, started_at, worker) do update
    set completed = counters.completed + excluded.completed,
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
    from sums
)
select id, linked
from ended
-- This condition is always true: it is here to send the notifications. Postgres promises no order, but in practice
-- evaluates these terms from left to right. Only awaited jobs reach pg_notify, and none does while the notification
-- buffer is at least 90 % full.
where (select count(*) from rung) = 1
    and (not awaited or pg_notification_queue_usage() >= 0.9::double precision or pg_notify(
        'reveille.finished', id::text || case when ($5::boolean[])[place] then ' cancelled' else ' completed' end
    ) is not null)
