-- Completes jobs of one queue that have the same worker and attempt and no results: moves them to the history, unless
-- the queue keeps none. This is the fast form of sql/settle_finished.sql for the usual settlements: it takes the values
-- that all jobs share as single values, and finds each job's row by the tuple id that the claim returned.
--
--   $1  bigint[]            the jobs' ids, ascending
--   $2  bigint              the worker that reserved the jobs
--   $3  int                 the attempt
--   $4  timestamptz[]       reserved_at of each job; with $1 to $3, the fence
--   $5  tid[]               the tuple ids that the claim returned, in any order; a job updated since has another one
--   $6  double precision    the sum of the seconds from the due times to the starts
--   $7  double precision    the longest time from a due time to a start, in seconds
--   $8  double precision    the sum of the run times in seconds
--   $9  double precision    the longest run time in seconds
--   $10 double precision[]  the seconds of each job from its due time to its start
--   $11 double precision[]  the run time of each job in seconds
--
-- Returns one row if any job was settled. settled: the ids of the settled jobs; null: all jobs were settled.
--
-- The other jobs are not settled here: their reservations no longer stand, or they are awaited, limited or linked, or
-- they have another tuple id. The worker gives them to sql/settle_finished.sql. If there are any, the counters get only
-- the settled jobs' share of the sums.
--
-- No index serves a condition of the fence, so the planner can only start from the tuple ids.
with ended as (
    delete from reveille.jobs
    where (select set_config('lock_timeout', '200ms', true)) is not null
        and ctid = any ($5::tid[])
        and id = ($1::bigint[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and attempts = $3::int
        and reserved_by is not distinct from $2::bigint
        and reserved_at is not distinct from ($4::timestamptz[])[pg_catalog.width_bucket(id, $1::bigint[])]
        and not awaited
        and limited is not true
        and not linked
    returning
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, key, tags,
        metadata, errors, progress, parent_id, schedule_id
), history as (
    insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
        key, tags, metadata, errors, progress, parent_id, schedule_id, outcome, worker, wait_seconds, run_seconds
    )
    select
        (select extract(epoch from now())::bigint / 86400 % 32::bigint), id, queue, kind, payload, priority, attempts,
        failures, max_attempts, available_at, created_at, key, tags, metadata, errors, progress, parent_id, schedule_id,
        'completed', $2::bigint, ($10::double precision[])[place], ($11::double precision[])[place]
    from ended
    cross join lateral pg_catalog.width_bucket(id, $1::bigint[]) as place
    where ended.queue <> all (array(select queues.name from reveille.queues where queues.retention = interval '0'))
)
insert into reveille.counters as counters (
    queue, started_at, worker, completed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
)
select
    queue, date_bin('10 seconds', now(), 'epoch'), $2::bigint, jobs, $6::double precision * share, $7::double precision,
    $8::double precision * share, $9::double precision
from (select (select queue from ended limit 1), (select count(*) from ended)) as sums (queue, jobs)
cross join lateral (
    select jobs::double precision / pg_catalog.cardinality($1::bigint[])::double precision
) as settled (share)
where jobs > 0
on conflict (queue, started_at, worker) do update
set completed = counters.completed + excluded.completed,
    wait_seconds = counters.wait_seconds + excluded.wait_seconds,
    max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
    run_seconds = counters.run_seconds + excluded.run_seconds,
    max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
returning
    case
        when (select count(*) from ended) < pg_catalog.cardinality($1::bigint[]) then array(select id from ended)
    end as settled
