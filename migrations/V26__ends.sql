-- How an awaited job ended, where its queue keeps no history. The notification of an end is a hint, which any role can send;
-- whoever waits reads the outcome here.

create table reveille.ends (
    id       bigint not null,
    outcome  text not null,
    result   jsonb,
    errors   jsonb,
    ended_at timestamptz not null default clock_timestamp(),
    constraint outcome_is_known check (outcome in ('completed', 'cancelled'))
);
-- No key: ids may come again after a restore, and a row more must not keep a job from being settled.
create index ends_id on reveille.ends (id);
create index ends_ended_at on reveille.ends (ended_at);
comment on table reveille.ends is
    'How awaited jobs ended whose queue keeps no history; kept for a minute at least. reveille.await reads it.';
comment on column reveille.ends.id is 'The job''s id.';
comment on column reveille.ends.outcome is 'completed or cancelled; a dead job stands in reveille.dead_jobs.';
comment on column reveille.ends.result is 'What its handler returned to be kept.';
comment on column reveille.ends.errors is 'Why attempts failed, as in reveille.finished_jobs.';
comment on column reveille.ends.ended_at is 'When it ended; upkeep removes the row a minute later or more.';

insert into reveille.chores (name) values ('ends');

-- Who settles jobs so far may go on with it, without being granted it anew.
do $$
declare
    settler oid;
begin
    for settler in
        select distinct granted.grantee
        from (select (aclexplode(relacl)).* from pg_class where oid = 'reveille.finished_jobs'::regclass) as granted
        where granted.privilege_type = 'INSERT' and granted.grantee <> 0
    loop
        execute format('grant select, insert, update, delete on reveille.ends to %I', pg_get_userbyid(settler));
    end loop;
end
$$;

create or replace function reveille.await(id bigint, out state text, out reason text, out result jsonb, out errors jsonb)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
as $$
#variable_conflict use_column
begin
    update reveille.jobs set awaited = true where jobs.id = await.id and not jobs.awaited;
    -- One statement after another, each of which sees what was committed until then: what is no longer live has ended.
    select 'live', jobs.errors into state, errors from reveille.jobs where jobs.id = await.id;
    if found then
        return;
    end if;
    select 'dead', dead.reason, dead.errors into state, reason, errors from reveille.dead_jobs as dead where dead.id = await.id;
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
    -- It may have been revived between two of these.
    state := case when exists (select from reveille.jobs where jobs.id = await.id) then 'live' else 'unknown' end;
end
$$;
comment on function reveille.await(bigint) is
    'How a job ended: completed (with its result), cancelled, dead (with the reason); unknown; or live, and then its end will be '
    'notified on the channel reveille.finished, as its id and one of the first three: listen first, then ask, and ask again when '
    'it is heard, since anybody can send such a notification.';

create or replace function reveille.cancel(id bigint) returns text
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
        update reveille.jobs set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp()) where jobs.id = cancel.id;
        -- The worker asks whether it is so; its next heartbeat brings it as well.
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
        -- Of its key the next one may start.
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

create or replace function reveille.complete_in(
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
            extract(epoch from clock_timestamp())::bigint / 86400 % 32, ended.id, ended.queue, ended.kind, ended.payload,
            ended.priority, ended.attempts, ended.failures, ended.max_attempts, ended.available_at, ended.created_at, ended.key,
            ended.tags, ended.metadata, ended.errors, ended.progress, ended.parent_id, ended.schedule_id, 'completed',
            ended.reserved_by, greatest(extract(epoch from ended.reserved_at - ended.available_at), 0), complete_in.run_seconds,
            clock_timestamp()
        );
    elsif ended.awaited then
        insert into reveille.ends (id, outcome, errors) values (ended.id, 'completed', ended.errors);
    end if;
    -- Where limits are kept, another one may start.
    if ended.limited then
        perform reveille.ring(array[ended.queue]);
    end if;
    if ended.awaited and pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.finished', ended.id || ' completed');
    end if;
end
$$;
