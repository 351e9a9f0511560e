-- Declares workers dead, and rescues every job that is reserved for a worker that no longer lives.
--
--   $1 bigint[]       the workers to declare dead
--   $2 timestamptz[]  last_seen_at of each worker, as last read; a worker with a later heartbeat is not declared dead
--   $3 bigint         the id of the rescuing worker, for the counters
--   $4 bigint[]       the only jobs to rescue; null: all
--   $5 text           null: the jobs wait again, or become dead jobs if they have no further attempts; else an error:
--                     all become dead jobs with this error, because the server refuses to let them wait again
--
-- Returns one row per worker that was declared dead, and one row per job:
--   worker  the worker, or the former holder of the job
--   job     the job's id; null in a worker's row
--   queue   the job's queue
--   kind    the job's kind
--   dead    true if the job is a dead job now
--
-- The loss of a worker counts as a failure of its jobs. After its first and second loss in succession, a job is due at
-- once. After further losses, it is due after 2^failures seconds, at most an hour. A job without further attempts
-- becomes a dead job. If a program awaits the job, its end is notified.
--
-- This statement gives each column that it changes a valid value, because an odd row may hold values that no worker
-- writes, such as the largest integer, or `failures` that were set to zero by hand. If another dead job has the job's
-- id, the job becomes a dead job under a fresh id.
with watched as (
    select * from unnest($1::bigint[], $2::timestamptz[]) as watched (id, last_seen_at)
), silent as materialized (
    -- A worker whose row is locked may be alive: the lock may keep its heartbeat from being written.
    select workers.id
    from reveille.workers
    join watched on watched.id = workers.id and watched.last_seen_at = workers.last_seen_at
    for update of workers skip locked
), died as (
    delete from reveille.workers
    using silent
    where workers.id = silent.id
    returning workers.id
), orphans as materialized (
    -- The condition compares `reserved_by` with ids that are read before any row is locked. A row that another worker
    -- has claimed by the time of its lock has a new `reserved_by`, which is not among these ids.
    select
        jobs.id, jobs.reserved_by as holder,
        least(greatest(jobs.failures, 0), 999999999) + 1 as failures,
        greatest(jobs.attempts, least(greatest(jobs.failures, 0), 999999999) + 1) as attempts
    from reveille.jobs
    where jobs.reserved_at is not null
        and ($4::bigint[] is null or jobs.id = any ($4::bigint[]))
        and jobs.reserved_by = any (array(
            select reserved.reserved_by
            from reveille.jobs as reserved
            where reserved.reserved_at is not null
                and not exists (
                    select from reveille.workers
                    where workers.id = reserved.reserved_by and workers.id not in (select died.id from died)
                )
        ))
    for update of jobs skip locked
), put_back as (
    update reveille.jobs
    set reserved_at = null,
        reserved_by = null,
        failures = orphans.failures,
        attempts = orphans.attempts,
        available_at = case
            when jobs.cancel_requested_at is null and jobs.errors -> -1 ->> 'reason'::text = 'lost'
                and jobs.errors -> -2 ->> 'reason'::text = 'lost'
            then now() + make_interval(secs => least(pg_catalog.power(2, least(jobs.failures, 20)), 3600))
            else now()
        end,
        errors = case
            when jsonb_typeof(jobs.errors) <> 'array' then pg_catalog.jsonb_build_array(jobs.errors)
            when jsonb_array_length(jobs.errors) >= 100 then jobs.errors - 0
            else coalesce(jobs.errors, '[]')
        end || pg_catalog.jsonb_build_object(
            'at', now(), 'worker', orphans.holder, 'attempt', jobs.attempts, 'reason', 'lost',
            'error', 'the worker that ran it died or was cut off'
        )
    from orphans
    where jobs.id = orphans.id and orphans.failures < jobs.max_attempts and $5::text is null
    returning jobs.id, jobs.queue, jobs.kind, orphans.holder
), ended as (
    delete from reveille.jobs
    using orphans
    where jobs.id = orphans.id and (orphans.failures >= jobs.max_attempts or $5::text is not null)
    returning
        jobs.*, orphans.holder, orphans.failures as all_failures, orphans.attempts as all_attempts,
        (select dead_jobs.id from reveille.dead_jobs where dead_jobs.id = jobs.id) as taken_id
), buried as (
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, unique_key,
        unique_until, key, timeout, tags, metadata, errors, progress, parent_id, schedule_id, reason, worker,
        wait_seconds, run_seconds, linked
    )
    select
        case when taken_id is null then id else reveille.fresh_job_id() end, queue, kind, payload, priority,
        all_attempts, all_failures, max_attempts, available_at, created_at, unique_key, unique_until, key, timeout,
        tags, metadata,
        case
            when $5::text is not null then '[]'
            when jsonb_typeof(errors) <> 'array' then pg_catalog.jsonb_build_array(errors)
            when jsonb_array_length(errors) >= 100 then errors - 0
            else coalesce(errors, '[]')
        end || pg_catalog.jsonb_build_object(
            'at', now(), 'worker', holder, 'attempt', attempts, 'reason', 'lost',
            'error', coalesce($5::text, 'the worker that ran it died or was cut off') || case
                when taken_id is null then ''
                else pg_catalog.format(' (it was job %s, whose id another dead job has)', taken_id)
            end
        ),
        progress, parent_id, schedule_id, 'lost', holder,
        greatest(extract(epoch from reserved_at) - extract(epoch from available_at), 0),
        extract(epoch from now()) - extract(epoch from reserved_at), linked
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
    -- The counts go into separate rows, whose `started_at` is the present microsecond, since other sessions may have
    -- locked the usual rows.
    insert into reveille.counters as counters (queue, started_at, worker, failed)
    select lost.queue, clock_timestamp(), $3::bigint, count(*)
    from (select queue from put_back union all select queue from ended) as lost
    group by lost.queue
    on conflict (queue, started_at, worker) do update set failed = counters.failed + excluded.failed
)
select died.id as worker, null::bigint as job, null as queue, null as kind, false as dead from died
union all
select put_back.holder, put_back.id, put_back.queue, put_back.kind, false from put_back
union all
select ended.holder, ended.id, ended.queue, ended.kind, true from ended
union all
select null, null, null, null, false
from reveille.ring(array(select queue from put_back union all select queue from ended))
union all
select null, null, null, null, false
from reveille.tell_of_ends()
where exists (select from ended where linked)
union all
select null, null, null, null, false
from ended, lateral (
    select pg_notify('reveille.finished', ended.id::text || ' dead')
    where ended.awaited and pg_notification_queue_usage() < 0.9::double precision
) as notified
