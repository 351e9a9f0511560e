-- The checks of each row of jobs. See docs/design/odd-rows.md.

-- This function measures payloads and metadata as text, since workers receive the text and not the compressed form that
-- is stored: a payload of 100 MB of the same letter is stored in 1 MB. The function makes the text only if the stored
-- form exceeds 512 bytes, so that an ordinary insert does not pay for the text.
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
    -- Nearly all jobs fulfil this first condition. The condition is kept short, because Postgres resolves each operator
    -- anew in each transaction.
    if queue operator(pg_catalog.<>) '' and kind operator(pg_catalog.<>) ''
        and greatest(pg_catalog.length(queue), pg_catalog.length(kind)) operator(pg_catalog.<=) 128
        and (
            pg_catalog.pg_column_size(payload) operator(pg_catalog.<=) 512
            or pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.<=) 8388608
        )
        and priority operator(pg_catalog.>=) 0 and priority operator(pg_catalog.<=) 3
        and attempts operator(pg_catalog.=) 0 and failures operator(pg_catalog.=) 0
        and max_attempts operator(pg_catalog.>) 0 and reserved_at is null and reserved_by is null
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
        when pg_catalog.pg_column_size(payload) operator(pg_catalog.>) 512
            and pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.>) 8388608
            then 'payload_is_at_most_8_mib'
        when priority operator(pg_catalog.<) 0 or priority operator(pg_catalog.>) 3
            then 'priority_is_0_to_3'
        when attempts operator(pg_catalog.<) 0
            then 'attempts_is_not_negative'
        -- Each claim adds one to `attempts`, which overflows at two billion. The limit is half of that, and no job
        -- needs more.
        when attempts operator(pg_catalog.>) 1000000000
            then 'attempts_is_at_most_1000000000'
        when failures operator(pg_catalog.<) 0 or failures operator(pg_catalog.>) attempts
            then 'failures_is_0_to_attempts'
        when max_attempts operator(pg_catalog.<) 1
            then 'max_attempts_is_positive'
        when pg_catalog.num_nulls(reserved_at, reserved_by) operator(pg_catalog.=) 1
            then 'reserved_at_and_by_go_together'
        when not pg_catalog.isfinite(available_at) or not pg_catalog.isfinite(created_at)
            or not pg_catalog.isfinite(reserved_at)
            then 'times_are_finite'
        when pg_catalog.octet_length(unique_key) operator(pg_catalog.<) 1
            or pg_catalog.octet_length(unique_key) operator(pg_catalog.>) 512
            then 'unique_key_has_1_to_512_bytes'
        when unique_until is not null and unique_key is null
            or unique_until operator(pg_catalog.<>) 'started' and unique_until operator(pg_catalog.<>) 'finished'
            then 'unique_until_is_started_or_finished'
        when pg_catalog.octet_length(key) operator(pg_catalog.<) 1
            or pg_catalog.octet_length(key) operator(pg_catalog.>) 512
            then 'key_has_1_to_512_bytes'
        when timeout operator(pg_catalog.<=) '0'::pg_catalog.interval
            then 'timeout_is_positive'
        when pg_catalog.array_ndims(tags) operator(pg_catalog.>) 1
            then 'tags_have_one_dimension'
        when pg_catalog.cardinality(tags) operator(pg_catalog.>) 64 or pg_catalog.array_position(tags, null) is not null
            then 'tags_are_at_most_64'
        when pg_catalog.octet_length(pg_catalog.array_to_string(tags, '')) operator(pg_catalog.>) 16384
            then 'tags_are_at_most_16_kib'
        when pg_catalog.jsonb_typeof(metadata) operator(pg_catalog.<>) 'object'
            then 'metadata_is_an_object'
        when pg_catalog.pg_column_size(metadata) operator(pg_catalog.>) 512
            and pg_catalog.octet_length(metadata::pg_catalog.text) operator(pg_catalog.>) 262144
            then 'metadata_is_at_most_256_kib'
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
    text, text, jsonb, smallint, int, int, int, timestamptz, bigint, timestamptz, timestamptz, text, text, text,
    interval, text[], jsonb, jsonb
) is
    'Refuses an odd row: raises a check violation that names the broken rule. Returns true for any other row.';

create function reveille.check_inserted_jobs() returns trigger
    language plpgsql volatile
as $$
declare
    job record;
    is_sound boolean;
begin
    -- Every name is qualified, since this function runs with the search path of any role that inserts. `limit 1` makes
    -- the planner expect few rows. Without it, a session whose first insert has a million jobs would make a plan for a
    -- million rows, and keep this plan. Postgres would compile the plan (JIT) at each later insert, which takes 13 ms.
    perform from inserted
    where (
            greatest(pg_catalog.octet_length(queue), pg_catalog.octet_length(kind)) operator(pg_catalog.<=) 128
            and least(pg_catalog.octet_length(queue), pg_catalog.octet_length(kind)) operator(pg_catalog.>) 0
            and (
                pg_catalog.pg_column_size(payload) operator(pg_catalog.<=) 512
                or pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.<=) 8388608
            )
            and priority operator(pg_catalog.>=) 0 and priority operator(pg_catalog.<=) 3
            and attempts operator(pg_catalog.=) 0 and failures operator(pg_catalog.=) 0
            and max_attempts operator(pg_catalog.>) 0
            and pg_catalog.isfinite(available_at) and pg_catalog.isfinite(created_at)
            and reserved_at is null and reserved_by is null and unique_key is null and unique_until is null
            and key is null and timeout is null and tags is null and metadata is null and errors is null
        ) is not true
    limit 1;
    if found then
        -- The call is an assignment, because each error would contain the whole text of a `perform` statement.
        for job in select * from inserted loop
            is_sound := reveille.check_job(
                job.queue, job.kind, job.payload, job.priority, job.attempts, job.failures, job.max_attempts,
                job.reserved_at, job.reserved_by, job.available_at, job.created_at, job.unique_key, job.unique_until,
                job.key, job.timeout, job.tags, job.metadata, job.errors
            );
        end loop;
    end if;
    return null;
end
$$;
comment on function reveille.check_inserted_jobs() is
    'Refuses an insert that contains an odd row (reveille.check_job).';

create function reveille.check_changed_job() returns trigger
    language plpgsql volatile
as $$
declare
    is_sound boolean;
begin
    is_sound := reveille.check_job(
        new.queue, new.kind, new.payload, new.priority, new.attempts, new.failures, new.max_attempts, new.reserved_at,
        new.reserved_by, new.available_at, new.created_at, new.unique_key, new.unique_until, new.key, new.timeout,
        new.tags, new.metadata, new.errors
    );
    return null;
end
$$;
comment on function reveille.check_changed_job() is 'Refuses an update that leaves an odd row (reveille.check_job).';

create trigger check_inserted after insert on reveille.jobs
    referencing new table as inserted
    for each statement
    execute function reveille.check_inserted_jobs();

create trigger check_changed
    after update of
        queue, kind, payload, priority, failures, max_attempts, available_at, created_at, key, timeout, tags, metadata,
        errors
    on reveille.jobs
    for each row
    execute function reveille.check_changed_job();

-- This trigger checks a job after an update of the columns that a claim sets. Of these columns, a claim can give only
-- `attempts` a wrong value. The trigger's condition reads only `attempts`, so that claims seldom pay for the check
-- itself.
create trigger check_unclaimed
    after update of attempts, reserved_at, reserved_by, unique_key, unique_until
    on reveille.jobs
    for each row
    when (new.attempts < 1 or new.attempts > 1000000000)
    execute function reveille.check_changed_job();
