-- What callers of reveille.enqueue and reveille.schedule write is taken as it is meant, or refused in a sentence that
-- says why: numbers of any integer type, sizes of what a worker will have to take, tags as one list. And the bell
-- rings for jobs that are made due by an update.

-- Kept under another name until the new functions have the same grants. Old programs call the new ones: a smallint is
-- a bigint, too.
alter function reveille.enqueue(
    text, jsonb, text, interval, timestamptz, smallint, int, interval, text, text, text, text, text[], jsonb
) rename to enqueue_before;
alter function reveille.schedule(
    text, text, text, interval, text, jsonb, text, smallint, int, interval, text, text[], jsonb, text, bigint
) rename to schedule_before;

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
    out id       bigint,
    out existed  boolean
)
    language plpgsql volatile
as $$
#variable_conflict use_column
declare
    largest int;
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
        when pg_catalog.length(pg_catalog.current_setting('reveille.max_payload', true)) operator(pg_catalog.>) 0
        then pg_catalog.current_setting('reveille.max_payload')::pg_catalog.int4
        else 1048576
    end;
    -- As text, since a worker will get it so. What is stored in a few bytes is not looked at, so that an ordinary job
    -- need not pay.
    if (pg_catalog.pg_column_size(enqueue.payload) operator(pg_catalog.>) 512 or largest operator(pg_catalog.<) 512)
        and pg_catalog.octet_length(enqueue.payload::pg_catalog.text) operator(pg_catalog.>) largest
    then
        raise exception 'payload is larger than reveille.max_payload (1 MiB unless set)'
            using errcode = 'program_limit_exceeded',
                  hint = 'Keep large data elsewhere and pass a reference, or set reveille.max_payload (bytes, at most 8388608).';
    end if;
    if (enqueue.unique_mode operator(pg_catalog.=) any (array['keep', 'replace', 'debounce'])) is not true then
        raise exception 'unique_mode must be keep, replace or debounce' using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.unique_until operator(pg_catalog.<>) all (array['started', 'finished']) then
        begin
            period := enqueue.unique_until::pg_catalog.interval;
        exception when invalid_datetime_format or datetime_field_overflow or interval_field_overflow then
            null; -- The next question refuses it.
        end;
        if (period operator(pg_catalog.>) interval '0' and pg_catalog.isfinite(period)) is not true then
            raise exception 'unique_until must be started, finished or a positive interval such as 1 hour, not %',
                pg_catalog.quote_literal(enqueue.unique_until) using errcode = 'invalid_parameter_value';
        end if;
        if enqueue.unique_key is null then
            raise exception 'unique_until takes an interval only with a unique_key' using errcode = 'invalid_parameter_value';
        end if;
    end if;
    due := coalesce(
        enqueue.available_at,
        pg_catalog.now() operator(pg_catalog.+) coalesce(enqueue.delay, interval '0')
    );
    -- What the table would refuse is refused here: from within the insert, the error would come with the text of each
    -- statement around it.
    if (
        pg_catalog.length(enqueue.kind) operator(pg_catalog.>) 0 and pg_catalog.length(enqueue.kind) operator(pg_catalog.<=) 128
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
            coalesce(enqueue.queue, 'default'), enqueue.kind, '{}', 2::smallint, 0, 0, 20, null, null, due, pg_catalog.now(),
            enqueue.unique_key, null, enqueue.key, enqueue.timeout, enqueue.tags, enqueue.metadata, null
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
            case when enqueue.unique_key is not null then case when period is null then enqueue.unique_until else 'finished' end end,
            enqueue.key, enqueue.tags, enqueue.metadata, enqueue.parent_id
        where enqueue.unique_key is null or reveille.period_holder(enqueue.kind, enqueue.unique_key) is null
        on conflict (kind, unique_key) where unique_key is not null do nothing
        returning jobs.id into id;
        if found then
            existed := false;
            if enqueue.unique_key is null then
                return;
            end if;
            -- Asked once more: while the insert waited, another job of the key may have been enqueued for a period,
            -- and have ended.
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
            -- In a statement of its own, which sees what has been committed since.
            id := reveille.period_holder(enqueue.kind, enqueue.unique_key);
        end if;
        if id is not null then
            return;
        end if;
        -- The job that was in the way has ended meanwhile: try again.
    end loop;
end
$$;
comment on function reveille.enqueue(
    text, jsonb, text, interval, timestamptz, bigint, bigint, interval, text, text, text, text, text[], jsonb, bigint
) is 'Enqueue a job in this transaction: select id from reveille.enqueue(kind => ''hello''). '
    'With a unique_key that another job of the kind holds, no job is added: existed is true, id is that job''s, and by unique_mode '
    'it is left as it is (keep), gets the payload, tags and metadata (replace), or these and the due time (debounce); '
    'one that runs or has ended is always left as it is. A key is held, by unique_until, until the job is first started (started), '
    'until it has ended (finished), or, with an interval such as ''1 hour'', until it has ended and that long has passed since it was '
    'enqueued. parent_id is the job in whose handler this one is enqueued.';

create function reveille.schedule(
    name         text,
    kind         text,
    cron         text        default null,
    every        interval    default null,
    time_zone    text        default 'UTC',
    payload      jsonb       default '{}',
    queue        text        default 'default',
    priority     bigint      default 2,
    max_attempts bigint      default null,
    timeout      interval    default null,
    key          text        default null,
    tags         text[]      default null,
    metadata     jsonb       default null,
    catch_up     text        default 'one',
    declared_by  bigint      default null
) returns bigint
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    id bigint;
begin
    if (schedule.cron is null) = (schedule.every is null) then
        raise exception 'a schedule takes either cron or every' using errcode = 'invalid_parameter_value';
    end if;
    if ltrim(schedule.cron) ilike '@every%' then
        raise exception 'a cron text cannot say @every: give the interval as every'
            using errcode = 'invalid_parameter_value', hint = 'For example every => ''5 minutes'', and no cron.';
    end if;
    if schedule.priority not between 0 and 3 then
        raise exception 'priority must be 0 (urgent), 1 (high), 2 (normal) or 3 (low), not %', schedule.priority
            using errcode = 'invalid_parameter_value';
    end if;
    if schedule.max_attempts not between 1 and 2147483647 then
        raise exception 'max_attempts must be 1 to 2147483647, not %', schedule.max_attempts
            using errcode = 'invalid_parameter_value';
    end if;
    if array_ndims(schedule.tags) > 1 then
        raise exception 'tags must be one list, not an array of % dimensions', array_ndims(schedule.tags)
            using errcode = 'invalid_parameter_value', hint = 'Write it like array[''a'', ''b''].';
    end if;
    -- The workers know their zones themselves; this is to tell of a slip at once.
    perform now() at time zone coalesce(schedule.time_zone, 'UTC');
    insert into reveille.schedules as schedules (
        name, cron, every, time_zone, catch_up, kind, payload, queue, priority, max_attempts, timeout, key, tags, metadata,
        declared_at
    )
    values (
        schedule.name, schedule.cron, schedule.every, coalesce(schedule.time_zone, 'UTC'), coalesce(schedule.catch_up, 'one'),
        schedule.kind, coalesce(schedule.payload, '{}'), coalesce(schedule.queue, 'default'),
        coalesce(schedule.priority::smallint, 2::smallint), coalesce(schedule.max_attempts::int, 20), schedule.timeout, schedule.key,
        schedule.tags, schedule.metadata, case when schedule.declared_by is not null then now() end
    )
    on conflict (name) do update
    set cron = excluded.cron,
        every = excluded.every,
        time_zone = excluded.time_zone,
        catch_up = excluded.catch_up,
        kind = excluded.kind,
        payload = excluded.payload,
        queue = excluded.queue,
        priority = excluded.priority,
        max_attempts = excluded.max_attempts,
        timeout = excluded.timeout,
        key = excluded.key,
        tags = excluded.tags,
        metadata = excluded.metadata,
        declared_at = excluded.declared_at,
        error = null
    returning schedules.id into id;
    if schedule.declared_by is not null then
        insert into reveille.schedule_declarations (schedule_id, worker) values (id, schedule.declared_by) on conflict do nothing;
    end if;
    return id;
end
$$;
comment on function reveille.schedule(
    text, text, text, interval, text, jsonb, text, bigint, bigint, interval, text, text[], jsonb, text, bigint
) is 'Add a schedule, or change the one of that name: select reveille.schedule(''nightly-report'', kind => ''report'', cron => ''0 3 * * *'', '
    'time_zone => ''Europe/Berlin''). Its next tick stays unless the timing changes, and so does its being paused. Returns its id. '
    'declared_by is for workers, which declare those in their code.';

-- A plain insert of a schedule is checked by the table. Not validated: what is there goes on.
alter table reveille.schedules
    drop constraint tags_are_at_most_64,
    add constraint tags_are_at_most_64 check (
        -- An array of several dimensions cannot be searched, and is refused by the next.
        case when array_ndims(tags) = 1 then cardinality(tags) <= 64 and array_position(tags, null) is null end
    ) not valid,
    add constraint tags_have_one_dimension check (array_ndims(tags) = 1) not valid,
    add constraint cron_is_not_every check (ltrim(cron) not ilike '@every%') not valid;

-- The grants of the old functions go to the new ones, whoever gave them.
do $$
declare
    before regprocedure;
    after text;
    granted record;
begin
    for before, after in
        select
            pg_proc.oid,
            format('reveille.%I(%s)', replace(proname, '_before', ''), replacement.types)
        from pg_proc
        join (values
            ('enqueue_before', 'text, jsonb, text, interval, timestamptz, bigint, bigint, interval, text, text, text, text, text[], jsonb, bigint'),
            ('schedule_before', 'text, text, text, interval, text, jsonb, text, bigint, bigint, interval, text, text[], jsonb, text, bigint')
        ) as replacement (name, types) on replacement.name = proname
        where format('%I.', pronamespace::regnamespace) = 'reveille.'
    loop
        -- Default privileges of the database may have given it some already.
        execute format('revoke all on function %s from public', after);
        for granted in
            select grantee, bool_or(is_grantable) as is_grantable
            from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner)))
            where pg_proc.oid = before
            group by grantee
        loop
            execute format(
                'grant execute on function %s to %s%s', after,
                case granted.grantee when 0 then 'public' else granted.grantee::regrole::text end,
                case when granted.is_grantable then ' with grant option' else '' end
            );
        end loop;
        execute format('drop function %s', before);
    end loop;
end
$$;

-- Whoever may set a job's metadata may say which job it comes from, too: reveille.enqueue and the library set both.
do $$
declare
    granted record;
begin
    for granted in
        select acl.grantee, bool_or(acl.is_grantable) as is_grantable
        from pg_attribute, aclexplode(attacl) as acl
        where attrelid = 'reveille.jobs'::regclass and attname = 'metadata' and acl.privilege_type = 'INSERT'
        group by acl.grantee
    loop
        execute format(
            'grant insert (parent_id) on reveille.jobs to %s%s',
            case granted.grantee when 0 then 'public' else granted.grantee::regrole::text end,
            case when granted.is_grantable then ' with grant option' else '' end
        );
    end loop;
end
$$;

-- A waiting job that is made due sooner, or moved to another queue, by an update of one's own or by `on conflict do
-- update`. Claims do not touch these columns; of a settlement the condition alone is asked.
create function reveille.ring_after_update() returns trigger
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform reveille.ring(array[new.queue]);
    return null;
end
$$;
comment on function reveille.ring_after_update() is 'Rings the bell for a waiting job that is made due sooner or moved to another queue.';

-- Only who makes a trigger needs this right, and it is to be one on Reveille's own table.
revoke execute on function reveille.ring_after_update() from public;

create trigger ring_moved
    after update of available_at, queue on reveille.jobs
    for each row
    when (
        new.reserved_at is null and old.reserved_at is null
        and (new.available_at < old.available_at or new.queue <> old.queue)
        and reveille.somebody_may_sleep()
    )
    execute function reveille.ring_after_update();
