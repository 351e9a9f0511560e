-- Reads and locks a schedule, for the record of a change of it.
--
--   $1 text  the schedule's name
--
-- Returns one row with the schedule as JSON, and the hashes and lengths of its payload and metadata; no row if no
-- schedule has this name.
select to_jsonb(schedule) || jsonb_build_object(
    'payload', jsonb_build_object(
        'sha256', encode(sha256(convert_to(schedule.payload::text, getdatabaseencoding())), 'hex'),
        'bytes', octet_length(schedule.payload::text)
    ),
    'metadata', case when schedule.metadata is not null then jsonb_build_object(
        'sha256', encode(sha256(convert_to(schedule.metadata::text, getdatabaseencoding())), 'hex'),
        'bytes', octet_length(schedule.metadata::text)
    ) end
) as record
from (
    select
        cron, every, time_zone, catch_up, kind, payload, queue, priority, max_attempts, timeout, key, tags, metadata
    from reveille.schedules
    where name = $1
    for update
) as schedule
