-- Counts jobs that their handlers have completed in separate transactions (sql/complete.sql).
--
--   $1 text[]              the queue of each job
--   $2 bigint[]            the worker of each job
--   $3 double precision[]  the run time of each job in seconds
--   $4 double precision[]  the seconds of each job from its due time to its start
--   $5 double precision    the seconds by which the counters are dated later, as in sql/settle_finished.sql
insert into reveille.counters as counters (
    queue, started_at, worker, completed, wait_seconds, max_wait_seconds, run_seconds, max_run_seconds
)
select
    queue, date_bin('10 seconds', now(), 'epoch') + make_interval(secs => $5::double precision), worker, count(*),
    sum(wait_seconds), max(wait_seconds), sum(run_seconds), max(run_seconds)
from unnest($1::text[], $2::bigint[], $3::double precision[], $4::double precision[])
    as recorded (queue, worker, run_seconds, wait_seconds)
where (select set_config('lock_timeout', '200ms', true)) is not null
group by queue, worker
on conflict (queue, started_at, worker) do update
set completed = counters.completed + excluded.completed,
    wait_seconds = counters.wait_seconds + excluded.wait_seconds,
    max_wait_seconds = greatest(counters.max_wait_seconds, excluded.max_wait_seconds),
    run_seconds = counters.run_seconds + excluded.run_seconds,
    max_run_seconds = greatest(counters.max_run_seconds, excluded.max_run_seconds)
