-- Declares the schedules of a worker's code. Commits durably, so that a crash of the server does not lose the
-- schedules.
--
--   $1  bigint              the worker's id
--   $2  text[]              names
--   $3  text[]              cron texts; null: the schedule has an interval
--   $4  double precision[]  intervals in seconds; null: the schedule has a cron text
--   $5  text[]              time zones
--   $6  text[]              catch-up of each schedule: skip, one or all
--   $7  text[]              kinds
--   $8  jsonb[]             payloads
--   $9  text[]              queues
--   $10 smallint[]          priorities
--   $11 int[]               max_attempts
--   $12 double precision[]  timeouts in seconds; null: the worker's setting
--   $13 text[]              keys
--   $14 jsonb[]             tags, each an array of strings
--   $15 jsonb[]             metadata
--
-- Returns one row per schedule; the second column is the schedule's id.
select
    set_config('synchronous_commit', 'on', true),
    reveille.schedule(
        name => declared.name,
        cron => declared.cron,
        every => make_interval(secs => declared.every_seconds),
        time_zone => declared.time_zone,
        catch_up => declared.catch_up,
        kind => declared.kind,
        payload => declared.payload,
        queue => declared.queue,
        priority => declared.priority,
        max_attempts => declared.max_attempts,
        timeout => make_interval(secs => declared.timeout_seconds),
        key => declared.key,
        tags => case
            when declared.tags is not null then array(select pg_catalog.jsonb_array_elements_text(declared.tags))
        end,
        metadata => declared.metadata,
        declared_by => $1
    )
from unnest(
    $2::text[], $3::text[], $4::double precision[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::text[],
    $10::smallint[], $11::int[], $12::double precision[], $13::text[], $14::jsonb[], $15::jsonb[]
) as declared (
    name, cron, every_seconds, time_zone, catch_up, kind, payload, queue, priority, max_attempts, timeout_seconds, key,
    tags, metadata
)
