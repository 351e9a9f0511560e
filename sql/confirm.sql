-- What of that which a worker was notified of is so: anybody can notify it of anything.
--
--   $1 bigint    worker
--   $2 bigint[]  jobs that it holds and that may be to be cancelled
--   $3 text[]    queues that may be paused
--
-- One row: which of these jobs are to be cancelled, which of these queues are paused, and whether the worker is to stop.
select
    array(
        select id from reveille.jobs
        where id = any ($2::bigint[]) and reserved_by is not distinct from $1::bigint and cancel_requested_at is not null
    ) as cancel,
    array(select name from reveille.queues where name = any ($3::text[]) and paused_at is not null) as paused,
    exists (select from reveille.workers where id = $1::bigint and stop_requested_at is not null) as stop
