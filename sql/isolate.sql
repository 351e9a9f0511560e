-- Finds the one job that keeps the other jobs of its queue from being claimed. Makes it a dead job, or lists it in
-- reveille.passed_over. Runs after a claim of a single job has failed.
--
--   $1 text           the queue's name
--   $2 timestamptz[]  the low-water mark of each level at that claim: due time
--   $3 bigint[]       the low-water mark of each level at that claim: id
--   $4 bigint[]       jobs that are known to have odd rows and are passed over
--
-- Returns one row, or none if each of the tried jobs can be claimed:
--   id           the job's id
--   code, error  the SQLSTATE and the message with which a claim of the job fails
--   buried       true if the job is a dead job now
--
-- A claim of one job takes the first job of a level, or the first job of a key if the queue has limits per key. This
-- statement tries 16 jobs of each level, since other workers may be claiming the first ones.
with recursive turn (key, visited) as (
    select (
        select jobs.key from reveille.jobs
        where jobs.queue = $1 and jobs.reserved_at is null and jobs.paused_by is null and jobs.key is not null
        order by jobs.key, jobs.priority, jobs.available_at, jobs.id
        limit 1
    ), 1
    where exists (select from reveille.queues where queues.name = $1 and queues.limited = 'key')
    union all
    select (
        select jobs.key from reveille.jobs
        where jobs.queue = $1 and jobs.reserved_at is null and jobs.paused_by is null
            and jobs.key is not null and jobs.key > turn.key
        order by jobs.key, jobs.priority, jobs.available_at, jobs.id
        limit 1
    ), turn.visited + 1
    from turn
    where turn.key is not null and turn.visited < 10000
), candidate as materialized (
    select first.id
    from unnest('{0,1,2,3}'::smallint[], $2::timestamptz[], $3::bigint[]) as level (priority, available_at, id)
    cross join lateral (
        select jobs.id
        from reveille.jobs
        where jobs.queue = $1 and jobs.priority = level.priority and jobs.reserved_at is null
            and jobs.paused_by is null
            and (jobs.available_at, jobs.id) >= (level.available_at, level.id) and jobs.available_at <= now()
        order by jobs.available_at, jobs.id
        limit 16 + pg_catalog.cardinality($4::bigint[])
    ) as first
    union all
    select first.id
    from turn
    cross join pg_catalog.unnest('{0,1,2,3}'::smallint[]) as level (priority)
    cross join lateral (
        select jobs.id
        from reveille.jobs
        where jobs.queue = $1 and jobs.reserved_at is null and jobs.paused_by is null
            and jobs.key = turn.key and jobs.priority = level.priority
            and jobs.available_at <= now()
        order by jobs.available_at, jobs.id
        limit 1 + pg_catalog.cardinality($4::bigint[])
    ) as first
)
select candidate.id, tried.code, tried.error, tried.buried
from candidate
cross join lateral reveille.isolate_job(candidate.id, false) as tried
where candidate.id <> all ($4::bigint[]) and tried.code is not null
limit 1
