-- Live control: a pause that reaches what was claimed ahead, a worker that is stopped from outside, and jobs whose handlers do not
-- stop when they are told to.

alter table reveille.workers
    add column stop_requested_at timestamptz,
    add column stuck_jobs bigint[],
    add column stuck_since timestamptz[];
comment on column reveille.workers.stop_requested_at is 'Since when it has been asked to shut down (reveille.stop_worker).';
comment on column reveille.workers.stuck_jobs is
    'Those of its jobs whose handlers were told to stop some seconds ago and still run; null: none. Written at each heartbeat.';
comment on column reveille.workers.stuck_since is 'Since when they have been told to, in the order of stuck_jobs.';

create or replace function reveille.pause(queue text) returns void
    language sql volatile
    set search_path = pg_catalog, pg_temp
as $$
    insert into reveille.queues (name, paused_at) values (pause.queue, now())
    on conflict (name) do update set paused_at = coalesce(queues.paused_at, excluded.paused_at);
    -- What is claimed already and has not started: the workers' next heartbeat brings it as well.
    select pg_notify('reveille.pause', pause.queue) where pg_notification_queue_usage() < 0.9
$$;

create function reveille.stop_worker(id bigint) returns boolean
    language plpgsql volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    update reveille.workers set stop_requested_at = coalesce(stop_requested_at, clock_timestamp())
    where workers.id = stop_worker.id;
    if not found then
        return false;
    end if;
    -- The worker's next heartbeat brings it as well.
    if pg_notification_queue_usage() < 0.9 then
        perform pg_notify('reveille.stop', stop_worker.id::text);
    end if;
    return true;
end
$$;
comment on function reveille.stop_worker(bigint) is
    'Ask a worker to shut down as it does at a signal: it claims nothing more and finishes what it runs. Whether there is such a worker.';

create or replace view reveille.running_jobs as
select
    jobs.id, jobs.queue, jobs.kind, jobs.attempts as attempt, jobs.reserved_by as worker, workers.host,
    now() - jobs.reserved_at as running_for,
    jobs.cancel_requested_at,
    workers.stuck_since[array_position(workers.stuck_jobs, jobs.id)] as stuck_since
from reveille.jobs
left join reveille.workers on workers.id = jobs.reserved_by
where jobs.reserved_at is not null;
comment on column reveille.running_jobs.cancel_requested_at is 'Since when its handler has been asked to stop by reveille.cancel.';
comment on column reveille.running_jobs.stuck_since is
    'Since when its handler has been told to stop, by a cancel, its timeout or its worker, if it still runs seconds later.';

create or replace view reveille.worker_status as
select
    workers.id as worker, workers.host, workers.pid, workers.queues,
    (select count(*) from reveille.jobs where jobs.reserved_at is not null and jobs.reserved_by = workers.id) as running,
    workers.slots, workers.started_at, workers.last_seen_at as last_seen,
    workers.last_seen_at > clock_timestamp() - interval '30 seconds' as alive,
    workers.stopping or workers.stop_requested_at is not null as stopping,
    workers.version,
    coalesce(cardinality(workers.stuck_jobs), 0) as stuck
from reveille.workers;
comment on column reveille.worker_status.stopping is 'Whether it is shutting down, or has been asked to.';
comment on column reveille.worker_status.stuck is 'How many of its jobs have handlers that do not stop when they are told to.';
