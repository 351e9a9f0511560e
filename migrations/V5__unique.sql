-- Unique keys. A job holds its unique key while the job is live, or for a period.

create table reveille.unique_periods (
    kind       text        not null,
    unique_key text        not null,
    job_id     bigint      not null,
    ends_at    timestamptz not null,
    primary key (kind, unique_key)
);
create index unique_periods_ends_at on reveille.unique_periods (ends_at);
comment on table reveille.unique_periods is
    'Unique keys that are held for a period, even if their job ends earlier. Upkeep deletes each row after its period. '
    'Delete a row to give up its unique key early.';
comment on column reveille.unique_periods.kind is 'The kind within which the unique key is unique.';
comment on column reveille.unique_periods.unique_key is 'The unique key.';
comment on column reveille.unique_periods.job_id is 'The job that holds the unique key, live or ended.';
comment on column reveille.unique_periods.ends_at is 'The end of the period, which begins at the job''s created_at.';

create function reveille.live_holder(kind text, unique_key text) returns bigint
    language plpgsql stable
    set enable_seqscan = off
as $$
begin
    return (
        select jobs.id from reveille.jobs
        where jobs.kind operator(pg_catalog.=) live_holder.kind
            and jobs.unique_key operator(pg_catalog.=) live_holder.unique_key
    );
end
$$;
comment on function reveille.live_holder(text, text) is
    'Returns the id of the live job that holds a unique key of a kind; null if there is none.';

-- This function runs with the rights of its owner, because the function writes to reveille.unique_periods, and each
-- role that enqueues with a unique key calls the function. By this write, the function detects a period that an old
-- snapshot hides.
create function reveille.period_holder(kind text, unique_key text) returns bigint
    language plpgsql volatile security definer
    set enable_seqscan = off
as $$
declare
    holder pg_catalog.int8;
begin
    holder := (
        select held.job_id from reveille.unique_periods as held
        where held.kind operator(pg_catalog.=) period_holder.kind
            and held.unique_key operator(pg_catalog.=) period_holder.unique_key
            and held.ends_at operator(pg_catalog.>) pg_catalog.now()
    );
    -- At an isolation level other than read committed, the query above may miss a period that is newer than the
    -- snapshot. The insert below of a second row still meets the period's row, in the unique index. The insert then
    -- fails with a serialization failure (40001), and the caller tries the transaction again. The second row is
    -- inserted only if the caller has already inserted its job. This way all transactions wait for each other in one
    -- order: first for the job's unique key, then for the period.
    if holder is null
        and pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed'
    then
        perform from reveille.jobs
        where jobs.kind operator(pg_catalog.=) period_holder.kind
            and jobs.unique_key operator(pg_catalog.=) period_holder.unique_key
            and jobs.created_at operator(pg_catalog.=) pg_catalog.now() and jobs.reserved_by is null;
        if found then
            insert into reveille.unique_periods (kind, unique_key, job_id, ends_at)
            values (period_holder.kind, period_holder.unique_key, 0, '-infinity')
            on conflict do nothing;
            delete from reveille.unique_periods as held
            where held.kind operator(pg_catalog.=) period_holder.kind
                and held.unique_key operator(pg_catalog.=) period_holder.unique_key
                and held.job_id operator(pg_catalog.=) 0::pg_catalog.int8;
        end if;
    end if;
    return holder;
end
$$;
comment on function reveille.period_holder(text, text) is
    'Returns the id of the job that holds a unique key of a kind for a period that is not over yet; null if there is '
    'none. If the caller has enqueued a job with this unique key, and another job''s period is newer than the '
    'caller''s snapshot, the call fails with 40001: try the transaction again.';

create function reveille.hold_unique_key(id bigint, period interval) returns boolean
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
        -- The insert waits for any transaction that is inserting the same unique key, and then meets that transaction's
        -- row.
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
    'For reveille.enqueue: lets the job that it has just inserted hold the job''s unique key for a period (null: while '
    'the job is live). Returns true if the job now holds the unique key. If another job holds the unique key for a '
    'period, deletes the new job and returns false.';

create function reveille.replace_waiting(
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
    -- Only a waiting job is changed: a running job keeps the values with which it started.
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
comment on function reveille.replace_waiting(text, text, jsonb, text[], jsonb, timestamptz) is
    'For reveille.enqueue with unique_mode replace or debounce: changes the waiting job that has the unique key. '
    'Returns the job''s id; null if no waiting job has this unique key.';
