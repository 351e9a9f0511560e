-- Waiting for the end of a job. Who waits marks it, and how a marked job ends is told on a channel, and of no other.

alter table reveille.jobs add column awaited boolean not null default false;
comment on column reveille.jobs.awaited is 'Somebody waits for its end: how it ends is notified on the channel reveille.finished.';

-- With its owner's rights, so that who may wait for a job need not be able to read or change jobs otherwise.
create function reveille.await(id bigint, out state text, out reason text, out result jsonb, out errors jsonb)
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
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
    -- It may have been revived between two of these.
    state := case when exists (select from reveille.jobs where jobs.id = await.id) then 'live' else 'unknown' end;
end
$$;
comment on function reveille.await(bigint) is
    'How a job ended: completed (with its result), cancelled, dead (with the reason); unknown; or live, and then its end will be notified on '
    'the channel reveille.finished, as its id and one of the first three: listen first, then ask, and ask again when it is heard.';
revoke execute on function reveille.await(bigint) from public;

create or replace function reveille.cancel(id bigint) returns text
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
