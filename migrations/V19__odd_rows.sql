-- What one row may hold, and what becomes of a row that holds something else all the same: no single row keeps the
-- others of its queue from being claimed. See docs/design/odd-rows.md.

-- Sizes are those of the text, which a worker will have to take: a payload of 100 MB of the same letter is stored as 1
-- MB. Text is written out only where the stored form takes more than 512 bytes, so that an ordinary insert does not
-- pay for it.
create or replace function reveille.check_job(
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
        and (
            pg_catalog.pg_column_size(payload) operator(pg_catalog.<=) 512
            or pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.<=) 8388608
        )
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
        when pg_catalog.pg_column_size(payload) operator(pg_catalog.>) 512
            and pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.>) 8388608
            then 'payload_is_at_most_8_mib'
        when priority operator(pg_catalog.<) 0 or priority operator(pg_catalog.>) 3
            then 'priority_is_0_to_3'
        when attempts operator(pg_catalog.<) 0
            then 'attempts_is_not_negative'
        -- A claim adds one. There is room for two billion, and nobody needs half of that.
        when attempts operator(pg_catalog.>) 1000000000
            then 'attempts_is_at_most_1000000000'
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

create or replace function reveille.check_inserted_jobs() returns trigger
    language plpgsql volatile
as $$
declare
    job record;
    is_sound boolean;
begin
    -- Every name qualified, since it runs for whoever inserts. The limit says that few are expected: a session keeps the
    -- plan, and planned for an insert of a million jobs it would be worth compiling, which takes some 13 ms each time.
    perform from inserted
    where (
            greatest(pg_catalog.octet_length(queue), pg_catalog.octet_length(kind)) operator(pg_catalog.<=) 128
            and least(pg_catalog.octet_length(queue), pg_catalog.octet_length(kind)) operator(pg_catalog.>) 0
            and (
                pg_catalog.pg_column_size(payload) operator(pg_catalog.<=) 512
                or pg_catalog.octet_length(payload::pg_catalog.text) operator(pg_catalog.<=) 8388608
            )
            and priority operator(pg_catalog.>=) 0 and priority operator(pg_catalog.<=) 3
            and attempts operator(pg_catalog.=) 0 and failures operator(pg_catalog.=) 0 and max_attempts operator(pg_catalog.>) 0
            and pg_catalog.isfinite(available_at) and pg_catalog.isfinite(created_at)
            and reserved_at is null and reserved_by is null and unique_key is null and unique_until is null and key is null
            and timeout is null and tags is null and metadata is null and errors is null
        ) is not true
    limit 1;
    if found then
        -- By an assignment, not in a statement, whose text would stand behind each error.
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

create or replace function reveille.check_changed_job() returns trigger
    language plpgsql volatile
as $$
declare
    is_sound boolean;
begin
    is_sound := reveille.check_job(
        new.queue, new.kind, new.payload, new.priority, new.attempts, new.failures, new.max_attempts, new.reserved_at, new.reserved_by,
        new.available_at, new.created_at, new.unique_key, new.unique_until, new.key, new.timeout, new.tags, new.metadata, new.errors
    );
    return null;
end
$$;

-- What a claim sets is right unless it counts attempts beyond reason. So claims pay for no more than this condition.
create or replace trigger check_unclaimed
    after update of attempts, reserved_at, reserved_by, unique_key, unique_until
    on reveille.jobs
    for each row
    when (new.attempts < 1 or new.attempts > 1000000000)
    execute function reveille.check_changed_job();

-- Not validated: what a schedule has had so far it may keep.
alter table reveille.schedules
    drop constraint payload_is_at_most_8_mib,
    add constraint payload_is_at_most_8_mib
        check (pg_column_size(payload) <= 512 or octet_length(payload::text) <= 8388608) not valid,
    add constraint metadata_is_at_most_256_kib
        check (pg_column_size(metadata) <= 512 or octet_length(metadata::text) <= 262144) not valid,
    add constraint tags_are_at_most_16_kib check (octet_length(array_to_string(tags, '')) <= 16384) not valid;

create table reveille.passed_over (
    id                  bigint primary key,
    queue               text        not null,
    code                text        not null,
    error               text        not null,
    seen_at             timestamptz not null default now()
);
comment on table reveille.passed_over is 'Jobs that cannot be claimed and could not be made dead either: workers claim the others of the queue and name these here.';
comment on column reveille.passed_over.id is 'The job.';
comment on column reveille.passed_over.queue is 'Its queue.';
comment on column reveille.passed_over.code is 'What a claim of it fails with: the SQLSTATE.';
comment on column reveille.passed_over.error is 'And the message.';
comment on column reveille.passed_over.seen_at is 'When a worker last tried.';

create view reveille.passed_over_jobs as
select passed_over.id, passed_over.queue, passed_over.code, passed_over.error, passed_over.seen_at
from reveille.passed_over
where passed_over.seen_at > now() - interval '1 hour'
    and exists (select from reveille.jobs where jobs.id = passed_over.id and jobs.reserved_by is null);
comment on view reveille.passed_over_jobs is 'Jobs that wait and cannot be claimed, as workers have found within an hour.';

-- Tries what a claim does with one job, and takes it back. Where that fails because of the row, the job becomes a dead
-- one without an attempt. An error that a trigger or a constraint raises may be raised for every job; so the job is
-- only named in reveille.passed_over, unless the caller says that others of the queue can be claimed (others_pass).
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
        -- As they are sent to a worker, which takes UTF-8.
        returning
            convert_to(jobs.kind, 'UTF8'), convert_to(jobs.payload::text, 'UTF8'), convert_to(jobs.key, 'UTF8'),
            convert_to(jobs.tags::text, 'UTF8'), convert_to(jobs.metadata::text, 'UTF8'), extract(epoch from jobs.timeout)
        into tried;
        set constraints all immediate;
        raise exception using errcode = 'RVOK0';
    exception when others then
        get stacked diagnostics code = returned_sqlstate, error = message_text;
    end;
    -- The job is well, or it is the server, the connection, the schema or somebody's lock that is not: the list is that of
    -- Error::is_about_data.
    if code = 'RVOK0'
        or left(code, 2) in ('08', '0A', '25', '26', '28', '34', '3D', '3F', '40', '42', '53', '55', '57')
    then
        code := null;
        error := null;
        return;
    end if;
    if getdatabaseencoding() <> 'UTF8' then
        -- It may quote the bytes that nobody can read.
        error := regexp_replace(error, '[^ -~]', '?', 'g');
    end if;
    buried := (others_pass or left(code, 2) in ('22', '54') or code in ('XX001', 'XX002'))
        and (reveille.bury_unclaimed(isolate_job.id, code, error, true) or reveille.bury_unclaimed(isolate_job.id, code, error, false));
    begin
        delete from reveille.passed_over
        where passed_over.id = isolate_job.id or passed_over.seen_at < now() - interval '1 day';
        if not buried then
            insert into reveille.passed_over (id, queue, code, error)
            select jobs.id, jobs.queue, isolate_job.code, isolate_job.error from reveille.jobs where jobs.id = isolate_job.id;
        end if;
    exception when insufficient_privilege or unique_violation then
        null; -- The worker has the rights of an older version, or another has named the job just now.
    end;
end
$$;
comment on function reveille.isolate_job(bigint, boolean) is
    'Whether a job can be claimed: if not, the error, and whether it was made a dead job for it. For workers.';

-- Moves a job that cannot be claimed to the dead ones, with what it holds or, where that cannot be read, without.
-- Returns whether it is done.
create function reveille.bury_unclaimed(id bigint, code text, error text, whole boolean) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    fresh bigint;
    said text := format('cannot be claimed: %s (SQLSTATE %s)', error, code);
    ended record;
begin
    if exists (select from reveille.dead_jobs where dead_jobs.id = bury_unclaimed.id) then
        fresh := reveille.fresh_job_id();
        said := said || format('; its id was %s, which another dead job has', bury_unclaimed.id);
    end if;
    if not whole then
        said := said || '; what it held cannot be read and is left out';
    end if;
    insert into reveille.dead_jobs (
        id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at, unique_key, unique_until,
        key, timeout, tags, metadata, errors, progress, parent_id, schedule_id, reason, worker
    )
    select
        coalesce(fresh, jobs.id), jobs.queue, jobs.kind, case when whole then jobs.payload else 'null' end, jobs.priority,
        jobs.attempts, jobs.failures, jobs.max_attempts, jobs.available_at, jobs.created_at, jobs.unique_key, jobs.unique_until,
        jobs.key, jobs.timeout, case when whole then jobs.tags end, case when whole then jobs.metadata end,
        case when whole and jsonb_typeof(jobs.errors) = 'array' then jobs.errors else '[]' end
        || jsonb_build_object('at', now(), 'attempt', jobs.attempts, 'reason', 'undecodable', 'error', said),
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
    'Moves a job that cannot be claimed to the dead jobs; whether it could. For reveille.isolate_job.';

comment on column reveille.jobs.payload is 'What the handler gets: any JSON, at most 8 MiB of text.';
comment on column reveille.jobs.tags is 'Free labels: at most 64, of 16 KiB together.';
comment on column reveille.jobs.metadata is 'Free facts about the job, such as a trace context; an object, at most 256 KiB of text.';
comment on column reveille.dead_jobs.reason is
    'failed: out of attempts; permanent: its handler said so; timed_out; lost: its workers died; undecodable: it could not be claimed, or its payload did not fit its kind.';
