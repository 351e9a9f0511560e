-- Writes a worker's heartbeat, and returns the changes that concern the worker.
--
--   $1 bigint              the worker's id
--   $2 boolean             true if the worker is stopping
--   $3 bigint[]            the worker's stuck jobs: their handlers were asked to stop and still run
--   $4 double precision[]  the seconds since the handler of each stuck job was asked to stop
--   $5 bigint[]            all jobs that the worker holds
--
-- Returns one row:
--   alive          true if the worker's row still exists
--   stop           true if the worker has been asked to stop
--   peers, seen    the other workers, and the time of the last heartbeat of each
--   gone           the peers that missed a heartbeat and whose sessions no longer hold the lock of sql/vouch.sql or
--                sql/register.sql
--   sharing        the number of peers that work one of this worker's queues
--   queues, slots  the worker's queues, and the number of slots that each of them is to have
--   paused         the worker's queues that are paused
--   cancel         the worker's jobs that are to be cancelled
--   unarmed        the worker's queues on which no bell is armed for the worker
--   linked_ends    true if ends of linked jobs may have to be applied, or events are to be paired with waits
--
-- The query for `cancel` finds each job by its id, because each job that has ended leaves a dead entry in the index by
-- worker: after a second of many short jobs, a scan of that index would read mostly dead entries.
--
-- If another session has locked the worker's row, the heartbeat is not written, but the answer is complete. The worker
-- is not declared dead meanwhile, since a rescue passes over locked rows (sql/rescue.sql).
with own as (
    select id, queues, queue_slots, stop_requested_at from reveille.workers where id = $1
), free as materialized (
    select id from reveille.workers where id = $1 for no key update skip locked
), beat as (
    update reveille.workers
    set last_seen_at = clock_timestamp(),
        stopping = $2,
        stuck_jobs = case when pg_catalog.cardinality($3::bigint[]) > 0 then $3::bigint[] end,
        stuck_since = case when pg_catalog.cardinality($3::bigint[]) > 0 then array(
            -- The time that was first stored for a job is kept: a time computed anew would differ at each heartbeat.
            select coalesce(
                stuck_since[pg_catalog.array_position(stuck_jobs, stuck.id)],
                clock_timestamp() - make_interval(secs => stuck.seconds)
            )
            from unnest($3::bigint[], $4::double precision[]) with ordinality as stuck (id, seconds, place)
            order by stuck.place
        ) end
    where id = (select id from free)
)
select
    exists (select from own) as alive,
    exists (select from own where stop_requested_at is not null) as stop,
    array(select id from reveille.workers where id <> $1 order by id) as peers,
    array(select last_seen_at from reveille.workers where id <> $1 order by id) as seen,
    array(
        select id from reveille.workers
        where id <> $1 and (holds_lock or backend is not null)
            and last_seen_at < clock_timestamp() - interval '1.5 seconds'
            and not exists (
                select from pg_locks
                where locktype = 'advisory'
                    and database = (select oid from pg_database where datname = current_database())
                    and classid::bigint = id >> 32 and objid::bigint = id & 4294967295 and objsubid = 1 and granted
                    and (workers.backend is null or pg_locks.pid = workers.backend)
            )
    ) as gone,
    (
        select count(*) from reveille.workers, own
        where workers.id <> $1 and workers.queues operator(pg_catalog.&&) own.queues
    ) as sharing,
    coalesce((select queues from own), '{}') as queues,
    coalesce((select queue_slots from own), '{}') as slots,
    array(select name from reveille.queues, own where name = any (own.queues) and paused_at is not null) as paused,
    array(
        select id from reveille.jobs
        where id = any ($5) and reserved_by is not distinct from $1 and cancel_requested_at is not null
    ) as cancel,
    array(
        select worked.queue from own cross join pg_catalog.unnest(own.queues) as worked (queue)
        where not reveille.somebody_may_sleep()
            or not exists (
                select from reveille.sleepers where sleepers.queue = worked.queue and sleepers.worker = own.id
            )
    ) as unarmed,
    reveille.linked_work_waits()
        or exists (select from reveille.events where not seen)
        or exists (select from reveille.waits where not seen) as linked_ends
