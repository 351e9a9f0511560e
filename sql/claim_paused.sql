-- Reserves due jobs as sql/claim.sql does, for a queue in which a kind or a key is paused. Parks the due jobs that it
-- meets and that a pause covers, so that no later claim meets them.
--
--   $1 text           the queue's name
--   $2 bigint         the maximum number of jobs to reserve
--   $3 bigint         the worker's id; a worker without a row in reveille.workers gets no job
--   $4 timestamptz[]  the low-water mark of each level: due time; -infinity: no mark
--   $5 bigint[]       the low-water mark of each level: id
--   $6 bigint         the maximum number of jobs to look at, at least $2
--
-- Returns one row per job, with the columns of sql/claim.sql; if there is no job, one row whose id is null. Each row
-- also has:
--   parked  the number of jobs that this claim has parked
--   pauses  true if a kind or a key is paused in the queue
--
-- A parked job is not reserved: its attempts, its unique key and its due time stay as they are.
with due as materialized (
    select found.place, found.paused_by
    from unnest('{0,1,2,3}'::smallint[], $4::timestamptz[], $5::bigint[]) as level (priority, available_at, id)
    cross join lateral (
        select jobs.ctid as place, reveille.pause_of(jobs.queue, jobs.kind, jobs.key) as paused_by
        from reveille.jobs
        where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
            and jobs.paused_by is null
            and (jobs.available_at, jobs.id) >= (level.available_at, level.id) and jobs.available_at <= now()
        order by jobs.available_at, jobs.id
        limit $6
        for update skip locked
    ) as found
    where exists (select from reveille.workers where workers.id = $3)
        and not exists (
            select from reveille.queues
            where queues.name = $1 and (queues.paused_at is not null or queues.limited is not null)
        )
    limit $6
), parked as (
    update reveille.jobs
    set paused_by = reveille.pause_of(jobs.queue, jobs.kind, jobs.key)
    where jobs.ctid = any (array(select place from due where paused_by is not null))
    returning 1
), claimed as (
    update reveille.jobs
    set reserved_at = now(),
        reserved_by = $3,
        attempts = jobs.attempts + 1,
        unique_key = case when jobs.unique_until = 'started' then null else jobs.unique_key end,
        unique_until = case when jobs.unique_until = 'started' then null else jobs.unique_until end
    where jobs.ctid = any (array(select place from due where paused_by is null limit $2))
    returning
        jobs.id, jobs.kind, jobs.payload, jobs.priority, jobs.attempts, jobs.failures, jobs.max_attempts,
        jobs.reserved_at, jobs.available_at, jobs.created_at, jobs.key, jobs.tags, jobs.metadata,
        extract(epoch from jobs.timeout)::double precision as timeout_seconds,
        jobs.cancel_requested_at is not null as cancel_requested,
        case when not jobs.linked then jobs.ctid end as place
)
select
    claimed.*, (select count(*) from parked) as parked,
    exists (select from reveille.pauses where coalesce(pauses.queue, '') = any (array[$1, ''])) as pauses
from (values (true)) as always (one)
left join claimed on true
