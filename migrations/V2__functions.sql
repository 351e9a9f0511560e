-- The bell, and the functions for callers in any language.
--
-- A commit fails whose notifications find no room in the server's queue of them, which a listener that is stuck in a transaction,
-- whoever's it is, lets grow to 8 GB. So none is sent into a queue that is nearly full: then the polls have to do.
--
-- Nothing here trusts `search_path`: what runs for every enqueue qualifies its names (a SET clause costs producers
-- several percent), everything else pins the path.

create function reveille.ring(queues text[]) returns void
    language plpgsql volatile
as $$
begin
    perform case
        when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
        then pg_catalog.pg_notify('reveille.bell', rung.queue)
    end
    from (select distinct q.queue from pg_catalog.unnest(queues) as q (queue)) as rung
    where (
            exists (select from reveille.sleepers where sleepers.queue operator(pg_catalog.=) rung.queue)
            -- An older snapshot may not show who has gone to sleep meanwhile.
            or pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.<>) 'read committed'
        )
        and not exists (
            select from reveille.queues as silent where silent.name operator(pg_catalog.=) rung.queue and not silent.bell
        );
end
$$;
comment on function reveille.ring(text[]) is
    'Ring the bell (NOTIFY) for those of these queues that somebody sleeps on, when the transaction commits: for every statement that makes work possible.';

create function reveille.ring_after_insert() returns trigger
    language plpgsql volatile
as $$
begin
    -- Every enqueue pays for this question. Equal notifications of a transaction are folded into one.
    if pg_catalog.current_setting('transaction_isolation') operator(pg_catalog.=) 'read committed' then
        perform case
            when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
            then pg_catalog.pg_notify('reveille.bell', inserted.queue)
        end
        from inserted
        where exists (select from reveille.sleepers where sleepers.queue operator(pg_catalog.=) inserted.queue)
            and pg_catalog.current_setting('reveille.bell', true) is distinct from 'off'
            and not exists (
                select from reveille.queues as silent
                where silent.name operator(pg_catalog.=) inserted.queue and not silent.bell
            );
    else
        -- An older snapshot may not show who has gone to sleep meanwhile.
        perform case
            when (select pg_catalog.pg_notification_queue_usage() operator(pg_catalog.<) 0.9)
            then pg_catalog.pg_notify('reveille.bell', inserted.queue)
        end
        from inserted
        where pg_catalog.current_setting('reveille.bell', true) is distinct from 'off'
            and not exists (
                select from reveille.queues as silent
                where silent.name operator(pg_catalog.=) inserted.queue and not silent.bell
            );
    end if;
    return null;
end
$$;
comment on function reveille.ring_after_insert() is
    'Rings once for each queue among the new jobs, due or delayed, that somebody sleeps on. `set local reveille.bell = ''off''` silences it.';

create trigger ring after insert on reveille.jobs
    referencing new table as inserted
    for each statement execute function reveille.ring_after_insert();

-- With its owner's rights, so that who may only enqueue need not be able to change jobs otherwise.
create function reveille.replace_waiting(
    kind text, unique_key text, payload jsonb, tags text[], metadata jsonb, available_at timestamptz
) returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
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
    where jobs.kind = replace_waiting.kind and jobs.unique_key = replace_waiting.unique_key and jobs.reserved_at is null
    returning jobs.id, jobs.queue into replaced;
    if found and replace_waiting.available_at is not null then
        perform reveille.ring(array[replaced.queue]);
    end if;
    return replaced.id;
end
$$;
comment on function reveille.replace_waiting(text, text, jsonb, text[], jsonb, timestamptz) is
    'What reveille.enqueue does with unique_mode replace and debounce: the id of the waiting job of that key, which now has this; null if there is none.';

create function reveille.enqueue(
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
    due := coalesce(
        enqueue.available_at,
        pg_catalog.now() operator(pg_catalog.+) coalesce(enqueue.delay, interval '0')
    );

    loop
        insert into reveille.jobs (
            kind, payload, queue, available_at, priority, max_attempts, timeout,
            unique_key, unique_until, key, tags, metadata
        )
        values (
            enqueue.kind, coalesce(enqueue.payload, '{}'), coalesce(enqueue.queue, 'default'), due,
            coalesce(enqueue.priority, 2::smallint), coalesce(enqueue.max_attempts, 20), enqueue.timeout,
            enqueue.unique_key, case when enqueue.unique_key is not null then enqueue.unique_until end,
            enqueue.key, enqueue.tags, enqueue.metadata
        )
        on conflict (kind, unique_key) where unique_key is not null do nothing
        returning jobs.id into id;
        if found then
            existed := false;
            return;
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

        select jobs.id into id from reveille.jobs
        where jobs.kind operator(pg_catalog.=) enqueue.kind
            and jobs.unique_key operator(pg_catalog.=) enqueue.unique_key;
        if found then
            existed := true;
            return;
        end if;
        -- The job that was in the way has ended meanwhile: try again.
    end loop;
end
$$;
comment on function reveille.enqueue(
    text, jsonb, text, interval, timestamptz, smallint, int, interval, text, text, text, text, text[], jsonb
) is 'Enqueue a job in this transaction: select id from reveille.enqueue(kind => ''hello''). '
    'With a unique_key that a live job of the kind has, no job is added: existed is true, id is that job''s, and by unique_mode '
    'it is left as it is (keep), gets the payload, tags and metadata (replace), or these and the due time (debounce); '
    'one that runs is always left as it is.';

create function reveille.cancel(id bigint) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    job reveille.jobs;
begin
    select * into job from reveille.jobs where jobs.id = cancel.id for update;
    if found and job.reserved_at is not null then
        update reveille.jobs set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()) where jobs.id = cancel.id;
        -- The worker's next heartbeat brings it as well.
        if pg_notification_queue_usage() < 0.9 then
            perform pg_notify('reveille.cancel', cancel.id::text);
        end if;
        return 'requested';
    elsif found then
        delete from reveille.jobs where jobs.id = cancel.id;
        insert into reveille.finished_jobs (
            day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
            key, tags, metadata, errors, progress, parent_id, schedule_id, outcome
        )
        select
            extract(epoch from now())::bigint / 86400 % 32, job.id, job.queue, job.kind, job.payload, job.priority,
            job.attempts, job.failures, job.max_attempts, job.available_at, job.created_at,
            job.key, job.tags, job.metadata, job.errors, job.progress, job.parent_id, job.schedule_id, 'cancelled'
        where not exists (select from reveille.queues where name = job.queue and retention = interval '0');
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
    'Cancel a job: cancelled (it waited and is gone), requested (it runs; its handler is told), finished, dead or unknown.';

create function reveille.retry(id bigint) returns text
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
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
            dead.id, dead.queue, dead.kind, dead.payload, dead.priority, dead.attempts, dead.max_attempts, dead.created_at,
            dead.unique_key, dead.unique_until, dead.key, dead.timeout, dead.tags, dead.metadata, dead.errors,
            dead.progress, dead.parent_id, dead.schedule_id
        )
        on conflict (kind, unique_key) where unique_key is not null do nothing;
        if not found then
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
    'Make a job due now: due (it waited), revived (it was dead; its failures are zeroed), running, finished or unknown.';

create function reveille.pause(queue text) returns void
    language sql volatile
    set search_path = pg_catalog, pg_temp
as $$
    insert into reveille.queues (name, paused_at) values (pause.queue, now())
    on conflict (name) do update set paused_at = coalesce(queues.paused_at, excluded.paused_at)
$$;
comment on function reveille.pause(text) is 'Start no more jobs of this queue, anywhere, until it is resumed; what runs goes on.';

create function reveille.resume(queue text) returns void
    language sql volatile
    set search_path = pg_catalog, pg_temp
as $$
    update reveille.queues set paused_at = null where name = resume.queue;
    select reveille.ring(array[resume.queue])
$$;
comment on function reveille.resume(text) is 'Start jobs of this queue again.';

-- With its owner's rights: to truncate a partition is not a worker's by itself.
create function reveille.truncate_finished_jobs() returns int
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set lock_timeout = '100ms'
as $$
declare
    today constant int := extract(epoch from now())::bigint / 86400;
    longest interval;
    kept_days int;
    truncated int := 0;
begin
    select greatest(max(coalesce(retention, interval '1 day')), interval '1 day') into longest from reveille.queues;
    kept_days := ceil(extract(epoch from coalesce(longest, interval '1 day')) / 86400);
    for age in kept_days + 1 .. 31 loop
        declare
            partition constant text := format('reveille.finished_jobs_%s', (today - age + 32) % 32);
        begin
            if pg_relation_size(partition) > 0 then
                execute 'truncate ' || partition;
                truncated := truncated + 1;
            end if;
        exception when lock_not_available then
            null; -- Somebody reads it: the next round will do it.
        end;
    end loop;
    return truncated;
end
$$;
comment on function reveille.truncate_finished_jobs() is
    'Empty the daily partitions that are past the longest retention; workers call it. Returns how many.';
