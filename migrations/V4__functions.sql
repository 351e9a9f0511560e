-- The functions for callers in any language, and for workers.

create function reveille.enqueue(
    kind         text,
    payload      jsonb       default '{}',
    queue        text        default 'default',
    delay        interval    default null,
    available_at timestamptz default null,
    priority     bigint      default 2,
    max_attempts bigint      default null,
    timeout      interval    default null,
    unique_key   text        default null,
    unique_mode  text        default 'keep',
    unique_until text        default 'finished',
    key          text        default null,
    tags         text[]      default null,
    metadata     jsonb       default null,
    parent_id    bigint      default null,
    max_payload  bigint      default null,
    out id       bigint,
    out existed  boolean
)
    language plpgsql volatile
as $$
#variable_conflict use_column
declare
    largest bigint;
    due timestamptz;
    period interval;
    sound boolean;
begin
    if enqueue.delay is not null and enqueue.available_at is not null then
        raise exception 'enqueue takes delay or available_at, not both' using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.delay operator(pg_catalog.<) interval '0' then
        raise exception 'delay must not be negative' using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.priority operator(pg_catalog.<) 0 or enqueue.priority operator(pg_catalog.>) 3 then
        raise exception 'priority must be 0 (urgent), 1 (high), 2 (normal) or 3 (low), not %', enqueue.priority
            using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.max_attempts operator(pg_catalog.<) 1 or enqueue.max_attempts operator(pg_catalog.>) 2147483647 then
        raise exception 'max_attempts must be 1 to 2147483647, not %', enqueue.max_attempts
            using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.kind is null then
        raise exception 'kind must not be null' using errcode = 'null_value_not_allowed';
    end if;
    if pg_catalog.array_ndims(enqueue.tags) operator(pg_catalog.>) 1 then
        raise exception 'tags must be one list, not an array of % dimensions', pg_catalog.array_ndims(enqueue.tags)
            using errcode = 'invalid_parameter_value', hint = 'Write it like array[''a'', ''b''].';
    end if;
    largest := case
        when enqueue.max_payload is not null then enqueue.max_payload
        when pg_catalog.length(pg_catalog.current_setting('reveille.max_payload', true)) operator(pg_catalog.>) 0
        then pg_catalog.current_setting('reveille.max_payload')::pg_catalog.int8
        else 1048576
    end;
    -- The payload is measured as text, since workers receive text. A payload that is stored in at most 512 bytes is not
    -- measured, so that an ordinary job does not pay for the measurement. If the maximum is below 512 bytes, every
    -- payload is measured.
    if (pg_catalog.pg_column_size(enqueue.payload) operator(pg_catalog.>) 512 or largest operator(pg_catalog.<) 512)
        and pg_catalog.octet_length(enqueue.payload::pg_catalog.text) operator(pg_catalog.>) largest
    then
        raise exception 'payload is larger than the limit of % bytes', largest
            using errcode = 'program_limit_exceeded',
                  hint = 'Keep large data elsewhere and pass a reference, or raise the limit to at most 8388608: by '
                         'the argument max_payload, or for a session by the setting reveille.max_payload.';
    end if;
    if (enqueue.unique_mode operator(pg_catalog.=) any (array['keep', 'replace', 'debounce'])) is not true then
        raise exception 'unique_mode must be keep, replace or debounce' using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.unique_until operator(pg_catalog.<>) all (array['started', 'finished']) then
        begin
            period := enqueue.unique_until::pg_catalog.interval;
        exception when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
            null; -- The next condition refuses the text.
        end;
        if (period operator(pg_catalog.>) interval '0' and pg_catalog.isfinite(period)) is not true then
            raise exception 'unique_until must be started, finished or a positive interval such as 1 hour, not %',
                pg_catalog.quote_literal(enqueue.unique_until) using errcode = 'invalid_parameter_value';
        end if;
        if enqueue.unique_key is null then
            raise exception 'unique_until takes an interval only with a unique_key'
                using errcode = 'invalid_parameter_value';
        end if;
    end if;
    due := coalesce(
        enqueue.available_at,
        pg_catalog.now() operator(pg_catalog.+) coalesce(enqueue.delay, interval '0')
    );
    -- The values are checked before the insert, because an error in the insert would show the text of each enclosing
    -- statement.
    if (
        pg_catalog.length(enqueue.kind) operator(pg_catalog.>) 0
        and pg_catalog.length(enqueue.kind) operator(pg_catalog.<=) 128
        and pg_catalog.isfinite(due)
        and (enqueue.queue is null
            or pg_catalog.length(enqueue.queue) operator(pg_catalog.>) 0
            and pg_catalog.length(enqueue.queue) operator(pg_catalog.<=) 128)
        and (enqueue.unique_key is null
            or pg_catalog.octet_length(enqueue.unique_key) operator(pg_catalog.>) 0
            and pg_catalog.octet_length(enqueue.unique_key) operator(pg_catalog.<=) 512)
        and (enqueue.key is null
            or pg_catalog.octet_length(enqueue.key) operator(pg_catalog.>) 0
            and pg_catalog.octet_length(enqueue.key) operator(pg_catalog.<=) 512)
        and enqueue.timeout is null and enqueue.tags is null and enqueue.metadata is null
    ) is not true then
        sound := reveille.check_job(
            coalesce(enqueue.queue, 'default'), enqueue.kind, '{}', 2::smallint, 0, 0, 20, null, null, due,
            pg_catalog.now(), enqueue.unique_key, null, enqueue.key, enqueue.timeout, enqueue.tags, enqueue.metadata,
            null
        );
    end if;

    loop
        insert into reveille.jobs (
            kind, payload, queue, available_at, priority, max_attempts, timeout,
            unique_key, unique_until, key, tags, metadata, parent_id
        )
        select
            enqueue.kind, coalesce(enqueue.payload, '{}'), coalesce(enqueue.queue, 'default'), due,
            coalesce(enqueue.priority::smallint, 2::smallint), coalesce(enqueue.max_attempts::int, 20), enqueue.timeout,
            enqueue.unique_key,
            case
                when enqueue.unique_key is not null
                then case when period is null then enqueue.unique_until else 'finished' end
            end,
            enqueue.key, enqueue.tags, enqueue.metadata, enqueue.parent_id
        where enqueue.unique_key is null or reveille.period_holder(enqueue.kind, enqueue.unique_key) is null
        on conflict (kind, unique_key) where unique_key is not null do nothing
        returning jobs.id into id;
        if found then
            existed := false;
            if enqueue.unique_key is null then
                return;
            end if;
            -- The check for a period is repeated, because the insert may have waited for another transaction. That
            -- transaction may have enqueued a job with this unique key for a period, and that job may have ended.
            if period is null and reveille.period_holder(enqueue.kind, enqueue.unique_key) is null then
                return;
            end if;
            if reveille.hold_unique_key(id, period) then
                return;
            end if;
            continue;
        end if;

        if enqueue.unique_mode operator(pg_catalog.<>) 'keep' then
            id := reveille.replace_waiting(
                enqueue.kind, enqueue.unique_key, coalesce(enqueue.payload, '{}'), enqueue.tags, enqueue.metadata,
                case when enqueue.unique_mode operator(pg_catalog.=) 'debounce' then due end
            );
            if id is not null then
                existed := true;
                return;
            end if;
        end if;

        existed := true;
        id := reveille.live_holder(enqueue.kind, enqueue.unique_key);
        if id is null then
            -- This is a separate statement, so that it also sees what was committed since the statement above.
            id := reveille.period_holder(enqueue.kind, enqueue.unique_key);
        end if;
        if id is not null then
            return;
        end if;
        -- The job that held the unique key has ended meanwhile, so the next round of the loop tries the insert again.
    end loop;
end
$$;
comment on function reveille.enqueue(
    text, jsonb, text, interval, timestamptz, bigint, bigint, interval, text, text, text, text, text[], jsonb, bigint,
    bigint
) is
    'Enqueues a job in the caller''s transaction: `select id from reveille.enqueue(kind => ''hello'')`. If another job '
    'of the kind holds the unique_key, no job is added: `existed` is true, and `id` is the id of that other job. If '
    'that other job is waiting, unique_mode decides what it gets: nothing (`keep`), the new payload, tags and metadata '
    '(`replace`), or these and the new due time (`debounce`). A job that is running or has ended always stays '
    'unchanged. unique_until decides when the unique key is given up: when the job first starts (`started`), or when '
    'it has ended (`finished`). With an interval such as `1 hour`, the unique key is also held until that time has '
    'passed since the job was enqueued. parent_id is the id of the job whose handler enqueues this job. max_payload is '
    'the largest payload in bytes, measured as text; null: the setting reveille.max_payload, or else 1 MiB.';

-- The planner puts this function's query into each statement that calls it, so a column that the statement does not use
-- costs nothing. For this, the function sets no search path. Instead each name, type and operator is qualified.
create function reveille.read_json_jobs(jobs jsonb, are_plain boolean) returns table (
    place bigint, job jsonb, kind text, payload jsonb, queue text, due timestamptz, priority smallint, max_attempts int,
    timeout interval, unique_key text, unique_mode text, unique_until text, key text, tags text[], metadata jsonb,
    parent_id bigint
)
    language sql stable
as $$
    select
        given.place, given.job,
        given.job operator(pg_catalog.->>) 'kind',
        coalesce(given.job operator(pg_catalog.->) 'payload', '{}'),
        coalesce(given.job operator(pg_catalog.->>) 'queue', 'default'),
        case
            when read_json_jobs.are_plain then pg_catalog.now()
            when given.job operator(pg_catalog.->>) 'available_at' is not null
            then (given.job operator(pg_catalog.->>) 'available_at')::pg_catalog.timestamptz
            when pg_catalog.jsonb_typeof(given.job operator(pg_catalog.->) 'delay') operator(pg_catalog.=) 'number'
            then pg_catalog.now() operator(pg_catalog.+) pg_catalog.make_interval(
                secs => (given.job operator(pg_catalog.->>) 'delay')::pg_catalog.float8
            )
            else pg_catalog.now() operator(pg_catalog.+)
                coalesce((given.job operator(pg_catalog.->>) 'delay')::pg_catalog.interval, '0')
        end,
        case
            when read_json_jobs.are_plain or given.job operator(pg_catalog.->>) 'priority' is null
            then 2::pg_catalog.int2
            else (
                (pg_catalog.array_position(
                    array['0', '1', '2', '3', 'urgent', 'high', 'normal', 'low'],
                    given.job operator(pg_catalog.->>) 'priority'
                ) operator(pg_catalog.-) 1) operator(pg_catalog.%) 4
            )::pg_catalog.int2
        end,
        case
            when read_json_jobs.are_plain then 20
            else coalesce((given.job operator(pg_catalog.->>) 'max_attempts')::pg_catalog.int4, 20)
        end,
        case
            when read_json_jobs.are_plain then null
            when pg_catalog.jsonb_typeof(given.job operator(pg_catalog.->) 'timeout') operator(pg_catalog.=) 'number'
            then pg_catalog.make_interval(secs => (given.job operator(pg_catalog.->>) 'timeout')::pg_catalog.float8)
            else (given.job operator(pg_catalog.->>) 'timeout')::pg_catalog.interval
        end,
        case when not read_json_jobs.are_plain then given.job operator(pg_catalog.->>) 'unique_key' end,
        coalesce(given.job operator(pg_catalog.->>) 'unique_mode', 'keep'),
        coalesce(given.job operator(pg_catalog.->>) 'unique_until', 'finished'),
        case when not read_json_jobs.are_plain then given.job operator(pg_catalog.->>) 'key' end,
        case
            when read_json_jobs.are_plain then null
            when pg_catalog.jsonb_typeof(given.job operator(pg_catalog.->) 'tags') operator(pg_catalog.=) 'array'
            then array(select pg_catalog.jsonb_array_elements_text(given.job operator(pg_catalog.->) 'tags'))
        end,
        case
            when read_json_jobs.are_plain then null
            when pg_catalog.jsonb_typeof(given.job operator(pg_catalog.->) 'metadata') operator(pg_catalog.=) 'object'
            then given.job operator(pg_catalog.->) 'metadata'
        end,
        case
            when not read_json_jobs.are_plain then (given.job operator(pg_catalog.->>) 'parent_id')::pg_catalog.int8
        end
    from pg_catalog.jsonb_array_elements(read_json_jobs.jobs) with ordinality as given (job, place)
$$;
comment on function reveille.read_json_jobs(jsonb, boolean) is
    'For reveille.enqueue_json: reads an array of jobs that can be stored. are_plain: no job has other keys than kind, '
    'payload and queue.';

create function reveille.refusal_of_json_job(job jsonb, max_payload bigint) returns text
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    known constant text[] := array[
        'kind', 'payload', 'queue', 'delay', 'available_at', 'priority', 'max_attempts', 'timeout', 'unique_key',
        'unique_mode', 'unique_until', 'key', 'tags', 'metadata', 'parent_id', 'max_payload'
    ];
    articles constant jsonb := jsonb_build_object(
        'array', 'an array', 'object', 'an object', 'string', 'a string', 'number', 'a number', 'boolean', 'a boolean'
    );
    priorities constant text := '0 (urgent), 1 (high), 2 (normal), 3 (low), or one of these names';
    name text;
    value jsonb;
    type text;
    given text;
    wanted text;
    length interval;
    number bigint;
    due timestamptz;
    largest bigint;
    size bigint;
begin
    if jsonb_typeof(job) <> 'object' then
        return format('must be an object, not %s', coalesce(articles ->> jsonb_typeof(job), 'null'));
    end if;
    for name, value in select member.key, member.value from jsonb_each(job) as member loop
        if name <> all (known) then
            return format('key %s: is unknown; known are %s', to_json(left(name, 60)), array_to_string(known, ', '));
        end if;
        type := jsonb_typeof(value);
        continue when type = 'null' or name = 'payload';
        wanted := case
            when name in ('delay', 'timeout') and type not in ('string', 'number')
            then 'a length of time: a string such as "5 minutes", or a number of seconds'
            when name = 'priority' and type not in ('string', 'number') then priorities
            when name in ('max_attempts', 'parent_id', 'max_payload') and type <> 'number' then 'a whole number'
            when name = 'tags' and type <> 'array' then 'an array of strings'
            when name = 'metadata' and type <> 'object' then 'an object'
            when name in ('kind', 'queue', 'available_at', 'unique_key', 'unique_mode', 'unique_until', 'key')
                and type <> 'string'
            then 'a string'
        end;
        if wanted is not null then
            return format('key "%s": must be %s, not %s', name, wanted, articles ->> type);
        end if;

        given := value #>> '{}';
        length := null;
        number := null;
        due := null;
        begin
            if name in ('delay', 'timeout') or name = 'unique_until' and given not in ('started', 'finished') then
                length := case type when 'number' then make_interval(secs => given::float8) else given::interval end;
                -- Adding the length of time fails if no time is so late.
                due := now() + length;
            elsif name = 'available_at' then
                due := given::timestamptz;
            elsif name in ('max_attempts', 'parent_id', 'max_payload') then
                number := given::bigint;
            end if;
        exception when data_exception then
            null; -- One of the next conditions refuses the value.
        end;
        wanted := case
            when name = 'delay' and (length >= interval '0' and isfinite(due)) is not true
            then 'a length of time from 0 on: a string such as "5 minutes", or a number of seconds'
            when name = 'timeout' and (length > interval '0') is not true
            then 'a positive length of time: a string such as "5 minutes", or a number of seconds'
            when name = 'unique_until' and given not in ('started', 'finished')
                and (length > interval '0' and isfinite(length)) is not true
            then '"started", "finished" or a positive length of time such as "1 hour"'
            when name = 'available_at' and isfinite(due) is not true
            then 'a time that Postgres reads, such as "2026-12-24 18:00+01"'
            when name = 'priority' and given not in ('0', '1', '2', '3', 'urgent', 'high', 'normal', 'low')
            then priorities
            when name = 'unique_mode' and given not in ('keep', 'replace', 'debounce')
            then '"keep", "replace" or "debounce"'
            when name = 'max_attempts' and (number between 1 and 2147483647) is not true
            then 'a whole number from 1 to 2147483647'
            when name = 'parent_id' and number is null then 'a whole number, the id of a job'
            when name = 'max_payload' and (number >= 0) is not true then 'a whole number of bytes'
        end;
        if wanted is not null then
            return format('key "%s": must be %s, not %s', name, wanted, left(value::text, 60));
        end if;

        wanted := case
            when name in ('kind', 'queue') and (given = '' or length(given) > 128)
            then format('1 to 128 characters, not %s', length(given))
            when name in ('key', 'unique_key') and (given = '' or octet_length(given) > 512)
            then format('1 to 512 bytes, not %s', octet_length(given))
            when name = 'tags' and jsonb_array_length(value) > 64
            then format('at most 64 strings, not %s', jsonb_array_length(value))
            when name = 'tags' and (select sum(octet_length(tag)) > 16384 from jsonb_array_elements_text(value) as tag)
            then 'at most 16 KiB together (tags_are_at_most_16_kib)'
            when name = 'metadata' and octet_length(given) > 262144
            then format('at most 262144 bytes, not %s (metadata_is_at_most_256_kib)', octet_length(given))
        end;
        if wanted is not null then
            return format('key "%s": must have %s', name, wanted);
        end if;
        if name = 'tags' and jsonb_path_exists(value, 'strict $[*] ? (@.type() != "string")') then
            return 'key "tags": must be an array of strings, and each of its elements a string';
        end if;
    end loop;

    -- As reveille.enqueue does, this leaves out payloads that are stored in 512 bytes.
    largest := least(coalesce((job ->> 'max_payload')::bigint, refusal_of_json_job.max_payload), 8388608);
    size := case
        when pg_column_size(job -> 'payload') > 512 or largest < 512 then octet_length((job -> 'payload')::text)
    end;
    return case
        when job ->> 'kind' is null then 'key "kind": is missing'
        when job ->> 'delay' is not null and job ->> 'available_at' is not null
        then 'key "available_at": excludes the key "delay"; give one of them'
        when job ->> 'unique_until' not in ('started', 'finished') and job ->> 'unique_key' is null
        then 'key "unique_until": a length of time needs a unique_key; give one'
        when size > largest
        then format(
            'key "payload": must have at most %s bytes, not %s; keep large data elsewhere and pass a reference, or '
            'raise the limit by the key "max_payload"', largest, size
        )
    end;
end
$$;
comment on function reveille.refusal_of_json_job(jsonb, bigint) is
    'For reveille.enqueue_json: returns the key of a job that cannot be stored, and why; null if it can be stored. '
    'max_payload is the largest payload in bytes, for a job that does not set its own.';

create function reveille.refusal_of_json_jobs(jobs jsonb, max_payload bigint) returns text
    language plpgsql stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    are_sound boolean;
    given record;
    refusal text;
begin
    -- This check of all jobs at once is quick. It also fails for some jobs that can be stored.
    begin
        select bool_and((
            new.job - array[
                'kind', 'payload', 'queue', 'delay', 'available_at', 'priority', 'max_attempts', 'timeout',
                'unique_key', 'unique_mode', 'unique_until', 'key', 'tags', 'metadata', 'parent_id', 'max_payload'
            ] = '{}'
            and jsonb_typeof(new.job -> 'kind') = 'string' and new.kind <> '' and octet_length(new.kind) <= 128
            and coalesce(jsonb_typeof(new.job -> 'queue'), 'null') in ('string', 'null')
            and new.queue <> '' and octet_length(new.queue) <= 128
            and coalesce(jsonb_typeof(new.job -> 'delay'), 'null') in ('string', 'number', 'null')
            and coalesce(jsonb_typeof(new.job -> 'available_at'), 'null') in ('string', 'null')
            and (new.job ->> 'available_at' is null or new.job ->> 'delay' is null)
            and (new.job ->> 'available_at' is not null or new.due >= now()) and isfinite(new.due)
            and coalesce(jsonb_typeof(new.job -> 'priority'), 'null') in ('string', 'number', 'null')
            and new.priority is not null
            and coalesce(jsonb_typeof(new.job -> 'max_attempts'), 'null') in ('number', 'null')
            and new.max_attempts > 0
            and coalesce(jsonb_typeof(new.job -> 'timeout'), 'null') in ('string', 'number', 'null')
            and coalesce(new.timeout > interval '0', true)
            and coalesce(jsonb_typeof(new.job -> 'unique_key'), 'null') in ('string', 'null')
            and coalesce(octet_length(new.unique_key) between 1 and 512, true)
            and coalesce(jsonb_typeof(new.job -> 'unique_mode'), 'null') in ('string', 'null')
            and new.unique_mode in ('keep', 'replace', 'debounce')
            and coalesce(jsonb_typeof(new.job -> 'unique_until'), 'null') in ('string', 'null')
            and new.unique_until in ('started', 'finished')
            and coalesce(jsonb_typeof(new.job -> 'key'), 'null') in ('string', 'null')
            and coalesce(octet_length(new.key) between 1 and 512, true)
            and coalesce(jsonb_typeof(new.job -> 'tags'), 'null') in ('array', 'null')
            and case
                when jsonb_typeof(new.job -> 'tags') = 'array'
                then jsonb_array_length(new.job -> 'tags') <= 64
                    and octet_length((new.job -> 'tags')::text) <= 16384
                    and not jsonb_path_exists(new.job -> 'tags', 'strict $[*] ? (@.type() != "string")')
                else true
            end
            and coalesce(jsonb_typeof(new.job -> 'metadata'), 'null') in ('object', 'null')
            and (new.metadata is null or pg_column_size(new.metadata) <= 512)
            and coalesce(jsonb_typeof(new.job -> 'parent_id'), 'null') in ('number', 'null')
            -- This condition is true of each number that the column can hold.
            and coalesce(new.parent_id between -9223372036854775808 and 9223372036854775807, true)
            and new.job ->> 'max_payload' is null
            and pg_column_size(new.payload) <= 512 and refusal_of_json_jobs.max_payload >= 512
        ) is true)
        into are_sound
        -- With `offset 0` the server computes each column once.
        from (select * from reveille.read_json_jobs(jobs, false) offset 0) as new;
    exception when data_exception then
        are_sound := false;
    end;
    if are_sound is not false then
        return null;
    end if;
    for given in
        select each.job, each.place from jsonb_array_elements(jobs) with ordinality as each (job, place)
    loop
        refusal := reveille.refusal_of_json_job(given.job, refusal_of_json_jobs.max_payload);
        if refusal is not null then
            return format('job %s: %s', given.place, refusal);
        end if;
    end loop;
    return null;
end
$$;
comment on function reveille.refusal_of_json_jobs(jsonb, bigint) is
    'For reveille.enqueue_json: returns the place and the key of the first job of an array that cannot be stored, and '
    'why; null if all can be stored.';

create function reveille.enqueue_json(jobs jsonb) returns table (place int, id bigint, existed boolean)
    language plpgsql volatile
as $$
#variable_conflict use_column
declare
    given pg_catalog.jsonb := case
        when pg_catalog.jsonb_typeof(enqueue_json.jobs) operator(pg_catalog.=) 'object'
        then pg_catalog.jsonb_build_array(enqueue_json.jobs)
        else enqueue_json.jobs
    end;
    largest bigint := case
        when pg_catalog.length(pg_catalog.current_setting('reveille.max_payload', true)) operator(pg_catalog.>) 0
        then pg_catalog.current_setting('reveille.max_payload')::pg_catalog.int8
        else 1048576
    end;
    are_plain boolean;
    refusal text;
begin
    if (pg_catalog.jsonb_typeof(given) operator(pg_catalog.=) 'array') is not true then
        raise exception 'jobs must be a job, which is an object, or an array of jobs, not %',
            coalesce(pg_catalog.jsonb_typeof(given), 'null')
            using errcode = 'invalid_parameter_value';
    end if;

    -- Most calls have jobs without options. Their check and their insert look for no other key.
    select pg_catalog.bool_and(case
        when pg_catalog.jsonb_typeof(new.kind) operator(pg_catalog.=) 'string'
        then new.job operator(pg_catalog.-) array['kind', 'payload', 'queue'] operator(pg_catalog.=) '{}'
            and new.kind operator(pg_catalog.#>>) '{}' operator(pg_catalog.<>) ''
            and pg_catalog.octet_length(new.kind operator(pg_catalog.#>>) '{}') operator(pg_catalog.<=) 128
            and (
                new.queue is null
                or pg_catalog.jsonb_typeof(new.queue) operator(pg_catalog.=) 'string'
                and new.queue operator(pg_catalog.#>>) '{}' operator(pg_catalog.<>) ''
                and pg_catalog.octet_length(new.queue operator(pg_catalog.#>>) '{}') operator(pg_catalog.<=) 128
            )
            and pg_catalog.pg_column_size(new.payload) operator(pg_catalog.<=) 512
            and largest operator(pg_catalog.>=) 512
        else false
    end)
    into are_plain
    from (
        select
            each.job, each.job operator(pg_catalog.->) 'kind' as kind,
            each.job operator(pg_catalog.->) 'queue' as queue,
            coalesce(each.job operator(pg_catalog.->) 'payload', '{}') as payload
        from pg_catalog.jsonb_array_elements(given) as each (job)
        offset 0
    ) as new;
    are_plain := coalesce(are_plain, true);

    if not are_plain then
        refusal := reveille.refusal_of_json_jobs(given, largest);
        if refusal is not null then
            raise exception '%', refusal using errcode = 'invalid_parameter_value';
        end if;
        if exists (
            select from pg_catalog.jsonb_array_elements(given) as each (job)
            where each.job operator(pg_catalog.->>) 'unique_key' is not null
        ) then
            -- The jobs are stored as in sql/enqueue_unique.sql: those without a unique key first, the others in the
            -- order of their kinds and unique keys, in which all sessions wait for unique keys.
            return query
            with new as materialized (
                select * from reveille.read_json_jobs(given, false) as given
                order by
                    case when given.unique_key is not null then given.kind end collate pg_catalog."C" nulls first,
                    given.unique_key collate pg_catalog."C", given.place
            )
            select new.place::pg_catalog.int4, enqueued.id, enqueued.existed
            from new
            cross join lateral reveille.enqueue(
                kind => new.kind, payload => new.payload, queue => new.queue, available_at => new.due,
                priority => new.priority, max_attempts => new.max_attempts, timeout => new.timeout,
                unique_key => new.unique_key, unique_mode => new.unique_mode, unique_until => new.unique_until,
                key => new.key, tags => new.tags, metadata => new.metadata, parent_id => new.parent_id,
                max_payload => 8388608
            ) as enqueued
            order by new.place;
            return;
        end if;
    end if;

    return query
    with stored as (
        insert into reveille.jobs (
            queue, kind, payload, priority, max_attempts, available_at, key, timeout, tags, metadata, parent_id
        )
        select
            new.queue, new.kind, new.payload, new.priority, new.max_attempts, new.due, new.key, new.timeout, new.tags,
            new.metadata, new.parent_id
        from reveille.read_json_jobs(given, are_plain) as new
        order by new.place
        returning jobs.id
    )
    -- The ids ascend in the order of the array.
    select (pg_catalog.row_number() over (order by stored.id))::pg_catalog.int4, stored.id, false from stored;
end
$$;
comment on function reveille.enqueue_json(jsonb) is
    'Enqueues a job, or an array of jobs, in the caller''s transaction: `select place, id, existed from '
    'reveille.enqueue_json(''[{"kind": "hello", "payload": {"to": 7}}]'')`. The keys of a job are the arguments of '
    '`reveille.enqueue`; only `kind` is required. A key that is null counts as absent, except `payload`. `delay` and '
    '`timeout` are texts that Postgres reads as an interval, or numbers of seconds; `priority` is 0 to 3, or `urgent`, '
    '`high`, `normal` or `low`. Returns a row for each job: its place in the array, from 1, its id, and whether it '
    'existed. Stores all jobs or none. If a job cannot be stored, the error names its place and its key. Jobs with '
    'unique keys are stored in the order of these keys, so that two calls do not deadlock.';

create function reveille.cancel(id bigint) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    job reveille.jobs;
begin
    select * into job from reveille.jobs where jobs.id = cancel.id for update;
    if found and job.reserved_at is not null then
        update reveille.jobs
        set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
        where jobs.id = cancel.id;
        -- The worker confirms the notification in the table. If no notification comes, the worker's next heartbeat
        -- finds the request.
        if pg_notification_queue_usage() < 0.9 then
            perform pg_notify('reveille.cancel', cancel.id::text);
        end if;
        return 'requested';
    elsif found then
        delete from reveille.jobs where jobs.id = cancel.id;
        if not exists (select from reveille.queues where name = job.queue and retention = interval '0') then
            insert into reveille.finished_jobs (
                day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
                key, tags, metadata, errors, progress, parent_id, schedule_id, outcome
            )
            values (
                extract(epoch from now())::bigint / 86400 % 32, job.id, job.queue, job.kind, job.payload, job.priority,
                job.attempts, job.failures, job.max_attempts, job.available_at, job.created_at,
                job.key, job.tags, job.metadata, job.errors, job.progress, job.parent_id, job.schedule_id, 'cancelled'
            );
        elsif job.awaited then
            insert into reveille.ends (id, outcome, errors) values (job.id, 'cancelled', job.errors);
        end if;
        if job.awaited and pg_notification_queue_usage() < 0.9 then
            perform pg_notify('reveille.finished', cancel.id || ' cancelled');
        end if;
        -- In an ordered queue, the next job with the same key may start now.
        perform reveille.ring(array[job.queue]) from reveille.queues where name = job.queue and limited = 'key';
        return 'cancelled';
    end if;
    return case
        when exists (select from reveille.dead_jobs where dead_jobs.id = cancel.id) then 'dead'
        when exists (select from reveille.finished_jobs where finished_jobs.id = cancel.id) then 'finished'
        else 'unknown'
    end;
end
$$;
comment on function reveille.cancel(bigint) is
    'Cancels a job. Returns `cancelled` (the job was waiting, and has now ended), `requested` (the job is running, and '
    'its handler is asked to stop), or the reason why nothing was cancelled: `finished`, `dead` or `unknown`.';

create function reveille.retry(id bigint) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    job reveille.jobs;
    dead reveille.dead_jobs;
begin
    select * into job from reveille.jobs where jobs.id = retry.id for update;
    if found and job.reserved_at is not null then
        return 'running';
    elsif found then
        update reveille.jobs set available_at = least(available_at, now()) where jobs.id = retry.id;
        perform reveille.ring(array[job.queue]);
        return 'due';
    end if;

    delete from reveille.dead_jobs where dead_jobs.id = retry.id returning * into dead;
    if found then
        insert into reveille.jobs (
            id, queue, kind, payload, priority, attempts, max_attempts, created_at, unique_key, unique_until,
            key, timeout, tags, metadata, errors, progress, parent_id, schedule_id
        )
        overriding system value
        values (
            dead.id, dead.queue, dead.kind, dead.payload, dead.priority, dead.attempts, dead.max_attempts,
            dead.created_at, dead.unique_key, dead.unique_until, dead.key, dead.timeout, dead.tags, dead.metadata,
            dead.errors, dead.progress, dead.parent_id, dead.schedule_id
        )
        on conflict do nothing;
        if not found then
            if exists (select from reveille.jobs where jobs.id = retry.id) then
                raise exception 'job % cannot be revived: a live job has its id', retry.id
                    using errcode = 'unique_violation', hint = 'Try again once that job has ended.';
            end if;
            raise exception 'job % cannot be revived: a live job of its kind has its unique key', retry.id
                using errcode = 'unique_violation', hint = 'Cancel that job or wait for its end, then try again.';
        end if;
        return 'revived';
    end if;

    return case
        when exists (select from reveille.finished_jobs where finished_jobs.id = retry.id) then 'finished'
        else 'unknown'
    end;
end
$$;
comment on function reveille.retry(bigint) is
    'Makes a job due now. Returns `due` (the job was waiting), `revived` (the job was dead, and its failures are set '
    'to zero), or the reason why nothing was changed: `running`, `finished` or `unknown`.';

create function reveille.pause(queue text default null, kind text default null, key text default null) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if coalesce(pause.kind, pause.key) is not null then
        insert into reveille.pauses (queue, kind, key) values (pause.queue, pause.kind, pause.key)
        on conflict do nothing;
        return;
    end if;
    if pause.queue is null then
        raise exception 'pause needs a queue, a kind or a key' using errcode = 'invalid_parameter_value';
    end if;
    insert into reveille.queues (name, paused_at) values (pause.queue, now())
    on conflict (name) do update set paused_at = coalesce(queues.paused_at, excluded.paused_at);
    -- This notification keeps jobs that are claimed already from starting. If no notification comes, the workers' next
    -- heartbeats find the pause.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.pause', pause.queue);
    end if;
end
$$;
comment on function reveille.pause(text, text, text) is
    'Pauses a queue, or a kind, a key or both, in one queue or in all: no worker starts these jobs until they are '
    'resumed. Running jobs go on.';

create function reveille.resume(queue text default null, kind text default null, key text default null) returns void
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if coalesce(resume.kind, resume.key) is not null then
        delete from reveille.pauses
        where coalesce(key, '') = coalesce(resume.key, '') and coalesce(kind, '') = coalesce(resume.kind, '')
            and coalesce(queue, '') = coalesce(resume.queue, '');
        return;
    end if;
    if resume.queue is null then
        raise exception 'resume needs a queue, a kind or a key' using errcode = 'invalid_parameter_value';
    end if;
    update reveille.queues set paused_at = null where name = resume.queue;
    perform reveille.ring(array[resume.queue]);
end
$$;
comment on function reveille.resume(text, text, text) is
    'Ends the pause that reveille.pause began with the same arguments.';

-- Each name and operator is qualified, and the function sets no search path, because a claim calls it for each due job
-- of a queue in which a kind or a key is paused.
create function reveille.pause_of(queue text, kind text, key text) returns bigint
    language plpgsql stable
as $$
begin
    return (
        select pauses.id
        from reveille.pauses
        where coalesce(pauses.queue, '') operator(pg_catalog.=) any (array[pause_of.queue, ''])
            and coalesce(pauses.key, '') operator(pg_catalog.=) any (array[coalesce(pause_of.key, ''), ''])
            and coalesce(pauses.kind, '') operator(pg_catalog.=) any (array[pause_of.kind, ''])
        limit 1
    );
end
$$;
comment on function reveille.pause_of(text, text, text) is
    'Returns the id of a pause in reveille.pauses that covers the jobs of this queue, kind and key; null if there is '
    'none.';

create function reveille.unpark(most bigint) returns bigint
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    released record;
begin
    -- The statement finds each queue and pause that has parked jobs by one probe of the index jobs_parked.
    with recursive parked (queue, paused_by) as (
        (
            select jobs.queue, jobs.paused_by from reveille.jobs
            where jobs.paused_by is not null
            order by jobs.queue, jobs.paused_by, jobs.id
            limit 1
        )
        union all
        select next.queue, next.paused_by
        from parked
        cross join lateral (
            select jobs.queue, jobs.paused_by from reveille.jobs
            where jobs.paused_by is not null and (jobs.queue, jobs.paused_by) > (parked.queue, parked.paused_by)
            order by jobs.queue, jobs.paused_by, jobs.id
            limit 1
        ) as next
    ), chosen as materialized (
        select resumed.place
        from parked
        cross join lateral (
            select jobs.ctid as place from reveille.jobs
            where jobs.queue = parked.queue and jobs.paused_by = parked.paused_by
            order by jobs.id
            limit most
            for update skip locked
        ) as resumed
        where not exists (select from reveille.pauses where pauses.id = parked.paused_by)
        limit most
    ), changed as (
        update reveille.jobs set paused_by = null where ctid = any (array(select place from chosen)) returning queue
    )
    select count(*) as jobs, array_agg(distinct queue) as queues into released from changed;
    if released.jobs > 0 then
        perform reveille.ring(released.queues);
    end if;
    return released.jobs;
end
$$;
comment on function reveille.unpark(bigint) is
    'Unparks up to `most` jobs whose pause has ended, and rings the bell for their queues. Returns the number of '
    'unparked jobs. Workers call this function.';

create function reveille.pause_began() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- A worker that receives this notification releases the jobs that it has claimed and not started. Then it claims
    -- them again, and the claim sees the pause.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.pause', covered.queue)
        from (
            select began.queue from began where began.queue is not null
            union
            select unnest(workers.queues)
            from reveille.workers
            where exists (select from began where began.queue is null)
        ) as covered;
    end if;
    return null;
end
$$;
comment on function reveille.pause_began() is
    'Notifies the workers of the queues in which a kind or a key is paused.';

create trigger began after insert on reveille.pauses
    referencing new table as began
    for each statement execute function reveille.pause_began();

create function reveille.pause_ended() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    -- Workers unpark further jobs once they find no due job, and so does upkeep.
    perform reveille.unpark(10000);
    return null;
end
$$;
comment on function reveille.pause_ended() is 'Unparks up to 10,000 jobs of the ended pauses.';

create trigger ended after delete on reveille.pauses
    for each statement execute function reveille.pause_ended();

create function reveille.unpark_changed_job() returns trigger
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    update reveille.jobs set paused_by = null where id = new.id;
    perform reveille.ring(array[new.queue]);
    return null;
end
$$;
comment on function reveille.unpark_changed_job() is
    'Unparks a job that gets another queue, kind or key. The next claim parks the job again if a pause covers it.';

create trigger unpark_changed_job
    after update of queue, kind, key on reveille.jobs
    for each row
    when (
        new.paused_by is not null
        and (new.queue <> old.queue or new.kind <> old.kind or new.key is distinct from old.key)
    )
    execute function reveille.unpark_changed_job();

create function reveille.stop_worker(id bigint) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update reveille.workers set stop_requested_at = coalesce(stop_requested_at, clock_timestamp())
    where workers.id = stop_worker.id;
    if not found then
        return false;
    end if;
    -- If no notification comes, the worker's next heartbeat finds the request.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.stop', stop_worker.id::text);
    end if;
    return true;
end
$$;
comment on function reveille.stop_worker(bigint) is
    'Asks a worker to shut down: the worker claims no more jobs and finishes its running jobs. Returns true if the '
    'worker exists.';

create function reveille.set_slots(queue text, slots int, worker bigint default null) returns int
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    changed int;
begin
    if set_slots.slots is null or set_slots.slots not between 0 and 10000 then
        raise exception 'a queue cannot have % slots in a worker; set 0 to 10000', set_slots.slots
            using errcode = 'invalid_parameter_value';
    end if;
    -- Locks the rows in the order of their ids, so that two calls cannot wait for each other in a circle.
    perform from reveille.workers
    where queue = any (queues) and cardinality(queue_slots) = cardinality(queues)
        and (set_slots.worker is null or id = set_slots.worker)
    order by id
    for no key update;
    update reveille.workers
    set queue_slots[array_position(queues, set_slots.queue)] = set_slots.slots,
        slots = workers.slots + set_slots.slots - queue_slots[array_position(queues, set_slots.queue)]
    where set_slots.queue = any (queues) and cardinality(queue_slots) = cardinality(queues)
        and (set_slots.worker is null or id = set_slots.worker);
    get diagnostics changed = row_count;
    return changed;
end
$$;
comment on function reveille.set_slots(text, int, bigint) is
    'Sets the number of slots of a queue in one worker, or in all live workers of the queue if worker is null: 0 to '
    '10,000. The workers learn of it at their next heartbeats. A worker that is started again has its own number. '
    'Returns the number of workers.';

create function reveille.await(id bigint, out state text, out reason text, out result jsonb, out errors jsonb)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    update reveille.jobs set awaited = true where jobs.id = await.id and not jobs.awaited;
    -- The queries are separate, because each query then sees everything that was committed before it. If the first
    -- query does not find the job, the job has ended, and one of the queries after it finds the ending.
    select 'live', jobs.errors into state, errors from reveille.jobs where jobs.id = await.id;
    if found then
        return;
    end if;
    select 'dead', dead.reason, dead.errors into state, reason, errors
    from reveille.dead_jobs as dead where dead.id = await.id;
    if found then
        return;
    end if;
    select ended.outcome, ended.result, ended.errors into state, result, errors
    from reveille.finished_jobs as ended where ended.id = await.id;
    if found then
        return;
    end if;
    select ended.outcome, ended.result, ended.errors into state, result, errors
    from reveille.ends as ended where ended.id = await.id
    order by ended.ended_at desc limit 1;
    if found then
        return;
    end if;
    -- None of these queries finds a job that was revived between two of them, so the live jobs are queried once more.
    state := case when exists (select from reveille.jobs where jobs.id = await.id) then 'live' else 'unknown' end;
end
$$;
comment on function reveille.await(bigint) is
    'Returns the state of a job: `live`, `completed` (with its result), `cancelled`, `dead` (with the reason) or '
    '`unknown`. If the job is live, its end will be notified on the channel reveille.finished, as the job''s id and '
    '`completed`, `cancelled` or `dead`. Listen on the channel first, then call this function. Call it again after a '
    'notification, since any session can send one.';

create function reveille.complete_in(
    id bigint, worker bigint, attempt int, reserved_at timestamptz, run_seconds double precision, out transaction text
)
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    ended record;
begin
    delete from reveille.jobs
    where jobs.id = complete_in.id and jobs.reserved_by is not distinct from complete_in.worker
        and jobs.attempts = complete_in.attempt and jobs.reserved_at is not distinct from complete_in.reserved_at
    returning * into ended;
    if not found then
        return;
    end if;
    transaction := pg_current_xact_id()::text;
    if not exists (select from reveille.queues where queues.name = ended.queue and queues.retention = interval '0') then
        insert into reveille.finished_jobs (
            day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
            key, tags, metadata, errors, progress, parent_id, schedule_id, outcome, worker, wait_seconds, run_seconds,
            finished_at
        )
        values (
            extract(epoch from clock_timestamp())::bigint / 86400 % 32, ended.id, ended.queue, ended.kind,
            ended.payload, ended.priority, ended.attempts, ended.failures, ended.max_attempts, ended.available_at,
            ended.created_at, ended.key, ended.tags, ended.metadata, ended.errors, ended.progress, ended.parent_id,
            ended.schedule_id, 'completed', ended.reserved_by,
            greatest(extract(epoch from ended.reserved_at - ended.available_at), 0), complete_in.run_seconds,
            clock_timestamp()
        );
    else
        -- The worker may not know of this call. It then finds here that its own attempt has completed the job.
        insert into reveille.ends (id, outcome, errors, queue, worker, attempt)
        values (ended.id, 'completed', ended.errors, ended.queue, ended.reserved_by, ended.attempts);
    end if;
    -- In a limited queue, the end of a job lets another job start.
    if ended.limited then
        perform reveille.ring(array[ended.queue]);
    end if;
    if ended.awaited and pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.finished', ended.id || ' completed');
    end if;
end
$$;
comment on function reveille.complete_in(bigint, bigint, int, timestamptz, double precision) is
    'Completes a job in the caller''s transaction, fenced by the job''s reservation, and moves the job to the history, '
    'unless its queue keeps none. Returns the transaction''s id; null if the reservation no longer stands. Does not '
    'update reveille.counters, because other sessions would have to wait for the counters'' rows until the transaction '
    'ends. The worker counts the job once the transaction has ended. For workers.';

create function reveille.fresh_job_id() returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
begin
    perform reveille.pass_given_ids();
    return nextval('reveille.jobs_id_seq');
end
$$;
comment on function reveille.fresh_job_id() is
    'Returns an id that no job has, for a job that becomes a dead job or is revived while another job has the same '
    'id.';

-- This function runs with the rights of its owner, because a role that works or revives jobs must not be able to move
-- the sequence by itself.
create function reveille.pass_given_ids() returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
declare
    ids constant regclass := 'reveille.jobs_id_seq';
    -- Ids from this number on are ignored, because they were written by hand. If the sequence were moved past them, it
    -- could be close to its end.
    too_large constant bigint := 4611686018427387904;
    largest bigint;
begin
    -- This is one statement, because its snapshot is then older than its read of the sequence: the statement sees no id
    -- that was given out after that read. Usually no id is above the sequence's value. The indexes show this, and the
    -- statement ends at once.
    perform from (select coalesce(pg_sequence_last_value(ids), 0)) as given (last)
    where exists (select from reveille.jobs where jobs.id > given.last and jobs.id < too_large)
        or exists (select from reveille.dead_jobs where dead_jobs.id > given.last and dead_jobs.id < too_large)
        or exists (
            select from reveille.finished_jobs where finished_jobs.id > given.last and finished_jobs.id < too_large
        );
    if not found then
        return null;
    end if;
    select greatest(
        (select max(jobs.id) from reveille.jobs where jobs.id < too_large),
        (select max(dead_jobs.id) from reveille.dead_jobs where dead_jobs.id < too_large),
        (select max(finished_jobs.id) from reveille.finished_jobs where finished_jobs.id < too_large)
    ) into largest;
    -- The lock lets only one session at a time move the sequence. Otherwise a second session could move the sequence
    -- back, below ids that were given out after the first session had moved it.
    lock table reveille.dead_jobs in share update exclusive mode;
    if largest <= pg_sequence_last_value(ids) then
        return null;
    end if;
    -- A margin of 1,000 covers the ids that other sessions take between the condition above and this statement.
    return setval(ids, largest + 1000);
end
$$;
comment on function reveille.pass_given_ids() is
    'Moves the sequence of job ids past all ids in use, if some are above the sequence''s value, as after a restore. '
    'Ids from 2^62 on do not count. Returns the sequence''s new value; null if the sequence was not moved. Upkeep '
    'calls this function.';

-- Tries to claim one job, and rolls the claim back. If the claim fails because of the row's values, this function makes
-- the job a dead job without an attempt. If a trigger or a constraint may be the cause, that trigger or constraint may
-- refuse every job of the queue. In this case the function only lists the job in reveille.passed_over. But if the
-- caller knows that other jobs of the queue can be claimed (`others_pass`), the function makes the job a dead job in
-- this case too.
create function reveille.isolate_job(id bigint, others_pass boolean, out code text, out error text, out buried boolean)
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    tried record;
begin
    perform from reveille.jobs where jobs.id = isolate_job.id and jobs.reserved_by is null for update skip locked;
    if not found then
        return;
    end if;
    begin
        update reveille.jobs
        set reserved_at = now(), reserved_by = 0, attempts = jobs.attempts + 1,
            unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
            unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
        where jobs.id = isolate_job.id
        -- The conversions to UTF-8 fail on values that cannot be sent to a worker.
        returning
            convert_to(jobs.kind, 'UTF8'), convert_to(jobs.payload::text, 'UTF8'), convert_to(jobs.key, 'UTF8'),
            convert_to(jobs.tags::text, 'UTF8'), convert_to(jobs.metadata::text, 'UTF8'),
            extract(epoch from jobs.timeout)
        into tried;
        set constraints all immediate;
        raise exception using errcode = 'RVOK0';
    exception when others then
        get stacked diagnostics code = returned_sqlstate, error = message_text;
    end;
    -- The row is not at fault: the claim succeeded (RVOK0), or it failed for a reason outside the row, such as the
    -- server, the connection, the schema or a lock. The Rust function Error::is_about_data has the same list.
    if code = 'RVOK0'
        or left(code, 2) in ('08', '0A', '25', '26', '28', '34', '3D', '3F', '40', '42', '53', '55', '57')
    then
        code := null;
        error := null;
        return;
    end if;
    if getdatabaseencoding() <> 'UTF8' then
        -- The error's text may quote bytes that cannot be sent to a worker.
        error := regexp_replace(error, '[^ -~]', '?', 'g');
    end if;
    buried := (others_pass or left(code, 2) in ('22', '54') or code in ('XX001', 'XX002'))
        and (
            reveille.bury_unclaimed(isolate_job.id, code, error, true)
            or reveille.bury_unclaimed(isolate_job.id, code, error, false)
        );
    begin
        delete from reveille.passed_over
        where passed_over.id = isolate_job.id or passed_over.seen_at < now() - interval '1 day';
        if not buried then
            insert into reveille.passed_over (id, queue, code, error)
            select jobs.id, jobs.queue, isolate_job.code, isolate_job.error
            from reveille.jobs
            where jobs.id = isolate_job.id;
        end if;
    exception when insufficient_privilege or unique_violation then
        -- The worker's role lacks the privileges on reveille.passed_over, or another worker has just listed the job.
        null;
    end;
end
$$;
comment on function reveille.isolate_job(bigint, boolean) is
    'Tries to claim a job, and rolls the claim back. If the claim fails because of the job''s row, returns the error; '
    'buried is true if the job was made a dead job. Otherwise returns nulls. For workers.';

-- Makes a dead job of a job that cannot be claimed. If `whole` is true, keeps all columns of the job; otherwise leaves
-- out the columns that may be unreadable. Returns true if this succeeds.
create function reveille.bury_unclaimed(id bigint, code text, error text, whole boolean) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    fresh bigint;
    message text := format('cannot be claimed: %s (SQLSTATE %s)', error, code);
    ended record;
begin
    if exists (select from reveille.dead_jobs where dead_jobs.id = bury_unclaimed.id) then
        fresh := reveille.fresh_job_id();
        message := message || format('; its id was %s, which another dead job has', bury_unclaimed.id);
    end if;
    if not whole then
        message := message || '; its other columns cannot be read and are left out';
    end if;
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, unique_key,
        unique_until, key, timeout, tags, metadata, errors, progress, parent_id, schedule_id, reason, worker
    )
    select
        coalesce(fresh, jobs.id), jobs.queue, jobs.kind, case when whole then jobs.payload else 'null' end,
        jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts, jobs.available_at, jobs.created_at,
        jobs.unique_key, jobs.unique_until, jobs.key, jobs.timeout, case when whole then jobs.tags end,
        case when whole then jobs.metadata end,
        case when whole and jsonb_typeof(jobs.errors) = 'array' then jobs.errors else '[]' end
        || jsonb_build_object('at', now(), 'attempt', jobs.attempts, 'reason', 'undecodable', 'error', message),
        case when whole then jobs.progress end, jobs.parent_id, jobs.schedule_id, 'undecodable', null
    from reveille.jobs
    where jobs.id = bury_unclaimed.id;
    delete from reveille.jobs where jobs.id = bury_unclaimed.id returning jobs.queue, jobs.awaited into ended;
    if not found then
        raise exception using errcode = 'RVNO0';
    end if;
    perform reveille.ring(array[ended.queue]);
    if ended.awaited and pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.finished', bury_unclaimed.id || ' dead');
    end if;
    return true;
exception when others then
    return false;
end
$$;
comment on function reveille.bury_unclaimed(bigint, text, text, boolean) is
    'Makes a dead job of a job that cannot be claimed. Returns true if this succeeds. For reveille.isolate_job.';
