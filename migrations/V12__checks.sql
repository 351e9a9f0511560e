-- A table's check constraints are read from the catalog's text anew by each statement that writes to it: sixteen of them cost a
-- single insert four times what the rest of it does. So one function checks it all, which a session keeps ready, and says what is wrong
-- by the names that the constraints had. Its arguments are the columns that have anything to check.

-- Every name qualified, since it runs for whoever writes: nobody is to slip a bad row past it. Null is let through, as by constraints.
create function reveille.check_job(
    queue text, kind text, payload jsonb, priority smallint, attempts int, failures int, max_attempts int,
    reserved_at timestamptz, reserved_by bigint, available_at timestamptz, created_at timestamptz,
    unique_key text, unique_until text, key text, timeout interval, tags text[], metadata jsonb, errors jsonb
) returns boolean
    language plpgsql immutable parallel safe
as $$
declare
    broken text;
begin
    -- Nearly all jobs are like this, and each operator here has to be looked up once a transaction.
    if queue operator(pg_catalog.<>) '' and kind operator(pg_catalog.<>) ''
        and greatest(pg_catalog.length(queue), pg_catalog.length(kind)) operator(pg_catalog.<=) 128
        and pg_catalog.pg_column_size(payload) operator(pg_catalog.<=) 8388608
        and priority operator(pg_catalog.>=) 0 and priority operator(pg_catalog.<=) 3
        and attempts operator(pg_catalog.=) 0 and failures operator(pg_catalog.=) 0 and max_attempts operator(pg_catalog.>) 0
        and reserved_at is null and reserved_by is null
        and pg_catalog.isfinite(available_at) and pg_catalog.isfinite(created_at)
        and coalesce(unique_key, unique_until, key) is null
        and timeout is null and tags is null and metadata is null and errors is null
    then
        return true;
    end if;
    broken := case
        when pg_catalog.length(queue) operator(pg_catalog.<) 1 or pg_catalog.length(queue) operator(pg_catalog.>) 128
            then 'queue_has_1_to_128_characters'
        when pg_catalog.length(kind) operator(pg_catalog.<) 1 or pg_catalog.length(kind) operator(pg_catalog.>) 128
            then 'kind_has_1_to_128_characters'
        when pg_catalog.pg_column_size(payload) operator(pg_catalog.>) 8388608
            then 'payload_is_at_most_8_mib'
        when priority operator(pg_catalog.<) 0 or priority operator(pg_catalog.>) 3
            then 'priority_is_0_to_3'
        when attempts operator(pg_catalog.<) 0
            then 'attempts_is_not_negative'
        when failures operator(pg_catalog.<) 0 or failures operator(pg_catalog.>) attempts
            then 'failures_is_0_to_attempts'
        when max_attempts operator(pg_catalog.<) 1
            then 'max_attempts_is_positive'
        when pg_catalog.num_nulls(reserved_at, reserved_by) operator(pg_catalog.=) 1
            then 'reserved_at_and_by_go_together'
        when not pg_catalog.isfinite(available_at) or not pg_catalog.isfinite(created_at) or not pg_catalog.isfinite(reserved_at)
            then 'times_are_finite'
        when pg_catalog.octet_length(unique_key) operator(pg_catalog.<) 1 or pg_catalog.octet_length(unique_key) operator(pg_catalog.>) 512
            then 'unique_key_has_1_to_512_bytes'
        when unique_until is not null and unique_key is null
            or unique_until operator(pg_catalog.<>) 'started' and unique_until operator(pg_catalog.<>) 'finished'
            then 'unique_until_is_started_or_finished'
        when pg_catalog.octet_length(key) operator(pg_catalog.<) 1 or pg_catalog.octet_length(key) operator(pg_catalog.>) 512
            then 'key_has_1_to_512_bytes'
        when timeout operator(pg_catalog.<=) '0'::pg_catalog.interval
            then 'timeout_is_positive'
        when pg_catalog.cardinality(tags) operator(pg_catalog.>) 64 or pg_catalog.array_position(tags, null) is not null
            then 'tags_are_at_most_64'
        when pg_catalog.jsonb_typeof(metadata) operator(pg_catalog.<>) 'object'
            then 'metadata_is_an_object'
        when pg_catalog.jsonb_typeof(errors) operator(pg_catalog.<>) 'array'
            then 'errors_is_an_array'
    end;
    if broken is null then
        return true;
    end if;
    raise exception using
        errcode = 'check_violation', table = 'jobs', constraint = broken,
        message = pg_catalog.format('new row for relation "jobs" violates check constraint "%s"', broken);
end
$$;
comment on function reveille.check_job(
    text, text, jsonb, smallint, int, int, int, timestamptz, bigint, timestamptz, timestamptz, text, text, text, interval, text[], jsonb, jsonb
) is 'Refuses a bad job: what its table''s constraint asks.';

-- Not validated: what is there has passed the constraints that go.
alter table reveille.jobs
    drop constraint attempts_is_not_negative,
    drop constraint errors_is_an_array,
    drop constraint failures_is_0_to_attempts,
    drop constraint key_has_1_to_512_bytes,
    drop constraint kind_has_1_to_128_characters,
    drop constraint max_attempts_is_positive,
    drop constraint metadata_is_an_object,
    drop constraint payload_is_at_most_8_mib,
    drop constraint priority_is_0_to_3,
    drop constraint queue_has_1_to_128_characters,
    drop constraint reserved_at_and_by_go_together,
    drop constraint tags_are_at_most_64,
    drop constraint timeout_is_positive,
    drop constraint times_are_finite,
    drop constraint unique_key_has_1_to_512_bytes,
    drop constraint unique_until_is_started_or_finished,
    add constraint job_is_sound check (
        -- One that was claimed was checked before: only what would keep it or others from being claimed again is looked at.
        attempts > 0 and priority between 0 and 3 and isfinite(available_at)
        or reveille.check_job(
            queue, kind, payload, priority, attempts, failures, max_attempts, reserved_at, reserved_by, available_at, created_at,
            unique_key, unique_until, key, timeout, tags, metadata, errors
        )
    ) not valid;
