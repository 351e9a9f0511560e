-- Enqueues many jobs without unique keys. The ids of the jobs ascend in the order of the arrays.
--
--   $1  text[]              queues
--   $2  text[]              kinds
--   $3  jsonb[]             payloads
--   $4  smallint[]          priorities
--   $5  int[]               max_attempts
--   $6  timestamptz[]       due times; null: the job has a delay
--   $7  double precision[]  delays in seconds
--   $8  text[]              keys
--   $9  double precision[]  timeouts in seconds; null: the worker's setting
--   $10 jsonb[]             tags, each an array of strings
--   $11 jsonb[]             metadata
--   $12 bigint[]            parent_ids
--
-- Returns one row per job: its id, and existed, which is always false.
insert into reveille.jobs (
    queue, kind, payload, priority, max_attempts, available_at, key, timeout, tags, metadata, parent_id
)
select
    new.queue, new.kind, new.payload, new.priority, new.max_attempts,
    coalesce(new.due, pg_catalog.now() operator(pg_catalog.+) pg_catalog.make_interval(secs => new.delay_seconds)),
    new.key, pg_catalog.make_interval(secs => new.timeout_seconds),
    case when new.tags is not null then array(select pg_catalog.jsonb_array_elements_text(new.tags)) end, new.metadata,
    new.parent_id
from unnest(
    $1::text[], $2::text[], $3::jsonb[], $4::smallint[], $5::int[], $6::timestamptz[], $7::double precision[],
    $8::text[], $9::double precision[], $10::jsonb[], $11::jsonb[], $12::bigint[]
) with ordinality as new (
    queue, kind, payload, priority, max_attempts, due, delay_seconds, key, timeout_seconds, tags, metadata, parent_id,
    place
)
order by new.place
returning id, false as existed
