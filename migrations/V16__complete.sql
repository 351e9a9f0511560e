-- Completing a job in its handler's own transaction. A function, because the session is the caller's: the server keeps what is planned
-- for a function, through whatever client and pooler it is called, where planning the statement anew takes three times as long as
-- running it; and a function can say how a row is to be looked up without changing the caller's settings.

create function reveille.complete_in(
    id bigint, worker bigint, attempt int, reserved_at timestamptz, run_seconds double precision, out transaction text
)
    language plpgsql volatile
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
    insert into reveille.finished_jobs (
        day, id, queue, kind, payload, priority, attempts, failures, max_attempts, available_at, created_at,
        key, tags, metadata, errors, progress, parent_id, schedule_id, outcome, worker, wait_seconds, run_seconds, finished_at
    )
    select
        extract(epoch from clock_timestamp())::bigint / 86400 % 32, ended.id, ended.queue, ended.kind, ended.payload, ended.priority,
        ended.attempts, ended.failures, ended.max_attempts, ended.available_at, ended.created_at, ended.key, ended.tags, ended.metadata,
        ended.errors, ended.progress, ended.parent_id, ended.schedule_id, 'completed', ended.reserved_by,
        greatest(extract(epoch from ended.reserved_at - ended.available_at), 0), complete_in.run_seconds, clock_timestamp()
    where not exists (select from reveille.queues where queues.name = ended.queue and queues.retention = interval '0');
    -- Where limits are kept, another one may start.
    if ended.limited then
        perform reveille.ring(array[ended.queue]);
    end if;
    if ended.awaited and pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.finished', ended.id || ' completed');
    end if;
end
$$;
comment on function reveille.complete_in(bigint, bigint, int, timestamptz, double precision) is
    'Completes a job in the caller''s transaction, fenced by its reservation; into the history, unless its queue keeps none. Returns the '
    'transaction''s id; null if the reservation no longer stands. Counters are not touched, which others would have to wait for: '
    'the worker counts when the transaction is over. For workers.';
