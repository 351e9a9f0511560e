-- A session keeps what it has planned for a function's queries, and plans when the tables are maybe small: then it takes reading a whole
-- table for the best, and goes on with it when there are a million jobs, until autovacuum next looks at the table. So what looks one row
-- up does not read tables, and asks nothing that would let it read all of another index: `reserved_by is null` says the same as
-- `reserved_at is null`, by which the index for claims is made.

alter function reveille.await(bigint) set enable_seqscan = off;
alter function reveille.cancel(bigint) set enable_seqscan = off;
alter function reveille.retry(bigint) set enable_seqscan = off;

-- Operators are named with their schema, as in reveille.enqueue: to set a search path would take longer than the rest of it.
create function reveille.period_holder(kind text, unique_key text) returns bigint
    language plpgsql stable
    set enable_seqscan = off
as $$
begin
    return (
        select held.job_id from reveille.unique_periods as held
        where held.kind operator(pg_catalog.=) period_holder.kind
            and held.unique_key operator(pg_catalog.=) period_holder.unique_key
            and held.ends_at operator(pg_catalog.>) pg_catalog.now()
    );
end
$$;
comment on function reveille.period_holder(text, text) is
    'The job that holds a unique key of a kind for a period that is not over yet; null if there is none.';

create function reveille.live_holder(kind text, unique_key text) returns bigint
    language plpgsql stable
    set enable_seqscan = off
as $$
begin
    return (
        select jobs.id from reveille.jobs
        where jobs.kind operator(pg_catalog.=) live_holder.kind and jobs.unique_key operator(pg_catalog.=) live_holder.unique_key
    );
end
$$;
comment on function reveille.live_holder(text, text) is 'The live job that holds a unique key of a kind; null if there is none.';

create or replace function reveille.replace_waiting(
    kind text, unique_key text, payload jsonb, tags text[], metadata jsonb, available_at timestamptz
) returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    replaced record;
begin
    -- A job that runs keeps what it was started with.
    update reveille.jobs
    set payload = replace_waiting.payload,
        tags = coalesce(replace_waiting.tags, jobs.tags),
        metadata = coalesce(replace_waiting.metadata, jobs.metadata),
        available_at = coalesce(replace_waiting.available_at, jobs.available_at)
    where jobs.kind = replace_waiting.kind and jobs.unique_key = replace_waiting.unique_key and jobs.reserved_by is null
    returning jobs.id, jobs.queue into replaced;
    if found and replace_waiting.available_at is not null then
        perform reveille.ring(array[replaced.queue]);
    end if;
    return replaced.id;
end
$$;

create or replace function reveille.hold_unique_key(id bigint, period interval) returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    job record;
begin
    select kind, unique_key, created_at into job
    from reveille.jobs
    where jobs.id = hold_unique_key.id and jobs.created_at = now() and jobs.reserved_by is null;
    if job.unique_key is null then
        raise exception 'job % has not been enqueued with a unique key in this transaction', hold_unique_key.id
            using errcode = 'invalid_parameter_value';
    end if;
    if period is null then
        perform from reveille.unique_periods as held
        where held.kind = job.kind and held.unique_key = job.unique_key and held.ends_at > now();
        if not found then
            return true;
        end if;
    else
        -- Waits for another transaction that is at it, and then goes by what that one has left.
        insert into reveille.unique_periods as held (kind, unique_key, job_id, ends_at)
        values (job.kind, job.unique_key, hold_unique_key.id, job.created_at + period)
        on conflict (kind, unique_key) do update
        set job_id = excluded.job_id, ends_at = excluded.ends_at
        where held.ends_at <= now();
        if found then
            return true;
        end if;
    end if;
    delete from reveille.jobs where jobs.id = hold_unique_key.id;
    return false;
end
$$;

create or replace function reveille.enqueue(
    kind         text,
    payload      jsonb       default '{}',
    queue        text        default 'default',
    delay        interval    default null,
    available_at timestamptz default null,
    priority     smallint    default 2,
    max_attempts int         default null,
    timeout      interval    default null,
    unique_key   text        default null,
    unique_mode  text        default 'keep',
    unique_until text        default 'finished',
    key          text        default null,
    tags         text[]      default null,
    metadata     jsonb       default null,
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
begin
    if enqueue.delay is not null and enqueue.available_at is not null then
        raise exception 'enqueue takes delay or available_at, not both' using errcode = 'invalid_parameter_value';
    end if;
    if enqueue.delay operator(pg_catalog.<) interval '0' then
        raise exception 'delay must not be negative' using errcode = 'invalid_parameter_value';
    end if;
    largest := case
        when pg_catalog.length(pg_catalog.current_setting('reveille.max_payload', true)) operator(pg_catalog.>) 0
        then pg_catalog.current_setting('reveille.max_payload')::pg_catalog.int4
        else 1048576
    end;
    if pg_catalog.pg_column_size(enqueue.payload) operator(pg_catalog.>) largest then
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

    loop
        insert into reveille.jobs (
            kind, payload, queue, available_at, priority, max_attempts, timeout,
            unique_key, unique_until, key, tags, metadata
        )
        select
            enqueue.kind, coalesce(enqueue.payload, '{}'), coalesce(enqueue.queue, 'default'), due,
            coalesce(enqueue.priority, 2::smallint), coalesce(enqueue.max_attempts, 20), enqueue.timeout,
            enqueue.unique_key,
            case when enqueue.unique_key is not null then case when period is null then enqueue.unique_until else 'finished' end end,
            enqueue.key, enqueue.tags, enqueue.metadata
        where enqueue.unique_key is null or reveille.period_holder(enqueue.kind, enqueue.unique_key) is null
        on conflict (kind, unique_key) where unique_key is not null do nothing
        returning jobs.id into id;
        if found then
            existed := false;
            if enqueue.unique_key is null then
                return;
            end if;
            -- Asked once more: while the insert waited, another job of the key may have been enqueued for a period, and have ended.
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
