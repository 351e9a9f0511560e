-- Confirms, in the tables, signals that a worker has received, since any session can send any notification.
--
--   $1 bigint    the worker's id
--   $2 bigint[]  jobs that the worker holds and that may have been cancelled
--   $3 text[]    queues that may be paused
--
-- Returns one row:
--   cancel  those of the jobs $2 that are to be cancelled
--   paused  those of the queues $3 that are paused, or in which a kind or a key was paused within the last minute.
--           Their jobs that are claimed and not started are to be released, since a pause may cover them.
--   stop    true if the worker is to stop
select
    array(
        select id from reveille.jobs
        where id = any ($2::bigint[]) and reserved_by is not distinct from $1::bigint
            and cancel_requested_at is not null
    ) as cancel,
    array(
        select name from reveille.queues where name = any ($3::text[]) and paused_at is not null
        union
        select named.queue
        from pg_catalog.unnest($3::text[]) as named (queue)
        where exists (
            select from reveille.pauses
            where coalesce(pauses.queue, '') = any (array[named.queue, ''])
                and pauses.paused_at > clock_timestamp() - interval '1 minute'
        )
    ) as paused,
    exists (select from reveille.workers where id = $1::bigint and stop_requested_at is not null) as stop
