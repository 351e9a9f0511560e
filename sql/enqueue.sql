-- Enqueues one job without a unique key. A job with a unique key is enqueued by reveille.enqueue.
--
--   $1  text              queue
--   $2  text              kind
--   $3  jsonb             payload
--   $4  smallint          priority
--   $5  int               max_attempts
--   $6  timestamptz       due time; null: $7 is given
--   $7  double precision  delay in seconds
--   $8  text              key
--   $9  double precision  timeout in seconds
--   $10 text[]            tags
--   $11 jsonb             metadata
--   $12 bigint            parent_id
--
-- Returns one row: the job's id, and existed, which is always false.
insert into reveille.jobs (
    queue, kind, payload, priority, max_attempts, available_at, key, timeout, tags, metadata, parent_id
)
values (
    $1, $2, $3, $4, $5, coalesce($6, pg_catalog.now() operator(pg_catalog.+) pg_catalog.make_interval(secs => $7)), $8,
    pg_catalog.make_interval(secs => $9), $10, $11, $12
)
returning id, false as existed
