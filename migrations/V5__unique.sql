-- Unique keys: held by a live job, or for a period.

create table reveille.unique_periods (
    kind       text        not null,
    unique_key text        not null,
    job_id     bigint      not null,
    ends_at    timestamptz not null,
    primary key (kind, unique_key)
);
create index unique_periods_ends_at on reveille.unique_periods (ends_at);
comment on table reveille.unique_periods is
    'Unique keys that are held for a period, beyond the end of their job. Upkeep deletes them after it. Delete a row '
    'to give its key up early.';
comment on column reveille.unique_periods.kind is 'The kind within which the key is unique.';
comment on column reveille.unique_periods.unique_key is 'The key.';
comment on column reveille.unique_periods.job_id is 'The job that holds the key, live or ended.';
comment on column reveille.unique_periods.ends_at is 'When the period ends; it is counted from the job''s created_at.';

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
    'The live job that holds a unique key of a kind; null if there is none.';

-- With its owner's rights: it has to write to see past an old snapshot, and each role that may enqueue calls it.
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
    -- The snapshot of such a transaction may be older than a period. Then only the index of the key knows the period:
    -- to insert another row ends in a serialization failure (40001), and the caller tries the transaction again. This
    -- is done only after the caller has inserted its job. So all transactions wait for each other in one order: first
    -- for the job's key, then for the period.
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
    'The job that holds a unique key of a kind for a period that is not over yet; null if there is none. If the '
    'caller has enqueued a job of that key, and its snapshot is too old to tell, this fails with 40001: try the '
    'transaction again.';

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
        -- Waits for another transaction that is inserting the key, and then uses the row that it has left.
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
    'For reveille.enqueue, which has just inserted this job with a unique key. Returns true if the job holds its key '
    'for the period (null: while it is live). Returns false if another job holds the key for a period; then the new '
    'job is deleted again.';

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
    -- A running job keeps the values that it was started with.
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
    'For reveille.enqueue with unique_mode replace or debounce: changes the waiting job of that key. Returns its id; '
    'null if there is none.';
