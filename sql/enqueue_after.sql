-- Enqueues a job that waits for other jobs.
--
--   $1 to $12     as in sql/enqueue.sql
--   $13 bigint[]  the jobs that it waits for
--   $14 text      fires_on
--   $15 text      on_dead
--   $16 text      wait_for
--
-- Returns one row: the job's id, and existed, which is false.
--
-- The payload has been measured before: this statement allows as much as the table takes, 8 MiB.
select
    reveille.enqueue_after(
        after => $13, kind => $2, payload => $3, fires_on => $14, on_dead => $15, wait_for => $16, queue => $1,
        delay => case
            when $6::timestamptz is null and $7 operator(pg_catalog.>) 0::double precision
            then pg_catalog.make_interval(secs => $7)
        end,
        available_at => $6, priority => $4, max_attempts => $5, timeout => pg_catalog.make_interval(secs => $9),
        key => $8, tags => $10, metadata => $11, parent_id => $12, max_payload => 8388608
    ) as id,
    false as existed
