-- Enqueues many jobs that differ only in their payloads and have no unique keys. The ids of the jobs ascend in the
-- order of the payloads.
--
--   $1  text              queue
--   $2  text              kind
--   $3  jsonb[]           payloads
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
-- Returns one row per job: its id, and existed, which is always false.
insert into reveille.jobs (
    queue, kind, payload, priority, max_attempts, available_at, key, timeout, tags, metadata, parent_id
)
select
    $1::text, $2::text, new.payload, $4::smallint, $5::int,
    coalesce(
        $6::timestamptz, pg_catalog.now() operator(pg_catalog.+) pg_catalog.make_interval(secs => $7::double precision)
    ),
    $8::text, pg_catalog.make_interval(secs => $9::double precision), $10::text[], $11::jsonb, $12::bigint
from pg_catalog.unnest($3::jsonb[]) with ordinality as new (payload, place)
order by new.place
returning id, false as existed
