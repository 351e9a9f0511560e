-- Checks signals that a worker has received against the tables: any session can send any notification.
--
--   $1 bigint    worker
--   $2 bigint[]  jobs that it holds and that may have been cancelled
--   $3 text[]    queues that may be paused
--
-- Returns one row: which of these jobs are to be cancelled, which of these queues are paused, and whether the worker is
-- to stop.
select
    array(
        select id from reveille.jobs
        where id = any ($2::bigint[]) and reserved_by is not distinct from $1::bigint
            and cancel_requested_at is not null
    ) as cancel,
    array(select name from reveille.queues where name = any ($3::text[]) and paused_at is not null) as paused,
    exists (select from reveille.workers where id = $1::bigint and stop_requested_at is not null) as stop
