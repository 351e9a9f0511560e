-- Unique for a period: a key that is held until its job has ended and a while has passed since it was enqueued. Written when such a
-- job is enqueued and at no other time, so that claiming and settling know nothing of it.

create table reveille.unique_periods (
    kind                text        not null,
    unique_key          text        not null,
    job_id              bigint      not null,
    ends_at             timestamptz not null,
    primary key (kind, unique_key)
);
create index unique_periods_ends_at on reveille.unique_periods (ends_at);

comment on table reveille.unique_periods is
    'Unique keys that are held for a period, beyond the end of their job; deleted by upkeep when it is over. Delete a row to give its key up early.';
comment on column reveille.unique_periods.kind is 'The kind within which the key is unique.';
comment on column reveille.unique_periods.unique_key is 'The key.';
comment on column reveille.unique_periods.job_id is 'The job that holds it, live or ended.';
comment on column reveille.unique_periods.ends_at is 'Until when: the period is counted from the job''s created_at.';

-- Who may enqueue so far may ask here as well, without being granted it anew.
do $$
declare
    producer oid;
begin
    for producer in
        select distinct granted.grantee
        from (
            select (aclexplode(relacl)).* from pg_class where oid = 'reveille.jobs'::regclass
            union all
            select (aclexplode(attacl)).* from pg_attribute where attrelid = 'reveille.jobs'::regclass
        ) as granted
        where granted.privilege_type = 'INSERT'
    loop
        execute format(
            'grant select on reveille.unique_periods to %s',
            case when producer = 0 then 'public' else quote_ident(pg_get_userbyid(producer)) end
        );
    end loop;
end
$$;

-- With its owner's rights, so that who may only enqueue need not be able to change what is held, or to delete jobs: it acts on a job of
-- the caller's own transaction alone.
create function reveille.hold_unique_key(id bigint, period interval) returns boolean
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    job record;
begin
    select kind, unique_key, created_at into job
    from reveille.jobs
    where jobs.id = hold_unique_key.id and jobs.unique_key is not null and jobs.created_at = now() and jobs.reserved_at is null;
    if not found then
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
comment on function reveille.hold_unique_key(bigint, interval) is
    'What reveille.enqueue does with a job that it has just inserted: true if it holds its key, for that long (null: as long as it is live); '
    'false if another job holds it for a period, and this one is gone again.';

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
        where not exists (
            select from reveille.unique_periods as held
            where held.kind operator(pg_catalog.=) enqueue.kind
                and held.unique_key operator(pg_catalog.=) enqueue.unique_key
                and held.ends_at operator(pg_catalog.>) pg_catalog.now()
        )
        on conflict (kind, unique_key) where unique_key is not null do nothing
        returning jobs.id into id;
        if found then
            existed := false;
            if enqueue.unique_key is null then
                return;
            end if;
            -- Asked once more: while the insert waited, another job of the key may have been enqueued for a period, and have ended.
            if period is null and not exists (
                select from reveille.unique_periods as held
                where held.kind operator(pg_catalog.=) enqueue.kind
                    and held.unique_key operator(pg_catalog.=) enqueue.unique_key
                    and held.ends_at operator(pg_catalog.>) pg_catalog.now()
            ) then
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
        select jobs.id into id from reveille.jobs
        where jobs.kind operator(pg_catalog.=) enqueue.kind
            and jobs.unique_key operator(pg_catalog.=) enqueue.unique_key;
        if found then
            return;
        end if;
        select held.job_id into id from reveille.unique_periods as held
        where held.kind operator(pg_catalog.=) enqueue.kind
            and held.unique_key operator(pg_catalog.=) enqueue.unique_key
            and held.ends_at operator(pg_catalog.>) pg_catalog.now();
        if found then
            return;
        end if;
        -- The job that was in the way has ended meanwhile: try again.
    end loop;
end
$$;
comment on function reveille.enqueue(
    text, jsonb, text, interval, timestamptz, smallint, int, interval, text, text, text, text, text[], jsonb
) is 'Enqueue a job in this transaction: select id from reveille.enqueue(kind => ''hello''). '
    'With a unique_key that another job of the kind holds, no job is added: existed is true, id is that job''s, and by unique_mode '
    'it is left as it is (keep), gets the payload, tags and metadata (replace), or these and the due time (debounce); '
    'one that runs or has ended is always left as it is. A key is held, by unique_until, until the job is first started (started), '
    'until it has ended (finished), or, with an interval such as ''1 hour'', until it has ended and that long has passed since it was enqueued.';
