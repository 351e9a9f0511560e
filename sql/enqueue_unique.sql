-- Enqueues many jobs, one after another, some or all of them with unique keys.
--
--   $1 to $12           as in sql/enqueue_all.sql
--   $13 text[]          unique keys
--   $14 text[]          unique modes
--   $15 text[]          unique_until
--
-- Returns one row per job, in the order of the arrays: its id, and existed, which is true if another job holds its
-- unique key.
--
-- The payloads have been measured before: this statement allows as much as the table takes, 8 MiB.
--
-- Jobs without a unique key are enqueued first, the other jobs in the order of their kinds and unique keys. Because all
-- sessions wait for unique keys in this one order, two sessions that run this statement never deadlock.
with new as materialized (
    select *
    from unnest(
        $1::text[], $2::text[], $3::jsonb[], $4::smallint[], $5::int[], $6::timestamptz[], $7::double precision[],
        $8::text[], $9::double precision[], $10::jsonb[], $11::jsonb[], $12::bigint[], $13::text[], $14::text[],
        $15::text[]
    ) with ordinality as given (
        queue, kind, payload, priority, max_attempts, due, delay_seconds, key, timeout_seconds, tags, metadata,
        parent_id, unique_key, unique_mode, unique_until, place
    )
    order by
        case when unique_key is not null then kind end collate pg_catalog."C" nulls first,
        unique_key collate pg_catalog."C", place
)
select enqueued.id, enqueued.existed
from new
cross join lateral reveille.enqueue(
    kind => new.kind,
    payload => new.payload,
    queue => new.queue,
    available_at => coalesce(
        new.due, pg_catalog.now() operator(pg_catalog.+) pg_catalog.make_interval(secs => new.delay_seconds)
    ),
    priority => new.priority,
    max_attempts => new.max_attempts,
    timeout => pg_catalog.make_interval(secs => new.timeout_seconds),
    unique_key => new.unique_key,
    unique_mode => new.unique_mode,
    unique_until => new.unique_until,
    key => new.key,
    tags => case when new.tags is not null then array(select pg_catalog.jsonb_array_elements_text(new.tags)) end,
    metadata => new.metadata,
    parent_id => new.parent_id,
    max_payload => 8388608
) as enqueued
order by new.place
