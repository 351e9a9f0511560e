-- Complete jobs of one queue that keeps no history, at the same attempt of the same worker, that have no results. It is
-- sql/settle_alike.sql for those, which reads no more of a job than it needs.
--
--   $1 to $9  as there
--
-- Returns a row if any was settled: `settled`, the ids of those that were, null if all. The others are for sql/settle_alike.sql.
with ended as (
    delete from reveille.jobs
    where ctid = any ($5::tid[])
        and id = ($1::bigint[])[width_bucket(id, $1::bigint[])]
        and attempts = $3::int
        and reserved_by is not distinct from $2::bigint
        and reserved_at is not distinct from ($4::timestamptz[])[width_bucket(id, $1::bigint[])]
        and not awaited
        and limited is not true
        and queue = any (array(select queues.name from reveille.queues where queues.retention = interval '0'))
    returning id, queue
)
insert into reveille.counters as counters (
    queue, started_at, worker, completed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
)
select
    queue, date_bin('10 seconds', now(), 'epoch'), $2::bigint, jobs, $6::double precision * jobs / cardinality($1::bigint[]),
    $7::double precision, $8::double precision * jobs / cardinality($1::bigint[]), $9::double precision
from (select (select queue from ended limit 1), (select count(*) from ended)) as sums (queue, jobs)
where jobs > 0
on conflict (queue, started_at, worker) do update
set completed = counters.completed + excluded.completed,
    wait_seconds = counters.wait_seconds + excluded.wait_seconds,
    max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
    run_seconds = counters.run_seconds + excluded.run_seconds,
    max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
returning
    case when (select count(*) from ended) < cardinality($1::bigint[]) then array(select id from ended) end as settled
