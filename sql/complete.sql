-- Complete a job in the caller's transaction, fenced by its reservation; into the history, unless its queue keeps none.
--
--   $1 bigint  id        $2 bigint       worker
--   $3 int     attempts  $4 timestamptz  reserved_at
--   $5 double precision  run seconds
--
-- One row, with the transaction's id; none if the reservation no longer stands. The end of one that is awaited is notified. Counters
-- are not touched, which others would have to wait for: the worker counts when the transaction is over.
with ended as (
    delete from reveille.jobs
    where id = $1 and reserved_by is not distinct from $2 and attempts = $3 and reserved_at is not distinct from $4
    returning *
), history as (
    insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
        key, tags, metadata, errors, progress, parent_id, schedule_id, outcome, worker, wait_seconds, run_seconds, finished_at
    )
    select
        (select extract(epoch from clock_timestamp())::bigint / 86400 % 32), id, queue, kind, payload, priority, attempts, failures,
        max_attempts, available_at, created_at, key, tags, metadata, errors, progress, parent_id, schedule_id, 'completed', reserved_by,
        greatest(extract(epoch from reserved_at - available_at), 0), $5, clock_timestamp()
    from ended
    where ended.queue <> all (array(select queues.name from reveille.queues where queues.retention = interval '0'))
), rung as materialized (
    -- Where limits are kept, another one may start. Once, and not again for each row.
    select case when bool_or(limited) then reveille.ring(array_agg(queue)) end from ended
)
select pg_current_xact_id()::text as transaction
from ended
-- True for it; evaluated so that the last is reached only if it is awaited.
where (select count(*) from rung) = 1
    and (not awaited or pg_notification_queue_usage() >= 0.9 or pg_notify('reveille.finished', id || ' completed') is not null)
